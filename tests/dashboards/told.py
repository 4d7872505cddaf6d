"""What the agents of a run tell, put on its bus at once: so that each panel of the pages has something to show."""

from __future__ import annotations

import time

import msgspec

from streams.drift import GROUND_TRUTH, GroundTruth, InjectedDrift
from streams.events import (
    ALERTS,
    DAY_S,
    DEADLETTER,
    FEEDBACK,
    METRICS,
    RATINGS,
    Alert,
    DeadLetter,
    Feedback,
    Metric,
)
from streams.run import RunFolder
from tests.dashboards.runs import publish

__all__ = ["N_LETTERS", "inject", "tell"]

N_LETTERS = 23
_DAYS = 40
_BEATS = 30


def inject(run: RunFolder) -> None:
    """Have the run's folder say that drift was put in."""
    assert run.info.split is not None
    begins = run.info.split.cutoff + 20 * DAY_S
    drift = InjectedDrift("rating-bias", 10, "high", begins, first_ordinal=1, n_records=90, parameters={})
    truth = GroundTruth(run.run_id, 0, 0, run.info.split.cutoff, 1, 2, [drift])
    run.write(GROUND_TRUTH, msgspec.json.encode(truth))


def tell(run: RunFolder) -> None:
    """Publish feedback of two variants, dead letters, alerts, measures and detectors, and heartbeats of processes."""
    assert run.info.split is not None
    cutoff, now = run.info.split.cutoff, time.time()
    publish(run, FEEDBACK, [_feedback(i, cutoff) for i in range(2_400)])
    publish(run, DEADLETTER, [_letter(i) for i in range(N_LETTERS)])
    evidence = {"rating_drift": {"latest": 3.9, "level": 3.4, "n": 1_200}}
    publish(run, ALERTS, [Alert("rating_drift", "investigate", "drift", evidence, cutoff + 24 * DAY_S)])
    metrics = [one for day in range(_DAYS) for one in _closed(day, cutoff, now - _DAYS + day)]
    metrics += [one for beat in range(_BEATS) for one in _processes(now - _BEATS + beat)]
    publish(run, METRICS, metrics)


def _feedback(i: int, cutoff: int) -> Feedback:
    variant = ("champion", "ease-20080410-challenger", "champion")[i % 3]
    clicked = [1] * (i % 5 == 0) + [2] * (i % 7 == 0 and variant == "champion")
    at = cutoff + i * DAY_S // 60
    return Feedback(
        f"s{i}", "s", i % 137, variant, "v", 10, clicked, 1 + i % 9, 60 * (i % 9), at, source="loop", event_id=i + 1
    )


def _letter(i: int) -> DeadLetter:
    reason = ("rating: expected a multiple of 0.5 from 0.5 to 5, found 7", "not a rating: JSON is malformed")[i % 2]
    payload = '{"user_id":7,"movie_id":31,"rating":7,"timestamp":1260759144}' if i % 2 == 0 else '{"user_id":'
    return DeadLetter(RATINGS, 0, i, reason, payload, source="run", event_id=i + 1)


def _closed(day: int, cutoff: int, at: float) -> list[Metric]:
    """What the monitors tell of one event day: stars rise from the 20th on."""
    drifted = max(day - 20, 0)
    told: list[tuple[str, float, dict[str, str]]] = [
        ("closed", cutoff + day * DAY_S, {}),
        ("ctr", 0.03 + 0.002 * (day % 5), {}), ("ctr.baseline", 0.034, {}), ("ctr.threshold", 0.0289, {"bound": "low"}),
        ("volume", 60 + 7 * (day % 4), {}), ("volume.threshold", 42, {"bound": "low"}),
        ("volume.threshold", 91, {"bound": "high"}),
        ("rating_kl", 0.01 + 0.01 * drifted, {}), ("rating_kl.threshold", 0.1, {"bound": "high"}),
        ("detector.statistic", 2 + day % 3 + 3.0 * drifted, {"detector": "rating_drift"}),
        ("detector.threshold", 14, {"detector": "rating_drift"}),
        ("detector.latest", 3.4 + 0.03 * drifted, {"detector": "rating_drift"}),
        ("detector.latest", 0.5 + 0.01 * (day % 6), {"detector": "taste_drift"}),
        ("detector.level", 0.52, {"detector": "taste_drift"}),
        ("detector.significance", 0.002, {"detector": "taste_drift"}),
    ]  # fmt: skip
    event_time = cutoff + day * DAY_S
    return [Metric(f"monitors.{name}", value, at, labels, event_time=event_time) for name, value, labels in told]


def _processes(at: float) -> list[Metric]:
    """Heartbeats of two workers of one role, and of another role."""
    return [
        Metric(f"process.{name}", value, at, {"role": role, "host": "machine", "pid": pid})
        for role, pid in (("features", "4101"), ("features", "4102"), ("loop", "4200"))
        for name, value in (("cpu", 0.25), ("rss_mib", 180.0), ("written_mib", 12.5))
    ]
