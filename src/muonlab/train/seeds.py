"""Every random stream of a member follows from its seed by a fixed fold-in; no global generator is used."""

import hashlib

import torch


def fold_in(seed: int, purpose: str, index: int = 0) -> int:
    """Return 63 bits that depend on all three arguments: the seed of the stream for that purpose."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """Return a CPU generator for that purpose of that member."""
    return torch.Generator().manual_seed(fold_in(seed, purpose, index))
