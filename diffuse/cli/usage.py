"""The help pages, read from the comments in conf/ as text: no Hydra, no yaml, no torch."""

import os
import re
import sys
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

from diffuse.commands import VERBS
from diffuse.errors import ConfigError, closest, nearest

WIDTH = 80
LONGEST = 16  # characters of a default beside which there is room for its comment
PACKAGE = Path(__file__).parent.parent
ENTRY = re.compile(
    r"(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#]*?))?(?: +# *(?P<comment>.*))?"
)
DEFAULT = re.compile(r"  - (?P<group>[\w/]+): *(?P<choice>[\w/]+)")
OVERRIDE = re.compile(r"  - override /(?P<group>\w+)\S*: *(?P<choice>\w+)")
INLINE = re.compile(r"(\w+): *(\[[^]]*\]|\{[^}]*\}|[^,{}]+)")  # each of {a: 1, b: [2, 3]}
SWEEPING = (
    ("--multirun, -m", "run every combination of a=1,2 b=x,y, a folder for each"),
    ("... resume=auto", "with --multirun: run only the unfinished jobs of that sweep"),
)
FLAGS = (
    ("--cfg job", "print the config, with the keys of every choice, and stop"),
    ("--info", "how the config is put together, and from which files"),
    *SWEEPING,
    ("--config-dir DIR", "a folder with yamls of your own, beside ours"),
    ("--json", "the result as JSON, of a sweep one list; logs on stderr"),
)
BARE = {"compare": "<evaluation> <evaluation> ...", "plot": "<picture>"}  # words that are no key
NEVER_SWEPT = {  # and why
    "compare": "a comparison is one; name all that are compared",
    "plan": "a plan is one; it writes nothing that could be swept over",
}


@dataclass
class Key:
    """One line of a root yaml: a dotted key, its default as written, and its comment."""

    name: str
    default: str
    comment: str


@dataclass
class Root:
    """conf/<verb>.yaml as a reader sees it."""

    about: str = ""
    examples: list[str] = field(default_factory=list)
    groups: dict[str, str] = field(default_factory=dict)  # group -> default choice
    sections: list[tuple[str, list[Key]]] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        """Every dotted key, in the order of the file."""
        return [key.name for _, keys in self.sections for key in keys]

    def example(self, name: str) -> str:
        """A value of a key: one of the examples', else its default."""
        shown = re.search(rf" {re.escape(name)}=(\S+)", "\n".join(self.examples))
        default = next(key.default for _, keys in self.sections for key in keys if key.name == name)
        return shown[1] if shown else default


@dataclass
class Choice:
    """conf/<group>/<choice>.yaml as a reader sees it."""

    about: list[str] = field(default_factory=list)  # paragraphs
    called: str = ""  # the function that it calls
    keys: list[Key] = field(default_factory=list)


def conf_folder() -> Path:
    """The yamls: inside the package if it was installed from a wheel, else in the repository."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def choices(group: str) -> list[str]:
    """The yamls of a group."""
    return sorted(path.stem for path in (conf_folder() / group).glob("*.yaml"))


def root(verb: str) -> Root:
    """Read conf/<verb>.yaml: about and examples, defaults list, then keys under `# Headings`."""
    page, parent = Root(), ""
    for line in (conf_folder() / f"{verb}.yaml").read_text(encoding="utf-8").splitlines():
        if line.startswith("#   "):
            page.examples.append(line[4:])
        elif line.startswith("# ") and not page.about:
            page.about = line[2:]
        elif line.startswith("# "):
            page.sections.append((line[2:], []))
        elif default := DEFAULT.fullmatch(line):
            page.groups[default["group"]] = default["choice"]
        elif (entry := ENTRY.fullmatch(line)) and page.sections:
            if not entry["value"] and not entry["comment"]:
                parent = entry["key"] + "."
                continue
            parent = parent if entry["indent"] else ""
            page.sections[-1][1].append(_key(parent, entry))
    return page


def nearest_key(word: str, verb: str) -> str:
    """The key or group that was meant; there are too many to list them all in an error."""
    known = root(verb)
    keys = [*known.groups, *known.keys]
    if word in known.groups:
        return f"{word}= takes one of {', '.join(choices(word))}"
    if word == "resume" and word not in keys and verb not in NEVER_SWEPT:
        drawn = "; the same words go on with what is drawn" if "devices" in keys else ""
        return f"it goes with --multirun only{drawn}"
    if word in keys:
        return f"say its value, like {word}={known.example(word)}"
    same = [key for key in keys if key.rpartition(".")[2] == word]  # batch -> train.batch
    own = [group for group in known.groups if group not in ("experiment", "debug")]
    holding = [g for g in own if any(has_key(g, choice, word) for choice in choices(g))]
    if inside := [] if same else [f"{group}.{word}" for group in holding]:
        return f"did you mean {' or '.join(map(repr, inside))}?"
    close = same[0] if same else closest(word, keys, 0.6)
    hint = f"did you mean {close!r}? " if close else ""
    return f"{hint}`diffuse {verb} --help` lists what there is"


def has_key(group: str, choice: str, key: str) -> bool:
    """Does a choice's yaml have a key of this name?"""
    text = (conf_folder() / group / f"{choice}.yaml").read_text(encoding="utf-8")
    return re.search(rf"^{re.escape(key)}:", text, re.MULTILINE) is not None


