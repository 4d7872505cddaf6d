"""Batched delivery: what one fetch holds of a partition reaches a Faust agent as ONE event, a ``RecordBatch``.

Stock Faust makes an event of each record and handles about 9 k of them a second; a batch costs as much as one record.
:class:`BatchedDelivery` is mixed into the consumer of a Faust transport; it works on topics made by
:func:`batched_topic` and leaves all others as Faust delivers them. It is the same for every transport.

A batch is acked as a whole. The offset to commit for a partition is ``next_offset`` of the newest batch before which
no delivered batch is unacked (Faust's own rule waits for consecutive offsets, which batches do not have, and stalls).
What a seek or a rebalance makes Faust read again is forgotten here; what was fetched and not delivered, because
partitions were paused meanwhile, is fetched again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import faust
import numpy as np
from faust.tables.recovery import RebalanceAgain
from faust.transport import base
from faust.types import TP, AppT, ConsumerMessage, Message

from streams.app import BatchedApp, StartOffsets
from streams.errors import BusUnavailable
from streams.ledger import Ledger
from streams.records import RecordBatch, join_values

__all__ = ["MAX_BATCH_RECORDS", "BatchSchema", "BatchedDelivery", "Fetched", "Record", "batched_topic"]

MAX_BATCH_RECORDS = 10_000
"""A bigger fetch is cut, so that the event loop breathes between two batches."""


class Record(NamedTuple):
    """One record of a topic that is not batched. ``timestamp``: milliseconds since the epoch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes


class _FetchedRecord(Protocol):
    """What a fetched record has, here and in aiokafka."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """One partition's part of a fetch, still as columns; unrolled into records only where a topic is not batched."""

    batch: RecordBatch

    def __iter__(self) -> Iterator[Record]:
        b = self.batch
        return map(Record._make, zip(b.offsets.tolist(), b.timestamps_ms.tolist(), b.keys, b.values, strict=True))


class BatchSchema(faust.Schema):  # type: ignore[type-arg]
    """The payload is already what the agent wants: no codec, no model."""

    def loads_key(self, app: AppT, message: Message, *, loads: Any = None, serializer: Any = None) -> None:
        return None

    def loads_value(self, app: AppT, message: Message, *, loads: Any = None, serializer: Any = None) -> Any:
        return message.value


def batched_topic(app: BatchedApp, *names: str, maxsize: int = 8, **options: Any) -> faust.TopicT:
    """A topic, or several as one stream, whose agents get ``RecordBatch`` values.

    maxsize: how many batches wait for an agent before fetching stops (Faust's own 4,096 would be tens of millions of
    records); about twice the number of partitions keeps all of them flowing.
    """
    app.batched_topics.update(names)
    topic = app.topic(*names, schema=BatchSchema(), **options)
    topic.maxsize = maxsize  # Faust's App.topic takes the option and drops it
    return topic


def _record_batch(tp: TP, records: Sequence[_FetchedRecord]) -> RecordBatch:
    values = [record.value or b"" for record in records]
    return RecordBatch(
        topic=tp.topic,
        partition=tp.partition,
        offsets=np.array([record.offset for record in records], np.int64),
        timestamps_ms=np.array([record.timestamp for record in records], np.int64),
        next_offset=records[-1].offset + 1,
        lines=join_values(values),
        _values=values,
        _keys=[record.key for record in records],
    )


def _batches(tp: TP, records: Fetched | Sequence[_FetchedRecord]) -> list[RecordBatch]:
    """One partition's part of a fetch as batches of at most MAX_BATCH_RECORDS."""
    n, size = MAX_BATCH_RECORDS, len(records.batch if isinstance(records, Fetched) else records)
    if isinstance(records, Fetched):
        whole = records.batch
        return [whole] if size <= n else [whole.slice(i, i + n) for i in range(0, size, n)]
    return [_record_batch(tp, records[i : i + n]) for i in range(0, size, n)]


