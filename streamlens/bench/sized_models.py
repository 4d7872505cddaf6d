"""Models of a given size with random arrays, written and read back as trained ones are.

What serving costs depends on the shapes of the arrays, and for EASE on how often a movie is among another's strongest,
but not on what was learnt: so nothing has to be trained, which for EASE on 30,000 movies would take hours.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.interactions import Float32s
from models.kinds import load_model
from models.model_files import write_model
from models.movie_features import feature_matrix
from models.ranking_factors import turned_to_axes
from models.recommender import Recommender
from models.side_features import SideFeatures
from streams.records import Int64s

__all__ = ["SIZED_MODELS", "sized_model"]

_Arrays = dict[str, npt.NDArray[Any]]

_FACTORS, _RATING_FACTORS, _TOWER, _TOP_WEIGHTS, _NEUMF, _NEUMF_HIDDEN = 128, 16, 128, 200, 64, 32
"""What `streamlens train` makes unless told otherwise, but for EASE, which keeps all weights."""


def _normal(random: np.random.Generator, *shape: int) -> Float32s:
    return random.standard_normal(shape, np.float32) / np.float32(shape[-1] ** 0.5)


def _mf(random: np.random.Generator, popularity: Float32s, n_features: int) -> tuple[dict[str, Any], _Arrays]:
    m, d = len(popularity), _RATING_FACTORS + 1
    movies, spectrum = turned_to_axes(_normal(random, m, _FACTORS))
    arrays: _Arrays = {
        "movies": movies,
        "spectrum": spectrum,
        "unrated": np.zeros(0, np.int64),
        "rating.movies": _normal(random, m, d),
        "rating.variances": np.full((m, d), 0.1, np.float32),
        "rating.precision": np.eye(d, dtype=np.float32),
        "rating.level": np.array([3.5, 0.7], np.float32),
    }
    return {"factors": _FACTORS, "rating_factors": _RATING_FACTORS}, arrays


def _towers(
    random: np.random.Generator, popularity: Float32s, n_features: int, *, d: int
) -> tuple[dict[str, Any], _Arrays]:
    """What :mod:`models.feature_towers` learns, ``d`` wide."""
    m = len(popularity)
    arrays: _Arrays = {
        "history": _normal(random, m, d),
        "history_features": _normal(random, n_features, d),
        "movie": _normal(random, m, d),
        "movie_features": _normal(random, n_features, d),
        "bias": _normal(random, m),
        "bias_features": _normal(random, n_features),
        "hidden": _normal(random, d, d),
        "hidden_bias": _normal(random, d),
        "out": _normal(random, d, d),
    }
    return {"width": d}, arrays


def _ease(random: np.random.Generator, popularity: Float32s, n_features: int) -> tuple[dict[str, Any], _Arrays]:
    """Each movie's strongest weights are to movies drawn by the root of their popularity."""
    m = len(popularity)
    kept = min(_TOP_WEIGHTS, m)
    chance = np.sqrt(popularity)
    drawn = random.choice(m, (m, kept), p=chance / chance.sum())
    row, column = np.unique(np.stack([drawn.ravel(), np.repeat(np.arange(m), kept)]), axis=1)
    arrays: _Arrays = {
        "rated": np.arange(m),
        "data": 0.1 * random.standard_normal(len(row), np.float32),
        "indices": column.astype(np.int32),
        "indptr": np.concatenate(([0], np.cumsum(np.bincount(row, minlength=m)))).astype(np.int32),
    }
    return {"top_weights": kept}, arrays


def _neumf(random: np.random.Generator, popularity: Float32s, n_features: int) -> tuple[dict[str, Any], _Arrays]:
    m, d, h = len(popularity), _NEUMF, _NEUMF_HIDDEN
    arrays: _Arrays = {
        "history": _normal(random, m, d + h),
        "movie": _normal(random, m, d + h),
        "bias": _normal(random, m),
        "first_bias": _normal(random, h),
        "second": _normal(random, h, h // 2),
        "second_bias": _normal(random, h // 2),
        "out_gmf": np.ones(d, np.float32),
        "out_mlp": _normal(random, h // 2),
    }
    return {"factors": d, "hidden": h}, arrays


SIZED_MODELS: dict[str, Callable[[np.random.Generator, Float32s, int], tuple[dict[str, Any], _Arrays]]] = {
    "mf": _mf,
    "two-tower": partial(_towers, d=_TOWER),
    "vae": partial(_towers, d=_TOWER),
    "ease": _ease,
    "neumf": _neumf,
}


def sized_model(
    name: str,
    movie_ids: Int64s,
    popularity: Float32s,
    folder: Path,
    *,
    genre_names: tuple[str, ...] = (),
    seed: int = 0,
) -> Recommender:
    """A model of ``SIZED_MODELS`` that ranks ``movie_ids``, which rise; saved to ``folder``, which must not exist.

    popularity: (m,), above 0: how often each is rated. genre_names: those that two-tower and VAE know.
    It knows no users: all are served by their histories.
    """
    n_features = feature_matrix(SideFeatures.none().with_genres(genre_names)).shape[1]
    hyperparameters, learnt = SIZED_MODELS[name](np.random.default_rng(seed), popularity, n_features)
    none = np.zeros(0, np.int64)
    arrays = {f"model.{key}": values for key, values in learnt.items()} | {
        "movie_ids": movie_ids,
        "user_ids": none,
        "cold": popularity[None].astype(np.float32),
        "columns": np.arange(len(movie_ids)),
        "seen.start": np.zeros(1, np.int64),
        "seen.movie_id": none,
        "seen.rating": np.zeros(0, np.float32),
        "seen.timestamp": none,
    }
    write_model(folder, name, hyperparameters, arrays, {"groups": [], "user_groups": {}, "genres": list(genre_names)})
    return load_model(folder)
