"""A command that only remembers: what is in front of it can be tested without it."""

import sys
import types

import pytest

from diffuse import cli, runs
from diffuse.commands import VERBS
from diffuse.errors import DataError


class Command:
    """Stands in for commands/<verb>.py and remembers how it was called."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        self.calls = []
        self.answer = lambda cfg, job: None

    def main(self, cfg, job):
        self.calls.append((cfg, job))
        return self.answer(cfg, job)

    def raises(self, error):
        """From now on it fails."""

        def answer(cfg, job):
            raise error

        self.answer = answer

    @property
    def cfg(self):
        return self.calls[-1][0]

    @property
    def job(self):
        return self.calls[-1][1]

    def error(self, line, code=2):
        """Run a line that must fail; its message, which must be one line on stderr."""
        assert cli.main(line.split()) == code
        out, err = self.capsys.readouterr()
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        return err.removeprefix("error: ").strip()

    def left_behind(self):
        """Every file and folder in the folder the command was called from."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Every verb calls this, from an empty folder."""
    fake = Command(tmp_path, capsys)
    for verb in VERBS:
        module = types.ModuleType(f"diffuse.commands.{verb}")
        module.main = fake.main
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    return fake


class Jobs:
    """A command whose jobs are done unless their seed is in `broken`."""

    def __init__(self, command):
        self.broken, self.seen = set(), []
        command.answer = self

    def __call__(self, cfg, job):
        self.seen.append(cfg.seed)
        if cfg.seed in self.broken:
            raise DataError(f"seed {cfg.seed} is broken")
        runs.write_json(job.folder / "run.json", {"status": "done", "seed": cfg.seed})

    def of(self, line):
        """The seeds of the jobs that a line runs, and its exit code."""
        self.seen.clear()
        code = cli.main(line.split())
        return code, list(self.seen)


@pytest.fixture
def jobs(command):
    return Jobs(command)
