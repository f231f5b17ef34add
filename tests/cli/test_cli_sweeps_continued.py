"""`--multirun ... resume=`: the same words again do what is missing, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from leftovers import at_step, stop

from diffuse import checkpoints, cli, runs
from diffuse.cli import sweep_records
from diffuse.errors import DataError

FOLDER = Path("outputs/train/mine/v001")
LINE = "train -m seed=1,2 name=mine"
SLOW = [pytest.param(word, marks=pytest.mark.slow) for word in ("mine/v001", str(FOLDER))]


@pytest.mark.parametrize("resume", ["auto", *SLOW])
def test_only_the_jobs_that_are_not_done_run_again(resume, jobs, capsys):
    jobs.broken = {2}
    assert jobs.of(LINE) == (1, [1, 2])
    jobs.broken = set()
    capsys.readouterr()
    assert jobs.of(f"{LINE} resume={resume}") == (0, [2])
    err = capsys.readouterr().err
    assert f"continuing {FOLDER}: 1 of 2 jobs are done" in err
    assert "job 0: done (seed=1)\n" in err
    assert jobs.of(f"{LINE} resume={resume}") == (0, [])
    assert [runs.read(FOLDER / str(k))["seed"] for k in range(2)] == [1, 2]
    assert not FOLDER.with_name("v002").exists()


def test_the_same_words_without_resume_begin_anew_and_name_the_unfinished_sweep(jobs, capsys):
    jobs.broken = {2}
    assert jobs.of(LINE) == (1, [1, 2])
    capsys.readouterr()
    assert jobs.of(LINE) == (1, [1, 2])
    assert f"{FOLDER} has these jobs, 1 of 2 are done: with resume=auto" in capsys.readouterr().err
    jobs.broken = set()
    assert jobs.of(f"{LINE} resume=auto") == (0, [2])
    capsys.readouterr()
    assert jobs.of(LINE) == (0, [1, 2])
    assert "with resume=auto" not in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_failed_attempt_left_is_kept_beside_the_next_one(jobs):
    jobs.broken = {2}
    for resume in ("none", "auto", "auto"):
        assert jobs.of(f"{LINE} resume={resume}")[0] == 1
    for log in ("attempt-1/log.txt", "attempt-2/log.txt", "log.txt"):
        assert "seed 2 is broken" in (FOLDER / "1" / log).read_text()


def test_an_attempt_that_somebody_has_deleted_is_not_in_the_way(jobs):
    jobs.broken = {2}
    for resume in ("none", "auto", "auto"):
        assert jobs.of(f"{LINE} resume={resume}")[0] == 1
    shutil.rmtree(FOLDER / "1/attempt-1")
    jobs.broken = set()
    assert jobs.of(f"{LINE} resume=auto") == (0, [2])
    assert [path.name for path in sorted((FOLDER / "1").glob("attempt-*"))] == [
        "attempt-2", "attempt-3",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["sample", "eval", "plot"])
def test_a_sweep_of_any_command_can_be_continued_but_a_single_run_cannot(verb, jobs, command):
    jobs.broken = {2}
    assert jobs.of(f"{verb} -m seed=1,2 resume=auto") == (1, [1, 2])
    assert jobs.of(f"{verb} -m seed=1,2 resume=auto") == (1, [2])
    command.capsys.readouterr()
    assert "unknown key 'resume'" in command.error(f"{verb} resume=auto")


OTHERS = {
    "train -m seed=1,4 name=mine": "only there: seed=2; only here: seed=4",
    "train -m seed=1,2,4 name=mine": "only here: seed=4",
    "train -m seed=1,2 name=mine n=9": "only here: n=9",
    "train -m seed=2,1 name=mine": "the same words, but in another order",
    "train -m seed=1,2 train.steps=5,6 name=mine": "only here: train.steps=5 train.steps=6",
}
FIRST, *REST = OTHERS
CASES = [*((line, "auto") for line in REST), (FIRST, "must"), (FIRST, "mine")]


@pytest.mark.parametrize(
    ("line", "resume"),
    [(FIRST, "auto"), *(pytest.param(*case, marks=pytest.mark.slow) for case in CASES)],
)
def test_another_set_of_jobs_is_refused_with_what_differs(line, resume, jobs, command, capsys):
    assert jobs.of(LINE)[0] == 0
    capsys.readouterr()
    message = command.error(f"{line} resume={resume}")
    assert f"{FOLDER} has other jobs ({OTHERS[line]})" in message
    assert not FOLDER.with_name("v002").exists()


@pytest.mark.slow
def test_words_that_do_not_say_what_a_job_is_may_be_others(jobs):
    assert jobs.of(LINE)[0] == 0
    assert jobs.of(f"{LINE} hypothesis=it-works resume=auto") == (0, [])


@pytest.mark.slow
def test_what_resume_allow_lets_through_may_be_other_too(jobs):
    jobs.broken = {2}
    assert jobs.of(f"{LINE} optimizer.lr=0.1") == (1, [1, 2])
    assert jobs.of(f"{LINE} optimizer.lr=0.2 resume=auto") == (2, [])
    assert jobs.of(f"{LINE} optimizer.lr=0.2 resume=auto resume.allow=[optimizer.lr]") == (1, [2])


@pytest.mark.slow
def test_auto_takes_the_newest_sweep_that_has_these_jobs(jobs):
    jobs.broken = {1, 5}
    assert jobs.of("train -m seed=1,2") == (1, [1, 2])
    assert jobs.of("train -m seed=5,6 resume=auto") == (1, [5, 6])
    assert jobs.of("train -m seed=1,2 resume=auto") == (1, [1])
    assert jobs.of("train -m seed=5,6 resume=auto") == (1, [5])
    assert not Path("outputs/train/fashion_mnist-sweep/v003").exists()


@pytest.mark.parametrize(
    ("resume", "words"),
    [
        ("must", "there is no sweep 'mine' in outputs/train to continue"),
        ("nine", "no sweep 'nine' in outputs/train; choices: none"),
    ],
)
def test_a_sweep_that_must_be_there_and_is_not_is_refused(resume, words, command):
    assert words in command.error(f"{LINE} resume={resume}")
    assert command.left_behind() == []


def test_auto_without_a_sweep_begins_one(jobs, capsys):
    assert jobs.of(f"{LINE} resume=auto") == (0, [1, 2])
    assert "nothing to continue in outputs/train/mine: a new sweep" in capsys.readouterr().err


@pytest.mark.slow
def test_another_length_is_for_the_command_to_judge(jobs):
    assert jobs.of(f"{LINE} train.steps=4") == (0, [1, 2])
    assert jobs.of(f"{LINE} train.steps=4 resume=auto") == (0, [])
    assert jobs.of(f"{LINE} train.steps=9 resume=auto") == (0, [1, 2])
    assert jobs.of(f"{LINE} train.steps=9 resume=auto") == (0, [])


@pytest.mark.slow
def test_a_sweep_that_was_stopped_while_it_is_made_longer_is_made_longer(jobs):
    assert jobs.of(f"{LINE} train.steps=4") == (0, [1, 2])
    jobs.broken = {1}
    assert jobs.of(f"{LINE} train.steps=9 resume=auto") == (1, [1, 2])
    jobs.broken = set()
    assert jobs.of(f"{LINE} train.steps=9 resume=auto") == (0, [1, 2])
    assert jobs.of(f"{LINE} train.steps=9 resume=auto") == (0, [])


@pytest.mark.slow
def test_a_dry_run_of_the_rest_writes_nothing(jobs, command):
    jobs.broken = {2}
    assert jobs.of(LINE)[0] == 1
    before = command.left_behind()
    command.answer = lambda cfg, job: jobs.seen.append((cfg.seed, job.folder))
    assert jobs.of(f"{LINE} dry_run=true resume=auto") == (0, [(2, None)])
    assert command.left_behind() == before


@pytest.mark.slow
def test_a_sweep_that_is_running_is_left_alone(jobs, command, capsys):
    jobs.broken = {2}
    assert jobs.of(LINE)[0] == 1
    capsys.readouterr()
    with sweep_records.locked(FOLDER / ".lock", FOLDER):
        assert "is being run by another process" in command.error(f"{LINE} resume=auto")
    assert jobs.of(f"{LINE} resume=auto") == (1, [2])


def test_a_job_that_failed_before_it_was_a_run_has_its_traceback_in_its_log(jobs, capsys):
    jobs.broken = {1, 2}
    assert jobs.of(LINE)[0] == 1
    for number, seed in ((0, 1), (1, 2)):
        log = (FOLDER / str(number) / "log.txt").read_text()
        assert log.startswith("Traceback (most recent call last):")
        assert log.endswith(f"DataError: seed {seed} is broken\n")
    err = capsys.readouterr().err
    assert "job 0 failed (seed=1): seed 1 is broken\n" in err
    assert "job 1 failed (seed=2): seed 2 is broken\n" in err
    assert "Traceback" not in err


def test_a_job_that_failed_as_a_run_has_its_traceback_once(command):
    def answer(cfg, job):
        with runs.Run(job.folder).logged():
            raise DataError("late")

    command.answer = answer
    assert cli.main(LINE.split()) == 1
    assert (FOLDER / "1/log.txt").read_text().count("Traceback") == 1


def left(sweep, number):
    """What a job left: the tensors of its last checkpoint, and its rows."""
    last = checkpoints.newest(sweep / str(number) / "checkpoints")
    files = [*last.glob("*.safetensors"), sweep / str(number) / "metrics.jsonl"]
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_from_its_checkpoints_to_the_same_bytes(
    diffuse, tmp_path, monkeypatch
):
    def second(training, images, law, recipe, *rest):
        return recipe.seed == 2

    line = "-m train.steps=6 train.save_every=4 seed=1,2,3 name=swept"
    assert diffuse.train(line) == 0
    with monkeypatch.context() as patch:
        patch.setattr("diffuse.commands.training.loop.fit", at_step(3, stop, second))
        assert diffuse.train(line) == 143
    whole, stopped = (tmp_path / f"outputs/train/swept/v00{k}" for k in (1, 2))
    assert runs.read(stopped / "1")["status"] == "stopped"
    assert not (stopped / "2").exists()
    assert diffuse.train(f"{line} resume=swept/v002") == 0
    assert "job 0: done (seed=1)" in diffuse.err
    assert f"continuing {stopped.relative_to(tmp_path)}/1" in diffuse.err
    assert [left(stopped, k) for k in range(3)] == [left(whole, k) for k in range(3)]
    rows = [row for row in diffuse.out.splitlines() if "seed=" in row]
    assert [row.split()[:2] for row in rows] == [[f"{k}:", f"seed={k + 1}"] for k in range(3)]


def test_sweep_json_says_which_jobs_there_are(jobs):
    assert jobs.of(LINE)[0] == 0
    record = json.loads((FOLDER / "sweep.json").read_text())
    assert record["command"] == "train"
    assert [job[0] for job in record["jobs"]] == ["seed=1", "seed=2"]


@pytest.mark.parametrize(
    ("there", "here", "same"),
    [
        ("label=3", "label='3'", True),  # as an earlier version wrote it
        ("name='tiny'", 'name="tiny"', True),
        ("label='3'", "label='4'", False),
        ("label='a b'", "label=a b", False),  # other words in Hydra's grammar
    ],
)
def test_quotes_that_are_not_needed_make_no_other_jobs(there, here, same):
    assert (sweep_records.difference([[there]], [[here]]) == "") is same
