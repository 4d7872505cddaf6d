"""Who the users of MovieLens 1M and 100K are: sex and age, as one group each. Other releases say nothing of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streams.errors import DataError
from streams.movielens.layout import DAT, TAB, Layout, find_layout
from streams.movielens.ratings import RENEW

__all__ = ["AGE_GROUPS", "read_user_groups"]

AGE_GROUPS = {1: "under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
"""By the youngest age of each, as 1M codes them."""

_FILES = {DAT: ("users.dat", "::", 1, 2), TAB: ("u.user", "|", 2, 1)}
"""File, separator, and where sex and age stand, by format; 10M has the format of 1M, and no such file."""
_FIELDS = 5


def read_user_groups(folder: Path) -> dict[int, str]:
    """The group of each user, "F 25-34" say; empty for a release without. Raises DataError for a row that is none."""
    layout = find_layout(folder)
    name, separator, sex, age = _FILES.get(layout, ("", "", 0, 0))
    if not name or not (folder / name).is_file():
        return {}
    groups = {}
    for number, line in enumerate((folder / name).read_text("latin-1").splitlines(), 1):
        row = line.split(separator)
        if len(row) != _FIELDS or not row[0].isdigit() or row[sex] not in ("F", "M") or not row[age].isdigit():
            raise DataError(
                f"{folder / name} line {number}: expected {_expected(layout)}, found {line[:80]!r}; {RENEW}"
            )
        groups[int(row[0])] = f"{row[sex]} {_age_group(int(row[age]))}"
    return groups


def _age_group(age: int) -> str:
    youngest = list(AGE_GROUPS)
    return AGE_GROUPS[youngest[max(0, int(np.searchsorted(youngest, age, "right")) - 1)]]


def _expected(layout: Layout) -> str:
    return "UserID::Gender::Age::Occupation::Zip-code" if layout is DAT else "user id|age|gender|occupation|zip code"
