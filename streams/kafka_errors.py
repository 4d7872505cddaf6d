"""What aiokafka raises, as StreamLens errors; and its log, limited: in an outage it is thousands of lines a second."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import aiokafka.errors as kafka

from streams.errors import BusDenied, BusError, BusUnavailable, OffsetOutOfRange, StreamLensError, UnknownTopic

__all__ = ["CONNECTION_ERRORS", "kafka_errors", "limit_logs", "muted_logs", "translated"]

CONNECTION_ERRORS = (OSError, asyncio.TimeoutError, kafka.KafkaError)
"""What aiokafka's calls raise where a cluster does not do what was asked."""

_DENIED = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)
_WRONG_LOGIN = (
    kafka.SaslAuthenticationFailed,
    kafka.AuthenticationFailedError,
    kafka.UnsupportedSaslMechanismError,
    kafka.IllegalSaslStateError,
)
_GROUP_MOVED = (
    kafka.CommitFailedError,
    kafka.IllegalGenerationError,
    kafka.RebalanceInProgressError,
    kafka.UnknownMemberIdError,
)

_CLIENT_LOGGERS = (
    "aiokafka",
    "aiokafka.client",
    "aiokafka.cluster",
    "aiokafka.conn",
    "aiokafka.consumer.consumer",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
    "aiokafka.consumer.subscription_state",
)
_LINES_PER_S = 2


def translated(error: BaseException, what: str) -> StreamLensError:
    """``error`` of a Kafka client as one of ours; ``what`` was being done where, for the message's beginning."""
    if isinstance(error, StreamLensError):
        return error
    why = str(error) or type(error).__name__
    if isinstance(error, _WRONG_LOGIN):
        return BusDenied(
            f"{what}: expected a user and password that the broker knows, found them refused ({why}); set "
            "STREAMLENS_KAFKA_USERNAME, STREAMLENS_KAFKA_PASSWORD and STREAMLENS_KAFKA_SASL_MECHANISM, or [kafka]"
        )
    if isinstance(error, _DENIED):
        return BusDenied(f"{what}: expected the permission for it, found it refused ({why}); ask for an ACL")
    if isinstance(error, kafka.UnknownTopicOrPartitionError):
        return UnknownTopic(f"{what}: expected an existing topic, found none; was it deleted?")
    if isinstance(error, kafka.OffsetOutOfRangeError):
        return OffsetOutOfRange(f"{what}: the offset lies outside the log; seek to one inside")
    if isinstance(error, _GROUP_MOVED):
        return BusUnavailable(f"{what}: the group's partitions are being handed out anew; try again")
    if isinstance(error, kafka.CorruptRecordException):
        return BusError(f"{what}: expected the records that were written, found others ({why})")
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordTooLargeError | kafka.RecordListTooLargeError):
        return BusError(f"{what}: expected less at once, found more than the topic's max.message.bytes takes")
    if isinstance(error, OSError | asyncio.TimeoutError | kafka.KafkaTimeoutError) or getattr(
        error, "retriable", False
    ):
        return BusUnavailable(f"{what}: expected a Kafka broker that answers, found none ({why}); is it up?")
    return BusError(f"{what}: refused by the broker ({type(error).__name__}: {why})")


@contextmanager
def kafka_errors(what: str | Callable[[], str]) -> Iterator[None]:
    """Raise what aiokafka raises as a StreamLens error."""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise translated(error, what if isinstance(what, str) else what()) from error


class _Limit(logging.Filter):
    """Lets ``per_s`` lines a second through, of all loggers that it is added to together, and tells of the others."""

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._per_s = per_s
        self._clock = clock
        self._second = 0
        self._lines = 0
        self._dropped = 0
        self.muted = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if self.muted:
            return False
        second = int(self._clock())
        if second != self._second:
            self._second, self._lines = second, 0
        self._lines += 1
        if self._lines > self._per_s:
            self._dropped += 1
            return False
        if self._dropped:
            record.msg, record.args = f"{record.getMessage()} ({self._dropped} more lines left out)", None
            self._dropped = 0
        return True


_limit = _Limit(_LINES_PER_S)
_SILENT = logging.NullHandler()


def limit_logs() -> None:
    """Limit what aiokafka logs in this process; a second call changes nothing."""
    # What matters is raised; without a handler Python prints warnings of a program that has not asked for logs.
    logging.getLogger("aiokafka").addHandler(_SILENT)
    for name in _CLIENT_LOGGERS:  # a filter sees its own logger's lines only, not those of the loggers below
        logger = logging.getLogger(name)
        if _limit not in logger.filters:
            logger.addFilter(_limit)


@contextmanager
def muted_logs() -> Iterator[None]:
    """Nothing that aiokafka logs meanwhile is told: for a block that raises what has gone wrong."""
    _limit.muted += 1
    try:
        yield
    finally:
        _limit.muted -= 1
