"""What a replay is asked to do, checked before anything is opened."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from streams.drift.spec import parse_drifts
from streams.errors import ConfigError
from streams.events import DAY_S
from streams.pacing import ARRIVALS
from streams.topics import MAX_PARTITIONS

__all__ = ["DEFAULT_SPEED", "ReplayOptions", "parse_date", "parse_speed", "parse_start"]

DEFAULT_SPEED = 86_400.0
"""Event seconds per second: a day a second."""
_LAST_WEEK = 10_000
"""Two centuries: more is a slip of the finger, and times that far ahead fit no calendar."""


def parse_date(text: str, option: str, *, or_else: str = "") -> int:
    """Seconds since the epoch of an ISO date or date-time, in UTC unless it says otherwise.

    Raises ConfigError naming ``option``, and ``or_else``, what might have stood there instead of a date.

    >>> parse_date("2015-01-01", "until")
    1420070400
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{option}: expected {or_else}a date such as 2015-01-31 or 2015-01-31T12:00, found {text!r}"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def parse_start(text: str) -> int | None:
    """``--start``: None for "auto", else as :func:`parse_date` reads it.

    >>> parse_start("2009-01-01"), parse_start("2009-01-01T06:00"), parse_start("auto")
    (1230768000, 1230789600, None)
    """
    return None if text == "auto" else parse_date(text, "start", or_else="auto or ")


def parse_speed(text: str) -> float:
    """A speed as typed: event seconds per second, or "max" (infinity).

    >>> parse_speed("max")
    inf
    """
    try:
        return math.inf if text == "max" else float(text)
    except ValueError:
        raise ConfigError(
            f"speed: expected event seconds per second (86400: a day a second) or max, found {text!r}"
        ) from None


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """One replay; together with the data these decide what is published, and how fast.

    week, start: the live part begins ``week - 1`` weeks after ``start`` ("auto" or a date); all before is training.
    speed: event seconds per second, ``math.inf`` for as fast as possible; rate: mean events per second instead.
    limit: at most so many live ratings; until: no rating that arrives at or after this date.
    drift: what is injected, each ``kind@week:strength``; lateness_s: the bound that injected late records exceed.
    Raises ConfigError for anything that cannot be meant.
    """

    week: int = 10
    start: str = "auto"
    speed: float | None = None
    rate: float | None = None
    arrival: str = "recorded"
    limit: int | None = None
    until: str | None = None
    partitions: int = 4
    seed: int = 0
    drift: tuple[str, ...] = ()
    lateness_s: int = DAY_S

    def __post_init__(self) -> None:
        if not 1 <= self.week <= _LAST_WEEK:
            raise ConfigError(f"week: expected 1 to {_LAST_WEEK:,}, found {self.week}; week 1 begins at --start")
        if self.speed is not None and self.rate is not None:
            raise ConfigError(
                "speed and rate: expected one of them, found both; --rate sets events per second by itself"
            )
        if self.speed is not None and not self.speed > 0:
            raise ConfigError(f"speed: expected event seconds per second above 0 or max, found {self.speed:g}")
        if self.rate is not None and not (self.rate > 0 and math.isfinite(self.rate)):
            raise ConfigError(
                f"rate: expected events per second above 0, found {self.rate:g}; use --speed max for no limit"
            )
        if self.arrival not in ARRIVALS:
            raise ConfigError(f"arrival: expected one of {', '.join(ARRIVALS)}, found {self.arrival!r}")
        if self.arrival != "recorded" and self.rate is None:
            raise ConfigError(f"arrival {self.arrival}: expected a rate beside it, found none; add --rate 700, say")
        if self.limit is not None and self.limit < 0:
            raise ConfigError(f"limit: expected 0 or more live ratings, found {self.limit}")
        if not 1 <= self.partitions <= MAX_PARTITIONS:
            raise ConfigError(f"partitions: expected 1 to {MAX_PARTITIONS:,}, found {self.partitions}")
        if self.seed < 0:
            raise ConfigError(f"seed: expected 0 or more, found {self.seed}")
        if self.lateness_s < 0:
            raise ConfigError(f"lateness_s: expected seconds from 0 on, found {self.lateness_s}")
        parse_start(self.start)
        object.__setattr__(self, "drift", tuple(map(str, parse_drifts(self.drift))))
        for drift in parse_drifts(self.drift):
            if not self.week <= drift.week <= _LAST_WEEK:
                raise ConfigError(
                    f"drift {drift}: expected a week from {self.week}, when the live part begins, "
                    f"up to {_LAST_WEEK:,}, found {drift.week}"
                )
        if self.until is not None:
            parse_date(self.until, "until")

    def as_dict(self) -> dict[str, object]:
        """The options as JSON values; the speed "max" by that name. Without drift, no word of it.

        So runs keep the ids they had before there was any.
        """
        options: dict[str, object] = asdict(self)
        options["drift"] = list(self.drift)
        if not any(drift.kind == "late" for drift in parse_drifts(self.drift)):
            del options["lateness_s"]
        if not self.drift:
            del options["drift"]
        if self.rate is None:
            speed = DEFAULT_SPEED if self.speed is None else self.speed
            options["speed"] = "max" if math.isinf(speed) else speed
        return options
