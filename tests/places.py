"""Where this tree is."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
