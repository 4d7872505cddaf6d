"""The store of the agent ``reactive``: counts of what was answered, and records to publish, beside the offsets.

A file ``reactive.db`` beside the features, or a schema beside theirs on PostgreSQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import MetaData

from agents.lines_store import LinesWriter, add_lines_tables
from featurestore.database import Database, drop_store, open_tables, store_label, url_beside
from streams.errors import StoreMissing
from streams.events import IMPRESSIONS

__all__ = ["REACTIVE", "ReactiveWriter", "drop_reactive_store", "open_reactive_store", "reactive_url"]

REACTIVE = "reactive"
"""The agent's name: its Faust app id and consumer group, and its rows in the store."""

_REBUILD = "`streamlens worker --role reactive --rebuild` answers all slates anew, with the same clicks and ids"

metadata = MetaData()
add_lines_tables(metadata)


def reactive_url(store_url: str) -> str:
    """Where the agent of the feature store at ``store_url`` keeps its own."""
    return url_beside(store_url, REACTIVE)


def open_reactive_store(store_url: str, *, create: bool = False) -> Database:
    """Raises StoreMissing where there is none, and none is to be made."""
    url = reactive_url(store_url)
    missing = StoreMissing(f"store {store_label(url)}: not there yet; start `streamlens worker --role reactive`")
    return open_tables(url, metadata, what="reactive store", repair=_REBUILD, missing=missing, create=create)


def drop_reactive_store(store_url: str) -> None:
    """Throw it away, so that a worker answers everything anew, in the same way and under the same ids."""
    drop_store(reactive_url(store_url), metadata)


class ReactiveWriter(LinesWriter):
    """The one writer of the store for the partitions of ``impressions`` that it holds. Not thread-safe."""

    def __init__(self, store_url: str, *, wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        database = open_reactive_store(store_url, create=True)
        super().__init__(database, agent=REACTIVE, topic=IMPRESSIONS, rebuild=_REBUILD, wall_ms=wall_ms)
        database.hold_identity()
