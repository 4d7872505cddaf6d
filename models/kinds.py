"""The models by name, each imported when it is asked for."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from models.model_files import read_model
from models.recommender import Recommender
from streams.errors import ModelError

__all__ = ["MODELS", "load_model", "make_model"]

MODELS: Mapping[str, str] = {
    "popularity": "models.popularity:Popularity",
    "decayed-popularity": "models.recent_popularity:DecayedPopularity",
    "ease": "models.ease:Ease",
    "two-tower": "models.two_tower:TwoTower",
    "vae": "models.hybrid_vae:HybridVae",
    "mf": "models.matrix_factorisation:MatrixFactorization",
    "neumf": "models.neumf:NeuMF",
}
"""Where the class of each model is."""


def make_model(name: str, **hyperparameters: Any) -> Recommender:
    """A model, untrained. Raises ModelError for a name or a hyperparameter that does not exist, or cannot be used.

    >>> make_model("ease", l2=200.0).hyperparameters
    {'l2': 200.0, 'top_weights': 0, 'recency_half_life': 0.0, 'recency_floor': 0.0, 'seed': 0}
    """
    kind = _kind(name)
    defaults = {each: about.default for each, about in inspect.signature(kind).parameters.items()}
    for each, value in hyperparameters.items():
        if each not in defaults:
            raise ModelError(f"{name}: expected hyperparameters among {', '.join(defaults)}, found {each!r}")
        _refuse_unlike(f"{name}: {each}", value, defaults[each])
    try:
        return kind(**hyperparameters)
    except ValueError as error:
        raise ModelError(f"{name}: {error}") from error


def load_model(folder: Path) -> Recommender:
    """The model in ``folder``, of whatever kind. Raises ModelError as :meth:`Recommender.load` does."""
    return _kind(read_model(folder).name).load(folder)


def _refuse_unlike(what: str, value: object, default: object) -> None:
    """They come from a command line or a file, and a word or a fraction in the wrong place fails deep in training."""
    wanted = int | float if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or isinstance(value, bool) != isinstance(default, bool):
        raise ModelError(f"{what}: expected a value such as {default!r}, found {value!r}")
    if isinstance(value, int | float) and value < 0:
        raise ModelError(f"{what}: expected 0 or more, found {value!r}")


def _kind(name: str) -> type[Recommender]:
    if name not in MODELS:
        raise ModelError(f"expected one of the models {', '.join(MODELS)}, found {name!r}")
    module, _, kind = MODELS[name].partition(":")
    found: type[Recommender] = getattr(import_module(module), kind)
    return found
