"""`--multirun`: one version folder with a folder for each job, and a list of those that failed."""

import importlib
import logging
import os
import tempfile
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from diffuse import children, config, files, meanings, run_folders, runs, secrets, stderr, yamls
from diffuse.cli import composing, sweep_records, sweep_signals
from diffuse.cli.arguments import CALL, Arguments, as_word, from_home, parts_of, quote
from diffuse.cli.sweep_jobs import STOPPED, SweepJob, outcome, printed, row_of
from diffuse.cli.sweep_records import Jobs
from diffuse.console import print_columns, print_json
from diffuse.errors import ConfigError, DiffuseError, NoSpaceError

log = logging.getLogger("diffuse")
NUMBERED = "hydra.sweep.subdir='${hydra.job.num}'"


def sweep(verb: str, parsed: Arguments) -> int:
    """Run every combination; a config error in any of them is found before a folder is claimed."""
    if children.under_torchrun():
        raise ConfigError("--multirun: not under torchrun; devices=2 trains each job with two")
    parsed = _with_jobs_of_sweeps(verb, parsed)
    resume = parsed.value("resume")
    own_resume = "," in (resume or "")  # a sweep over runs to resume: that is for the jobs to do
    if not own_resume:
        parsed = _without(parsed, "resume=")
    jobs = _jobs(verb, parsed)
    labels = [_label(job, jobs) for job in jobs]
    first = _check_all(verb, parsed, jobs, labels)
    if own_resume or resume is None:
        resume = "none" if own_resume else first.get("resume", "none")
    old, longer = _to_continue(verb, parsed, first, resume, jobs)
    if old is None and resume == "none" and not own_resume:
        _say_what_is_there(verb, parsed, first, jobs)
    with ExitStack() as stack:
        if first.dry_run:  # Hydra writes a file even then: not where a user would find it
            parsed = _without(parsed, "hydra/launcher", "hydra.launcher")  # nor on a cluster
            folder, told = old, Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            folder = told = old or _claim(verb, parsed, first)
            stack.enter_context(sweep_records.locked(folder / ".lock", folder))
            sweep_records.write(folder, verb, jobs, longer)
        beside = "" if first.dry_run else sweep_signals.reached(first.hydra.launcher)
        job = SweepJob(verb, parsed, folder, told, labels, longer, own_resume, beside, os.getpid())
        code = 0 if _nothing_left(job, bool(old)) else _launch(job)
        if longer and code == 0 and not first.dry_run:
            sweep_records.write(told, verb, jobs, longer=False)
        if "--json" in parsed.flags:
            _print_list(job)
        elif not first.dry_run:
            _compare(job)
    return code


def _with_jobs_of_sweeps(verb: str, parsed: Arguments) -> Arguments:
    """`run=` that names a sweep of trainings means all of its jobs."""
    said = parsed.value("run")
    if said in (None, "", "null") or CALL.fullmatch(said):  # of Hydra's
        return parsed
    places = [word for word in parsed.overrides if config.key_of(word) == "outputs"]
    outputs = Path(composing.compose(verb, parsed, places).outputs)
    parts = parts_of(said)
    runs = [run for ref in parts for run in _jobs_of(outputs, from_home(ref))]
    if len(runs) == len(parts):
        return parsed
    swept = f"run={','.join(map(as_word, runs))}"

    def put(words: list[str]) -> list[str]:
        return [swept if config.key_of(word) == "run" else word for word in words]

    return replace(parsed, typed=put(parsed.typed), overrides=put(parsed.overrides))


def _jobs_of(outputs: Path, ref: str) -> list[str]:
    """Each job of a sweep, as `run=` takes it, at the checkpoint that was named; else the word."""
    name, which = run_folders.parted(ref)
    jobs = run_folders.meant(outputs, name)
    if len(jobs) < 2:
        return [ref]
    return [run_folders.typed(outputs, job) + (f"@{which}" if which else "") for job in jobs]


def _without(parsed: Arguments, *keys: str) -> Arguments:
    """The arguments without the words that begin like this."""

    def other(word: str) -> bool:
        return not word.lstrip("+").startswith(keys)

    typed, overrides = filter(other, parsed.typed), filter(other, parsed.overrides)
    return replace(parsed, typed=list(typed), overrides=list(overrides))


