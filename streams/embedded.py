"""The embedded bus: an asyncio face over :class:`streams.log.EmbeddedLog`.

Producers hand their records to one thread that appends them, many sends to a transaction: a record that finds the log
idle is written at once, those that come within ``linger_ms`` of the last commit go together. Consumers read in the
event loop (a fetch takes well under a millisecond) and notice what other processes append by polling.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.bus import OffsetRange, RecordMetadata, TopicInfo, TopicSpec
from streams.errors import BusError, ConfigError, UnknownTopic
from streams.log import EmbeddedLog
from streams.membership import FileLease, MemoryLease
from streams.murmur2 import partition_for
from streams.records import RecordBatch, TopicPartition
from streams.stored_batch import Pending

__all__ = ["EmbeddedBus"]

_POLL_S = (0.002, 0.01)
"""How often a consumer looks for other processes' records: soon after some came, and while none come."""

_GROUP_COMMIT_BYTES = 8 << 20

_shared: dict[str, tuple[EmbeddedLog, int]] = {}
"""Named in-memory logs and how many buses have them open."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class EmbeddedBus:
    """``memory://[name]`` or ``sqlite:///PATH``; see :mod:`streams.bus`. POSIX only, for its group locks."""

    def __init__(self, url: str) -> None:
        self.url = url
        scheme, _, rest = url.partition("://")
        self._path: Path | None = None
        self._name = rest if scheme == "memory" else ""
        if scheme == "sqlite":
            if not rest.startswith("/") or len(rest) < 2:
                raise ConfigError(f"bus URL: expected sqlite:///PATH/bus.db, found {url!r}")
            self._path = Path(rest[1:])
        self._log: EmbeddedLog | None = None
        self._appender: _Appender | None = None

    async def __aenter__(self) -> Self:
        if self._log is None:
            self._log = await asyncio.to_thread(self._open)
            self._appender = _Appender(self._log)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> EmbeddedLog:
        if not self._name:
            return EmbeddedLog(self._path)
        log, users = _shared.get(self._name) or (EmbeddedLog(None), 0)
        _shared[self._name] = (log, users + 1)
        return log

    async def close(self) -> None:
        """Close what was opened; producers should be closed before."""
        log, self._log = self._log, None
        appender, self._appender = self._appender, None
        if log is None or appender is None:
            return
        await asyncio.to_thread(appender.close)
        if self._name:
            _, users = _shared.pop(self._name)
            if users > 1:
                _shared[self._name] = (log, users - 1)
                return
        await asyncio.to_thread(log.close)

    @property
    def log(self) -> EmbeddedLog:
        """The log underneath. Raises BusError when the bus is not open."""
        if self._log is None:
            raise BusError(f"bus {self.url}: not open; use `async with open_bus(url) as bus`")
        return self._log

    async def create_topics(self, *specs: TopicSpec) -> None:
        await asyncio.to_thread(self.log.create_topics, specs)

    async def topics(self) -> dict[str, TopicInfo]:
        return self.log.topics()

    async def offsets(self, topic: str) -> dict[TopicPartition, OffsetRange]:
        return self.log.offsets(topic)

    async def groups(self) -> list[str]:
        return self.log.groups()

    async def committed(self, group: str) -> dict[TopicPartition, int]:
        return self.log.committed(group)

    async def enforce_retention(self, now_ms: int) -> int:
        return await asyncio.to_thread(self.log.enforce_retention, now_ms)

    def producer(self, *, linger_ms: float = 5.0, max_pending_bytes: int = 64 << 20) -> EmbeddedProducer:
        log = self.log
        assert self._appender is not None
        return EmbeddedProducer(log, self._appender, linger_ms / 1_000, max_pending_bytes)

    async def consumer(self, *topics: str, group: str | None = None) -> EmbeddedConsumer:
        log = self.log
        positions = {tp: held.start for topic in topics for tp, held in log.offsets(topic).items()}
        lease: FileLease | MemoryLease | None = None
        if group is not None:
            if log.path is None:
                lease = MemoryLease(log.held_groups, group)
            else:
                lease = FileLease(log.path.with_name(f"{log.path.name}.groups"), group)
            committed = log.committed(group)
            positions = {tp: committed.get(tp, start) for tp, start in positions.items()}
        return EmbeddedConsumer(log, topics, positions, group, lease)


@dataclass(slots=True, eq=False)
class _Send:
    """A pending append, whose it is, and who waits for it."""

    tp: TopicPartition
    pending: Pending
    producer: EmbeddedProducer
    acknowledged: asyncio.Future[RecordMetadata]


