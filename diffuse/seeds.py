"""Random numbers as a pure function of what they are for: nothing needs to be remembered."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def seed_of(*key: int | str) -> int:
    """A 63-bit seed from a key like (seed, "noise", step), the same on every machine."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*key: int | str, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator that depends on the key alone."""
    return torch.Generator(device).manual_seed(seed_of(*key))


@contextlib.contextmanager
def seeded(*key: int | str) -> Iterator[None]:
    """In here torch's own numbers depend on the key alone.

    The caller's are left alone on the CPU; those of GPUs go on from the key's seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(*key))
        yield
