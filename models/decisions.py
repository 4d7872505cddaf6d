"""What was decided on versions, in order: champion and statuses are read off this trail, so that they agree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

__all__ = ["Action", "AuditEntry", "Decisions", "Status", "champions", "rejected_at", "serving_at", "status_of"]

Status = Literal["challenger", "champion", "rejected", "retired"]
"""A challenger was not decided on yet; retired is who was champion."""
Action = Literal["promoted", "rejected", "rolled back"]


class AuditEntry(msgspec.Struct, frozen=True):
    """One decision. at: wall time, ISO 8601 in UTC. version_id: who was rejected, else who is champion from then on.

    previous: the champion until then. by: who or what decided. effective: event time from which it holds, seconds since
    the epoch; None: at once. request: what it answers; one request is decided on once.
    """

    at: str
    action: Action
    version_id: str
    previous: str | None
    by: str
    why: str
    effective: int | None = None
    request: str | None = None


class Decisions(msgspec.Struct, frozen=True):
    """What the registry's file holds."""

    entries: tuple[AuditEntry, ...] = ()
    format: int = 1


def champions(entries: Sequence[AuditEntry]) -> list[str]:
    """The champion, last, and those before it that a rollback leads to, each once.

    Raises ValueError for a trail with a way back to who was not the champion before.
    """
    found: list[str] = []
    for entry in entries:
        if entry.action == "rolled back":
            if found[-2:-1] != [entry.version_id]:
                raise ValueError(f"a way back to {entry.version_id}, which was not the champion before")
            found.pop()
        else:
            found = [version for version in found if version != entry.version_id]
        if entry.action == "promoted":
            found.append(entry.version_id)
    return found


def serving_at(entries: Sequence[AuditEntry], event_time: int) -> str | None:
    """Who serves at ``event_time``: whom the last decision chose that holds by then. None before the first.

    >>> trail = [
    ...     AuditEntry("", "promoted", "a", None, "", ""),
    ...     AuditEntry("", "promoted", "b", "a", "", "", effective=100),
    ... ]
    >>> serving_at(trail, 99), serving_at(trail, 100)
    ('a', 'b')
    """
    chosen = [e.version_id for e in entries if e.action != "rejected" and _holds(e, event_time)]
    return chosen[-1] if chosen else None


def rejected_at(entries: Sequence[AuditEntry], event_time: int) -> set[str]:
    """Those that were rejected last, as far as it holds at ``event_time``."""
    last = {entry.version_id: entry.action for entry in entries if _holds(entry, event_time)}
    return {version_id for version_id, action in last.items() if action == "rejected"}


def status_of(version_id: str, entries: Sequence[AuditEntry]) -> Status:
    """As all that was decided has it, whenever it holds."""
    if version_id in champions(entries)[-1:]:
        return "champion"
    actions = [entry.action for entry in entries if entry.version_id == version_id]
    if not actions:
        return "challenger"
    return "rejected" if actions[-1] == "rejected" else "retired"


def _holds(entry: AuditEntry, event_time: int) -> bool:
    return entry.effective is None or entry.effective <= event_time
