"""What has been fetched, delivered and acked of one partition whose records travel in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from faust.types import Message

from streams.records import RecordBatch

__all__ = ["Ledger"]


@dataclass(slots=True, eq=False)
class Ledger:
    """The batches of one partition, oldest first: fetched and not delivered, delivered and not committed.

    position: where delivery goes on; None before the first fetch.

    Batches and acks are told apart by object, not by offset, so that neither an old fetch nor an old delivery counts
    once a seek has started this ledger anew.
    """

    position: int | None = None
    coming: deque[RecordBatch] = field(default_factory=deque)
    astray: bool = False
    _open: deque[Message] = field(default_factory=deque)
    _committable: int | None = None

    def fetched(self, batches: Sequence[RecordBatch]) -> None:
        """These follow ``position`` and are to be delivered."""
        if self.position is None:
            self.position = batches[0].first_offset
        self.coming.extend(batches)

    def deliver(self, message: Message) -> bool:
        """Hand the batch of ``message`` to the agents; False if it is not the one that is next."""
        batch = _batch_of(message)
        if not self.coming or self.coming[0] is not batch:
            self.astray = True
            return False
        self.committable()  # drops what is done, so that a batch's memory goes before its offset is committed
        self.coming.popleft()
        self._open.append(message)
        self.position = batch.next_offset
        return True

    def retract(self, message: Message) -> None:
        """The newest batch did not reach the agents after all: it has to be fetched again."""
        if self._open and self._open[-1] is message:
            self._open.pop()
            self.position = _batch_of(message).first_offset
            self.astray = True

    def committable(self) -> int | None:
        """The offset up to which all delivered batches are acked; None while there is none."""
        while self._open and self._open[0].acked:
            self._committable = _batch_of(self._open.popleft()).next_offset
        return self._committable

    def rewind(self) -> bool:
        """Forget what was fetched and not delivered; True if the bus has to be sent back to ``position``."""
        needed = self.astray or bool(self.coming)
        self.coming.clear()
        self.astray = False
        return needed


def _batch_of(message: Message) -> RecordBatch:
    return cast(RecordBatch, message.value)
