"""What the views of a store are computed with. A store keeps its settings: with others its views would be others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from featurestore.decay import MIN_HALF_LIFE_DAYS
from streams.errors import ConfigError

__all__ = ["ViewSettings"]


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """lateness_s: a rating older than the last boundary tick by more is late. session_gap_s: a pause this long ends a
    session. popularity_half_life_days, taste_half_life_days: after so long a rating counts half in a movie's decayed
    popularity, and in a user's taste.

    Raises ConfigError for a half-life below MIN_HALF_LIFE_DAYS.
    """

    lateness_s: int = 86_400
    session_gap_s: int = 1_800
    popularity_half_life_days: float = 365.0
    taste_half_life_days: float = 365.0

    def __post_init__(self) -> None:
        for name in ("popularity_half_life_days", "taste_half_life_days"):
            days = getattr(self, name)
            if not MIN_HALF_LIFE_DAYS <= days < math.inf:
                raise ConfigError(f"{name}: expected {MIN_HALF_LIFE_DAYS:g} days or more, found {days:g}")

    def as_meta(self) -> dict[str, str]:
        """The settings as text, for the ``meta`` table.

        >>> ViewSettings().as_meta()["popularity_half_life_days"]
        '365.0'
        """
        return {name: str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_meta(cls, meta: Mapping[str, str]) -> ViewSettings:
        """The inverse of :meth:`as_meta`; other keys are passed over."""
        kinds = {"int": int, "float": float}
        return cls(**{f.name: kinds[str(f.type)](meta[f.name]) for f in fields(cls) if f.name in meta})
