"""The embedded bus where it is a file: crashes, other processes, a full disk, and files that are no log."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.bus import TopicSpec, open_bus
from streams.errors import BusError, BusUnavailable, GroupBusy
from streams.records import TopicPartition

TP = TopicPartition("t", 0)

PRODUCE = """
import asyncio, sys
from streams.bus import TopicSpec, open_bus
async def main(url, name):
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec("t", 1))
        async with bus.producer() as producer:
            for i in range(int(sys.argv[3])):
                await (await producer.send("t", f"{name} {i}".encode(), partition=0))
                print(i, flush=True)  # acknowledged
asyncio.run(main(sys.argv[1], sys.argv[2]))
"""

JOIN = """
import asyncio, sys
from streams.bus import open_bus
async def main(url):
    async with open_bus(url) as bus, await bus.consumer("t", group="g"):
        print("joined", flush=True)
        await asyncio.Event().wait()
asyncio.run(main(sys.argv[1]))
"""


@contextmanager
def child(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def read_all(url: str) -> list[bytes]:
    async with open_bus(url) as bus, await bus.consumer("t") as consumer:
        values: list[bytes] = []
        while batches := await consumer.fetch(timeout_s=0.05):
            for batch in batches:
                assert batch.first_offset == len(values)  # no gap
                values += batch.values
        return values


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/bus.db"


@pytest.mark.parametrize("seed", range(3))
async def test_what_was_acknowledged_survives_kill_9(url: str, seed: int) -> None:
    with child(PRODUCE, url, "p", "100000") as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(random.Random(seed).randrange(1, 300))]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
    last = max(int(line) for line in acknowledged if line.endswith("\n"))
    values = await read_all(url)
    assert values == [b"p %d" % i for i in range(len(values))]
    assert len(values) > last


async def test_two_processes_produce_at_once_and_each_keeps_its_order(url: str) -> None:
    with child(PRODUCE, url, "a", "300") as a, child(PRODUCE, url, "b", "300") as b:
        for process in (a, b):
            await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 0
    values = await read_all(url)
    for name in (b"a", b"b"):
        assert [v for v in values if v.startswith(name)] == [name + b" %d" % i for i in range(300)]


async def test_a_group_has_one_member_until_its_process_dies(url: str) -> None:
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec("t", 1))
        with child(JOIN, url) as process:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == "joined\n"
            with pytest.raises(GroupBusy, match=rf"process {process.pid}.*kafka://"):
                await bus.consumer("t", group="g")
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)
            await (await bus.consumer("t", group="g")).close()


async def test_a_join_that_is_cancelled_leaves_the_group_free(url: str) -> None:
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec("t", 1))
        for moment in range(100):
            joining = asyncio.create_task(bus.consumer("t", group="g"))
            for _ in range(moment):
                await asyncio.sleep(0)
            joining.cancel()
            with suppress(asyncio.CancelledError):
                await (await joining).close()
            await (await bus.consumer("t", group="g")).close()


async def test_a_full_disk_is_said_and_nothing_overtakes_the_failed_send(url: str, tmp_path: Path) -> None:
    async with open_bus(url) as bus:
        await bus.create_topics(TopicSpec("t", 1))
        async with bus.producer() as producer:
            assert (await (await producer.send("t", b"kept", partition=0))).offset == 0
            connection = bus._use().log._writer  # type: ignore[attr-defined]
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
            with pytest.raises(BusUnavailable, match="disk full"):
                await (await producer.send("t", b"x" * 1_000_000, partition=0))
            connection.execute("PRAGMA max_page_count = 1000000")
            with pytest.raises(BusError):
                await (await producer.send("t", b"overtakes", partition=0))
        async with bus.producer() as producer:
            assert (await (await producer.send("t", b"again", partition=0))).offset == 1
    assert await read_all(url) == [b"kept", b"again"]


async def test_corrupt_bytes_are_noticed(url: str, tmp_path: Path) -> None:
    async with open_bus(url) as bus, bus.producer() as producer:
        await bus.create_topics(TopicSpec("t", 1))
        await (await producer.send("t", b"0123456789", partition=0))
    with sqlite3.connect(tmp_path / "bus.db") as connection:
        connection.execute("""UPDATE record_batches SET "values" = CAST('0123456780' AS BLOB)""")
    with pytest.raises(BusError, match="topic t, partition 0: the batch at offset 0 is corrupt"):
        await read_all(url)


@pytest.mark.parametrize("content", [b"garbage" * 1_000, b""])
async def test_a_file_that_is_no_log(url: str, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bus.db").write_bytes(content)
    if content:
        with pytest.raises(BusError, match=str(tmp_path)):
            await read_all(url)
    else:  # an empty file is an empty database
        async with open_bus(url) as bus:
            assert await bus.topics() == {}


async def test_a_new_log_in_the_old_ones_place_has_another_id(url: str, tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        async with open_bus(url) as bus:
            await bus.create_topics(TopicSpec("t", 1))
            ids.add((await bus.topics())["t"].log_id)
        for file in tmp_path.glob("bus.db*"):
            if file.is_file():
                file.unlink()
    assert len(ids) == 2


def as_killed(folder: Path, copy: Path) -> None:
    """What a process leaves that is killed now: its files as they are, nothing closed or written after."""
    copy.mkdir()
    for name in ("bus.db", "bus.db-wal"):
        shutil.copy(folder / name, copy / name)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 40)),
        st.tuples(st.just("read"), st.integers(1, 30)),
        st.tuples(st.just("seek"), st.integers(0, 200)),
        st.tuples(st.just("commit"), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 30)),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(steps=steps)
def test_any_interleaving_of_appends_reads_seeks_commits_and_crashes(steps: list[tuple[str, int]]) -> None:
    """A crash of ``n``: killed with ``n`` sends under way, of which the log then holds the first so many.

    What was acknowledged is there, and the reader goes on from what was committed.
    """

    async def run(root: Path) -> None:
        model: list[bytes] = []
        committed = position = acknowledged = life = 0
        remaining, alive = list(steps), False
        while remaining or not alive:
            folder, life, alive = root / str(life), life + 1, True
            url = f"sqlite:///{folder}/bus.db"
            if life > 1:
                found = await read_all(url)
                assert found[:acknowledged] == model[:acknowledged]
                assert found == model[: len(found)]
                model = found
            async with open_bus(url) as bus, bus.producer() as producer:
                await bus.create_topics(TopicSpec("t", 1))
                async with await bus.consumer("t", group="g") as consumer:
                    assert consumer.position(TP) == committed
                    position = committed
                    while remaining:
                        action, n = remaining.pop(0)
                        if action == "crash":
                            acknowledged = len(model)
                            sent = [b"%d" % (len(model) + i) for i in range(n)]
                            for value in sent:
                                await producer.send("t", value, partition=0)
                            model += sent
                            as_killed(folder, root / str(life))
                            alive = False
                            break
                        if action == "append":
                            new = [b"%d" % (len(model) + i) for i in range(n)]
                            ack = await producer.send_batch("t", 0, b"\n".join(new), count=n)
                            assert (await ack).offset == len(model)
                            model += new
                        elif action == "read":
                            for batch in await consumer.fetch(timeout_s=0, max_records=n):
                                assert batch.values == model[position : position + len(batch)]
                                position = batch.next_offset
                            assert consumer.position(TP) == position
                        elif action == "seek":
                            position = min(n, len(model))
                            consumer.seek(TP, position)
                        else:
                            await consumer.commit()
                            committed = position
        assert await read_all(url) == model

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
