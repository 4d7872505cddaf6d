"""Measures over windows of event days: what rules compare, and on how much it stands.

A window is a rule's days or as many as hold its smallest sample, whichever is longer. One that cannot reach its sample
is *insufficient*: neither a breach nor a recovery.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from agents.day_sums import BINS, DayBook, PopularityProfile, Sums
from agents.thresholds import Assumptions, Rule
from streams.records import Int64s

__all__ = [
    "ASSUMED",
    "OF_FEEDBACK",
    "OF_MODEL",
    "OF_TRAINING",
    "SAMPLE",
    "Baseline",
    "Measure",
    "Origin",
    "divergence",
    "measure",
    "value_of",
    "window_of",
]

SAMPLE = {
    "ctr": "slates",
    "ratings_per_session": "sessions",
    "revenue_per_user": "audience",
    "rmse": "predicted",
    "precision": "judged",
    "ndcg": "judged",
    "volume": "users",
    "new_user_share": "users",
    "new_item_share": "movies",
    "popularity_kl": "ratings",
    "rating_kl": "ratings",
}
"""What each measure's smallest sample counts."""

OF_MODEL = ("ctr", "ratings_per_session", "revenue_per_user", "rmse", "precision", "ndcg")
"""Judged by slates, sessions or predictions of one champion: its baseline is its own, or its first window's."""

OF_FEEDBACK = ("ctr", "ratings_per_session", "revenue_per_user")
"""Made of feedback: where users are made up, so are these."""

ASSUMED = ("revenue_per_user",)
"""Made with :class:`agents.thresholds.Assumptions`, and said so wherever it is told."""

OF_TRAINING = ("new_user_share", "new_item_share")
"""Their baseline is what the last days of training were."""

Origin = Literal["fixed", "champion", "training", "first_window", "days_before"]


class Baseline(msgspec.Struct, frozen=True):
    """What a measure is compared with, and where that comes from."""

    value: float
    origin: Origin


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure at a day close. n: its sample. first_day, last_day: the window, in days since the epoch.

    value: None where the window is insufficient. baseline: None for a divergence, which is from the training part
    already, and where there is none yet. breached_closes: how many sufficient closes in a row its rule was breached,
    this one included. simulated: it is made of what made-up users did.
    """

    n: int
    value: float | None = None
    baseline: Baseline | None = None
    first_day: int
    last_day: int
    breached_closes: int = 0
    simulated: bool = False

    @property
    def sufficient(self) -> bool:
        return self.value is not None


def divergence(counts: npt.ArrayLike, baseline: npt.ArrayLike) -> float:
    """Kullback-Leibler divergence of the shares of ``counts`` from those of ``baseline`` counts, both (b,), in nats.

    Half a count is added to each bin of a side, so that an empty one is no infinite surprise.

    >>> round(divergence([400, 100], [250, 250]), 3)
    0.192
    """
    found, expected = np.asarray(counts, np.float64) + 0.5, np.asarray(baseline, np.float64) + 0.5
    found, expected = found / found.sum(), expected / expected.sum()
    return float((found * np.log(found / expected)).sum())


def _ratio(numerator: str, denominator: str) -> Callable[[Sums], float]:
    return lambda sums: sums[numerator] / sums[denominator] if sums[denominator] else 0.0


_RATIOS: Mapping[str, Callable[[Sums], float]] = {
    "ctr": _ratio("clicks", "shown"),
    "ratings_per_session": _ratio("session_ratings", "sessions"),
    "rmse": lambda sums: math.sqrt(sums["squared_error"] / sums["predicted"]),
    "precision": _ratio("precision", "judged"),
    "ndcg": _ratio("ndcg", "judged"),
    "new_user_share": _ratio("new_users", "users"),
    "new_item_share": _ratio("new_movies", "movies"),
}


def value_of(
    name: str,
    sums: Sums,
    *,
    assumptions: Assumptions,
    profile: PopularityProfile | None = None,
    training_stars: Int64s | None = None,
) -> float:
    """A measure over the sums of a window, all but volume. Divergences need what training was."""
    if name == "revenue_per_user":
        dollars = assumptions.dollars_per_click * sums["clicks"] + assumptions.dollars_per_session * sums["sessions"]
        return dollars / sums["audience"] if sums["audience"] else 0.0
    if name == "popularity_kl" and profile is not None:
        return divergence([sums[f"popularity_{decile}"] for decile in range(BINS)], profile.counts)
    if name == "rating_kl" and training_stars is not None:
        return divergence(stars_of(sums), training_stars)
    return _RATIOS[name](sums)


def stars_of(sums: Sums) -> list[float]:
    """How many ratings of half a star, of one, and so on."""
    return [sums[f"stars_{half_stars}"] for half_stars in range(1, BINS + 1)]


def window_of(book: DayBook, name: str, rule: Rule, day: int, floor: int, longest_days: int) -> int | None:
    """The first day of the window that ends with ``day``; None where it is insufficient.

    floor: the first day that may count. A window that began before it had days of another model or baseline.
    """
    by_days = day - rule.window_days + 1
    by_sample = book.reaching(SAMPLE[name], rule.min_sample, day, floor)
    if by_sample is None or by_days < floor:
        return None
    first = min(by_days, by_sample)
    return first if day - first < longest_days else None


def volume(book: DayBook, rule: Rule, day: int, floor: int, longest_days: int) -> Measure:
    """Ratings a day in the last ``window_days``, the baseline those in as many days before: more for a thin stream."""
    days = rule.window_days
    while True:
        first, before = day - days + 1, day - 2 * days + 1
        now, then = book.total(first, day), book.total(before, first - 1)
        if before < floor or days > longest_days:
            return Measure(n=int(now["users"]), first_day=first, last_day=day)
        if then["users"] >= rule.min_sample:
            break
        days += max(1, days // 7)  # by half a window a week would jump over many that suffice
    return Measure(
        n=int(then["users"]),
        value=now["ratings"] / days,
        baseline=Baseline(then["ratings"] / days, "days_before"),
        first_day=first,
        last_day=day,
    )


def measure(
    book: DayBook,
    name: str,
    rule: Rule,
    day: int,
    *,
    floor: int,
    longest_days: int,
    assumptions: Assumptions,
    profile: PopularityProfile | None,
    training_stars: Int64s | None,
) -> Measure:
    """A measure at the close of ``day``, without its baseline but for volume's."""
    if name == "volume":
        return volume(book, rule, day, floor, longest_days)
    first = window_of(book, name, rule, day, floor, longest_days)
    if first is None:
        since = max(floor, day - longest_days + 1)
        return Measure(n=int(book.total(since, day)[SAMPLE[name]]), first_day=since, last_day=day)
    sums = book.total(first, day)
    value = value_of(name, sums, assumptions=assumptions, profile=profile, training_stars=training_stars)
    return Measure(n=int(sums[SAMPLE[name]]), value=value, first_day=first, last_day=day)