def page(verb: str) -> str:
    """`diffuse <verb> --help`."""
    about = root(verb)
    keys = "[key=value | group=choice ...]" if {*about.groups} > {"debug"} else "[key=value ...]"
    words = filter(None, ["diffuse", verb, BARE.get(verb), keys, "[flags]"])
    lines = [f"{_bold('usage:')} {' '.join(words)}", ""]
    lines += textwrap.wrap(about.about, WIDTH)
    lines += ["", _bold("Examples"), *(f"  {example}" for example in about.examples)]
    if about.groups:
        lines += [
            "",
            _bold("Groups") + f"  ([default]; keys of a choice: diffuse {verb} --help <group>)",
        ]
        width = max(map(len, about.groups)) + 2
        for group, default in about.groups.items():
            names = [f"[{default}]" if name == default else name for name in choices(group)]
            lines += _row(f"{group:{width}}", "  ".join(names))
    names = [key for _, keys in about.sections for key in keys]
    name_width = max(len(key.name) for key in names) + 2
    value_width = min(LONGEST, max(len(key.default) for key in names)) + 2
    for heading, keys in about.sections:
        lines += ["", _bold(heading)]
        for key in keys:
            left = f"{key.name:{name_width}}"
            if len(key.default) > LONGEST:  # on a line of its own
                lines += _row(left, key.default)
                left = " " * name_width
                key = replace(key, default="")
            lines += _row(f"{left}{key.default:{value_width}}", key.comment)
    lines += ["", _bold("Flags")]
    for flag, meaning in flags(verb):
        lines += _row(f"{flag:18}", meaning)
    return "\n".join(lines)


def group_page(verb: str, word: str) -> str:
    """`diffuse <verb> --help <group>` or `<group>=<choice>`: what there is, with its keys."""
    group, _, chosen = word.partition("=")
    groups = root(verb).groups
    if group not in groups:
        raise ConfigError(f"--help: no group {group!r} here; {nearest(group, list(groups))}")
    options = choices(group)
    if chosen and chosen not in options:
        raise ConfigError(f"{group}: unknown choice {chosen!r}; {nearest(chosen, options)}")
    pages = {name: _choice(group, name) for name in options}
    said = {
        (choice.called, key.name): key.comment
        for choice in pages.values()
        for key in choice.keys
        if key.comment
    }
    lines = [f"{_bold('usage:')} diffuse {verb} {group}=<choice> [key=value ...]"]
    for name in [chosen] if chosen else options:
        choice = pages[name]
        default = "  (default)" if name == groups[group] else ""
        lines += ["", _bold(f"{group}={name}") + default]
        for paragraph in choice.about:
            lines += textwrap.wrap(paragraph, WIDTH, initial_indent="  ", subsequent_indent="  ")
        values = [v if len(v) <= 32 else f"{v[:8]}..." for v in (k.default for k in choice.keys)]
        left = max((len(key.name) for key in choice.keys), default=0) + 2
        middle = max(map(len, values), default=0) + 2
        for key, value in zip(choice.keys, values, strict=True):
            comment = key.comment or said.get((choice.called, key.name), "")
            lines += _row(f"{key.name:{left}}{value:{middle}}", comment)
    return "\n".join(lines)


