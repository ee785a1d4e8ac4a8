"""Turns seeds into uniform numbers. Pure and stateless, so every choice the simulator makes can be computed again."""

from collections.abc import Sequence
from hashlib import blake2b
from math import exp
from statistics import NormalDist
from typing import TypeVar

T = TypeVar("T")
_MASK = 0xFFFFFFFFFFFFFFFF
_NORMAL = NormalDist()


def seed_of(*parts: bytes | str | int) -> int:
    """A 64-bit seed from the parts, the same in every process (unlike `hash`)."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\x00")
    return int.from_bytes(digest.digest(), "big")


def draw(seed: int, index: int) -> float:
    """The `index`-th uniform number in [0, 1) of the seed: one step of splitmix64 (Steele et al., OOPSLA 2014)."""
    z = (seed + (index + 1) * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((z ^ (z >> 31)) >> 11) / 9007199254740992.0  # 53 bits


def pick(seed: int, index: int, choices: Sequence[T]) -> T:
    """One of the choices, uniformly."""
    return choices[int(draw(seed, index) * len(choices))]


def lognormal(mu: float, sigma: float, chance: float) -> float:
    """The log-normal number at this uniform chance: exp(mu) at one half."""
    return exp(mu + sigma * _NORMAL.inv_cdf(min(max(chance, 1e-9), 1 - 1e-9)))
