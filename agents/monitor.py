"""The monitor: a state machine over event days. It has no bus, no store and no clock.

Fed with columns in any portions, it closes a day when told to: sorts what came by then, adds it up, feeds the
detectors, measures every rule's window, and decides. Days before ``live_from`` are training, of which it only takes
baselines. The same records give the same days, alerts and decisions however they were cut, and wherever the state was
saved and loaded in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.day_sums import BINS, DayBook, PopularityProfile, Seen, add_up
from agents.detectors import Detector
from agents.monitor_columns import FeedbackColumns, PackedArray, RatingColumns, SlateColumns, pack, unpack
from agents.monitor_state import NEXT, MonitorState, decode_state, encode_state
from agents.retrain_decision import Decision, DetectorReading, Metrics, evidence_of, rounded, should_retrain
from agents.rule_windows import RuleWindows
from agents.signals import signals_of
from agents.slate_outcomes import OpenSlates
from agents.taste_book import TasteBook
from agents.thresholds import Thresholds
from agents.waiting_columns import WaitingColumns
from featurestore.catalogue import EMPTY_CATALOGUE, Catalogue
from models.interactions import Float32s
from streams.errors import StateOutdated
from streams.events import DAY_S, Alert
from streams.records import Int64s

__all__ = ["ClosedDay", "Foresee", "Monitor"]

Foresee = Callable[[int, Int64s, Int64s], Float32s]
"""Given a day, and users and movies (n,) of its ratings: the stars (n,) that a model fitted before, which knows of each
user what was rated before the day, would have said; NaN for none."""

_NO_UNITS = np.zeros(0)

_FEEDBACK_SIGNALS = ("ctr", "session_length")

_MODEL_SIGNALS = ("ctr", "abs_error", "popularity")
"""They change with the champion, so their detectors begin anew with it."""


@dataclass(frozen=True, slots=True)
class ClosedDay:
    """What a day gave. n_late: ratings that came after their own day was closed, and count with this one."""

    metrics: Metrics
    alerts: list[Alert]
    decision: Decision
    n_late: int


class Monitor:
    """Of one run and its champion. live_from: event time, seconds since the epoch, at which the live part begins.

    catalogue: the movies' genres; without them no taste is known, nor whether it turns. simulated: whether made-up
    users had clicked by the last close. From then on all that is made of feedback says so.
    """

    def __init__(self, thresholds: Thresholds, live_from: int, catalogue: Catalogue = EMPTY_CATALOGUE) -> None:
        self.thresholds = thresholds
        self.live_day = live_from // DAY_S
        self.closed_day: int | None = None
        self.asked_day: int | None = None
        self.simulated = False
        self._waiting = WaitingColumns()
        self._seen = Seen()
        self._taste = TasteBook(catalogue)
        self._stars = np.zeros(BINS, np.int64)
        self._slates = OpenSlates()
        self._book = DayBook()
        self._rules = RuleWindows(thresholds, self.live_day)
        self._profile: PopularityProfile | None = None
        self._training_stars: Int64s | None = None
        self._alerting: set[str] = set()
        self._detectors = {name: Detector(rule) for name, rule in thresholds.detectors.items()}
        self._fired: dict[str, int] = {}

    def add(
        self,
        *,
        ratings: RatingColumns | None = None,
        slates: SlateColumns | None = None,
        feedback: FeedbackColumns | None = None,
    ) -> None:
        """Keep records, of any days and in any order, until their day is closed."""
        for kind, columns in (("ratings", ratings), ("slates", slates), ("feedback", feedback)):
            self._waiting.add(kind, columns)

    def close(
        self, day: int, offsets: Mapping[str, int] | None = None, foresee: Foresee | None = None
    ) -> list[ClosedDay]:
        """Close all days up to ``day`` (counted since the epoch) that have records; what each live one gave.

        offsets: of the log, by partition, up to which was read; they become evidence. foresee: asked once for each live
        day, where ratings do not come with what was predicted.
        """
        if self.closed_day is not None and day <= self.closed_day:
            return []  # what came late waits for the next day
        found = []
        for one, (ratings, slates, feedback) in self._waiting.days_to(day, self.closed_day):
            if foresee is not None and one >= self.live_day:
                ratings = _foreseen(one, ratings, foresee)
            closed = self._close(one, dict(offsets or {}), ratings, slates, feedback)
            if closed is not None:
                found.append(closed)
        self.closed_day = day
        return found

    def promoted(self, day: int, baselines: Mapping[str, float]) -> None:
        """Another champion serves from the day after ``day`` on; ``baselines``: of its validation window, by measure.

        What was measured of the old one no longer counts; the popularity and the stars that it was trained on are those
        so far. From the first live day on it is the first champion, of the training part.
        """
        if self._profile is None:
            self._go_live()
        self._rules.promoted(day + 1, baselines)
        self._alerting = set()
        self._slates.forget()
        self._learn_training()
        for name, rule in self.thresholds.detectors.items():
            if rule.signal in _MODEL_SIGNALS:
                self._detectors[name] = Detector(rule)

    def to_json(self) -> bytes:
        """The whole state, records that wait for their day included."""
        profile, stars = self._profile, self._training_stars
        movies = self._seen.movies
        state = MonitorState(
            live_day=self.live_day,
            model_day=self._rules.model_day,
            closed_day=self.closed_day,
            asked_day=self.asked_day,
            waiting=self._waiting.state(),
            seen_users=_packed_set(self._seen.users),
            audience=_packed_set(self._seen.audience),
            seen_movies=(
                pack(np.fromiter(movies, np.int64, len(movies))),
                pack(np.fromiter(movies.values(), np.int64, len(movies))),
            ),
            stars=pack(self._stars),
            profile=None if profile is None else (pack(profile.movie_id), pack(profile.decile), pack(profile.counts)),
            training_stars=None if stars is None else pack(stars),
            taste=self._taste.state(),
            slates=self._slates.state(),
            book=self._book.state(),
            baselines=self._rules.baselines,
            floors=self._rules.floors,
            breached=self._rules.breached,
            alerting=sorted(self._alerting),
            detectors={name: detector.state() for name, detector in self._detectors.items()},
            fired=self._fired,
            simulated=self.simulated,
        )
        return encode_state(state, self.thresholds)

    @classmethod
    def from_json(cls, data: bytes, thresholds: Thresholds, catalogue: Catalogue = EMPTY_CATALOGUE) -> Monitor:
        """Raises StateOutdated where it is of another River, other thresholds or other genres, or damaged."""
        state = decode_state(data, thresholds)
        monitor = cls(thresholds, state.live_day * DAY_S, catalogue)
        try:
            monitor._taste = TasteBook.of(state.taste, catalogue)
        except ValueError as error:
            raise StateOutdated(f"monitor state: {error}; {NEXT}") from error
        monitor.closed_day, monitor.asked_day = state.closed_day, state.asked_day
        monitor._waiting = WaitingColumns.of(state.waiting)
        monitor._seen.users = set(unpack(state.seen_users).tolist())
        monitor._seen.audience = set(unpack(state.audience).tolist())
        ids, counts = (unpack(array).tolist() for array in state.seen_movies)
        monitor._seen.movies.update(dict(zip(ids, counts, strict=True)))
        monitor._stars = unpack(state.stars).copy()
        monitor._profile = state.profile and PopularityProfile(*map(unpack, state.profile))
        monitor._training_stars = None if state.training_stars is None else unpack(state.training_stars)
        monitor._slates, monitor._book = OpenSlates.of(state.slates), DayBook.of(state.book)
        rules, monitor._alerting = monitor._rules, set(state.alerting)
        rules.model_day, rules.baselines = state.model_day, dict(state.baselines)
        rules.floors, rules.breached = dict(state.floors), dict(state.breached)
        for name, detector in state.detectors.items():
            monitor._detectors[name] = Detector(thresholds.detectors[name], detector)
        monitor._fired = dict(state.fired)
        monitor.simulated = state.simulated
        return monitor

    def _close(
        self,
        day: int,
        offsets: dict[str, int],
        ratings: RatingColumns,
        slates: SlateColumns,
        feedback: FeedbackColumns,
    ) -> ClosedDay | None:
        live = day >= self.live_day
        if live and self._profile is None:
            self._go_live()
        decile = None if self._profile is None else self._profile.deciles_of(ratings.movie_id)
        self.simulated |= bool(feedback.simulated.any())
        self._seen.audience.update(slates.user_id.tolist(), feedback.user_id.tolist())
        judged = self._slates.close((day + 1) * DAY_S, ratings, slates)
        sums, new_users = add_up(ratings, feedback, judged, self._seen, decile)
        self._stars += np.bincount(ratings.half_stars, minlength=BINS + 1)[1:]
        silent = 0 if self._book.last_day is None else day - self._book.last_day - 1
        self._book.add(day, sums, keep_from=day - 2 * self.thresholds.longest_days)
        turned = self._taste.add(ratings)
        units = signals_of(ratings, feedback, new_users=new_users, decile=decile, turned=turned, silent_days=silent)
        drifting = [
            name
            for name, rule in self.thresholds.detectors.items()
            if self._detectors[name].feed(units.get(rule.signal, _NO_UNITS))
        ]
        n_late = int((ratings.timestamp < day * DAY_S).sum())
        if not live:
            return None
        self._fired |= dict.fromkeys(drifting, day)
        metrics = self._metrics(day, offsets)
        decision = should_retrain(metrics, self.thresholds)
        if decision.retrain:
            self.asked_day = day
        return ClosedDay(metrics, self._alerts(metrics, drifting), decision, n_late)

    def _go_live(self) -> None:
        """The training part is over: take baselines from it."""
        self._learn_training()
        self._rules.go_live(self._book, self.live_day - 1)

    def _learn_training(self) -> None:
        self._profile = PopularityProfile.of(self._seen.movies)
        self._training_stars = self._stars.copy()

    def _metrics(self, day: int, offsets: dict[str, int]) -> Metrics:
        measures = {
            name: self._rules.measured(
                name,
                day,
                self._book,
                profile=self._profile,
                training_stars=self._training_stars,
                simulated=self.simulated,
            )
            for name in self.thresholds.rules
        }
        readings = {
            name: DetectorReading(
                signal=rule.signal,
                fired_day=self._fired.get(name),
                level=self._detectors[name].level,
                spread=self._detectors[name].spread,
                latest=self._detectors[name].latest,
                statistic=self._detectors[name].statistic,
                simulated=self.simulated and rule.signal in _FEEDBACK_SIGNALS,
            )
            for name, rule in self.thresholds.detectors.items()
        }
        return Metrics(day=day, measures=measures, detectors=readings, asked_day=self.asked_day, offsets=offsets)

    def _alerts(self, metrics: Metrics, drifting: Sequence[str]) -> list[Alert]:
        """Of rules from the close on which they begin to fire, until they recover; of detectors, each time."""
        alerts = []
        for name, measured in metrics.measures.items():
            rule = self.thresholds.rules[name]
            if not measured.sufficient:
                continue
            if measured.breached_closes < rule.for_days:
                self._alerting.discard(name)
            elif name not in self._alerting:
                self._alerting.add(name)
                evidence = evidence_of(name, measured, self.thresholds)
                alerts.append(Alert(name, rule.severity, "threshold", evidence, metrics.event_time))
        for name in drifting:
            reading = metrics.detectors[name]
            evidence = {"signal": reading.signal, "latest": rounded(reading.latest)}
            if reading.simulated:
                evidence["simulated"] = True
            alerts.append(Alert(name, "investigate", "drift", evidence, metrics.event_time))
        return alerts


def _foreseen(day: int, ratings: RatingColumns, foresee: Foresee) -> RatingColumns:
    """What came late gets no stars: what its user had rated by the day holds the rating itself."""
    asked = np.flatnonzero(ratings.timestamp >= day * DAY_S)
    predicted = np.full(len(ratings), np.nan, np.float32)
    if len(asked):
        predicted[asked] = foresee(day, ratings.user_id[asked], ratings.movie_id[asked])
    return replace(ratings, predicted=predicted)


def _packed_set(ids: set[int]) -> PackedArray:
    return pack(np.sort(np.fromiter(ids, np.int64, len(ids))))