class BatchedDelivery(base.Consumer):
    """Mix this in before a transport's consumer: ``class Consumer(BatchedDelivery, driver.Consumer)``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        app = self.app
        self._batched: set[str] = app.batched_topics if isinstance(app, BatchedApp) else set()
        self._ledgers: dict[TP, Ledger] = {}
        self._newly_assigned = False
        self._activated = asyncio.Event()
        self._seeking: asyncio.Task[None] | None = None
        self._draining_since = 0.0
        self._on_message = self.callback
        self.callback = self._deliver

    # -- fetching and delivering

    @property
    def delivering(self) -> bool:
        """True while a part of the last fetch is still on its way to the agents."""
        return any(ledger.coming for ledger in self._ledgers.values())

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> dict[TP, Any]:
        await self._rewind()
        before = dict(self._ledgers)
        fetched = await super()._getmany(  # type: ignore[safe-super]
            active_partitions=active_partitions, timeout=timeout
        )
        out: dict[TP, Any] = {}
        for tp, records in fetched.items():
            if tp.topic not in self._batched:
                out[tp] = records
                continue
            ledger = self._ledgers.setdefault(tp, Ledger())
            if before.get(tp, ledger) is not ledger:
                ledger.astray = True  # a seek came in between
            elif batches := _batches(tp, records):
                ledger.fetched(batches)
                out[tp] = batches
        return out

    async def _rewind(self) -> None:
        """Go back to what was fetched and not delivered, because of a pause, a stopped flow or a seek."""
        for tp, ledger in list(self._ledgers.items()):
            # A rebalance may take partitions away, or start them anew, while an earlier one is being sought.
            if ledger.position is not None and self._ledgers.get(tp) is ledger:
                if ledger.rewind():
                    await self._seek(tp, ledger.position)
                # Faust drops what lies before the last offset it has read; here the ledger knows better.
                self._read_offset[tp] = ledger.position or None

    def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
        if not isinstance(record, RecordBatch):
            return super()._to_message(tp, record)  # type: ignore[safe-super]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            record.last_offset,
            int(record.timestamps_ms[-1]) / 1000.0,
            0,
            None,
            None,
            record,  # type: ignore[arg-type]
            None,
            0,
            0,
            tp,
            generation_id=self.app.consumer_generation_id,
        )

    async def _deliver(self, message: Message) -> None:
        if message.topic not in self._batched:
            await self._on_message(message)
            return
        ledger = self._ledgers.setdefault(message.tp, Ledger())
        if not ledger.deliver(message):
            return
        try:
            await self._on_message(message)
        except BaseException:
            # Stopping the flow cancels a delivery. Without a reference no agent will ever see the message.
            if not message.refcount:
                ledger.retract(message)
            raise

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP] | None]:
        # Stock Faust sleeps a whole second when every partition waits for its agent, however soon that is done.
        if self.flow_active and not self.app.client_only and not self._get_active_partitions():
            self._activated.clear()
            try:
                await asyncio.wait_for(self._activated.wait(), timeout)
            except TimeoutError:
                return {}, self._get_active_partitions()
        return await super()._wait_next_records(timeout)

    def on_buffer_drop(self, tp: TP) -> None:
        super().on_buffer_drop(tp)
        self._activated.set()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions(tps)
        self._activated.set()

    # -- committing

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if tp.topic not in self._batched:
            await super()._add_gap(tp, offset_from, offset_to)

    def _new_offset(self, tp: TP) -> int | None:
        if tp.topic not in self._batched:
            return super()._new_offset(tp)
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        ledger = self._ledgers.get(tp)
        return None if ledger is None else ledger.committable()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is acked; nothing once an error has stopped the app: Faust acks what an agent failed on."""
        if isinstance(self.app, BatchedApp) and self.app.fatal is not None:
            return False
        return await super().commit(topics, start_new_transaction)

    async def wait_empty(self) -> None:
        """Wait for started batches, but only so long: an agent that waits for a store that is gone never finishes."""
        self._draining_since = asyncio.get_running_loop().time()
        try:
            await super().wait_empty()
        except TimeoutError:
            self.log.warning("Not finished in time, will be delivered again: %r", self.unacked)
            await self.commit_and_end_transactions()

    async def _wait_for_ack(self, timeout: float) -> None:
        # Faust's own swallows its cancellation, so that no deadline around it could end it.
        limit_s = self.app.drain_timeout_s if isinstance(self.app, BatchedApp) else math.inf
        wait_s = min(timeout, self._draining_since + limit_s - asyncio.get_running_loop().time())
        if wait_s <= 0:
            raise TimeoutError
        acked = self._waiting_for_ack = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait({acked}, timeout=wait_s)
        finally:
            self._waiting_for_ack = None

    # -- seeking

    async def seek(self, partition: TP, offset: int) -> None:
        """Go on at ``offset``; what was delivered of this partition no longer counts, acked or not."""
        if partition.topic in self._batched:
            self._ledgers[partition] = Ledger(position=offset)
            self._acked.pop(partition, None)
            self._acked_index.pop(partition, None)
            self._committed_offset[partition] = None
        await super().seek(partition, offset)

    async def perform_seek(self) -> None:
        """After an assignment: to the app's ``start_offsets``, else to what the group committed.

        Faust calls this too when the flow was stopped in the middle of a fetch; then delivery goes on where it was.
        A rebalance cuts it short: what it would still do is about partitions that others may have by then.
        """
        seeking = self._seeking = asyncio.create_task(self._seek_in_time())
        try:
            await asyncio.shield(seeking)
        except asyncio.CancelledError:
            if seeking.cancelled():
                raise RebalanceAgain from None
            await self._stop_seeking()
            raise

    async def _stop_seeking(self) -> None:
        if self._seeking is not None and not self._seeking.done():
            self._seeking.cancel()
            await asyncio.wait({self._seeking})

    async def _seek_in_time(self) -> None:
        limit_s = self.app.conf.broker_request_timeout / 2  # beyond the whole of it Faust gives up, silently
        try:
            async with asyncio.timeout(limit_s):
                await self._seek_assigned()
        except TimeoutError as error:
            raise BusUnavailable(
                f"expected to know within {limit_s:g} s where to start; do broker and store answer?"
            ) from error

    async def _seek_assigned(self) -> None:
        await super().perform_seek()
        if not self._newly_assigned:
            for ledger in self._ledgers.values():
                ledger.astray = True
            return
        tps = {tp for tp in self.assignment() if tp.topic in self._batched}
        self._ledgers = {tp: Ledger(position=await self.position(tp)) for tp in tps}
        if tps and isinstance(self.app, BatchedApp) and self.app.start_offsets is not None:
            await self._seek_to_start_offsets(tps, self.app.start_offsets)
        self._newly_assigned = False

    async def _seek_to_start_offsets(self, tps: set[TP], start_offsets: StartOffsets) -> None:
        offsets = await start_offsets(tps)
        committed = {tp: self._committed_offset[tp] for tp in offsets}
        for tp, offset in offsets.items():
            await self.seek(tp, offset)
        # A commit that was lost would leave the lag above zero until the next record comes.
        behind = {tp: offset for tp, offset in offsets.items() if offset != (committed[tp] or 0)}
        if behind and await self._commit(behind):
            self._committed_offset.update(behind)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Faust's rebalance, second half: all positions are set anew."""
        self._newly_assigned = True
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Faust's rebalance, first half: commit what is done, then forget."""
        await self._stop_seeking()
        await self.commit()  # Faust drops the acks that are not committed yet before it waits for the agents
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._ledgers.pop(tp, None)
        batched = {tp for tp in revoked if tp.topic in self._batched}
        if batched and isinstance(self.app, BatchedApp) and self.app.on_revoked is not None:
            await self.app.on_revoked(batched)
