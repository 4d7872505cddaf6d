"""What the ML engineering page shows of versions, decisions and requests: plain values, no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dashboards.charts import Row
from dashboards.live_records import LiveRecords, Placed
from dashboards.registry_view import RegistryView
from dashboards.units import unit_of
from models.decisions import AuditEntry
from models.experiment_files import EXPERIMENT_JSON, read_experiment
from models.registry import Version
from streams.errors import DataError
from streams.events import MODELS, RETRAIN, ModelEvent
from streams.retrain import RetrainRequested

__all__ = [
    "Asked",
    "Run",
    "asked",
    "changed_at",
    "comparison_rows",
    "epoch_rows",
    "experiment_rows",
    "final",
    "heard_of",
    "measures_of",
    "read_runs",
]

_FINAL = ("promoted", "rejected", "failed")
_LONGEST_LIST = 30


def measures_of(versions: Sequence[Version]) -> list[str]:
    """Names of what was measured of any of them, click rate first."""
    names = {
        name for version in versions if version.manifest.validation for name in version.manifest.validation.measures
    }
    return sorted(names, key=lambda name: (name != "ctr", name))


def changed_at(view: RegistryView) -> float | None:
    """Wall time of the newest version or decision; None before any."""
    times = [one.manifest.created_at for one in view.versions] + [one.at for one in view.trail]
    return max((datetime.fromisoformat(at).timestamp() for at in times), default=None)


def comparison_rows(view: RegistryView, measure: str, *, newest: int) -> list[Row]:
    """The measure of the ``newest`` versions with its interval, and of their yardsticks, as rows of a chart,
    in the unit of the measure.

    A yardstick was measured on the slates of its version; where several versions have it, the newest one's is shown.
    """
    rows: list[Row] = []
    yardsticks: dict[str, Row] = {}
    versions = view.versions[-newest:]
    ids = {version.version_id for version in versions}
    for version in versions:
        validation = version.manifest.validation
        if validation is None or measure not in validation.measures:
            continue
        rows.append(_interval_row(version.version_id, measure, validation.measures[measure], view.standing(version)))
        for name, measured in validation.yardsticks.items():
            if measure in measured:
                shown = f"{name} on slates of {version.version_id}" if name in ids else name
                yardsticks[name] = _interval_row(shown, measure, measured[measure], "yardstick")
    return rows + list(yardsticks.values())


def _interval_row(name: str, measure: str, interval: tuple[float, float, float], series: str) -> Row:
    value, low, high = (unit_of(measure).scale * one for one in interval)
    return {"name": name, "value": value, "low": low, "high": high, "series": series}


@dataclass(frozen=True, slots=True)
class Asked:
    """A retrain request, and all that was answered to it, oldest first."""

    event: RetrainRequested
    published: float
    answers: tuple[Placed, ...]

    @property
    def outcome(self) -> ModelEvent | None:
        """The answer that ends it; None while it is open."""
        return next((one.record for one in self.answers if final(one.record)), None)

    def undone(self, trail: Sequence[AuditEntry]) -> AuditEntry | None:
        """The way back from the version that was promoted on it; None where it was not promoted, or is not undone."""
        outcome = self.outcome
        if outcome is None or outcome.kind != "promoted":
            return None
        return next((e for e in trail if e.action == "rolled back" and e.previous == outcome.version), None)


def final(event: ModelEvent) -> bool:
    """Nothing more follows on the request that it answers.

    >>> final(ModelEvent("trained", "ease", "v", 0, "")), final(ModelEvent("rejected", "ease", "v", 0, "worse"))
    (False, True)
    """
    return event.kind in _FINAL


def asked(records: LiveRecords) -> list[Asked]:
    """Requests with their answers, the newest first. One that was delivered twice is one."""
    answers: dict[str, list[Placed]] = {}
    for placed in records.recent(MODELS):
        if placed.record.request is not None:
            answers.setdefault(placed.record.request, []).append(placed)
    requests: dict[str, Placed] = {}
    for placed in records.recent(RETRAIN):
        requests.setdefault(placed.record.id, placed)
    newest = sorted(requests.values(), key=lambda placed: placed.published, reverse=True)[:_LONGEST_LIST]
    return [Asked(one.record, one.published, tuple(answers.get(one.record.id, ()))) for one in newest]


def heard_of(records: LiveRecords, role: str) -> float | None:
    """Wall time of the newest heartbeat of a process of ``role``; None before any."""
    beats = [point.at for _, labels, point in records.all_latest("process.rss_mib") if labels.get("role") == role]
    return max(beats, default=None)


@dataclass(frozen=True, slots=True)
class Run:
    """A folder that ``streamlens experiment`` wrote. written_at: wall time."""

    name: str
    folder: Path
    about: dict[str, Any]
    written_at: float


def read_runs(folder: Path) -> list[Run]:
    """All of them, the newest first; one that cannot be read is left out."""
    paths = sorted(((path.stat().st_mtime, path) for path in folder.glob(f"*/{EXPERIMENT_JSON}")), reverse=True)
    runs = []
    for written_at, path in paths[:_LONGEST_LIST]:
        try:
            runs.append(Run(path.parent.name, path.parent, read_experiment(path.parent), written_at))
        except DataError:
            continue
    return runs


def experiment_rows(run: Run, measure: str) -> list[Row]:
    """Each model's measure with its interval over users in its unit, one row for each seed."""
    return [
        _interval_row(
            f"{outcome['model']}, seed {outcome['seed']}",
            measure,
            tuple(outcome["measures"][measure]),
            outcome["model"],
        )
        for outcome in run.about.get("outcomes", [])
        if measure in outcome.get("measures", {})
    ]


def epoch_rows(run: Run, column: str) -> list[Row]:
    """``loss`` or ``validation`` of the last fit of each model and seed, by epoch; none where nothing has epochs."""
    path = run.folder / "epochs.parquet"
    if not path.exists():
        return []
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid):
        return []
    last_fit: dict[tuple[str, int], int] = {}
    rows = table.to_pylist()
    for row in rows:
        last_fit[row["model"], row["seed"]] = max(row["fit"], last_fit.get((row["model"], row["seed"]), row["fit"]))
    return [
        {"epoch": row["epoch"], "value": row[column], "series": f"{row['model']}, seed {row['seed']}"}
        for row in rows
        if row["fit"] == last_fit[row["model"], row["seed"]] and row[column] is not None
    ]
