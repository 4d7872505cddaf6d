"""The four roles of one run on a Kafka broker, with stores on PostgreSQL: the same as on files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import confluent_kafka
import msgspec
import pytest

from streams.events import RETRAIN
from streams.testing import unique_prefix
from tests.loop.small_world import prepare, replay_command
from tests.loop.together import ROLES, Results, current, read_results
from tests.stores import PostgresStores

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def test_a_loop_on_kafka_and_postgresql_comes_to_the_same(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    streamlens_broker: str,
    postgres: PostgresStores,
    at_once: Results,
) -> None:
    for variable in [name for name in os.environ if name.startswith("STREAMLENS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    folder = tmp_path / "servers"
    prepare(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STREAMLENS_BUS", f"kafka://{streamlens_broker}")
    monkeypatch.setenv("STREAMLENS_STORE", postgres.server)
    seed = str(int(unique_prefix()[-6:], 16))  # the run's id is in the names of its topics and schemas
    program = [sys.executable, "-m", "streamlens"]
    subprocess.run([*program, *replay_command(), "--seed", seed], check=True, timeout=90)
    workers = {}
    try:
        for role in ROLES:
            with Path(f"{role}.log").open("wb") as log:
                command = [*program, "worker", "--role", role, "--until-end", "--quiet"]
                workers[role] = subprocess.Popen(command, stdout=log, stderr=log)
        for role, process in workers.items():
            assert process.wait(150) == 0, (role, Path(f"{role}.log").read_text()[-3_000:])
    finally:
        for process in workers.values():
            if process.poll() is None:
                process.kill()
            process.wait()
    target = current()
    assert target is not None
    assert target.bus_url.startswith("kafka://")
    assert target.store_url.startswith("postgresql://")
    results = asyncio.run(read_results(target))
    assert results.alike == at_once.alike
    foreign = read_with_another_client(streamlens_broker, f"{target.run_id}.{RETRAIN}")
    assert (
        list(dict.fromkeys(value.decode().replace(target.run_id, "RUN") for _, value in foreign))
        == (results.topics[f"{RETRAIN}/0"])
    )
    events = [(key, msgspec.json.decode(value)) for key, value in foreign]
    assert len({event["id"] for _, event in events}) == len(results.topics[f"{RETRAIN}/0"]) >= 3
    assert all(key.decode() == event["subject"] for key, event in events)


def read_with_another_client(broker: str, topic: str) -> list[tuple[bytes, bytes]]:
    """Keys and values of the topic's one partition up to its high water, read with nothing of this project."""
    reader = confluent_kafka.Consumer({"bootstrap.servers": broker, "group.id": f"{topic}-foreign"})
    try:
        _, end = reader.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=20.0)
        reader.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        found = []
        while len(found) < end:
            message = reader.poll(20.0)
            assert message is not None, f"{len(found)} of {end} records came"
            assert message.error() is None, message.error()
            found.append((message.key(), message.value()))
        return found
    finally:
        reader.close()
