"""Tab completion for bash: `eval "$(diffuse completion bash)"`. Hydra knows keys and choices."""

import contextlib
import io
import os
import re
import shlex
from functools import partial
from pathlib import Path

from diffuse.cli import usage
from diffuse.commands import VERBS
from diffuse.errors import ConfigError, nearest

SCRIPT = r"""_diffuse() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\n'
    local word="${line##*[[:space:]]}"
    COMPREPLY=($("$1" completion words "$line" 2> /dev/null))
    # bash cuts a word at = and wants only what comes after it
    local head="${word%"${word##*=}"}"
    [[ "$COMP_WORDBREAKS" == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"$head"}")
    case "${COMPREPLY[0]}" in *[=./]) compopt -o nospace 2> /dev/null ;; esac
}
complete -o default -F _diffuse diffuse
"""


def main(argv: list[str]) -> int:
    """`completion bash` prints the script; the script calls `completion words <line>`."""
    shell = argv[0] if argv else "--help"
    if shell == "words":
        print("\n".join(words(" ".join(argv[1:]))))
    elif shell == "bash":
        print(SCRIPT, end="")
    elif shell in ("--help", "-h"):
        print('usage: eval "$(diffuse completion bash)"    (in ~/.bashrc, to have it always)')
    else:
        raise ConfigError(f"completion: unknown shell {shell!r}; {nearest(shell, ['bash'])}")
    return 0


def words(line: str) -> list[str]:
    """What the last word of a command line, cut off at the cursor, can become."""
    try:
        typed = shlex.split(line)
    except ValueError:  # inside a quotation
        return []
    last = "" if not line or line[-1].isspace() else typed.pop()
    if len(typed) <= 1:
        return [
            word for word in (*VERBS, "completion", "--help", "--version") if word.startswith(last)
        ]
    verb = typed[1]
    if verb == "completion":
        return [shell for shell in ("bash",) if shell.startswith(last)]
    if verb not in VERBS:
        return []
    if last.startswith("-"):
        return [flag for flag in usage.flag_names(verb) if flag.startswith(last)]
    return _overrides(verb, [word for word in typed[2:] if "=" in word], last)


def _overrides(verb: str, typed: list[str], last: str) -> list[str]:
    """Keys and groups from our own page at once; what is inside them, Hydra knows."""
    page = usage.root(verb)
    if verb == "compare" and "/" in last and "=" not in last:
        return [run for run in _evaluations(typed) if run.startswith(last)]
    if not set("=./") & set(last):
        groups = [f"{group}=" for group in page.groups]
        keys = [f"{key}=" for key in page.keys if "." not in key]
        sections = {key.partition(".")[0] + "." for key in page.keys if "." in key}
        bare = {"plot": _pictures, "compare": partial(_evaluations, typed)}.get(verb, tuple)
        offered = {*groups, *keys, *sections, *bare()}
        return sorted(word for word in offered if word.startswith(last))
    from diffuse import values

    key, equals, value = last.partition("=")
    known = {
        **values.CHOICES,
        "clip": values.CLIPS,
        **dict.fromkeys(("run", "resume", "init_from"), _runs(typed, "train")),
    }
    if equals and key in known:
        return [f"{key}={choice}" for choice in known[key] if choice.startswith(value)]
    return _ask_hydra(verb, " ".join([*typed, last]))


def _runs(typed: list[str], verb: str) -> list[str]:
    """The names of a verb's runs, and each of their versions."""
    typed_folder = [word.partition("=")[2] for word in typed if word.startswith("outputs=")]
    folder = Path(*(typed_folder[-1:] or ["outputs"])) / verb
    versions = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/v*/")}
    return sorted(versions | {version.partition("/")[0] for version in versions})


def _evaluations(typed: list[str]) -> list[str]:
    """What may follow `diffuse compare`: a training's name stands for its newest evaluation."""
    return sorted({*_runs(typed, "eval"), *_runs(typed, "train")})


def _pictures() -> tuple[str, ...]:
    """The words that may follow `diffuse plot`."""
    from diffuse import values

    return values.CHOICES["what"]


def _ask_hydra(verb: str, overrides: str) -> list[str]:
    from diffuse.cli import composing
    from diffuse.cli.arguments import Arguments

    query = Arguments(flags={"--shell-completion": ""}, overrides=["query=bash"])
    answer = io.StringIO()
    before = os.environ.get("COMP_LINE")
    os.environ["COMP_LINE"] = f"diffuse {overrides}"  # Hydra looks for it there
    try:
        with contextlib.redirect_stdout(answer):
            composing.run(verb, query, lambda cfg: None)
    finally:
        os.environ.pop("COMP_LINE")
        if before is not None:
            os.environ["COMP_LINE"] = before
    offered = set(answer.getvalue().split())
    return sorted(word for word in offered if not re.search(r"\.(name|meta)\b", word))
