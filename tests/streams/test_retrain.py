"""The retrain event is a CloudEvent: the SDK of others reads it, and what they write is read here."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_structured_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from streams.bus import open_bus
from streams.events import RETRAIN
from streams.retrain import RetrainRequest, RetrainRequested, ask_for_retrain
from streams.topics import run_topics

REQUEST = RetrainRequest(
    reason="CTR -17 % for 7 days", severity="critical", asked_by="ctr", evidence={"ctr": 0.025, "baseline": 0.03}
)
EVENT = RetrainRequested.of(
    "mf", REQUEST, id="run/ctr/14610", source="run/monitors", time=datetime(2010, 1, 1, tzinfo=UTC)
)


def test_an_event_on_the_wire() -> None:
    wire = msgspec.json.encode(EVENT)
    assert json.loads(wire) == {
        "specversion": "1.0",
        "type": "streamlens.retrain.requested",
        "datacontenttype": "application/json",
        "id": "run/ctr/14610",
        "source": "run/monitors",
        "subject": "mf",
        "time": "2010-01-01T00:00:00Z",
        "data": {
            "reason": "CTR -17 % for 7 days",
            "severity": "critical",
            "asked_by": "ctr",
            "evidence": {"ctr": 0.025, "baseline": 0.03},
        },
    }
    assert msgspec.json.decode(wire, type=RetrainRequested) == EVENT


def test_the_sdk_reads_it() -> None:
    message = KafkaMessage({"content-type": b"application/cloudevents+json"}, b"mf", msgspec.json.encode(EVENT))
    read = from_structured_event(message)
    assert (read.get_id(), read.get_source(), read.get_subject()) == (EVENT.id, EVENT.source, "mf")
    assert (read.get_type(), read.get_specversion()) == ("streamlens.retrain.requested", "1.0")
    assert read.get_time() == EVENT.time
    assert read.get_data() == msgspec.to_builtins(REQUEST)


def test_what_the_sdk_writes_is_read() -> None:
    attributes = {name: value for name, value in msgspec.to_builtins(EVENT).items() if name != "data"}
    written = to_structured_event(CloudEvent({**attributes, "time": EVENT.time}, msgspec.to_builtins(REQUEST)))
    assert msgspec.json.decode(written.value, type=RetrainRequested) == EVENT


@pytest.mark.parametrize("missing", ["specversion", "type", "id", "source", "subject", "time", "data"])
def test_an_event_that_lacks_an_attribute_is_refused(missing: str) -> None:
    record = msgspec.to_builtins(EVENT)
    del record[missing]
    with pytest.raises(msgspec.ValidationError, match=missing):
        msgspec.json.decode(json.dumps(record).encode(), type=RetrainRequested)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        RetrainRequested.of("mf", REQUEST, id="1", source="run", time=datetime(2010, 1, 1))


async def test_asked_for_it_is_on_the_topic_under_its_model() -> None:
    async with open_bus("memory://") as bus:
        await bus.create_topics(*run_topics(1))
        await ask_for_retrain(bus, EVENT)
        async with await bus.consumer(RETRAIN) as consumer:
            (batch,) = await consumer.fetch()
    assert batch.keys == [b"mf"]
    assert [msgspec.json.decode(value, type=RetrainRequested) for value in batch.values] == [EVENT]
