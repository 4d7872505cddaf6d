"""The thread that appends to the embedded log: many sends to one transaction, one sync of the disk for all of them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from streams.bus import RecordMetadata
from streams.checkpoint import Checkpointer
from streams.errors import BusError
from streams.log import EmbeddedLog
from streams.records import TopicPartition
from streams.stored_batch import Pending

__all__ = ["Appender", "Outcome", "Send", "Sender"]

_GROUP_BYTES = 8 << 20
"""A group commit of this size is not held back for more, and hardly gains by being larger."""

_log = logging.getLogger(__name__)


class Sender(Protocol):
    """Whose sends they are. Called in the appending thread."""

    @property
    def linger_s(self) -> float: ...

    def refusal(self, tp: TopicPartition) -> BusError | None:
        """Why this partition takes nothing more from the sender."""
        ...

    def failed(self, tp: TopicPartition, error: BusError) -> None: ...

    def settled(self, outcomes: list[Outcome]) -> None: ...


@dataclass(slots=True, eq=False)
class Send:
    """Records of one send, and who waits for them to be durable."""

    sender: Sender
    tp: TopicPartition
    pending: Pending
    size: int
    written: asyncio.Future[RecordMetadata]


Outcome = tuple[Send, RecordMetadata | BusError]


class Appender:
    """Appends what is put, in order; a send is appended at once when the last commit is ``linger_s`` ago.

    So a lone record waits for nothing, and under load there are at most 1 / linger_s commits a second.
    """

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._queue: deque[Send] = deque()
        self._queued_bytes = 0
        self._due = 0.0
        self._committed_at = 0.0
        self._closing = False
        self._wake = threading.Condition()
        self._checkpointer = None if log.path is None else Checkpointer(log.path)
        self._thread = threading.Thread(target=self._run, name="bus-append", daemon=True)
        self._thread.start()

    def put(self, send: Send) -> None:
        """Queue a send. Raises BusError once closed."""
        due = self._committed_at + send.sender.linger_s
        with self._wake:
            if self._closing:
                raise BusError(f"bus {self._log.name}: closed; open it again to publish")
            idle = not self._queue
            before = self._queued_bytes
            self._queue.append(send)
            self._queued_bytes += send.size
            self._due = due if idle else min(due, self._due)
            # Waking the thread costs more than queueing: only when it is not waiting for the due time anyway.
            if idle or before < _GROUP_BYTES <= self._queued_bytes:
                self._wake.notify()

    def hurry(self) -> None:
        """Append what is queued now, without lingering."""
        with self._wake:
            self._due = 0.0
            self._wake.notify()

    def close(self) -> None:
        """Append what is queued, then end. Blocks."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        if self._checkpointer is not None:
            self._checkpointer.close()

    def _run(self) -> None:
        while sends := self._take():
            self._append(sends)
            self._committed_at = time.monotonic()
            del sends  # or their records stay in memory until the next ones come

    def _take(self) -> list[Send]:
        """The next group, when it is due; [] at the end."""
        with self._wake:
            while not self._closing and self._queued_bytes < _GROUP_BYTES:
                wait_s = self._due - time.monotonic() if self._queue else None
                if wait_s is not None and wait_s <= 0:
                    break
                self._wake.wait(wait_s)
            taken: list[Send] = []
            size = 0
            while self._queue and size < _GROUP_BYTES:
                send = self._queue.popleft()
                taken.append(send)
                size += send.size
            self._queued_bytes -= size
            return taken

    def _append(self, sends: list[Send]) -> None:
        outcomes: list[Outcome] = []
        accepted: dict[TopicPartition, list[Send]] = {}
        for send in sends:
            refusal = send.sender.refusal(send.tp)
            if refusal is None:
                accepted.setdefault(send.tp, []).append(send)
            else:
                outcomes.append((send, refusal))
        if accepted:
            outcomes += self._commit(accepted)
        by_sender: dict[Sender, list[Outcome]] = {}
        for outcome in outcomes:
            by_sender.setdefault(outcome[0].sender, []).append(outcome)
        for sender, settled in by_sender.items():
            sender.settled(settled)

    def _commit(self, accepted: dict[TopicPartition, list[Send]]) -> list[Outcome]:
        try:
            first = self._log.append({tp: [send.pending for send in sends] for tp, sends in accepted.items()})
        except Exception as error:  # whatever it was: who waits must hear of it, and this thread live on
            refusal = error if isinstance(error, BusError) else BusError(f"bus {self._log.name}: {error!r}")
            _log.warning("%d sends not written: %s", sum(map(len, accepted.values())), refusal)
            for tp, sends in accepted.items():
                for sender in {send.sender for send in sends}:
                    sender.failed(tp, refusal)
            return [(send, refusal) for sends in accepted.values() for send in sends]
        self._tend_wal(sum(send.size for sends in accepted.values() for send in sends))
        outcomes: list[Outcome] = []
        for tp, sends in accepted.items():
            offset = first[tp]
            for send in sends:
                outcomes.append((send, RecordMetadata(tp.topic, tp.partition, offset)))
                offset += send.pending.count
        return outcomes

    def _tend_wal(self, n_bytes: int) -> None:
        if self._checkpointer is None:
            return
        self._checkpointer.appended(n_bytes)
        if self._checkpointer.overgrown:
            self._checkpointer.overgrown = False
            try:
                self._log.restart_wal()
            except BusError as error:  # a reader is in the way: after the next checkpoint
                _log.debug("write-ahead log not restarted: %s", error)
