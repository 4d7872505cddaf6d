"""The last time slice of the training data, held out to say when to stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from models.interactions import Float32s, Histories
from models.ranking import top_k
from models.recommender import TrainingData
from streams.records import Int64s

__all__ = ["Holdout", "histories_of", "hold_out_last"]

_SHARE = 0.1
_LEAST_USERS = 10
_K = 10


@dataclass(frozen=True, slots=True, eq=False)
class Holdout:
    """Users of the last slice: the earlier part of each one's ratings, and the columns of the rest (n, movies)."""

    given: Histories
    wanted: sparse.csr_matrix

    def ndcg(self, scores: Float32s) -> float:
        """NDCG@10 of ``scores`` (n, movies), what was given left out."""
        scores = scores.copy()
        scores[self.given.row, self.given.movie_id] = -np.inf
        columns, _ = top_k(scores, _K)
        discounts = 1.0 / np.log2(np.arange(_K) + 2.0)
        best = np.concatenate(([0.0], np.cumsum(discounts)))
        total = 0.0
        for row, listed in enumerate(columns):
            wanted = self.wanted.indices[self.wanted.indptr[row] : self.wanted.indptr[row + 1]]
            total += (np.isin(listed, wanted) * discounts).sum() / best[min(_K, len(wanted))]
        return float(total / len(columns))


def hold_out_last(data: TrainingData) -> tuple[TrainingData, Holdout] | None:
    """The users who rated last, a tenth of all, apart from the others; None where these are too few to say anything.

    Nothing of theirs is learnt from; of each one's ratings the first four fifths are given, the rest is wanted. The
    others may rate until the end: this says when to stop, and is no measure of what a model is worth later on.
    """
    histories = histories_of(data)
    lengths = histories.lengths
    last = np.where(lengths > 0, histories.timestamp[np.maximum(histories.start[1:] - 1, 0)], 0)
    eligible = np.flatnonzero(lengths >= 5)
    late = eligible[np.lexsort((eligible, last[eligible]))][-max(1, round(_SHARE * data.n_users)) :]
    late = np.sort(late)
    if len(late) < _LEAST_USERS:
        return None
    kept = ~np.isin(data.row, late)
    others, row = np.unique(data.row[kept], return_inverse=True)
    training = replace(
        data,
        user_ids=data.user_ids[others],
        row=row.astype(np.int64),
        column=data.column[kept],
        rating=data.rating[kept],
        timestamp=data.timestamp[kept],
    )
    position = np.arange(len(histories.movie_id)) - np.repeat(histories.start[:-1], lengths)
    earlier = position < np.repeat(np.floor(lengths * 0.8), lengths)
    of_late = np.isin(histories.row, late)
    given = _rows(histories.kept(of_late & earlier, histories.movie_id), late)
    wanted = _rows(histories.kept(of_late & ~earlier, histories.movie_id), late)
    ones = np.ones(len(wanted.movie_id), np.float32)
    return training, Holdout(
        given, sparse.csr_matrix((ones, wanted.movie_id, wanted.start), (len(late), data.n_movies))
    )


def histories_of(data: TrainingData) -> Histories:
    """All of the training data, a history per row, by column."""
    lengths = np.bincount(data.row, minlength=data.n_users)
    start = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))
    return Histories(start, data.column, data.rating, data.timestamp)


def _rows(histories: Histories, rows: Int64s) -> Histories:
    """``rows`` of histories of which all others are empty."""
    start = np.concatenate(([0], histories.start[rows + 1]))
    return Histories(start, histories.movie_id, histories.rating, histories.timestamp)
