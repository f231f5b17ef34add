"""`--multirun`: one version folder, one job after the other, and a list of the ones that failed."""

import importlib
import itertools
import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig

from diffuse import cli
from diffuse.cli import composing
from diffuse.cli.arguments import Arguments, quote
from diffuse.console import print_columns
from diffuse.errors import ConfigError

log = logging.getLogger("diffuse")
STOPPED = (130, 141, 143)  # by a signal: the jobs after it do not run either


def sweep(verb: str, parsed: Arguments) -> int:
    """Run every combination; a config error in any of them is found before a folder is claimed."""
    with composing.explained(verb):
        jobs = composing.combinations(parsed)
    labels = [_label(job, jobs) for job in jobs]
    first = _check_all(verb, parsed, jobs, labels)
    failures: list[str] = []
    numbers = itertools.count()

    with ExitStack() as stack:
        if first.dry_run:  # Hydra writes a file even then: not where a user would find it
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = _claim(verb, parsed, first)
            log.info("%d jobs in %s", len(jobs), folder)

        def job(cfg: DictConfig) -> None:
            number = next(numbers)
            log.info("job %d: %s", number, labels[number])
            own = None if cfg.dry_run else folder / str(number)
            try:
                code = cli.run_command(verb, parsed, cfg, jobs[number], own)
                what = f"exit code {code}"
            except Exception as error:
                code, what = cli.report(error), cli.one_line(error)
            if code in STOPPED:
                raise SystemExit(code)
            if code:
                failures.append(f"job {number} failed ({labels[number]}): {what}")

        try:
            composing.run(verb, parsed, job, [f"hydra.sweep.dir={quote(str(folder))}"])
        finally:
            for failure in failures:
                log.error(failure)
        if not first.dry_run and "--json" not in parsed.flags:
            _compare(verb, folder, labels)
    return 1 if failures else 0


def _compare(verb: str, folder: Path, labels: list[str]) -> None:
    """One row a job that was done, of the verbs that have something to say in one."""
    from diffuse import runs

    summary = getattr(importlib.import_module(f"diffuse.commands.{verb}"), "summary", None)
    jobs = {f"{k}: {label}": folder / str(k) for k, label in enumerate(labels)}
    rows = {job: summary(path) for job, path in jobs.items() if summary and runs.is_done(path)}
    if rows:
        print_columns(f"{verb} {folder}", rows)


def _label(job: list[str], jobs: list[list[str]]) -> str:
    """What sets this job apart from the others."""
    apart = [word for i, word in enumerate(job) if any(other[i] != word for other in jobs)]
    return " ".join(apart) or "the only one"


def _check_all(
    verb: str, parsed: Arguments, jobs: list[list[str]], labels: list[str]
) -> DictConfig:
    """Compose and check each job; the first one's config, with Hydra's part."""
    configs = []
    for overrides, label in zip(jobs, labels, strict=True):
        configs.append(composing.compose(verb, parsed, overrides))
        try:
            composing.finished(verb, configs[-1])
        except ConfigError as error:
            raise ConfigError(f"{error} (in the job {label})") from error
    return configs[0]


def _claim(verb: str, parsed: Arguments, cfg: DictConfig) -> Path:
    """outputs/<verb>/<name>/vNNN; a name that only an experiment has is a single run's."""
    from diffuse import runs

    dataset = cfg.hydra.runtime.choices.get("dataset") or verb
    name = cfg.name if parsed.value("name") else f"{dataset}-sweep".replace("/", "-")
    return runs.claim(Path(cfg.outputs), verb, name)
