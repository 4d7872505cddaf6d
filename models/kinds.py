"""The models by name, each imported when it is asked for."""

from __future__ import annotations

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
    try:
        return kind(**hyperparameters)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name}: {error}") from error


def load_model(folder: Path) -> Recommender:
    """The model in ``folder``, of whatever kind. Raises ModelError as :meth:`Recommender.load` does."""
    return _kind(read_model(folder).name).load(folder)


def _kind(name: str) -> type[Recommender]:
    if name not in MODELS:
        raise ModelError(f"expected one of the models {', '.join(MODELS)}, found {name!r}")
    module, _, kind = MODELS[name].partition(":")
    found: type[Recommender] = getattr(import_module(module), kind)
    return found
