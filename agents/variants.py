"""The experiment: which users are in which variant, and which model each variant shows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from streams.errors import ConfigError

__all__ = ["CHAMPION", "Experiment", "Variant"]

CHAMPION = "champion"
"""The model of a variant that shows whatever serves as the champion."""

_SCALE = 1 << 53


@dataclass(frozen=True, slots=True)
class Variant:
    """weight: its share of the users, relative to those of the others. model: a kind of model, or :data:`CHAMPION`."""

    name: str
    weight: float
    model: str


@dataclass(frozen=True)
class Experiment:
    """Raises ConfigError where there is no variant, two have one name, or a weight is not above 0.

    >>> test = Experiment("demo", (Variant("a", 50, "champion"), Variant("b", 50, "ease")))
    >>> [test.variant_of(user).name for user in range(8)]
    ['b', 'a', 'a', 'a', 'b', 'a', 'b', 'a']
    """

    name: str
    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"experiment.variants: expected one or more of different names, found {names}")
        for variant in self.variants:
            if not 0 < variant.weight < float("inf"):
                raise ConfigError(
                    f"experiment.variants: {variant.name}: expected a weight above 0, found {variant.weight}"
                )

    def variant_of(self, user_id: int) -> Variant:
        """Always the same for a user, and independent of what the user has in an experiment of another name."""
        digest = hashlib.blake2b(f"{self.name}/{user_id}".encode(), digest_size=8).digest()
        place = (int.from_bytes(digest, "big") >> 11) / _SCALE  # 53 bits: what a float holds
        for variant, end in self._ends:
            if place < end:
                return variant
        return self.variants[-1]

    @cached_property
    def _ends(self) -> list[tuple[Variant, float]]:
        total = sum(variant.weight for variant in self.variants)
        ends, below = [], 0.0
        for variant in self.variants:
            below += variant.weight
            ends.append((variant, below / total))
        return ends
