"""Images in, every number of a record out: value, 95% interval and floor.

A group of measures is one function of two arguments: the rows that are scored, and what is real.
The floor of a number is the same function of real images, as many as there are scored ones.
"""

from diffuse.scoring.brightness import mistaken_range
from diffuse.scoring.groups import GROUPS, Settings, curve, impossible, measured, sizes
from diffuse.scoring.rows import Judge, Real, Rows, real, rows_again, rows_of, unmeasured

__all__ = [
    "GROUPS", "Judge", "Real", "Rows", "Settings", "curve", "impossible", "measured",
    "mistaken_range", "real", "rows_again", "rows_of", "sizes", "unmeasured",
]  # fmt: skip
