"""The Faust app that StreamLens workers are: Faust without a command line, a web server and files of its own.

    app = BatchedApp("features", broker="sqlite:///var/bus.db")
    topic = batched_topic(app, "ratings")

    @app.agent(topic)
    async def features(stream):
        async for batches in gather_batches(stream):  # acked once the body is done
            await apply(batches)

    await app.serve(stopping)  # until the event is set; raises what stopped the app, if it was not that

An agent that raises stops the app, and nothing more is committed: the next start begins with what it failed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, cast

import faust
from faust.tables.manager import TableManager
from faust.types import TP, AgentT, TransportT

__all__ = ["BatchedApp", "Revoked", "StartOffsets"]

StartOffsets = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]
"""Given the assigned partitions of the batched topics, where to start each; those left out start at the committed
offset. Called once or more after each assignment. What it raises stops the app."""


Revoked = Callable[[set[TP]], Awaitable[None]]
"""Told which partitions of the batched topics were taken away, after the agents are done with them and before others
get them."""


class _Reassigning(Protocol):
    """What the consumers of both transports can do beside Faust's."""

    def reassign(self) -> None: ...


class _Tables(TableManager):
    """State lives in the feature store: no tables to wait for."""

    async def on_start(self) -> None:
        # Stock Faust sleeps a second here, for tables to be declared.
        await self._update_channels()
        await self.recovery.start()


class BatchedApp(faust.App):
    """A Faust app whose topics may be batched, which stops at the first error, and which is run by :meth:`serve`.

    broker: the bus URL, as ``open_bus`` takes it.
    start_offsets: where to start after an assignment, for stores that keep their own offsets; the group's committed
    offset then serves lag only.
    on_revoked: what such a store is to stop writing.
    linger_s: how long small fetches are held apart (embedded bus), so that each carries more; 0 for none.
    drain_timeout_s: how long stopping waits for agents that have begun a batch.
    """

    bus_url: str
    batched_topics: set[str]
    start_offsets: StartOffsets | None
    on_revoked: Revoked | None
    linger_s: float
    drain_timeout_s: float

    def __init__(
        self,
        id: str,  # noqa: A002 (Faust's name)
        *,
        broker: str,
        start_offsets: StartOffsets | None = None,
        on_revoked: Revoked | None = None,
        linger_s: float = 0.006,
        drain_timeout_s: float = 10.0,
        **options: Any,
    ) -> None:
        self.bus_url = broker
        self.batched_topics = set()
        self.start_offsets = start_offsets
        self.on_revoked = on_revoked
        self.linger_s = linger_s
        self.drain_timeout_s = drain_timeout_s
        self._fatal: BaseException | None = None
        defaults: dict[str, Any] = {
            "autodiscover": False,
            # Faust cannot take a list of brokers in one URL; the transport has it from ``bus_url``.
            "broker": "kafka://" if self._on_kafka else broker,
            "broker_commit_interval": 1.0,
            # Half of it bounds finding out where to start: a broker that is away is waited for.
            "broker_request_timeout": 3_600.0,
            # Kafka only. Faust's own leave a dead worker's partitions idle for a minute.
            "broker_session_timeout": 10.0,
            "broker_heartbeat_interval": 2.0,
            "broker_rebalance_timeout": 10.0,
            "store": "memory://",
            "topic_disable_leader": True,
            "web_enabled": False,
            "TableManager": _Tables,
        }
        super().__init__(id, **defaults | options)

    @property
    def shares_partitions(self) -> bool:
        """Whether its group may have other members, among which the broker hands the partitions out."""
        return self._on_kafka

    @property
    def _on_kafka(self) -> bool:
        return self.bus_url.startswith("kafka://")

    def _new_transport(self) -> TransportT:
        if not self._on_kafka:
            return super()._new_transport()
        # Not through Faust's registry: there "kafka" is its own transport, which other apps may want.
        from streams.kafka_transport import Transport

        return Transport(self.conf.broker_consumer, self)

    def _new_producer_transport(self) -> TransportT:
        return self.transport if self._on_kafka else super()._new_producer_transport()

    def reassign(self) -> None:
        """Soon have all partitions taken away and given again, to start from ``start_offsets`` anew."""
        cast(_Reassigning, self.consumer).reassign()

    @property
    def fatal(self) -> BaseException | None:
        """The error that stopped the app: the first one, as it was raised."""
        return self._fatal

    async def start(self) -> None:
        """Return once partitions are assigned and read. Raises what stopped the app before that, after cleaning up."""
        try:
            await super().start()
        except BaseException:
            await self.stop()
            raise
        if self._fatal is not None:
            await self.stop()
            raise self._fatal

    async def serve(self, stopping: asyncio.Event) -> None:
        """Run until ``stopping`` is set, then drain, commit and stop. Raises the error that stopped the app earlier."""
        if not await self._start_unless(stopping):
            return
        try:
            await self.wait(stopping)  # type: ignore[arg-type]
        finally:
            await self.stop()
        if self._fatal is not None:
            raise self._fatal

    async def _start_unless(self, stopping: asyncio.Event) -> bool:
        """False where ``stopping`` was set first: a group may have a member wait long for its partitions."""
        starting, stopped = asyncio.ensure_future(self.start()), asyncio.ensure_future(stopping.wait())
        try:
            await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            starting.cancel()  # does nothing to what is done
            await asyncio.wait({starting})
        if starting.cancelled():
            return False
        starting.result()
        return True

    async def stop(self) -> None:
        """Drain, commit and stop. A cancellation cuts the draining short, never the stopping: tasks would be left."""
        stopping = asyncio.ensure_future(super().stop())
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            self.drain_timeout_s = 0
            await asyncio.wait({stopping})
            raise

    def _crash(self, reason: BaseException) -> None:
        if self._fatal is None and not isinstance(reason, asyncio.CancelledError):
            self._fatal = reason
        super()._crash(reason)

    async def _on_agent_error(self, agent: AgentT[Any], exc: BaseException) -> None:
        # Stock Faust restarts the agent with the next event, and the failed one is lost; here nothing may overtake it.
        self.flow_control.suspend()
        self.flow_control.clear()
        await self.crash(exc)

    def _create_directories(self) -> None:
        """No files: stock Faust makes a folder for tables in the working directory."""
