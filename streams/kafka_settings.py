"""How to talk to a Kafka cluster: security and compression, which stand in settings and never in a URL or a log.

A URL names the brokers and, as its path, what stands before the names of topics and groups:
``kafka://broker-1:9092,broker-2:9092/team-a`` has its ratings in the topic ``team-a.ratings``.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from streams.errors import ConfigError

__all__ = ["KafkaAddress", "KafkaSettings", "kafka_settings", "use_kafka_settings"]

DEFAULT_PORT = 9092

_VARIABLE_PREFIX = "STREAMLENS_KAFKA_"
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_COMPRESSIONS = ("none", "lz4")
_SERVER = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:@/\[\]]+)(?::([0-9]{1,5}))?")
_PREFIX = re.compile(r"[a-zA-Z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """What a Kafka URL says. ``prefix`` is empty, or ends with a dot: it stands before each topic and group name."""

    servers: tuple[str, ...]
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> KafkaAddress:
        """The address in ``url``. Raises ConfigError for another URL; a password in it is not repeated.

        >>> KafkaAddress.parse("kafka://broker-1,[::1]:19092/team-a")
        KafkaAddress(servers=('broker-1:9092', '[::1]:19092'), prefix='team-a.')
        """
        scheme, _, rest = url.partition("://")
        if "@" in rest:
            raise ConfigError(
                "bus URL: expected kafka://HOST:PORT, found one with a user or password in it; "
                f"set them as {_VARIABLE_PREFIX}USERNAME and {_VARIABLE_PREFIX}PASSWORD, or under [kafka]"
            )
        hosts, _, path = rest.partition("/")
        servers = [_SERVER.fullmatch(host) for host in hosts.split(",")]
        path = path.rstrip("/")
        if scheme != "kafka" or None in servers or (path and not _PREFIX.fullmatch(path)):
            raise ConfigError(f"bus URL: expected kafka://HOST:PORT[,HOST:PORT][/PREFIX], found {url!r}")
        found = [server for server in servers if server is not None]
        if any(not 0 < int(server[2] or DEFAULT_PORT) < 65_536 for server in found):
            raise ConfigError(f"bus URL: expected ports from 1 to 65535, found {url!r}")
        return cls(tuple(f"{s[1]}:{s[2] or DEFAULT_PORT}" for s in found), f"{path}." if path else "")

    @property
    def shown(self) -> str:
        """For messages."""
        return f"kafka://{','.join(self.servers)}"

    def wire(self, name: str) -> str:
        """A topic or group as the cluster knows it."""
        return self.prefix + name

    def bare(self, name: str) -> str | None:
        """The inverse of :meth:`wire`; None for what belongs to others."""
        return name.removeprefix(self.prefix) if name.startswith(self.prefix) else None


@dataclass(frozen=True)
class KafkaSettings:
    """Security and compression of the connections of this process.

    security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; sasl_mechanism: PLAIN, SCRAM-SHA-256 or -512.
    ca_file: the certificates to trust, where the system's do not do. compression: of what is published, none or lz4.
    """

    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    compression: str = "none"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("security_protocol", self.security_protocol, _PROTOCOLS),
            ("sasl_mechanism", self.sasl_mechanism, _MECHANISMS),
            ("compression", self.compression, _COMPRESSIONS),
        ):
            if value not in known:
                raise ConfigError(f"kafka.{name}: expected one of {', '.join(known)}, found {value!r}")
        if self.security_protocol.startswith("SASL") and (self.username is None or self.password is None):
            missing = "username" if self.username is None else "password"
            raise ConfigError(
                f"kafka.{missing}: expected one for {self.security_protocol}, found none; "
                f"set {_VARIABLE_PREFIX}{missing.upper()}"
            )
        if self.username is not None and not self.security_protocol.startswith("SASL"):
            raise ConfigError(
                f"kafka.security_protocol: expected SASL_SSL or SASL_PLAINTEXT for a user, "
                f"found {self.security_protocol}"
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> KafkaSettings:
        """What the ``STREAMLENS_KAFKA_...`` variables say."""
        environment = os.environ if environment is None else environment
        names = [f.name for f in fields(cls)]
        given = {name: environment.get(f"{_VARIABLE_PREFIX}{name.upper()}") for name in names}
        return cls(**{name: value for name, value in given.items() if value is not None})

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext | None:
        if "SSL" not in self.security_protocol:
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"kafka.ca_file: expected a file of PEM certificates, found {self.ca_file} ({error})"
            ) from error

    def client_options(self) -> dict[str, Any]:
        """As aiokafka's clients take them."""
        options: dict[str, Any] = {"security_protocol": self.security_protocol, "ssl_context": self._ssl_context}
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return options


_chosen: KafkaSettings | None = None


def use_kafka_settings(settings: KafkaSettings | None) -> None:
    """Have every bus that this process opens from now on use ``settings``; None: what the environment says."""
    global _chosen  # one per process, as the environment is: a URL is no place for secrets
    _chosen = settings


def kafka_settings() -> KafkaSettings:
    """What is in force: what was chosen for the process, else what the environment says."""
    return _chosen if _chosen is not None else KafkaSettings.from_environment()
