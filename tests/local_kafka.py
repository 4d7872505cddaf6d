"""A Kafka of a test's own, which it may stop and start: what ``../shared/kafka`` beside a checkout brings along."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

__all__ = ["LocalKafka", "free_ports", "guarded"]

_TOOLS = Path(__file__).resolve().parents[2] / "shared" / "kafka"


class LocalKafka:
    """One node, started by :meth:`start`. Skips the test where there is nothing to start."""

    def __init__(self, folder: Path, *settings: str) -> None:
        tools = Path(os.environ.get("STREAMLENS_TEST_KAFKA_TOOLS", _TOOLS))
        there = (tools / "kafka-up").exists()
        if not there or shutil.which("java") is None:
            wanted = f"expected kafka-up in {tools} and java 17 on PATH, to stop and start a broker in the test"
            required = there and os.environ.get("STREAMLENS_TEST_KAFKA_REQUIRED")
            pytest.fail(wanted) if required else pytest.skip(wanted)
        self._tools = tools
        self._folder = folder
        self._settings = settings
        self.address = ""

    def start(self) -> None:
        """Start it for the first time."""
        options = [word for setting in self._settings for word in ("--set", setting)]
        self.address = self._run("kafka-up", "--port", "0", *options).strip()

    def stop(self) -> None:
        """End it in order."""
        self._run("kafka-down", "--node", "1")

    def crash(self) -> None:
        """End it as ``kill -9`` does."""
        self._run("kafka-down", "--node", "1", "--hard")

    def restart(self) -> None:
        """Start it again, with its port and its data."""
        self._run("kafka-up", "--restart-node", "1")

    def remove(self) -> None:
        if (self._folder / "node1").exists():
            self._run("kafka-down", "--hard", "--purge")

    def _run(self, tool: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._tools / tool, self._folder, *arguments], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def guarded(folder: Path) -> Iterator[str]:
    """The address of a broker that asks for a user: "admin" may do all, "reader" nothing, "loner" not join a group.

    The password is the name with "-secret" behind it.
    """
    plain, control, asking = free_ports(3)
    users = " ".join(f'user_{name}="{name}-secret"' for name in ("admin", "reader", "loner"))
    kafka = LocalKafka(
        folder,
        f"listeners=SASL://127.0.0.1:{asking},PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{control}",
        f"advertised.listeners=SASL://127.0.0.1:{asking},PLAINTEXT://127.0.0.1:{plain}",
        f"controller.quorum.voters=1@127.0.0.1:{control}",
        "listener.security.protocol.map=SASL:SASL_PLAINTEXT,PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name=PLAINTEXT",
        "sasl.enabled.mechanisms=PLAIN",
        "listener.name.sasl.plain.sasl.jaas.config="
        f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};",
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users=User:ANONYMOUS;User:admin",
    )
    try:
        kafka.start()
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{plain}"})
        all_of_it = ("*", AclOperation.ALL, AclPermissionType.ALLOW)
        topics = AclBinding(ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, "User:loner", *all_of_it)
        admin.create_acls([topics])[topics].result(20)
        yield f"127.0.0.1:{asking}"
    finally:
        kafka.remove()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, each another one."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
