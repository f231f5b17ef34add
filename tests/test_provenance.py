"""Which code made a number: ours, whatever repository it is installed in."""

import subprocess

from diffuse import provenance


def git(folder, *words):
    identity = ["-c", "user.name=us", "-c", "user.email=us@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *words], check=True, capture_output=True)


def test_the_revision_is_that_of_our_code_not_of_a_repository_it_is_installed_in(
    tmp_path, monkeypatch
):
    ours = tmp_path / ".venv/diffuse/provenance.py"
    ours.parent.mkdir(parents=True)
    ours.touch()
    monkeypatch.setattr(provenance, "__file__", str(ours))
    assert provenance.git_revision() is None  # no repository
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    assert provenance.git_revision() is None
    git(tmp_path, "add", ours)
    assert provenance.git_revision().endswith("+dirty")
    git(tmp_path, "commit", "-m", "ours")
    assert len(provenance.git_revision()) >= 7
    assert "dirty" not in provenance.git_revision()