class _Appender:
    """The thread that appends: takes what is queued, one transaction at a time."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._queue: deque[_Send] = deque()
        self._queued_bytes = 0
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="bus-append", daemon=True)
        self._thread.start()

    def put(self, send: _Send) -> None:
        with self._wake:
            self._queue.append(send)
            self._queued_bytes += send.pending.size
            self._wake.notify()

    def close(self) -> None:
        """Append what is queued, then end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _take(self, not_before: float) -> list[_Send]:
        """Everything queued, once there is something and ``not_before`` has come; [] when closing."""
        with self._wake:
            while not self._queue and not self._closing:
                self._wake.wait()
            while not self._closing and self._queued_bytes < _GROUP_COMMIT_BYTES:
                if (wait_s := not_before - time.monotonic()) <= 0:
                    break
                self._wake.wait(wait_s)
            taken = list(self._queue)
            self._queue.clear()
            self._queued_bytes = 0
            return taken

    def _run(self) -> None:
        not_before = 0.0
        while sends := self._take(not_before):
            if accepted := [send for send in sends if not send.producer.refuse_after_failure(send)]:
                self._append(accepted)
            not_before = time.monotonic() + min(send.producer.linger_s for send in sends)

    def _append(self, sends: list[_Send]) -> None:
        by_partition: dict[TopicPartition, list[_Send]] = {}
        for send in sends:
            by_partition.setdefault(send.tp, []).append(send)
        try:
            first = self._log.append({tp: [s.pending for s in of_tp] for tp, of_tp in by_partition.items()})
        except Exception as error:  # whatever happened, who waits must hear of it, and the thread must live on
            refusal = error if isinstance(error, BusError) else BusError(f"append failed: {error!r}")
            for send in sends:
                send.producer.fail(send, refusal)
            return
        for tp, of_tp in by_partition.items():
            offset = first[tp]
            for send in of_tp:
                send.producer.acknowledge(send, RecordMetadata(*tp, offset))
                offset += send.pending.count


class EmbeddedProducer:
    """See :class:`streams.bus.Producer`. Belongs to the event loop it was made in."""

    def __init__(self, log: EmbeddedLog, appender: _Appender, linger_s: float, max_pending_bytes: int) -> None:
        self.linger_s = linger_s
        self._log = log
        self._appender = appender
        self._max_pending_bytes = max_pending_bytes
        self._loop = asyncio.get_running_loop()
        self._partitions: dict[str, int] = {}
        self._next_partition = 0
        self._pending_bytes = 0
        self._settled = asyncio.Event()
        self._settled.set()
        self._room = asyncio.Event()
        self._room.set()
        self._failed: dict[TopicPartition, BusError] = {}
        self._first_error: BusError | None = None
        self._settling: list[tuple[_Send, RecordMetadata | BusError]] = []
        self._settling_lock = threading.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        if partition is None:
            partition = self._choose_partition(topic, key)
        pending = Pending.one(value, key, _now_ms() if timestamp_ms is None else timestamp_ms)
        return await self._put(TopicPartition(topic, partition), pending)

    async def send_batch(
        self,
        topic: str,
        partition: int,
        lines: bytes,
        *,
        count: int,
        keys: bytes | None = None,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[RecordMetadata]:
        for name, joined in (("lines", lines), ("keys", keys)):
            if joined is not None and (found := joined.count(b"\n") + 1) != count:
                raise ValueError(f"{name}: expected {count} lines, found {found}")
        pending = Pending(count, _now_ms() if timestamp_ms is None else timestamp_ms, lines, keys)
        return await self._put(TopicPartition(topic, partition), pending)

    def _choose_partition(self, topic: str, key: bytes | None) -> int:
        partitions = self._count(topic)
        if key is not None:
            return partition_for(key, partitions)
        self._next_partition += 1
        return self._next_partition % partitions

    def _count(self, topic: str) -> int:
        if topic not in self._partitions:
            info = self._log.topics().get(topic)
            if info is None:
                raise UnknownTopic(f"topic {topic!r} does not exist; create it with create_topics")
            self._partitions[topic] = info.partitions
        return self._partitions[topic]

    async def _put(self, tp: TopicPartition, pending: Pending) -> asyncio.Future[RecordMetadata]:
        if self._closed:
            raise BusError("the producer is closed")
        if not 0 <= tp.partition < self._count(tp.topic):
            raise UnknownTopic(
                f"topic {tp.topic!r}: expected partition 0 to {self._count(tp.topic) - 1}, found {tp[1]}"
            )
        while self._pending_bytes and self._pending_bytes + pending.size > self._max_pending_bytes:
            self._room.clear()
            await self._room.wait()
        if tp in self._failed:
            raise self._refusal(tp)
        acknowledged: asyncio.Future[RecordMetadata] = self._loop.create_future()
        acknowledged.add_done_callback(_retrieve)
        self._pending_bytes += pending.size
        self._settled.clear()
        self._appender.put(_Send(tp, pending, self, acknowledged))
        return acknowledged

    def _refusal(self, tp: TopicPartition) -> BusError:
        return BusError(
            f"{tp.topic}/{tp.partition}: an earlier send failed ({self._failed[tp]}), nothing may overtake it; "
            "open a new producer to go on"
        )

    # Called on the appender's thread

    def refuse_after_failure(self, send: _Send) -> bool:
        """True, and the send refused, if an earlier one of its partition failed."""
        if send.tp not in self._failed:
            return False
        self._settle(send, self._refusal(send.tp))
        return True

    def fail(self, send: _Send, error: BusError) -> None:
        """The send's append failed."""
        self._failed.setdefault(send.tp, error)
        self._settle(send, error)

    def acknowledge(self, send: _Send, where: RecordMetadata) -> None:
        """The send is durable."""
        self._settle(send, where)

    def _settle(self, send: _Send, outcome: RecordMetadata | BusError) -> None:
        with self._settling_lock:
            self._settling.append((send, outcome))
            if len(self._settling) > 1:
                return  # one wake-up of the loop settles all that came by then
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle_all)

    def _settle_all(self) -> None:
        with self._settling_lock:
            outcomes, self._settling = self._settling, []
        for send, outcome in outcomes:
            self._pending_bytes -= send.pending.size
            if isinstance(outcome, BusError):
                self._first_error = self._first_error or outcome
                if not send.acknowledged.done():
                    send.acknowledged.set_exception(outcome)
            elif not send.acknowledged.done():
                send.acknowledged.set_result(outcome)
        self._room.set()
        if not self._pending_bytes:
            self._settled.set()

    async def flush(self) -> None:
        await self._settled.wait()
        if self._first_error is not None:
            raise self._first_error

    async def close(self) -> None:
        """Wait until everything is settled; errors are those of the sends."""
        self._closed = True
        await self._settled.wait()


