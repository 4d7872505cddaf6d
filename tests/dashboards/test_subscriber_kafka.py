"""The subscriber where its broker is killed and comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dashboards.subscriber import Subscriber
from streams.events import FEEDBACK
from tests.dashboards.test_subscriber import feedback, publish, until
from tests.local_kafka import LocalKafka

pytestmark = [pytest.mark.broker, pytest.mark.slow]


def test_it_says_that_the_broker_is_away_and_goes_on_once_it_is_back(tmp_path: Path) -> None:
    kafka = LocalKafka(tmp_path / "kafka")
    try:
        kafka.start()
        url = f"kafka://{kafka.address}/run"
        publish(url, FEEDBACK, feedback(1), feedback(2))
        subscriber = Subscriber(url, retry_s=(0.1, 0.5)).start()
        try:
            until(lambda: subscriber.records.n_feedback == 2, "what was there")
            assert subscriber.connection.connected
            kafka.crash()
            crashed = time.time()
            until(lambda: time.time() - subscriber.heard_at > 3, "no answer any more")
            assert subscriber.heard_at < crashed + 2
            until(lambda: not subscriber.connection.connected, "notices that it is away")
            kafka.restart()
            publish(url, FEEDBACK, feedback(3))
            until(lambda: subscriber.records.n_feedback == 3, "goes on")
            assert subscriber.connection.connected
            assert subscriber.records.count(FEEDBACK) == 3
            assert subscriber.heard_at > crashed + 3
        finally:
            subscriber.close()
    finally:
        kafka.remove()
