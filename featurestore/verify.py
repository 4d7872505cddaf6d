"""The independent check of the feature store: it holds exactly what one batch pass over the log computes.

``verify`` copies the store at one moment, reads the log up to the offsets applied by then, recomputes every view with
code that shares nothing with the ingest path, and compares row by row. It writes nothing and holds up nobody: worker
and replayer may run meanwhile.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np

from featurestore.database import scratch_folder
from featurestore.embeddings import embeddings_url, verify_embeddings
from featurestore.schema import HISTORY_BLOCK_SIZE, HISTORY_DTYPE, TASTE_DTYPE
from featurestore.verify_copy import (
    SUM_VIEWS,
    Column,
    DamagedBlock,
    DamagedTaste,
    StoreCopy,
    open_copy,
)
from featurestore.verify_log import INVALID_COLUMNS, PartitionPass, payload_crc
from featurestore.verify_report import Mismatch, VerifyReport, ViewReport
from featurestore.verify_views import DEAD_LETTERS, DECAY, HISTORY, TASTE, Recomputation
from featurestore.view_settings import ViewSettings
from streams.bus import Bus, Consumer, OffsetRange, TopicInfo
from streams.errors import BusUnavailable, StoreError
from streams.events import DEADLETTER, RATINGS
from streams.records import Int64s, RecordBatch, TopicPartition

__all__ = ["Mismatch", "VerifyReport", "ViewReport", "verify"]

EMBEDDINGS = "embeddings"

_FETCH_RECORDS = 10_000
_PATIENCE_S = 30.0
"""How long the log may give nothing although it holds more."""

Progress = Callable[[int, int], None]
Result = TypeVar("Result")


async def verify(
    bus: Bus,
    store_url: str,
    *,
    agent: str = "features",
    topic: str = RATINGS,
    memory_limit_mb: int = 256,
    threads: int = 1,
    temp_dir: Path | None = None,
    on_progress: Progress | None = None,
) -> VerifyReport:
    """Recompute the views of ``agent`` from the log and compare them with the store.

    Every column of every view is compared, except what only the run itself could know (``epoch``, ``applied_ms``).
    Embeddings, which no log gives, are compared with their manifests.
    ``memory_limit_mb`` bounds the recomputation; beyond it lies on disk, in ``temp_dir`` (default: beside the store
    where that is a file; it needs about twice the store's size free). ``on_progress`` is told the events read and their
    total.

    A difference is in the report, whatever it is. Raises StoreError where nothing can be compared: no store, one of
    another version, or a log whose oldest records retention has removed.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(
        prefix=".verify-", dir=temp_dir or scratch_folder(store_url), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        copy = await asyncio.to_thread(open_copy, store_url, folder)
        try:
            with copy.errors(), _recomputation_errors():
                settings = ViewSettings.from_meta(copy.settings())
                with Recomputation(folder, settings, memory_limit_mb=memory_limit_mb, threads=threads) as recomputation:
                    check = _Check(bus, copy, recomputation, agent, topic, settings.lateness_s, on_progress)
                    report = await check.run()
        finally:
            copy.close()
    report.views[EMBEDDINGS] = await asyncio.to_thread(verify_embeddings, embeddings_url(store_url))
    report.seconds = time.perf_counter() - started
    return report


@contextmanager
def _recomputation_errors() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise StoreError(
            f"cannot verify: the recomputation failed ({str(error).splitlines()[0]}); "
            "free disk space for temporary files, or allow it more memory"
        ) from error


class _Check:
    """One verification: a copy against the log."""

    def __init__(
        self,
        bus: Bus,
        copy: StoreCopy,
        recomputation: Recomputation,
        agent: str,
        topic: str,
        lateness_s: int,
        on_progress: Progress | None,
    ) -> None:
        self._bus = bus
        self._copy = copy
        self._recomputation = recomputation
        self._agent = agent
        self._topic = topic
        self._lateness_s = lateness_s
        self._on_progress = on_progress
        self._applied = copy.applied(agent, topic)
        self._total = 0
        self._genres: list[str] = []
        views = ("applied", "sources", "movies", *SUM_VIEWS, DECAY, TASTE, HISTORY, DEAD_LETTERS)
        self._report = VerifyReport({view: ViewReport() for view in views})

    async def run(self) -> VerifyReport:
        info = (await self._bus.topics()).get(self._topic)
        held = await self._bus.offsets(self._topic) if info else {}
        until = {p: min(row["next_offset"], _held(held, self._topic, p).end) for p, row in self._applied.items()}
        for partition, offset in until.items():
            if offset > 0 and _held(held, self._topic, partition).start > 0:
                raise StoreError(
                    f"cannot verify: retention removed the records of {self._topic}/{partition} before offset "
                    f"{_held(held, self._topic, partition).start}, and every view needs the log from offset 0; "
                    f"create the topic without retention to have runs that can be verified"
                )
        self._total = sum(until.values())
        letters_are_whole = await self._read_letters()
        await self._in_thread(self._read_movies)
        partitions = await self._in_thread(self._copy.partitions)
        for partition in sorted(partitions | {tp.partition for tp in held}):
            tp = TopicPartition(self._topic, partition)
            one_pass = await self._read(tp, until.get(partition, 0))
            self._compare_applied(tp, one_pass, info, _held(held, self._topic, partition))
            self._compare_sources(partition, one_pass)
            await self._in_thread(self._compare_views, partition)
            if letters_are_whole:
                await self._in_thread(
                    self._recomputation.compare_dead_letters,
                    partition,
                    until.get(partition, 0),
                    self._view(DEAD_LETTERS),
                )
        return self._report

    def _view(self, name: str) -> ViewReport:
        return self._report.views[name]

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        """Off the event loop; when cancelled, not before the thread is done with copy and recomputation."""
        task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._recomputation.interrupt()
            await asyncio.gather(task, return_exceptions=True)
            raise

    # The log

    async def _records(self, tp: TopicPartition, start: int, until: int) -> AsyncIterator[RecordBatch]:
        """A partition's records from ``start`` up to the offset ``until``."""
        if until <= start:
            return
        async with await self._bus.consumer(tp.topic) as consumer:
            consumer.seek(tp, start)
            while consumer.position(tp) < until:
                for batch in await _fetch(consumer, tp, until):
                    below = int(np.searchsorted(batch.offsets, until))
                    if below:
                        yield batch if below == len(batch) else batch.slice(0, below)

    async def _read(self, tp: TopicPartition, until: int) -> PartitionPass:
        """Read one partition up to the applied offset; its ratings lie in the recomputation then."""
        one_pass = PartitionPass(self._lateness_s)
        self._recomputation.start_partition()
        async for batch in self._records(tp, 0, until):
            await self._in_thread(self._add, one_pass, batch)
            self._report.events += len(batch)
            if self._on_progress is not None:
                self._on_progress(self._report.events, self._total)
        if tp.partition in self._applied:
            self._report.offsets[tp.partition] = until
        return one_pass

    def _add(self, one_pass: PartitionPass, batch: RecordBatch) -> None:
        ratings, invalid = one_pass.read(batch)
        self._recomputation.add_ratings(ratings)
        self._recomputation.add_invalid(invalid)

    async def _read_letters(self) -> bool:
        """Collect the dead letters that were published or wait in the outbox; False if some are gone for good.

        The topic is read after the copy was taken: a letter that has left the outbox by then is on the topic.
        """
        self._recomputation.add_letters(self._letters(self._copy.outbox(self._agent, DEADLETTER)))
        if DEADLETTER not in await self._bus.topics():
            return True
        held = await self._bus.offsets(DEADLETTER)
        if any(offsets.start > 0 for offsets in held.values()):
            self._report.notes.append(f"dead letters not compared: retention removed records of topic {DEADLETTER}")
            return False
        for tp, offsets in held.items():
            async for batch in self._records(tp, 0, offsets.end):
                self._recomputation.add_letters(self._letters(batch.values))
        return True

    def _letters(self, values: Iterable[bytes]) -> list[Int64s]:
        found = [letter for value in values if (letter := _letter(value, self._topic)) is not None]
        table = np.array(found, np.int64).reshape(-1, 1 + len(INVALID_COLUMNS))
        return [np.ascontiguousarray(column) for column in table.T]

    def _read_movies(self) -> None:
        """Taste is recomputed with the store's movies, so these must be the ones whose fingerprint it was given."""
        rows = [[movie_id, title, year, json.loads(genres)] for movie_id, title, year, genres in self._copy.movies()]
        text = json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
        found, expected = hashlib.sha256(text.encode()).hexdigest(), self._copy.settings().get("catalogue", "none")
        view = self._view("movies")
        view.rows += len(rows)
        if found != expected:
            view.add(Mismatch({"movies": len(rows)}, {"fingerprint": expected}, {"fingerprint": found}))
        self._genres = sorted({genre for row in rows for genre in row[3]})
        number = {genre: i for i, genre in enumerate(self._genres)}
        self._recomputation.add_movie_genres([(row[0], number[genre]) for row in rows for genre in row[3]])

    # The comparisons

    def _compare_applied(
        self, tp: TopicPartition, one_pass: PartitionPass, info: TopicInfo | None, held: OffsetRange
    ) -> None:
        row = self._applied.get(tp.partition)
        if row is None:
            return
        expected: dict[str, Any] = {
            "log_id": info.log_id if info else "none: the topic does not exist",
            "clock": one_pass.clock,
            "closed": one_pass.closed,
            "end_of_run": one_pass.end_of_run,
            "ratings": one_pass.ratings,
            "duplicates": one_pass.duplicates,
            "late": one_pass.late,
            "invalid": one_pass.invalid,
            "emitted": one_pass.invalid,  # one dead letter for each
            "published_ms": one_pass.published_ms,
        }
        differ = {name: value for name, value in expected.items() if row[name] != value}
        if not 0 <= row["next_offset"] <= held.end:
            differ["next_offset"] = f"0 to {held.end}, where the log ends"
        view = self._view("applied")
        view.rows += 1
        if differ:
            view.add(Mismatch({"partition": tp.partition}, differ, {name: row[name] for name in differ}))

    def _compare_sources(self, partition: int, one_pass: PartitionPass) -> None:
        found = self._copy.sources(self._agent, self._topic, partition)
        expected = one_pass.newest
        view = self._view("sources")
        view.rows += len(expected.keys() | found.keys())
        if expected == found:
            return
        for source in sorted(expected.keys() | found.keys()):
            if expected.get(source) != found.get(source):
                key = {"partition": partition, "source": source}
                view.add(Mismatch(key, _event_id(expected, source), _event_id(found, source)))

    def _compare_views(self, partition: int) -> None:
        for view in SUM_VIEWS:
            self._recomputation.compare(view, self._copy.rows(view, partition), partition, self._view(view))
        self._recomputation.compare(DECAY, self._copy.decayed(partition), partition, self._view(DECAY))
        odd: list[DamagedTaste] = []
        self._recomputation.compare(TASTE, self._taste(partition, odd), partition, self._view(TASTE))
        for user in odd:
            size = {"bytes": 2 * len(self._genres) * TASTE_DTYPE.itemsize}
            self._view(TASTE).add(
                Mismatch({"partition": partition, "user_id": user.user_id}, size, {"bytes": user.size})
            )
        damaged: list[DamagedBlock] = []
        self._recomputation.compare(HISTORY, self._history(partition, damaged), partition, self._view(HISTORY))
        for block in damaged:
            key = {"partition": partition, "user_id": block.user_id, "block": block.block}
            expected = {"bytes": f"{HISTORY_DTYPE.itemsize} for each of 1 to {HISTORY_BLOCK_SIZE} ratings"}
            self._view(HISTORY).add(Mismatch(key, expected, {"bytes": block.size}))

    def _taste(self, partition: int, damaged: list[DamagedTaste]) -> Iterator[Sequence[Column]]:
        for columns, unreadable in self._copy.taste(partition, len(self._genres)):
            damaged += unreadable
            yield columns

    def _history(self, partition: int, damaged: list[DamagedBlock]) -> Iterator[Sequence[Column]]:
        for columns, unreadable in self._copy.history(partition):
            damaged += unreadable
            yield columns


def _held(held: Mapping[TopicPartition, OffsetRange], topic: str, partition: int) -> OffsetRange:
    return held.get(TopicPartition(topic, partition), OffsetRange(0, 0))


def _event_id(ids: Mapping[str, int], source: str) -> dict[str, int] | None:
    return {"event_id": ids[source]} if source in ids else None


async def _fetch(consumer: Consumer, tp: TopicPartition, until: int) -> list[RecordBatch]:
    """The next records of a partition that is known to hold more."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        batches = await consumer.fetch(timeout_s=1.0, max_records=_FETCH_RECORDS, partitions=[tp])
        if batches:
            return batches
    raise BusUnavailable(
        f"cannot verify: {tp.topic}/{tp.partition} gave nothing for {_PATIENCE_S:.0f} s at offset "
        f"{consumer.position(tp)}, though it holds records up to {until}; is the bus up? Then try again"
    )


def _letter(value: bytes, topic: str) -> tuple[int, ...] | None:
    """The partition that a dead letter of ``topic`` is about, and INVALID_COLUMNS; None for all else."""
    try:
        letter = json.loads(value)
        if letter["topic"] != topic:
            return None
        text, in_base64 = letter["payload"], letter.get("encoding") == "base64"
        payload = base64.b64decode(text, validate=True) if in_base64 else text.encode()
        size = len(payload) if letter.get("size") is None else letter["size"]
        numbers = np.array([letter["partition"], letter["offset"], size]).astype(np.int64, casting="safe").tolist()
        return (*numbers, payload_crc(payload))
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        return None  # it stands for no record, so the record that it should stand for is reported
