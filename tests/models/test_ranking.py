"""The top k, against sorting every row."""

from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Float32s
from models.ranking import NO_MOVIE, top_k


def by_sorting(scores: Float32s, k: int) -> tuple[list[list[int]], list[list[float]]]:
    columns, values = [], []
    for line in scores.tolist():
        best = [c for c in sorted(range(len(line)), key=lambda c: (-line[c], c))[:k] if line[c] > -np.inf]
        columns.append(best + [NO_MOVIE] * (k - len(best)))
        values.append([line[c] for c in best] + [-np.inf] * (k - len(best)))
    return columns, values


@pytest.mark.parametrize("m", [1, 7, 129, 255, 256, 519, 4_000, 4_095, 4_096, 4_159, 10_000, 16_389])
@pytest.mark.parametrize("levels", [2, 1_000_000])
@pytest.mark.parametrize("k", [1, 10, 100])
def test_is_what_sorting_gives_whatever_the_ties(m: int, levels: int, k: int) -> None:
    random = np.random.default_rng(m + levels + k)
    scores = random.integers(levels, size=(5, m)).astype(np.float32)
    scores[1, random.random(m) < 0.9] = -np.inf
    scores[2] = -np.inf
    scores[3, m // 2 :] = -np.inf
    columns, values = top_k(scores, k)
    assert (columns.tolist(), values.tolist()) == by_sorting(scores, k)


@pytest.mark.parametrize("at", [0, 4_097, 9_999])
def test_nan_is_refused_wherever_it_is(at: int) -> None:
    scores = np.zeros((2, 10_000), np.float32)
    scores[1, at] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        top_k(scores, 5)
    with pytest.raises(ValueError, match="NaN"):
        top_k(scores, 10_000)
