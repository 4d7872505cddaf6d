"""A movie's genres and year as the inputs of a model, and what was learnt of movies told from these."""

from __future__ import annotations

import numpy as np

from models.interactions import Float32s
from models.side_features import SideFeatures

__all__ = ["feature_matrix", "ridge_projection"]

_DECADES = np.arange(1900, 2031, 10)


def feature_matrix(features: SideFeatures) -> Float32s:
    """Inputs (m, 1 + genres + decades): one, the genres at unit length, and how near the year is to each decade.

    A movie without a year has no decade.
    """
    genres = features.genres / np.maximum(1.0, np.linalg.norm(features.genres, axis=1, keepdims=True))
    near = np.exp(-(((features.year[:, None] - _DECADES) / 8.0) ** 2)) * (features.year[:, None] > 0)
    return np.concatenate([np.ones((len(genres), 1)), genres, near], axis=1).astype(np.float32)


def ridge_projection(inputs: Float32s, targets: Float32s, weights: Float32s, l2: float = 10.0) -> Float32s:
    """The matrix P (f, d) that has ``inputs`` (m, f) P nearest to ``targets`` (m, d), each movie by its weight (m,)."""
    weighted = inputs * weights[:, None]
    gram = weighted.T.astype(np.float64) @ inputs + l2 * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, weighted.T @ targets).astype(np.float32)
