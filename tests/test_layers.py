"""The light goes one way: a room imports from rooms below it."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import diffuse

ROOT = Path(diffuse.__file__).parent
DESIGN = Path(__file__).parents[1] / "docs/design.md"
LAYERS = [
    "errors seeds config schemas values data objectives weightings denoiser models metrics "
    "classifier foreign encoders secrets files sealed conditions owners checkpoints runs "
    "run_folders trackers hardware interrupts "
    "console stderr optimizers ranks launching children yamls provenance meanings "
    "averages background memory rehearsal compiling guidance utilisation",
    "schedules noise_laws grids samplers reuse features training_state divergence",
    "training sampling shards noise_level",
    "passport evaluations measures scoring comparison trainings checkups plots seen journal",
    "assembly restored planning commands cli __main__",
]
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms.split()}


def module_of(path):
    """E.g. "data.images"; "data" for data/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_of(path): ast.parse(path.read_text()) for path in ROOT.rglob("*.py")}
MODULES = set(TREES) - {""}
ROOMS = {module.partition(".")[0] for module in MODULES}


def names(tree):
    """All that is imported, wherever in the file the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(module):
    """The modules of ours that a module imports, without the packages it is in."""
    for name in names(TREES[module]):
        package, _, rest = name.partition(".")
        while package == "diffuse" and rest and rest not in MODULES:
            rest = rest.rpartition(".")[0]  # a function of a module
        if package == "diffuse" and rest and not f"{module}.".startswith(f"{rest}."):
            yield rest


def neighbours(room):
    ours = [module for module in MODULES if module.partition(".")[0] == room]
    return {other.partition(".")[0] for module in ours for other in imported(module)} - {room}


def test_every_room_has_a_layer_and_every_layer_has_only_rooms_there_are():
    assert set(LAYER) == ROOMS


def test_the_design_has_the_same_rooms_in_the_same_layers():
    rows = re.findall(r"^\| (\d) \| (.+?) \|", DESIGN.read_text(), re.M)
    told = {
        re.split(r"[./]", room)[0]: int(layer)
        for layer, rooms in rows
        for room in re.findall("`([^`]+)`", rooms)
    }
    assert told | {"__main__": 4} == LAYER


@pytest.mark.parametrize("room", sorted(LAYER))
def test_imports_point_down(room):
    assert not [other for other in neighbours(room) if LAYER[other] > LAYER[room]]


def test_rooms_below_the_commands_form_no_circle():
    """Commands and the command line know each other, but no two of their files do."""
    below = {room: neighbours(room) for room in LAYER if LAYER[room] < 4}
    order = list(TopologicalSorter(below).static_order())
    assert order.index("errors") < order.index("config") < order.index("encoders")


def test_files_form_no_circle():
    order = list(TopologicalSorter({m: set(imported(m)) for m in MODULES}).static_order())
    assert order.index("errors") < order.index("config") < order.index("commands.train")


def test_only_the_top_sees_a_config_tree_or_hydra():
    """Everything below takes plain objects, so that it works in a notebook."""
    top = {"config", "schemas", "meanings", "yamls", "values", "assembly", "planning"}
    top |= {"restored", "commands", "cli"}
    seeing = {"omegaconf": set(), "hydra": set()}
    for module in MODULES:
        for name in names(TREES[module]):
            seeing.get(name.partition(".")[0], set()).add(module.partition(".")[0])
    assert seeing["omegaconf"] <= top
    assert seeing["hydra"] <= {"schemas", "cli"}
