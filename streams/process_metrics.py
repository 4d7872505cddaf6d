"""What a process costs, as metrics; that they come is its heartbeat."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path

import msgspec
import structlog

from streams.bus import Bus
from streams.errors import BusError
from streams.events import METRICS, Metric

__all__ = ["ProcessMetrics", "publish_process"]

_STATM = Path("/proc/self/statm")
_IO = Path("/proc/self/io")

log = structlog.get_logger(__name__)


class ProcessMetrics:
    """Of this process; each call of :meth:`take` covers the time since the last.

    ``process.cpu`` in cores, all threads together; ``process.rss_mib`` now (where the system only tells the most it
    ever was: that); ``process.written_mib`` to disk since it started, absent where the system does not tell. Each with
    the labels ``role``, ``host`` and ``pid``: in containers all pids are 1.
    """

    def __init__(
        self,
        role: str,
        *,
        wall_s: Callable[[], float] = time.time,
        cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        self._labels = {"role": role, "host": socket.gethostname(), "pid": str(os.getpid())}
        self._wall_s, self._cpu_s = wall_s, cpu_s
        self._since, self._used = wall_s(), cpu_s()
        self._source = f"process/{uuid.uuid4().hex[:12]}"
        self._ids = count(1)

    def take(self, beside: Mapping[str, float] | None = None) -> list[Metric]:
        """The metrics now, those ``beside`` them without labels."""
        now, used = self._wall_s(), self._cpu_s()
        values = {
            "process.cpu": (used - self._used) / max(now - self._since, 1e-3),
            "process.rss_mib": _rss_mib(),
        }
        written = _written_mib()
        if written is not None:
            values["process.written_mib"] = written
        self._since, self._used = now, used
        return [
            Metric(name, value, now, labels, source=self._source, event_id=next(self._ids))
            for named, labels in ((values, self._labels), (beside or {}, {}))
            for name, value in named.items()
        ]


def _rss_mib() -> float:
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most / (2**20 if sys.platform == "darwin" else 2**10)


def _written_mib() -> float | None:
    try:
        fields = dict(line.split(": ") for line in _IO.read_text().splitlines())
        return int(fields["write_bytes"]) / 2**20
    except (OSError, KeyError, ValueError):
        return None


async def publish_process(
    bus: Bus, role: str, *, every_s: float = 1.0, beside: Callable[[], Mapping[str, float]] = dict
) -> None:
    """Publish until cancelled, then once more. Metrics that the bus refuses are gone: the next ones say the same.

    beside: names and values of other metrics that go out with these.
    """
    metrics = ProcessMetrics(role)
    try:
        while True:
            await asyncio.sleep(every_s)
            await _publish(bus, metrics.take(beside()))
    finally:
        await _publish(bus, metrics.take(beside()))


async def _publish(bus: Bus, metrics: list[Metric]) -> None:
    try:
        async with bus.producer() as producer:
            for metric in metrics:
                await producer.send(METRICS, msgspec.json.encode(metric), key=metric.name.encode())
            await producer.flush()
    except BusError as error:
        log.warning("process metrics not published", error=str(error))
