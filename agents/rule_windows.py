"""The rules' windows from close to close: what each is compared with, and for how many closes it has been breached."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from agents.day_sums import DayBook, PopularityProfile
from agents.measures import OF_FEEDBACK, OF_MODEL, OF_TRAINING, SAMPLE, Baseline, Measure, measure, value_of
from agents.retrain_decision import breaches
from agents.thresholds import Thresholds
from streams.records import Int64s

__all__ = ["RuleWindows"]


class RuleWindows:
    """Of one champion after the other.

    model_day: the first day of the champion's. baselines, floors (the first day that may count), breached (closes in a
    row): by measure, as far as there is one of its own.
    """

    def __init__(self, thresholds: Thresholds, live_day: int) -> None:
        self._thresholds = thresholds
        self.model_day = live_day
        self.baselines: dict[str, Baseline] = {}
        self.floors: dict[str, int] = {}
        self.breached: dict[str, int] = {}

    def go_live(self, book: DayBook, last_day: int) -> None:
        """The training part ends with ``last_day``: take the baselines that are of it."""
        wanted = self._thresholds
        for name in OF_TRAINING:
            rule = wanted.rules.get(name)
            reaching = None if rule is None else book.reaching(SAMPLE[name], rule.min_sample, last_day)
            if reaching is None:
                continue
            sums = book.total(min(reaching, last_day - wanted.baseline_days + 1), last_day)
            self.baselines[name] = Baseline(value_of(name, sums, assumptions=wanted.assumptions), "training")

    def promoted(self, first_day: int, baselines: Mapping[str, float]) -> None:
        """Another champion serves from ``first_day`` on; what was measured of the old one no longer counts."""
        self.model_day = first_day
        self.baselines = {name: b for name, b in self.baselines.items() if b.origin == "training"}
        self.baselines |= {name: Baseline(value, "champion") for name, value in baselines.items()}
        self.floors, self.breached = {}, {}

    def measured(
        self,
        name: str,
        day: int,
        book: DayBook,
        *,
        profile: PopularityProfile | None,
        training_stars: Int64s | None,
        simulated: bool,
    ) -> Measure:
        """The measure at the close of ``day``, once for each close: it counts those on which its rule was breached.

        simulated: made-up users have clicked by then.
        """
        rule, first_day = self._thresholds.rules[name], book.first_day
        of_book = day if first_day is None else first_day
        floor = max(of_book, self.floors.get(name, of_book if name == "volume" else self.model_day))
        found = measure(
            book,
            name,
            rule,
            day,
            floor=floor,
            longest_days=self._thresholds.longest_days,
            assumptions=self._thresholds.assumptions,
            profile=profile,
            training_stars=training_stars,
        )
        made_up = simulated and name in OF_FEEDBACK
        if found.value is None:  # neither a breach nor a recovery
            return _with(found, None, self.breached.get(name, 0), made_up)
        baseline = found.baseline or self._baseline_of(name, made_up)
        if baseline is None and name in (*OF_MODEL, *OF_TRAINING):
            # Nothing to compare the first window with: it is what the following ones are compared with.
            self.baselines[name], self.floors[name] = Baseline(found.value, "first_window"), day + 1
        breached = breaches(rule, _with(found, baseline, 0, made_up))
        self.breached[name] = self.breached.get(name, 0) + 1 if breached else 0
        return _with(found, baseline, self.breached[name], made_up)

    def _baseline_of(self, name: str, made_up: bool) -> Baseline | None:
        fixed = self._thresholds.baselines.get(name)
        if fixed is not None:
            return Baseline(fixed, "fixed")
        known = self.baselines.get(name)
        if known is not None and known.origin == "champion" and made_up:
            return None  # a validation replays what was rated: made-up users click at another rate
        return known


def _with(found: Measure, baseline: Baseline | None, breached_closes: int, simulated: bool) -> Measure:
    return msgspec.structs.replace(found, baseline=baseline, breached_closes=breached_closes, simulated=simulated)
