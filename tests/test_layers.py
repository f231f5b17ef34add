"""The light goes one way: a room imports from rooms below it, as in DESIGN section 2."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import diffuse

ROOT = Path(diffuse.__file__).parent
LAYERS = [
    "errors seeds config schemas ranges data denoiser models metrics classifier encoders "
    "checkpoints runs trackers hardware interrupts console optimizers",
    "schedules noise_laws grids samplers",
    "training sampling",
    "evaluation checkups plots",
    "assembly commands cli __main__",
]
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms.split()}
HOUSE = {path.stem if path.suffix else path.name: path for path in ROOT.iterdir()}
ROOMS = {
    room: path
    for room, path in HOUSE.items()
    if (path.suffix == ".py" and room != "__init__") or (path / "__init__.py").exists()
}


def imported(path):
    """The rooms that a file imports from, wherever in it the import stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition(".")
            if package == "diffuse" and rest.partition(".")[0] in ROOMS:
                yield rest.partition(".")[0]


def neighbours(room):
    files = ROOMS[room].rglob("*.py") if ROOMS[room].is_dir() else [ROOMS[room]]
    return {other for file in files for other in imported(file)} - {room}


def test_every_room_has_a_layer_and_every_layer_has_only_rooms_there_are():
    assert set(ROOMS) == set(LAYER)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_imports_point_down(room):
    upwards = [other for other in neighbours(room) if LAYER[other] > LAYER[room]]
    assert not upwards


def test_rooms_of_one_layer_form_no_circle():
    order = list(TopologicalSorter({room: neighbours(room) for room in ROOMS}).static_order())
    assert order.index("errors") < order.index("config") < order.index("cli")


def test_only_the_top_sees_a_config_tree_or_hydra():
    """Everything below takes plain objects, so that it works in a notebook."""
    seeing = {"omegaconf": set(), "hydra": set()}
    for room, path in ROOMS.items():
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            for node in ast.walk(ast.parse(file.read_text())):
                modules = (
                    [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
                for module in modules:
                    seeing.get(module.partition(".")[0], set()).add(room)
    top = {"config", "schemas", "ranges", "assembly", "commands", "cli"}
    assert seeing["omegaconf"] <= top
    assert seeing["hydra"] <= {"schemas", "cli"}
