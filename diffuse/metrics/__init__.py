"""How far apart two tables of features are, and how sure that is: float64 on the CPU.

A table is [n d], one row per image. Every function refuses NaN and infinity with a ValueError. An
interval is over samples of the same size as the first table, and the reference is fixed, unless a
docstring says otherwise; `over_seeds` puts several measurements together.
"""

from diffuse.metrics.classes import (
    ByClass,
    InceptionScore,
    agreement,
    fid_by_class,
    inception_score,
)
from diffuse.metrics.extrapolation import Extrapolation, Point, bias_curve, enough, fid_infinity
from diffuse.metrics.gaussian import fid, fid_estimate, frechet
from diffuse.metrics.intervals import (
    Estimate,
    Interval,
    Seeds,
    blocks_for,
    over_seeds,
    quantile,
    reach_of,
    wilson,
)
from diffuse.metrics.kernel import Kid, kid, kid_interval
from diffuse.metrics.manifolds import Overlap, overlap
from diffuse.metrics.memorisation import Closeness, Gap, authenticity, closeness, fid_gap
from diffuse.metrics.neighbours import Neighbours, nearest, nearest_others
from diffuse.metrics.pixels import PixelStatistics, pixel_statistics, sliced_wasserstein
from diffuse.metrics.power import Need, Spread, at_most, needed, power_of, resolved
from diffuse.metrics.tables import Moments

__all__ = [
    "ByClass", "Closeness", "Estimate", "Extrapolation", "Gap", "InceptionScore", "Interval", "Kid",
    "Moments", "Need", "Neighbours", "Overlap", "PixelStatistics", "Point", "Seeds", "Spread",
    "agreement", "at_most", "authenticity", "bias_curve", "blocks_for", "closeness", "enough",
    "fid", "fid_by_class", "fid_estimate", "fid_gap", "fid_infinity", "frechet",
    "inception_score", "kid", "kid_interval", "nearest", "nearest_others", "needed", "over_seeds",
    "overlap", "pixel_statistics", "power_of", "quantile", "reach_of", "resolved",
    "sliced_wasserstein", "wilson",
]  # fmt: skip
