"""The registry at an event time: who serves then, and what was decided that holds only later. No Streamlit here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.decisions import AuditEntry, champions, serving_at
from models.registry import Registry, Version

__all__ = ["Change", "RegistryView", "changes_to_come", "read_registry", "serving_version"]


@dataclass(frozen=True, slots=True)
class Change:
    """From event time ``at`` on ``version_id`` serves."""

    at: int
    version_id: str


@dataclass(frozen=True, slots=True)
class RegistryView:
    """Versions, the oldest first, with what the trail says of an event time. damaged: what is wrong, by version.

    serving: the version that serves then; to_come: who will, in that order.
    """

    versions: tuple[Version, ...]
    damaged: dict[str, str]
    trail: tuple[AuditEntry, ...]
    serving: str | None
    to_come: tuple[Change, ...]

    @property
    def champion(self) -> Version | None:
        """The version that serves; None where there is none, or it is damaged."""
        return next((one for one in self.versions if one.version_id == self.serving), None)

    def standing(self, version: Version) -> str:
        """In a word: "serves", "to come", else its status. Who served until a decision that holds later still does."""
        if version.version_id == self.serving:
            return "serves"
        return "to come" if any(one.version_id == version.version_id for one in self.to_come) else version.status


def changes_to_come(trail: Sequence[AuditEntry], event_time: int) -> tuple[Change, ...]:
    """Who is to serve after ``event_time``, as far as it is decided.

    >>> trail = [
    ...     AuditEntry("", "promoted", "a", None, "", ""),
    ...     AuditEntry("", "promoted", "b", "a", "", "", effective=100),
    ... ]
    >>> changes_to_come(trail, 99), changes_to_come(trail, 100)
    ((Change(at=100, version_id='b'),), ())
    """
    before, found = serving_at(trail, event_time), []
    for at in sorted({entry.effective for entry in trail if entry.effective is not None}):
        served = serving_at(trail, at)
        if at > event_time and served is not None and served != before:
            found.append(Change(at, served))
            before = served
    return tuple(found)


def read_registry(folder: Path, event_time: int) -> RegistryView:
    """As it is on the disk now. event_time: 0 where it is not known; then what was decided last holds.

    Raises ModelError where the trail cannot be read.
    """
    registry = Registry(folder)
    trail = tuple(registry.audit())
    if event_time:
        served, to_come = serving_at(trail, event_time), changes_to_come(trail, event_time)
    else:
        served, to_come = next(reversed(champions(trail)), None), ()
    return RegistryView(tuple(registry.versions()), registry.damaged(), trail, served, to_come)


def serving_version(registry: Registry, event_time: int) -> Version | None:
    """Who serves at an event time, where that is known, and somebody does; else whom the last decision chose.

    Raises ModelError for a damaged registry.
    """
    served = registry.champion_at(event_time) if event_time else None
    return served or registry.champion()
