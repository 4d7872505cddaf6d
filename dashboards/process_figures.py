"""The processes of a run as their heartbeats tell of them: no Streamlit here, and no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dashboards.live_records import LiveRecords
from dashboards.rings import Point, Series
from models.metrics import Floats

__all__ = ["ROLES", "ProcessRow", "availability", "process_rows"]

ROLES = ("replayer", "features", "loop", "monitors", "trainer")
"""In the order of the path of a rating; others come after them."""

_BIN_S = 5.0
_WINDOW_S = 600.0


def availability(at: Floats, now: float, *, window_s: float = _WINDOW_S, bin_s: float = _BIN_S) -> float:
    """Share of the last ``window_s``, from the first heartbeat in it on, whose parts of ``bin_s`` hold a heartbeat.

    at: wall times of heartbeats, rising. The part that runs now does not count until it is over.

    >>> availability(np.arange(0.0, 60.0), now=60.0), availability(np.arange(0.0, 30.0), now=60.0)
    (1.0, 0.5)
    """
    seen = at[(at > now - window_s) & (at <= now)]
    if not len(seen):
        return 0.0
    n = int((now - seen[0]) / bin_s)
    if n == 0:
        return 1.0
    bins = np.unique(((seen - seen[0]) / bin_s).astype(int))
    return float((bins < n).sum() / n)


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process, and those whose place it took. cpu in cores; None where it is not told.

    available: of all of them together, so that the gap of a restart shows.
    """

    role: str
    host: str
    pid: str
    cpu: float | None
    rss_mib: float | None
    written_mib: float | None
    at: float
    available: float


def process_rows(records: LiveRecords, now: float) -> list[ProcessRow]:
    """A row for each process that has told of itself; one that was started after another fell silent takes its row."""
    by_role: dict[str, list[Series]] = {}
    for series in records.all_series("process.rss_mib"):
        if len(series) and "role" in series.labels:
            by_role.setdefault(series.labels["role"], []).append(series)
    rows = [_row(records, role, seat, now) for role, of_role in by_role.items() for seat in _seats(of_role)]
    order = {role: i for i, role in enumerate(ROLES)}
    return sorted(rows, key=lambda row: (order.get(row.role, len(order)), row.role, row.host, row.pid))


def _seats(processes: list[Series]) -> list[list[Series]]:
    """Processes of a role, each list in the order in which they took each other's place."""
    seats: list[list[Series]] = []
    for process in sorted(processes, key=lambda series: float(series.at[0])):
        free = [seat for seat in seats if seat[-1].at[-1] < process.at[0]]
        if free:
            max(free, key=lambda seat: float(seat[-1].at[-1])).append(process)
        else:
            seats.append([process])
    return seats


def _row(records: LiveRecords, role: str, seat: list[Series], now: float) -> ProcessRow:
    newest = seat[-1]
    cpu, written = (records.latest(f"process.{name}", **newest.labels) for name in ("cpu", "written_mib"))
    return ProcessRow(
        role,
        newest.labels.get("host", ""),
        newest.labels.get("pid", ""),
        _value(cpu),
        float(newest.value[-1]),
        _value(written),
        float(newest.at[-1]),
        availability(np.concatenate([series.at for series in seat]), now),
    )


def _value(point: Point | None) -> float | None:
    return None if point is None else point.value
