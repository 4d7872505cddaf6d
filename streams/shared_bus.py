"""One bus between the consumer and the producer of a Faust app."""

from __future__ import annotations

from mode.utils.times import Seconds, want_seconds

from streams.bus import Bus, TopicSpec, open_bus
from streams.errors import UnknownTopic
from streams.murmur2 import partition_for

__all__ = ["SharedBus"]


class SharedBus:
    """The bus behind ``url``, open while somebody uses it; it knows each topic's partition count."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.partitions: dict[str, int] = {}
        self._bus: Bus | None = None
        self._users = 0

    @property
    def bus(self) -> Bus:
        """The open bus."""
        assert self._bus is not None, "nobody has opened it"
        return self._bus

    async def open(self) -> Bus:
        """Take the bus into use; each call that returns needs one of :meth:`close`."""
        self._users += 1
        try:
            if self._bus is None:
                bus = open_bus(self.url)
                await bus.__aenter__()
                self._bus = bus
            await self.refresh()
        except BaseException:
            await self.close()
            raise
        return self._bus

    async def close(self) -> None:
        """Give the bus back; the last user closes it."""
        self._users -= 1
        if self._users == 0 and self._bus is not None:
            bus, self._bus = self._bus, None
            await bus.close()

    async def refresh(self) -> None:
        """Read the topics' partition counts anew."""
        self.partitions = {name: info.partitions for name, info in (await self.bus.topics()).items()}

    def key_partition(self, topic: str, key: bytes | None) -> int:
        """The partition of ``key``, as every Kafka client chooses it. Raises UnknownTopic."""
        if topic not in self.partitions:
            raise UnknownTopic(f"expected an existing topic, found {topic!r}; known: {sorted(self.partitions)}")
        return partition_for(key, self.partitions[topic]) if key is not None else 0

    async def create_topic(self, topic: str, partitions: int, retention: Seconds | None) -> None:
        """Create the topic unless it exists, whatever its partition count: as a Kafka broker does."""
        await self.refresh()
        if topic not in self.partitions:
            retention_ms = None if retention is None else int(want_seconds(retention) * 1000)
            await self.bus.create_topics(TopicSpec(topic, partitions, retention_ms))
            await self.refresh()