def _jobs(verb: str, parsed: Arguments) -> Jobs:
    """The overrides of each job; none if a sweeper such as Optuna's chooses them as it goes."""
    if parsed.value("hydra/sweeper") not in (None, "basic"):
        return []
    with composing.explained(verb):
        return composing.combinations(_of_jobs(parsed))


def _label(job: list[str], jobs: Jobs) -> str:
    """What sets this job apart from the others."""
    apart = [word for i, word in enumerate(job) if any(other[i] != word for other in jobs)]
    return " ".join(apart) or "the only one"


def _check_all(verb: str, parsed: Arguments, jobs: Jobs, labels: list[str]) -> DictConfig:
    """Compose and check each job; the first one's config, with Hydra's part."""
    own = [word for word in parsed.overrides if word.lstrip("+").startswith(("hydra.", "hydra/"))]
    # what a command finds wrong without looking at a run or data
    check = getattr(importlib.import_module(f"diffuse.commands.{verb}"), "check", None)
    for overrides, label in zip(jobs, labels, strict=True):
        try:
            cfg = composing.finished(verb, composing.compose(verb, parsed, overrides))
            secrets.refuse(yamls.as_yaml(cfg), OmegaConf.to_container(cfg))
            if check:
                config.trust(cfg.trust if parsed.value("trust") else None)
                check(cfg)
        except ConfigError as error:
            raise ConfigError(f"{error} (in the job {label})") from error
    first = composing.compose(verb, parsed, [*own, *(jobs or [_fixed(verb, parsed)])[0]])
    # Hydra keeps it as multirun.yaml
    secrets.refuse(OmegaConf.to_yaml(first), OmegaConf.to_container(first))
    if jobs and first.hydra.sweeper.get("params"):
        raise ConfigError("hydra.sweeper.params: say what is swept over as key=a,b")
    return first


def _fixed(verb: str, parsed: Arguments) -> list[str]:
    with composing.explained(verb):
        return composing.fixed(_of_jobs(parsed))


def _of_jobs(parsed: Arguments) -> Arguments:
    return _without(parsed, "hydra.", "hydra/")


def _to_continue(
    verb: str, parsed: Arguments, cfg: DictConfig, resume: str, jobs: Jobs
) -> tuple[Path | None, bool]:
    """The sweep to continue, None = a new one; and whether it is to be longer than it was."""
    if resume != "none" and not jobs:
        raise ConfigError("resume: this sweeper keeps its own books; see hydra.sweeper.storage")
    root, name, typed = (
        Path(cfg.outputs) / verb,
        _name(verb, parsed, cfg),
        bool(parsed.value("name")),
    )
    allowed = cfg.get("resume_allow", [])
    old = sweep_records.to_continue(root, name, typed, resume, jobs, allowed)
    if old is None:
        if resume == "auto":
            log.info("nothing to continue in %s: a new sweep", root / name)
        return None, False
    return old, sweep_records.is_longer(old, jobs)


def _say_what_is_there(verb: str, parsed: Arguments, cfg: DictConfig, jobs: Jobs) -> None:
    """Of a sweep that was not finished, where the same words begin another one."""
    root, name = Path(cfg.outputs) / verb, _name(verb, parsed, cfg)
    with suppress(ConfigError, OSError):
        there = sweep_records.to_continue(root, name, False, "auto", jobs) if jobs else None
        done = sum(runs.is_done(there / str(k)) for k in range(len(jobs))) if there else len(jobs)
        if done < len(jobs):
            log.info(
                "%s has these jobs, %d of %d are done: with resume=auto it does what is missing",
                there, done, len(jobs),
            )  # fmt: skip


def _name(verb: str, parsed: Arguments, cfg: DictConfig) -> str:
    """A name that only an experiment has is a single run's."""
    dataset = cfg.hydra.runtime.choices.get("dataset")
    about = meanings.called(cfg, "dataset", dataset) if dataset else verb
    return cfg.name if parsed.value("name") else f"{about}-sweep".replace("/", "-")


def _claim(verb: str, parsed: Arguments, cfg: DictConfig) -> Path:
    """outputs/<verb>/<name>/vNNN"""
    return runs.claim(Path(cfg.outputs), verb, _name(verb, parsed, cfg))


