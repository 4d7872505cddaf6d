"""What drift is asked for: ``kind@week:strength``, checked before anything is opened."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from streams.errors import ConfigError

__all__ = ["KINDS", "STRENGTHS", "DriftSpec", "parse_drift", "parse_drifts"]

KINDS = (
    "rating-bias",
    "popularity-flip",
    "taste-shift",
    "volume-drop",
    "new-user-flood",
    "malformed",
    "late",
)
STRENGTHS = ("low", "middle", "high")
_SPEC = re.compile(r"([^@:]+)@([0-9]{1,6}):([^@:]+)")
_MOST = 32
"""Drifts of one run: each takes a bit of a record's marks."""


class DriftSpec(NamedTuple):
    """One drift: from the beginning of ``week`` until the end of the run."""

    kind: str
    week: int
    strength: str

    def __str__(self) -> str:
        return f"{self.kind}@{self.week}:{self.strength}"


def parse_drift(text: str) -> DriftSpec:
    """A drift as typed. Raises ConfigError for anything else, naming the nearest kind or strength.

    >>> parse_drift("rating-bias@12:high")
    DriftSpec(kind='rating-bias', week=12, strength='high')
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"drift: expected KIND@WEEK:STRENGTH such as rating-bias@12:high, found {text!r}")
    kind, week, strength = found.groups()
    _refuse_unknown(text, "a kind", kind, KINDS)
    _refuse_unknown(text, "a strength", strength, STRENGTHS)
    return DriftSpec(kind, int(week), strength)


def parse_drifts(texts: Sequence[str]) -> tuple[DriftSpec, ...]:
    """Several drifts, in the order in which they are put in. Raises ConfigError."""
    if len(texts) > _MOST:
        raise ConfigError(f"drift: expected at most {_MOST} in one run, found {len(texts)}")
    return tuple(map(parse_drift, texts))


def _refuse_unknown(text: str, what: str, found: str, known: Sequence[str]) -> None:
    if found not in known:
        nearest = difflib.get_close_matches(found, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError(f"drift {text}: expected {what} of {', '.join(known)}, found {found!r}{hint}")
