"""``popularity-flip``: what nobody watched is what everybody watches, for 10, 30 or 60 % of the ratings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.drift.columns import Bools, DriftColumns
from streams.drift.effect import Upstream
from streams.drift.tally import Tally, mapped
from streams.errors import ConfigError
from streams.records import Int64s

__all__ = ["PopularityFlip", "head_size"]

_MASS = {"low": 0.10, "middle": 0.30, "high": 0.60}


def head_size(counts: Int64s, share: float) -> int:
    """How many of the movies with ``counts`` (falling) hold the part of all ratings that is closest to ``share``.

    At least one, at most half of them, so that each has a partner.

    >>> head_size(np.array([5, 3, 1, 1]), 0.6)
    1
    """
    held = np.cumsum(counts)[: len(counts) // 2] / counts.sum()
    return int(np.argmin(np.abs(held - share))) + 1


@dataclass(frozen=True, slots=True, eq=False)
class PopularityFlip:
    """From the beginning on, the most popular movies and the least popular ones change places: the first with the last.

    Its strength is the part of the affected part's ratings that the popular ones hold. Whole movies change places, so
    it is met as closely as they allow: off by half the ratings of one of them at most.
    """

    share: float
    head: Int64s
    tail: Int64s
    head_share: float
    tail_share: float

    @staticmethod
    def learn(upstream: Upstream) -> PopularityFlip:
        tally = Tally()
        for rows in upstream.affected_part():
            tally.add(rows.movie_id)
        if len(tally.ids) < 2:
            raise ConfigError(
                f"drift {upstream.spec}: expected ratings of two movies or more from week {upstream.spec.week} on, "
                f"found {len(tally.ids)}; choose an earlier week"
            )
        # Among equally popular movies, chance decides: by id, the newest would be the tail.
        chance = upstream.draws.bits("order", tally.ids)
        order = np.lexsort((chance, -tally.counts))
        ids, counts = tally.ids[order], tally.counts[order]
        share = _MASS[upstream.spec.strength]
        n = head_size(counts, share)
        total = int(counts.sum())
        return PopularityFlip(
            share, ids[:n], ids[::-1][:n], int(counts[:n].sum()) / total, int(counts[::-1][:n].sum()) / total
        )

    def apply(self, rows: DriftColumns, begun: Bools) -> tuple[DriftColumns, Bools]:
        sources, targets = np.concatenate([self.head, self.tail]), np.concatenate([self.tail, self.head])
        order = np.argsort(sources)
        flipped = mapped(rows.movie_id, sources[order], targets[order])
        movie_id = np.where(begun & rows.well_formed, flipped, rows.movie_id)
        return replace(rows, movie_id=movie_id), movie_id != rows.movie_id

    def parameters(self) -> dict[str, Any]:
        return {
            "mass": self.share,
            "head_share": self.head_share,
            "tail_share": self.tail_share,
            "swapped": np.column_stack([self.head, self.tail]).tolist(),
        }
