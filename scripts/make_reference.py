"""Rebuild docs/commands.md: every help page, as the program prints it."""

from pathlib import Path

from diffuse.cli import usage
from diffuse.commands import VERBS

TARGET = Path(__file__).parent.parent / "docs" / "commands.md"


def reference() -> str:
    """All help pages in one page."""
    parts = ["# Commands", "Made by `make docs` from the help pages; change those, not this."]
    parts.append(f"```text\n{usage.front_page().rstrip()}\n```")
    for verb in VERBS:
        parts += [f"## diffuse {verb}", f"```text\n{usage.page(verb).rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    TARGET.write_text(reference())
    print(TARGET)
