"""How much each rating of a history says of what comes next: the later ones say more."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from models.interactions import Float32s, Histories

__all__ = ["history_matrix", "recency_weights"]


def recency_weights(histories: Histories, half_life: float, floor: float) -> Float32s:
    """A weight per rating: the last of a history weighs 1, each one before it less, halved every ``half_life`` ratings.

    Counted in ratings, not in days: people rate in sittings. floor: what the oldest still weigh; all weigh 1 where
    half_life is 0.

    >>> recency_weights(Histories.of([([1, 2, 3], [4, 4, 4], [0, 1, 2])]), half_life=1.0, floor=0.0).tolist()
    [0.25, 0.5, 1.0]
    """
    if not half_life:
        return np.ones(len(histories.movie_id), np.float32)
    later = np.repeat(histories.start[1:], histories.lengths) - 1 - np.arange(histories.start[0], histories.start[-1])
    return (floor + (1.0 - floor) * np.exp2(-later / half_life)).astype(np.float32)


def history_matrix(histories: Histories, weights: Float32s, n_movies: int) -> sparse.csr_matrix:
    """Histories as rows of unit length (n, n_movies), sparse."""
    lengths = np.sqrt(np.bincount(histories.row, weights**2, minlength=len(histories)))
    values = (weights / lengths[histories.row]).astype(np.float32)
    return sparse.csr_matrix((values, histories.movie_id, histories.start), (len(histories), n_movies))
