"""Requests to a running replay: how they are asked for, and how they come in, on the ``control`` topic."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable

import msgspec

from streams.batch import InvalidRecord
from streams.bus import Bus, Consumer, Producer
from streams.errors import ConfigError
from streams.events import CONTROL, DEADLETTER, Control
from streams.records import RecordBatch

__all__ = ["ACTIONS", "ControlListener", "ask", "parse_request"]

ACTIONS = ("pause", "resume", "stop", "speed")
_EVERY_RUN = "*"

_decoder = msgspec.json.Decoder(Control)
_encoder = msgspec.json.Encoder()


async def ask(bus: Bus, run_id: str, action: str, speed: float | None = None) -> None:
    """Ask the replay of ``run_id`` for ``action``, one of :data:`ACTIONS`, and wait until the request is durable.

    speed: of the action "speed", in the unit that the run was started with; None for as fast as possible.
    Raises ConfigError for a request that the replayer would refuse.
    """
    request = Control(run_id, action, speed, source=f"control/{uuid.uuid4().hex}", event_id=1)
    problem = _problem(request)
    if problem:
        raise ConfigError(problem)
    async with bus.producer() as producer:
        await producer.send(CONTROL, _encoder.encode(request), key=run_id.encode())
        await producer.flush()


class ControlListener:
    """Hands each request for ``run_id`` (or for every run, ``*``) to ``take``, from the time of opening on.

    What was asked earlier is over and is not read. A record that is no request goes to the dead-letter topic.
    """

    def __init__(self, consumer: Consumer, producer: Producer, run_id: str, take: Callable[[Control], None]) -> None:
        self._consumer = consumer
        self._producer = producer
        self._run_id = run_id
        self._take = take

    @classmethod
    async def open(cls, bus: Bus, producer: Producer, run_id: str, take: Callable[[Control], None]) -> ControlListener:
        consumer = await bus.consumer(CONTROL)
        await consumer.seek_to_end()
        return cls(consumer, producer, run_id, take)

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                for batch in await self._consumer.fetch():
                    await self._read(batch)
        finally:
            await self._consumer.close()

    async def _read(self, batch: RecordBatch) -> None:
        for position, value in enumerate(batch.values):
            request, problem = parse_request(value)
            if request is None:
                letter = InvalidRecord(int(batch.offsets[position]), problem, value)
                await self._producer.send(
                    DEADLETTER, _encoder.encode(letter.dead_letter(batch.topic, batch.partition)), key=b"control"
                )
            elif request.run in (self._run_id, _EVERY_RUN):
                self._take(request)


def parse_request(value: bytes) -> tuple[Control | None, str]:
    """The request that a record of the ``control`` topic holds; None, and why, for one that holds none.

    >>> parse_request(b'{"run":"r","action":"dance"}')
    (None, "action: expected one of pause, resume, stop, speed, found 'dance'")
    """
    try:
        request = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return None, f"not a control record: {error}"
    problem = _problem(request)
    return (None, problem) if problem else (request, "")


def _problem(request: Control) -> str | None:
    if request.action not in ACTIONS:
        return f"action: expected one of {', '.join(ACTIONS)}, found {request.action!r}"
    if request.speed is not None and not (request.speed > 0 and math.isfinite(request.speed)):
        return f"speed: expected a number above 0, or none for as fast as possible, found {request.speed:g}"
    return None
