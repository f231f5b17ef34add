"""Encoders: images in, features out. FID and KID are distances between two tables of features.

Whatever the encoder, it takes uint8 only and does the resizing and the scaling itself, so no caller
can get a range wrong.
"""

from diffuse.encoders.choices import (
    auto,
    check_encoder,
    classifier,
    inception,
    open_encoder,
    own,
    pixels,
)
from diffuse.encoders.encoder import Encoder, encode
from diffuse.encoders.trained import (
    ASSETS,
    FILE,
    about_encoder,
    doubts,
    load_encoder,
    save_encoder,
)

__all__ = [
    "ASSETS",
    "FILE",
    "Encoder",
    "about_encoder",
    "auto",
    "check_encoder",
    "classifier",
    "doubts",
    "encode",
    "inception",
    "load_encoder",
    "open_encoder",
    "own",
    "pixels",
    "save_encoder",
]
