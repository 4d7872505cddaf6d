"""URLs and settings of the Kafka bus, for which no broker is needed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from streams.bus import open_bus
from streams.errors import ConfigError
from streams.kafka_errors import _Limit
from streams.kafka_settings import KafkaAddress, KafkaSettings, kafka_settings, use_kafka_settings


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    yield
    use_kafka_settings(None)


def test_a_url_names_brokers_and_a_prefix() -> None:
    address = KafkaAddress.parse("kafka://one:9093,two,[::1]:9/team-a/")
    assert address.servers == ("one:9093", "two:9092", "[::1]:9")
    assert address.wire("ratings") == "team-a.ratings"
    assert address.bare("team-a.ratings") == "ratings"
    assert address.bare("team-ab.ratings") is None
    assert KafkaAddress.parse("kafka://one").wire("ratings") == "ratings"


@pytest.mark.parametrize(
    "url",
    ["kafka://", "kafka://:9092", "kafka://a:0", "kafka://a:99999", "kafka://a,,b", "kafka://a/b/c", "kafka://a b"],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="bus URL: expected"):
        open_bus(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match="STREAMLENS_KAFKA_PASSWORD") as raised:
        open_bus("kafka://admin:hunter2@broker:9092")
    assert "hunter2" not in str(raised.value)


def test_settings_come_from_the_environment_unless_chosen() -> None:
    environment = {
        "STREAMLENS_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "STREAMLENS_KAFKA_USERNAME": "admin",
        "STREAMLENS_KAFKA_PASSWORD": "hunter2",
        "STREAMLENS_KAFKA_COMPRESSION": "lz4",
    }
    settings = KafkaSettings.from_environment(environment)
    assert settings.client_options()["sasl_plain_password"] == "hunter2"
    assert "hunter2" not in repr(settings)
    use_kafka_settings(settings)
    assert kafka_settings() is settings


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"security_protocol": "TLS"}, "kafka.security_protocol"),
        ({"sasl_mechanism": "GSSAPI"}, "kafka.sasl_mechanism"),
        ({"compression": "zip"}, "kafka.compression"),
        ({"security_protocol": "SASL_SSL", "username": "admin"}, "STREAMLENS_KAFKA_PASSWORD"),
        ({"username": "admin", "password": "x"}, "kafka.security_protocol"),
    ],
)
def test_settings_that_cannot_work_are_named(given: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        KafkaSettings(**given)  # type: ignore[arg-type]


def test_certificates_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "missing.pem"):
        with pytest.raises(ConfigError, match=r"kafka\.ca_file"):
            KafkaSettings(security_protocol="SSL", ca_file=str(path)).client_options()


def test_a_flood_of_log_lines_is_limited_and_told_of() -> None:
    now = 0.0
    limit = _Limit(2, lambda: now)

    def line(text: str) -> logging.LogRecord:
        return logging.LogRecord("aiokafka", logging.ERROR, "", 0, text, None, None)

    assert [limit.filter(line("no")) for _ in range(10)] == [True, True] + [False] * 8
    now = 1.0
    told = line("again")
    assert limit.filter(told)
    assert told.getMessage() == "again (8 more lines left out)"