def _nothing_left(job: SweepJob, continued: bool) -> bool:
    """Say what there is to do; true if a continued sweep has it all."""
    total = len(job.labels)
    if not continued:
        if job.folder:
            log.info("%s jobs in %s", total or "the sweeper's", job.folder)
        return False
    assert job.folder
    if job.longer:
        log.info("continuing %s with another length than before", job.folder)
        return False
    done = [k for k in range(total) if runs.is_done(job.folder / str(k))]
    log.info("continuing %s: %d of %d jobs are done", job.folder, len(done), total)
    for number in done:
        log.info("job %d: done (%s)", number, job.labels[number])
    return len(done) == total


def _launch(job: SweepJob) -> int:
    """Let Hydra's launcher run the jobs; list those that failed, in whichever process it was."""
    for told in job.told.glob("*/job.json"):
        told.unlink()  # of an earlier attempt: now each has to say anew how it ended
    words = [f"hydra.sweep.dir={quote(str(job.told))}", NUMBERED]
    code, lost = 0, True
    try:
        _run_all(job, words)
    except (DiffuseError, KeyboardInterrupt, SystemExit):
        lost = False  # the jobs that are missing never began
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in files.FULL:  # of a file of Hydra's own
            lost = False
            raise NoSpaceError(f"no space in {job.told}: {error.strerror}") from error
        code = stderr.report(error)  # the launcher's: it has lost a process, say
    finally:
        code = _list_failures(job, lost) or code
    return code


def _run_all(job: SweepJob, words: list[str]) -> None:
    """SystemExit after a signal that the jobs were told of: those that train have saved by then."""
    if not (job.beside and job.folder):
        composing.run(job.verb, job.parsed, job, words)
        return
    with sweep_signals.Relay(job.folder, job.beside) as relay:
        try:
            composing.run(job.verb, job.parsed, job, words)
        except Exception:  # the launcher's: it has lost a process, before it could hear
            if relay.caught is None:
                raise
            relay.wait()
    if relay.caught is not None:
        raise SystemExit(relay.exit_code)


def _list_failures(job: SweepJob, lost: bool) -> int:
    """The exit code of the sweep. `lost`: a job that never said how it ended has failed, too."""
    failures, stopped = [], 0
    for number, label in enumerate(job.labels) if job.labels else _labels(job.told):
        end = outcome(job.told / str(number))
        if end is None and lost and not runs.is_done(job.told / str(number)):
            end = {"code": 1, "error": "it never said how it ended; was it killed?"}
        if end and end["code"] in STOPPED:
            stopped = end["code"]
            log.warning("job %d was stopped (%s)", number, label)
        elif end and end["code"]:
            failures.append(f"job {number} failed ({label}): {end['error']}")
    if failures and job.folder:
        log.info("resume=%s does again what failed; tracebacks are in */log.txt", job.folder)
    for failure in failures:
        log.error(failure)
    return 1 if failures else stopped


def _labels(folder: Path) -> list[tuple[int, str]]:
    """The jobs that a sweeper has chosen, by number."""
    found = sorted(int(path.parent.name) for path in folder.glob("*/job.json"))
    return [(k, end["job"]) for k in found if (end := outcome(folder / str(k)))]


def _print_list(job: SweepJob) -> None:
    """One document for all jobs, in order."""
    labels = list(enumerate(job.labels)) or _labels(job.told)
    ends = {k: outcome(job.told / str(k)) or {} for k, _ in labels}
    print_json([
        {"job": label, "code": ends[k].get("code"), "error": ends[k].get("error") or None,
         "result": printed(job.told / str(k))}
        for k, label in labels
    ])  # fmt: skip


def _compare(job: SweepJob) -> None:
    """One row a job that was done, of the verbs that have something to say in one."""
    summary = getattr(importlib.import_module(f"diffuse.commands.{job.verb}"), "summary", None)
    if summary is None:
        return
    labels = list(enumerate(job.labels)) or _labels(job.told)
    jobs = {f"{k}: {label}": job.told / str(k) for k, label in labels}
    rows = {name: row_of(path, summary) for name, path in jobs.items() if runs.is_done(path)}
    if rows:
        print_columns(f"{job.verb} {job.told}", rows)
