"""Random numbers without a state: each is a hash of the seed, what it is for, and which user or rating it belongs to.

So a number is the same whatever was drawn before it, in chunks of any size and from any starting point. The hash is
splitmix64 (Steele, Lea, Flood 2014) with one key per purpose: 5 ns a number.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["Draws"]

Uint64s = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]
Counters = npt.NDArray[np.integer]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_TWO_PI = 2 * np.pi


class Draws:
    """The random numbers of one world."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _key(self, purpose: str) -> np.uint64:
        digest = hashlib.blake2b(f"{self._seed}/{purpose}".encode(), digest_size=8).digest()
        return np.uint64(int.from_bytes(digest, "little"))

    def bits(self, purpose: str, counters: Counters) -> Uint64s:
        """64 random bits for each counter; counters of one purpose must differ."""
        x = counters.astype(np.uint64)
        x *= _GAMMA
        x += self._key(purpose)
        x ^= x >> np.uint64(30)
        x *= _MIX_1
        x ^= x >> np.uint64(27)
        x *= _MIX_2
        x ^= x >> np.uint64(31)
        return x

    def uniform(self, purpose: str, counters: Counters) -> Floats:
        """Uniform in (0, 1), never 0 or 1 themselves: 52 bits and a half."""
        return ((self.bits(purpose, counters) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52

    def normal(self, purpose: str, counters: Counters) -> Floats:
        """Standard normal (Box and Muller)."""
        bits = self.bits(purpose, counters)
        radius = (bits >> np.uint64(32)).astype(np.float64) + 0.5
        angle = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64)
        normal: Floats = np.sqrt(-2 * np.log(radius * 2.0**-32)) * np.cos(angle * (_TWO_PI * 2.0**-32))
        return normal

    def ranks(self, purpose: str, n: int) -> Floats:
        """The n midpoints of n equal parts of (0, 1), in random order: a sample without the luck of the draw."""
        order = np.argsort(self.bits(purpose, np.arange(n)), kind="stable")
        ranks = np.empty(n)
        ranks[order] = (np.arange(n) + 0.5) / n
        return ranks
