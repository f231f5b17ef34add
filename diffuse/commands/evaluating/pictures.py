"""The pictures in an evaluation's folder that belong to groups of its numbers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from diffuse import evaluations, plots, runs
from diffuse.plots.bias import bias
from diffuse.plots.neighbours import neighbours
from diffuse.scoring import Real
from diffuse.scoring.lookalikes import lookalikes


def keep(
    folder: Path,
    record: dict[str, Any],
    sheet: Callable[[], Image.Image],  # of the first images
    images: Tensor,
    real: Real,
) -> None:
    """record.json and all pictures of an evaluation: the numbers first, no picture costs them."""
    samples = folder / "samples.png"
    record["samples"] = str(samples)
    runs.write_json(folder / evaluations.FILE, record)
    plots.save(sheet(), samples)
    record["pictures"] = draw(folder, record, images, real)
    runs.write_json(folder / evaluations.FILE, record)


def draw(folder: Path, record: Mapping[str, Any], images: Tensor, real: Real) -> dict[str, str]:
    """neighbours.png for `memorisation`, of the first seed's images, and fid_n.png for `infinity`.

    What there is to see stands in the record; a picture's name -> its path.
    """
    found: dict[str, str] = {}
    scores = record["metrics"]
    of = f"{len(images):,} images of {_source(record)}"
    if "closest" in (copies := scores.get("authenticity", {})):
        numbers = [int(row[0]) for row in copies["closest"]]
        close = scores["closer"]
        path = folder / "neighbours"
        about = f"{len(numbers)} of {of}"
        pictures = neighbours(
            lookalikes(images, numbers, real), close["threshold"], close["median_test"], about, path
        )
        found["neighbours"] = str(pictures[0])
    if infinity := scores.get("fid_infinity"):
        floor = record["fid"].get("floor") if record["floor_n"] == len(images) else None
        of = f"{len(images):,} images of {_source(record, record['seeds']['count'])}"
        title = f"FID of fewer and of more than {of}"
        found["fid_n"] = str(
            bias(record["curves"]["fid"], infinity, floor, title, folder / "fid_n")[0]
        )
    return found


def _source(record: Mapping[str, Any], seeds: int = 1) -> str:
    """Where the images are from."""
    if weights := record.get("weights"):
        first = record["seeds"]["seed"]
        said = f"seed {first}" if seeds == 1 else f"mean of seeds {first} to {first + seeds - 1}"
        return f"{weights['run']}, step {weights['step']:,}, {said}"
    return str(record["source"]["path"])