def _choice(group: str, name: str) -> Choice:
    """The comment above a choice's yaml, and its keys by the names they are set by."""
    text = (conf_folder() / group / f"{name}.yaml").read_text(encoding="utf-8")
    everywhere = "@package _global_" in text  # an experiment: its keys are those of the verb
    choice, parent = Choice(), "" if everywhere else f"{group}."
    for line in text.splitlines():
        entry = ENTRY.fullmatch(line)
        if line.startswith("# ") and "@package" not in line and not choice.keys:
            if line.startswith("#   ") or not choice.about:
                choice.about.append(line[2:])
            else:
                choice.about[-1] += " " + line[2:]
        elif other := OVERRIDE.fullmatch(line):
            choice.keys.append(Key(other["group"], other["choice"], ""))
        elif entry and not entry["indent"]:
            parent = "" if everywhere else f"{group}."
            if entry["key"] == "name" and not everywhere:
                choice.called = entry["value"]
            elif everywhere and (entry["value"] or "").startswith("{"):  # key: {a: 1, b: 2}
                choice.keys += [
                    Key(f"{entry['key']}.{key}", value, "")
                    for key, value in INLINE.findall(entry["value"])
                ]
            elif entry["value"] and entry["key"] != "meta":
                choice.keys.append(_key(parent, entry))
            else:
                parent += entry["key"] + "."
        elif entry and entry["value"]:
            choice.keys.append(_key(parent, entry))
    return choice


def _key(parent: str, entry: re.Match[str]) -> Key:
    return Key(parent + entry["key"], entry["value"] or "", entry["comment"] or "")


def flags(verb: str) -> list[tuple[str, str]]:
    """What may be typed besides keys, and what it does."""
    if verb not in NEVER_SWEPT:
        return [*FLAGS]
    return [(f, m.replace(", of a sweep one list", "")) for f, m in FLAGS if (f, m) not in SWEEPING]


def flag_names(verb: str) -> list[str]:
    """Every flag that a page shows."""
    words = [word for row, _ in flags(verb) for word in row.replace(",", "").split()]
    return [word for word in words if word[0] == "-"] + ["--help"]


def front_page() -> str:
    """`diffuse --help`."""
    from diffuse import __version__

    commands = {**VERBS, "completion": 'tab completion: eval "$(diffuse completion bash)"'}
    width = max(map(len, commands)) + 2
    return "\n".join(
        [
            f"{_bold('usage:')} diffuse <command> [key=value ...] [flags]",
            "",
            f"diffuse {__version__}: train diffusion models on small images, sample from them,",
            "measure them, and know how sure you are.",
            "",
            _bold("Commands"),
            *(f"  {verb:{width}}{about}" for verb, about in commands.items()),
            "",
            _bold("Begin with"),
            "  diffuse train experiment=quickstart   four minutes on two CPU cores",
            "  diffuse sample steps=50 n=64          from the newest training run",
            "  diffuse eval                          FID and KID of it, beside real images",
            "",
            "`diffuse <command> --help` lists the keys of a command, with their defaults.",
            "Exit codes: 0 done, 1 failed, 2 config, 3 data, 4 diverged, 5 no space,",
            "130 and 143 stopped by a signal: train resume=auto goes on.",
        ]
    )


def _row(left: str, right: str) -> list[str]:
    """A left column of fixed width, and text beside it that wraps."""
    indent = 2 + len(left)
    # break_on_hyphens would split choices like scale-shift
    wrapped = textwrap.wrap(right, WIDTH - indent, break_on_hyphens=False) or [""]
    rest = [" " * indent + line for line in wrapped[1:]]
    return [f"  {left}{wrapped[0]}".rstrip(), *rest]


def _bold(text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain or not sys.stdout.isatty() else f"\033[1m{text}\033[0m"
