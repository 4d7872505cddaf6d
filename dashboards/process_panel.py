"""Panel of the production page: what each process costs, and whether it is up."""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.live import Live
from dashboards.panels import STALE_S, age_text, empty, note, number, panel, pill, table
from dashboards.process_figures import ProcessRow, process_rows

__all__ = ["process_panel"]

_GONE_S = 900.0
"""A process that has not been heard of for so long was ended, and is not missed."""


def process_panel(live: Live) -> None:
    records, now = live.subscriber.records, live.now()
    rows = [row for row in process_rows(records, now) if now - row.at < _GONE_S]
    at = max((row.at for row in rows), default=None)
    with panel("processes", "Processes", at, now, heard=live.bus_heard):
        if not rows:
            empty("No heartbeats yet", "Each process tells once a second what it costs.")
            return
        table(
            ["role", "process", "state", "up, 10 min", "CPU, cores", "RSS, MiB", "written, MiB"],
            [
                [
                    row.role,
                    _name(row, rows),
                    _state(row, live.store.ended, now),
                    f"{row.available:.1%}",
                    number(row.cpu, 2),
                    number(row.rss_mib),
                    number(row.written_mib, 1),
                ]
                for row in rows
            ],
            numbers=(3, 4, 5, 6),
            label="Processes",
        )
        files = live.store.files
        if files:
            note("on disk: " + ", ".join(f"{name} {size:,.1f} MiB" for name, size in files.items()))


def _name(row: ProcessRow, rows: Sequence[ProcessRow]) -> str:
    """Its pid; with the machine where there are several."""
    several = len({one.host for one in rows}) > 1
    return f"{row.host} {row.pid}" if several else row.pid


def _state(row: ProcessRow, ended: bool, now: float) -> str:
    if now - row.at < STALE_S:
        return pill("up", "good")
    if ended:
        return pill("done", "idle")
    return pill(f"silent, {age_text(now - row.at)}", "warn")
