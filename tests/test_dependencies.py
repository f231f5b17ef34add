"""What the package imports is what it asks for, so that a clean environment has it."""

import ast
import re
import sys
import tomllib

from places import ROOT

CALLED = {"PIL": "pillow", "hydra": "hydra-core", "sklearn": "scikit-learn", "yaml": "pyyaml"}


def imported(path):
    """The packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_every_package_that_is_imported_is_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {re.match(r"[\w-]+", line)[0].lower() for line in project["dependencies"]}
    used = {name for path in (ROOT / "diffuse").rglob("*.py") for name in imported(path)}
    others = used - sys.stdlib_module_names - {"diffuse"}
    missing = {CALLED.get(name, name).replace("_", "-").lower() for name in others} - asked
    assert missing == set()
    assert {"torch", "PIL", "yaml", "pyarrow"} <= others  # it sees them
