"""Every error StreamLens raises on purpose, in one tree.

A message names what was expected, what was found, where, and the next step; the CLI prints it as one line
and exits with :attr:`StreamLensError.exit_code`.
"""

from __future__ import annotations

__all__ = [
    "BusDenied",
    "BusError",
    "BusUnavailable",
    "ConfigError",
    "DataError",
    "DataUnavailable",
    "GroupBusy",
    "LogReplaced",
    "ModelError",
    "ModelMissing",
    "OffsetOutOfRange",
    "PartitionMismatch",
    "StoreAheadOfLog",
    "StoreError",
    "StoreMissing",
    "StoreSetBack",
    "StoreUnavailable",
    "StreamLensError",
    "UnknownTopic",
    "WriterFenced",
]


class StreamLensError(Exception):
    """Root of the tree: an error whose message is meant for the person who runs the program."""

    exit_code = 2


class ConfigError(StreamLensError):
    """A setting, flag or URL that cannot be used."""


class DataError(StreamLensError):
    """A dataset folder or file that is missing, truncated or of another shape."""


class DataUnavailable(DataError):
    """A dataset that cannot be fetched or stored for now (no network, server away, disk full): try again later."""

    exit_code = 3


class BusError(StreamLensError):
    """Anything the message bus refuses."""


class BusUnavailable(BusError):
    """The log cannot be reached or written for now (locked, disk full, broker away): retry or stop, never drop."""

    exit_code = 3


class BusDenied(BusError):
    """The broker refuses the user: a wrong password, or no permission for what was asked."""


class UnknownTopic(BusError):
    """The topic does not exist and was not asked to be created."""


class PartitionMismatch(BusError):
    """A topic exists with another partition count; the count is fixed for the life of a topic."""


class OffsetOutOfRange(BusError):
    """The offset was removed by retention, or lies beyond the end of the log."""


class GroupBusy(BusError):
    """The embedded bus takes one live member per group, and there is one already."""


class StoreError(StreamLensError):
    """Anything the feature store refuses."""


class StoreMissing(StoreError):
    """There is no feature store yet: no worker has begun one."""


class StoreSetBack(StoreError):
    """The store holds less than its writer has applied: its server crashed and lost the last transactions, or it was
    restored. The log still has them: whoever writes reads on from the store's applied offsets."""


class StoreUnavailable(StoreError):
    """The store cannot be written for now (locked, disk full, gone): retry with backoff or stop, never dead-letter."""

    exit_code = 3


class WriterFenced(StoreError):
    """Another writer took over this partition: this one drops its memory and writes nothing more."""

    exit_code = 3


class StoreAheadOfLog(StoreError):
    """The store has applied offsets that the log does not hold."""


class LogReplaced(StoreError):
    """The log is not the one the store was built from."""


class StateOutdated(StreamLensError):
    """The state of an agent that cannot go on from it: damaged, or of another version of what made it."""


class ModelError(StreamLensError):
    """A model that cannot be trained, saved or loaded: nothing to learn from, diverged, damaged, another kind."""


class ModelMissing(ModelError):
    """There is no model there."""
