"""All that is measured of a run: the champion against its thresholds, and each variant of the experiment beside it.

Pure, as :mod:`agents.monitor`. Only slates and feedback of variants that show the champion reach the thresholds, so
that a bad challenger never asks for a training; ratings are everybody's. Each variant has a monitor of its own without
thresholds' consequences, over the ratings of those who were shown its slates.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from agents.measures import Measure
from agents.monitor import ClosedDay, Foresee, Monitor
from agents.monitor_columns import PackedArray, RatingColumns, ShownSlates, ToldFeedback, pack, unpack
from agents.thresholds import Thresholds
from agents.variant_difference import UserSums, UserSumsState
from featurestore.catalogue import EMPTY_CATALOGUE, Catalogue
from streams.errors import StateOutdated
from streams.events import DAY_S
from streams.records import Int64s

__all__ = ["OF_VARIANTS", "BaselinesOf", "RunMonitor", "Variant"]

OF_VARIANTS = ("ctr", "ratings_per_session", "precision", "ndcg")
"""What is measured of each variant."""

BaselinesOf = Callable[[str], Mapping[str, float]]
"""The baselines of a version, by measure, from its validation; none where it is not known."""


@dataclass(slots=True)
class Variant:
    """One variant: its monitor, its users, rising, clicks by movies shown of each, and what was measured last."""

    monitor: Monitor
    users: Int64s = field(default_factory=lambda: np.zeros(0, np.int64))
    clicks: UserSums = field(default_factory=UserSums)
    measures: dict[str, Measure] = field(default_factory=dict)


class _VariantState(msgspec.Struct, frozen=True):
    monitor: msgspec.Raw
    users: PackedArray
    clicks: UserSumsState
    measures: dict[str, Measure]


class _RunState(msgspec.Struct, frozen=True):
    monitor: msgspec.Raw
    variants: dict[str, _VariantState]
    version: str | None


class RunMonitor:
    """champions: the variants that show the champion. Others as in :class:`agents.monitor.Monitor`."""

    def __init__(
        self,
        thresholds: Thresholds,
        live_from: int,
        champions: frozenset[str],
        catalogue: Catalogue = EMPTY_CATALOGUE,
    ) -> None:
        self.champion = Monitor(thresholds, live_from, catalogue)
        self.variants: dict[str, Variant] = {}
        self.version: str | None = None
        """The champion's, as of the last slate of its variants that was closed; None before the first."""
        self.champions = champions
        self._live_from = live_from
        rules = {name: rule for name, rule in thresholds.rules.items() if name in OF_VARIANTS}
        self._of_variants = msgspec.structs.replace(thresholds, rules=rules, detectors={}, baselines={})

    def close(
        self,
        day: int,
        ratings: RatingColumns,
        slates: ShownSlates,
        feedback: ToldFeedback,
        *,
        offsets: Mapping[str, int],
        foresee: Foresee | None,
        baselines_of: BaselinesOf,
    ) -> list[ClosedDay]:
        """Take in what came, and close all days up to ``day``, counted since the epoch; what each live one gave."""
        shown, told = self._of_champion(slates.variant), self._of_champion(feedback.variant)
        self.champion.add(ratings=ratings, slates=slates.plain(shown), feedback=feedback.plain(told))
        closed: list[ClosedDay] = []
        for first_day, version in self._changes(slates.take(shown & (slates.timestamp < (day + 1) * DAY_S))):
            closed += self.champion.close(first_day - 1, offsets, foresee)
            self.champion.promoted(first_day - 1, baselines_of(version))
            self.version = version
        closed += self.champion.close(day, offsets, foresee)
        self._close_variants(day, ratings, slates, feedback)
        return closed

    def _of_champion(self, variant: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        return np.array([name in self.champions for name in variant.tolist()], bool)

    def _changes(self, slates: ShownSlates) -> list[tuple[int, str]]:
        """From which days on the champion's slates are mostly of another version. A draw changes nothing."""
        changes = []
        version = self.version
        days = slates.timestamp // DAY_S
        after = -1 if self.champion.closed_day is None else self.champion.closed_day
        for day in np.unique(days[days > after]).tolist():
            ((found, n), *others) = Counter(slates.version[days == day].tolist()).most_common(2)
            if found != version and not (others and others[0][1] == n):
                version = found
                changes.append((day, found))
        return changes

    def _close_variants(self, day: int, ratings: RatingColumns, slates: ShownSlates, feedback: ToldFeedback) -> None:
        for name in sorted({*slates.variant.tolist(), *feedback.variant.tolist()} - self.variants.keys()):
            self.variants[name] = Variant(Monitor(self._of_variants, self._live_from))
        for name, variant in self.variants.items():
            told = feedback.plain(feedback.variant == name)
            shown = slates.plain(slates.variant == name)
            if len(shown):
                variant.users = np.union1d(variant.users, shown.user_id)
            at = np.searchsorted(variant.users, ratings.user_id)
            own = np.append(variant.users, -1)[at] == ratings.user_id
            variant.monitor.add(ratings=ratings.take(own), slates=shown, feedback=told)
            variant.clicks.add(told.user_id, told.n_clicked, told.n_shown)
            if closed := variant.monitor.close(day):
                variant.measures = closed[-1].metrics.measures

    def to_json(self) -> bytes:
        """The whole state."""
        variants = {
            name: _VariantState(msgspec.Raw(one.monitor.to_json()), pack(one.users), one.clicks.state(), one.measures)
            for name, one in sorted(self.variants.items())
        }
        return msgspec.json.encode(_RunState(msgspec.Raw(self.champion.to_json()), variants, self.version))

    @classmethod
    def from_json(
        cls,
        data: bytes,
        thresholds: Thresholds,
        live_from: int,
        champions: frozenset[str],
        catalogue: Catalogue = EMPTY_CATALOGUE,
    ) -> RunMonitor:
        """Raises StateOutdated where it is of another River, of other thresholds or another run, or damaged."""
        try:
            state = msgspec.json.decode(data, type=_RunState)
        except msgspec.DecodeError as error:
            raise StateOutdated(f"monitors' state: expected JSON of its schema, found {error}") from error
        monitor = cls(thresholds, live_from, champions, catalogue)
        monitor.champion = Monitor.from_json(bytes(state.monitor), thresholds, catalogue)
        if monitor.champion.live_day != live_from // DAY_S:
            raise StateOutdated(
                f"monitors' state: expected the live part from day {live_from // DAY_S}, found day "
                f"{monitor.champion.live_day}"
            )
        for name, held in state.variants.items():
            of_variant = Monitor.from_json(bytes(held.monitor), monitor._of_variants)
            users, clicks = unpack(held.users), UserSums.of(held.clicks)
            monitor.variants[name] = Variant(of_variant, users, clicks, dict(held.measures))
        monitor.version = state.version
        return monitor
