"""What ``verify`` found: per view how many rows were compared, and where log and store disagree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["MAX_EXAMPLES", "Mismatch", "VerifyReport", "ViewReport"]

MAX_EXAMPLES = 5
"""Mismatches of one view that are kept as examples; all are counted."""

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One row that differs. ``expected``: what the log gives, None for a row that should not be there;
    ``found``: what the store holds, None for a row that is missing."""

    key: Values
    expected: Values | None
    found: Values | None

    def __str__(self) -> str:
        return f"{_text(self.key)}: expected {_text(self.expected)}, found {_text(self.found)}"


def _text(values: Values | None) -> str:
    return "no row" if values is None else ", ".join(f"{name}={value}" for name, value in values.items())


@dataclass(slots=True)
class ViewReport:
    """One view: ``rows`` compared over all partitions, the number of ``mismatches``, and the first few of them."""

    rows: int = 0
    mismatches: int = 0
    examples: list[Mismatch] = field(default_factory=list)

    def add(self, mismatch: Mismatch) -> None:
        self.mismatches += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(mismatch)


@dataclass(slots=True)
class VerifyReport:
    """The outcome of one verification. ``offsets``: per partition the offset up to which log and store were compared;
    ``events``: records of the log that were read; ``notes``: what could not be checked, and why."""

    views: dict[str, ViewReport]
    offsets: dict[int, int] = field(default_factory=dict)
    events: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if the store holds exactly what the log gives."""
        return self.mismatches == 0

    @property
    def rows(self) -> int:
        return sum(view.rows for view in self.views.values())

    @property
    def mismatches(self) -> int:
        return sum(view.mismatches for view in self.views.values())

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for ``--json``."""
        return {"ok": self.ok, "rows": self.rows, "mismatches": self.mismatches} | asdict(self)
