"""``new-user-flood``: 2, 4 or 8 times as many users come for the first time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.records import Int64s
from streams.synthetic.draws import Draws

__all__ = ["NewUserFlood"]

_FACTORS = {"low": 2, "middle": 4, "high": 8}


@dataclass(frozen=True, slots=True, eq=False)
class NewUserFlood:
    """Whoever comes for the first time from the beginning on comes with companions: users with ids of their own.

    Its strength is by what the number of new users is multiplied. A companion rates what the new user rates, when it
    does; users who came before are left alone.
    """

    factor: int
    known: Int64s
    n_new_users: int
    first_fresh_id: int
    draws: Draws

    @staticmethod
    def learn(upstream: Upstream) -> NewUserFlood:
        known = np.empty(0, np.int64)
        new = np.empty(0, np.int64)
        for rows in upstream.whole():
            before = rows.timestamp < upstream.begins
            known = np.union1d(known, rows.user_id[before])
            new = np.union1d(new, rows.user_id[~before])
        new = np.setdiff1d(new, known, assume_unique=True)
        highest = max(int(ids.max(initial=0)) for ids in (known, new))
        return NewUserFlood(_FACTORS[upstream.spec.strength], known, len(new), highest + 1, upstream.draws)

    def is_new(self, user_id: Int64s) -> Bools:
        return np.isin(user_id, self.known, invert=True)

    def companion(self, user_id: Int64s, number: int) -> Int64s:
        """The id of a new user's companion ``number``, 1 to factor - 1: no id of the data, none twice."""
        return user_id + number * self.first_fresh_id

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        new = rows.take(begun & rows.well_formed & self.is_new(rows.user_id))
        copies = [
            replace(
                new,
                user_id=self.companion(new.user_id, number),
                key=self.draws.bits(f"companion {number}", new.key).view(np.int64),
            )
            for number in range(1, self.factor)
        ]
        added = np.zeros(len(rows) + len(new) * (self.factor - 1), bool)
        added[len(rows) :] = True
        return DriftColumns.concat([rows, *copies]), added

    def parameters(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "n_new_users": self.n_new_users,
            "n_companions": self.n_new_users * (self.factor - 1),
            "companion_id_step": self.first_fresh_id,
        }
