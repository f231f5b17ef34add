"""Random numbers as a pure function of what they are for, so that nothing needs to be remembered."""

import hashlib

import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from any key, e.g. (seed, "noise", step): stable across machines and versions."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator that depends on the key alone."""
    return torch.Generator(device).manual_seed(seed_of(*key))
