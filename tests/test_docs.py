"""What the documents say is true of this tree."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from places import ROOT

from diffuse.commands import VERBS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_command_reference_is_what_help_prints():
    path = ROOT / "scripts" / "make_reference.py"
    spec = importlib.util.spec_from_file_location("make_reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text() == module.reference(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_link_in_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_module_a_page_names_exists(page):
    names = set(re.findall(r"`((?:\w+/)*\w+\.py)`", page.read_text()))
    known = {p.name for p in ROOT.rglob("*.py") if ".venv" not in p.parts}
    assert {Path(name).name for name in names} <= known


def typed_commands():
    """Every `diffuse <verb> ...` that a page shows, without remarks, pipes and placeholders."""
    found = {}
    for page in PAGES:
        for line in re.findall(r"`(diffuse [^`]+)`|^ {4}(diffuse .+)$", page.read_text(), re.M):
            command = re.split(r"\s+#|\s{3,}", line[0] or line[1])[0].strip()
            words = command.split()
            plain = not re.search(r"[<|\\]|\.\.\.", command) and page.name != "commands.md"
            if plain and len(words) > 2 and words[1] in VERBS:
                found.setdefault(command, page.name)
    return [pytest.param(*command.split(" ", 2)[1:], id=f"{page}: {command}")
            for command, page in found.items()]  # fmt: skip


@pytest.mark.parametrize(("verb", "words"), typed_commands())
def test_every_command_that_a_page_shows_composes(verb, words):
    from diffuse.cli import arguments, composing, overlays, usage

    if "--help" in words:
        topic = words.replace("--help", "").strip()
        assert usage.group_page(verb, topic) if topic else usage.page(verb)
        return
    parsed = arguments.parse(verb, words.split())
    parsed, choices = overlays.taken_apart(verb, parsed)
    jobs = [parsed.overrides] if choices else composing.combinations(parsed)
    for overrides in {tuple(job): job for job in (jobs[0], jobs[-1])}.values():
        composing.finished(verb, composing.compose(verb, parsed, overrides))


def test_the_example_from_python_does_what_it_says():
    page = (ROOT / "docs/design.md").read_text()
    code = re.search(r"## From Python.*?```python\n(.*?)```", page, re.DOTALL)[1]
    found = {}
    exec(code.replace("steps=500", "steps=2").replace("uniform(25", "uniform(3"), found)
    assert found["training"].step == 2
    assert (found["pixels"].shape, found["pixels"].dtype) == ((64, 1, 8, 8), torch.uint8)
