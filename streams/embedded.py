"""The embedded bus: :mod:`streams.bus` over :class:`streams.log.EmbeddedLog`, in a file or in memory.

One thread appends (:mod:`streams.appender`), consumers read in the event loop (:mod:`streams.embedded_consumer`) and
learn of other processes' records by polling (:mod:`streams.tail`). POSIX only, for the group locks.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.appender import Appender
from streams.bus import OffsetRange, TopicInfo, TopicSpec
from streams.embedded_consumer import EmbeddedConsumer
from streams.embedded_producer import EmbeddedProducer
from streams.errors import BusError, ConfigError
from streams.log import EmbeddedLog
from streams.membership import FileLease, MemoryLease
from streams.records import TopicPartition
from streams.tail import Tail

__all__ = ["EmbeddedBus"]

_TOPIC_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")  # Kafka's rule, so that a run can move there

_named: dict[str, tuple[EmbeddedLog, int]] = {}
"""Named logs in memory, and how many buses have each open."""

_named_lock = threading.Lock()


class EmbeddedBus:
    """``memory://[name]`` or ``sqlite:///PATH``; see :mod:`streams.bus`. Raises ConfigError for another URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        scheme, _, rest = url.partition("://")
        self._name = rest if scheme == "memory" else ""
        self._path: Path | None = None
        if scheme == "sqlite":
            path = rest.removeprefix("/")
            if not rest.startswith("/") or not path or path.endswith("/") or path == ":memory:":
                raise ConfigError(
                    f"bus URL: expected sqlite:///PATH/bus.db (four slashes for an absolute path), found {url!r}"
                )
            self._path = Path(path)
        elif scheme != "memory":
            raise ConfigError(f"bus URL: expected memory://NAME or sqlite:///PATH/bus.db, found {url!r}")
        self._opened: _Opened | None = None

    async def __aenter__(self) -> Self:
        if self._opened is None:
            log = await asyncio.to_thread(self._open_log)
            self._opened = _Opened(log, Appender(log), Tail(log))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Write what producers have sent, then close. A second call does nothing."""
        opened, self._opened = self._opened, None
        if opened is not None:
            await asyncio.to_thread(opened.appender.close)
            opened.tail.close()
            await asyncio.to_thread(self._close_log, opened.log)

    def _open_log(self) -> EmbeddedLog:
        if not self._name:
            return EmbeddedLog(self._path)
        with _named_lock:
            log, users = _named.get(self._name) or (EmbeddedLog(None), 0)
            _named[self._name] = log, users + 1
        return log

    def _close_log(self, log: EmbeddedLog) -> None:
        if self._name:
            with _named_lock:
                _, users = _named.pop(self._name)
                if users > 1:
                    _named[self._name] = log, users - 1
                    return
        log.close()

    def _use(self) -> _Opened:
        if self._opened is None:
            raise BusError(f"bus {self.url}: not open; use `async with open_bus(url) as bus`")
        return self._opened

    # Topics and offsets

    async def create_topics(self, *specs: TopicSpec) -> None:
        """See :meth:`streams.bus.Bus.create_topics`; all or nothing."""
        for spec in specs:
            if not _TOPIC_NAME.fullmatch(spec.name) or spec.name in (".", ".."):
                raise BusError(f"topic name: expected 1 to 249 of a-z A-Z 0-9 . _ -, found {spec.name!r}")
            if spec.partitions < 1:
                raise BusError(f"topic {spec.name!r}: expected at least 1 partition, found {spec.partitions}")
        await asyncio.to_thread(self._use().log.create_topics, specs)

    async def topics(self) -> dict[str, TopicInfo]:
        """All topics by name."""
        return self._use().log.topics()

    async def offsets(self, topic: str) -> dict[TopicPartition, OffsetRange]:
        """Start and end of each partition. Raises UnknownTopic."""
        log = self._use().log
        log.topic(topic)
        return log.offsets([topic])

    async def enforce_retention(self, now_ms: int) -> int:
        """See :meth:`streams.bus.Bus.enforce_retention`; in steps, between which others append."""
        log = self._use().log
        dropped = 0
        while step := await asyncio.to_thread(log.expire, now_ms):
            dropped += step
        return dropped

    # Groups

    async def groups(self) -> list[str]:
        """The groups that have committed something."""
        return self._use().log.groups()

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        """The committed offsets of a group."""
        return self._use().log.committed(group)

    # Clients

    def producer(self, *, linger_ms: float = 5.0, max_pending_bytes: int = 64 << 20) -> EmbeddedProducer:
        """A producer. ``linger_ms``: how far apart commits are held under load; a lone record never waits."""
        opened = self._use()
        return EmbeddedProducer(opened.log, opened.appender, linger_ms / 1_000, max_pending_bytes)

    async def consumer(self, *topics: str, group: str | None = None) -> EmbeddedConsumer:
        """See :meth:`streams.bus.Bus.consumer`."""
        opened = self._use()
        for topic in topics:
            opened.log.topic(topic)
        # Not in a thread: a caller cancelled meanwhile would leave a lock behind that nobody could release.
        leave = None if group is None else _join(opened.log, group)
        try:
            positions = {tp: held.start for tp, held in opened.log.offsets(topics).items()}
            committed = {} if group is None else opened.log.committed(group)
            positions.update({tp: offset for tp, offset in committed.items() if tp in positions})
            return EmbeddedConsumer(opened.log, opened.tail, positions, group, leave)
        except BaseException:
            if leave is not None:
                leave()
            raise


class _Opened:
    """What a bus holds while it is open."""

    def __init__(self, log: EmbeddedLog, appender: Appender, tail: Tail) -> None:
        self.log = log
        self.appender = appender
        self.tail = tail


def _join(log: EmbeddedLog, group: str) -> Callable[[], None]:
    """Become the group's one member; returns what leaves it. Raises GroupBusy."""
    if log.path is None:
        return MemoryLease(log.held_groups, group).release
    return FileLease(log.path.with_name(f"{log.path.name}.groups"), group).release