def _retrieve(acknowledged: asyncio.Future[RecordMetadata]) -> None:
    """Most callers flush instead of awaiting each send: asyncio need not warn that an error was never looked at."""
    if not acknowledged.cancelled():
        acknowledged.exception()


class EmbeddedConsumer:
    """See :class:`streams.bus.Consumer`. Belongs to the event loop it was made in."""

    def __init__(
        self,
        log: EmbeddedLog,
        topics: tuple[str, ...],
        positions: dict[TopicPartition, int],
        group: str | None,
        lease: FileLease | MemoryLease | None,
    ) -> None:
        self._log = log
        self._topics = topics
        self._positions = positions
        self._group = group
        self._lease = lease
        self._paused: set[TopicPartition] = set()
        self._turn = deque(positions)
        self._appended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._unlisten = log.listen(self._wake)
        self._last_found = 0.0

    def _wake(self) -> None:
        if not self._loop.is_closed():  # a consumer that was abandoned must not stop the appender
            self._loop.call_soon_threadsafe(self._appended.set)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._positions)

    async def fetch(
        self,
        *,
        timeout_s: float = 1.0,
        max_records: int = 10_000,
        partitions: Iterable[TopicPartition] | None = None,
    ) -> list[RecordBatch]:
        wanted = self.assignment if partitions is None else self.assignment & frozenset(partitions)
        deadline = time.monotonic() + timeout_s
        while True:
            self._appended.clear()
            version = self._log.version()
            if batches := self._read(wanted, max_records):
                self._last_found = time.monotonic()
                return batches
            while self._log.version() == version:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return []
                poll_s = _POLL_S[time.monotonic() - self._last_found > 1.0]
                try:
                    async with asyncio.timeout(min(left_s, poll_s)):
                        await self._appended.wait()
                except TimeoutError:
                    continue
                break

    def _read(self, wanted: frozenset[TopicPartition], max_records: int) -> list[RecordBatch]:
        ends = {tp: held.end for topic in self._topics for tp, held in self._log.offsets(topic).items()}
        batches = []
        for tp in list(self._turn):
            if tp not in wanted or tp in self._paused or self._positions[tp] == ends[tp]:
                continue
            batch = self._log.read(tp, self._positions[tp], max_records)
            if batch is not None:
                self._positions[tp] = batch.next_offset
                batches.append(batch)
        self._turn.rotate(-1)
        return batches

    def position(self, tp: TopicPartition) -> int:
        return self._positions[tp]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp not in self._positions:
            raise UnknownTopic(f"{tp.topic}/{tp.partition} is not assigned to this consumer")
        self._positions[tp] = offset

    async def seek_to_beginning(self, *tps: TopicPartition) -> None:
        for tp in tps or self.assignment:
            self.seek(tp, self._log.offsets(tp.topic)[tp].start)

    async def seek_to_end(self, *tps: TopicPartition) -> None:
        for tp in tps or self.assignment:
            self.seek(tp, self._log.offsets(tp.topic)[tp].end)

    def pause(self, *tps: TopicPartition) -> None:
        self._paused.update(tps)

    def resume(self, *tps: TopicPartition) -> None:
        self._paused.difference_update(tps)
        self._appended.set()

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        if self._group is None:
            raise BusError("commit: expected a consumer with a group, found one without")
        await asyncio.to_thread(self._log.commit, self._group, dict(self._positions if offsets is None else offsets))

    async def close(self) -> None:
        """Leave the group. Positions are not committed."""
        self._unlisten()
        if self._lease is not None:
            self._lease.release()
            self._lease = None
