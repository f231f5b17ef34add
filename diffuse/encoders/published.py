"""Inception-v3 from a user's file: which edition it is, and that it is whole."""

import logging
import re
from pathlib import Path

from diffuse import files
from diffuse.encoders.inception import Inception, with_weights
from diffuse.errors import DataError
from diffuse.foreign import read_tensors

log = logging.getLogger("diffuse.encoders")
FILES = "pt_inception-2015-12-05-6726825d.pth (pytorch-fid's, and torch-fidelity's weights-...)"
EDITIONS = {  # sha256 of a file -> which edition it is
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2": "inception-2015-12-05",
}


def load_inception(path: Path, sha256: str | None) -> tuple[Inception, str, str]:
    """The network, what to call it, and the sha256 of its file.

    Weights that are not a published file, say the same ones saved in another form, are welcome, but
    not under that file's name: a piece of their sha256 is in it.
    """
    if not path.is_file():
        raise DataError(f"no weights at {path}: encoder.path must be a file such as {FILES}")
    digest = files.sha256(path)
    if sha256 is not None and digest != sha256.lower():
        raise DataError(f"{path} is altered or another edition: sha256 {digest}, not {sha256}")
    edition = EDITIONS.get(digest)
    claimed = re.search(r"-([0-9a-f]{8})\.", path.name)
    published = [known for known in EDITIONS if claimed and known.startswith(claimed[1])]
    if edition is None and published and sha256 is None:
        raise DataError(f"{path} is altered: by its name sha256 is {published[0]}, not {digest}")
    try:
        net = with_weights(read_tensors(path))
    except ValueError as error:
        raise DataError(
            f"{path} is no Inception-v3 of the FID edition: {error}; it takes {FILES}"
        ) from error
    if edition is None and sha256 is None:
        log.warning(
            "%s is none of the published files: numbers compare with others only if it holds their "
            "weights; encoder.sha256=%s says that you know it", path, digest,
        )  # fmt: skip
    return net, edition or f"inception-{digest[:8]}", digest
