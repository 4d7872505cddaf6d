"""Recommendations for a user of a run as plain values, with titles and reasons: what ``streamlens recommend`` shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from featurestore.reader import FeatureReader
from models.explanations import Reasons, explain
from models.interactions import Histories
from models.registry import Registry, Version
from models.rules import Rules
from models.serving import Answer, Server
from models.side_features import SideFeatures
from models.splits import known_by
from streamlens.target import Target
from streams.errors import ConfigError, ModelMissing

__all__ = ["describe_recommendations"]

_REASONS = 3


def describe_recommendations(
    target: Target, user_id: int, k: int, *, rules: Rules, version_id: str | None = None, why: bool = False
) -> dict[str, Any]:
    """The list for the user's ratings as they stand in the store, by the champion or the version that is named.

    why: with the strongest reasons for each movie. Raises ModelMissing where there is no such version, ConfigError for
    a genre that no movie has.
    """
    version = _version(Registry(target.models), version_id)
    with FeatureReader(target.store_url) as reader:
        history = Histories.of_stored(reader.history(user_id))
        features, trained = SideFeatures.of_catalogue(reader.catalogue), version.load()
        _refuse_unknown_genres(rules, features)
        features = known_by(features, trained.movie_ids, reader.clock())  # a movie of years to come is not listed
        with Server(features) as server:
            server.swap(version.version_id, trained)
            model = server.model()
            answer = server.recommend(history, k, rules=rules, group=model.group_of(user_id))
        reasons = explain(model, history, answer.movie_ids, features) if why and not answer.cold else []
        movies = _movies(reader, answer, reasons)
    return {
        "user_id": user_id,
        "version": version.version_id,
        "status": version.status,
        "history": len(history.movie_id),
        "cold": answer.cold,
        "knows_features": model.knows_features,
        "movies": movies,
    }


def _version(registry: Registry, version_id: str | None) -> Version:
    version = registry.get(version_id) if version_id else registry.champion()
    if version is None:
        raise ModelMissing(
            f"{registry.folder}: expected a champion, found none; `streamlens train --model NAME --promote` makes one, "
            "--model VERSION takes another version"
        )
    return version


def _refuse_unknown_genres(rules: Rules, features: SideFeatures) -> None:
    for name, _ in rules.genre_weights:
        if name not in features.genre_names:
            raise ConfigError(f"--genre: expected one of {', '.join(features.genre_names) or 'none'}, found {name}")


def _movies(reader: FeatureReader, answer: Answer, reasons: list[Reasons]) -> list[dict[str, Any]]:
    listed = answer.movie_ids.tolist()
    known = reader.catalogue.movies
    counts = reader.get_item_features(answer.movie_ids).n_ratings.tolist()
    rows = []
    for i, (movie_id, score) in enumerate(zip(listed, answer.scores.tolist(), strict=True)):
        movie = known.get(movie_id)
        rows.append(
            {
                "rank": i + 1,
                "movie_id": movie_id,
                "title": movie.title if movie else None,
                "genres": list(movie.genres) if movie else [],
                "score": score,
                "n_ratings": counts[i],
                **(_reasons(reader, reasons[i]) if reasons else {}),
            }
        )
    return rows


def _reasons(reader: FeatureReader, reasons: Reasons) -> dict[str, Any]:
    known = reader.catalogue.movies
    strongest = np.argsort(-reasons.feature_changes, kind="stable").tolist()
    return {
        "because_you_rated": [
            {
                "movie_id": movie_id,
                "title": known[movie_id].title if movie_id in known else None,
                "change": None if np.isnan(change) else change,
            }
            for movie_id, change in reasons.strongest(_REASONS)
        ],
        "because_of": [
            {"feature": reasons.features[i], "change": float(reasons.feature_changes[i])}
            for i in strongest
            if reasons.feature_changes[i] > 0
        ],
    }
