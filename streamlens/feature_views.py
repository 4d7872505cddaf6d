"""Features as plain values, with titles: what ``streamlens features`` shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from featurestore.cache import CachedReader
from featurestore.embeddings import EmbeddingStore, Kind, embeddings_url
from featurestore.features import UserFeatures
from featurestore.popularity import PopularityReader
from featurestore.reader import FeatureReader
from streamlens.logs import configure_logs
from streamlens.store_freshness import StoreFreshness, look_at_log
from streamlens.target import Target
from streams.errors import ConfigError, StoreMissing
from streams.replay_options import parse_date

__all__ = ["cached_reader", "describe_item", "describe_top", "describe_user", "parse_as_of"]

_YEAR_10000 = 253_402_300_800


def parse_as_of(text: str | None) -> int | None:
    """Seconds since the epoch of a date, a date and time (UTC unless it says otherwise), or such seconds.

    Raises ConfigError for anything else, and for a time that is not in the years 1970 to 9999.

    >>> parse_as_of("2010-01-01"), parse_as_of("1262304000"), parse_as_of(None)
    (1262304000, 1262304000, None)
    """
    if text is None:
        return None
    moment = int(text) if text.isascii() and text.isdigit() and len(text) > 8 else parse_date(text, "--as-of")
    if not 0 <= moment < _YEAR_10000:
        hint = "; are these milliseconds?" if text.isdigit() else ""
        raise ConfigError(f"--as-of: expected a time in the years 1970 to 9999, found {text}{hint}")
    return moment


@contextmanager
def cached_reader(target: Target) -> Iterator[CachedReader]:
    """The target's features through the cache of its run; without one where it is turned off, or there is no run."""
    configure_logs(target.settings.log)
    folder = target.folder / "cache" if target.folder and target.settings.features.cache else None
    with FeatureReader(target.store_url) as reader, CachedReader(reader, folder) as cached:
        yield cached


def describe_user(target: Target, user_id: int, as_of: str | None) -> dict[str, Any]:
    """A user's features and latest ratings; a user without ratings is not ``known``, and no error."""
    moment = parse_as_of(as_of)
    with cached_reader(target) as cached:
        applied = cached.reader.applied()
        profile = cached.user_profile(_id(user_id), moment)
        movies = cached.reader.movies(profile.latest.movie_id.tolist())
    found, latest = profile.features, profile.latest
    freshness = look_at_log(target, applied)
    return {
        "user_id": user_id,
        "as_of": moment,
        "known": bool(found.known[0]),
        **_row(found, "n_ratings", "mean_rating", "first_rated", "last_rated", "recency_s"),
        **_row(found, "session_start", "session_n"),
        "freshness": freshness.of_view("users", moment),
        "taste": _taste(found),
        "embeddings": _embeddings(target, "user", user_id, moment, freshness),
        "history": [
            {
                "timestamp": int(latest.timestamp[i]),
                "movie_id": int(latest.movie_id[i]),
                "title": movie.title if (movie := movies.get(int(latest.movie_id[i]))) else None,
                "rating": float(latest.rating[i]),
                "late": bool(latest.late[i]),
            }
            for i in reversed(range(len(latest)))
        ],
    }


def describe_item(target: Target, movie_id: int, as_of: str | None) -> dict[str, Any]:
    """A movie's features; a movie without ratings is not ``known``, and no error."""
    moment = parse_as_of(as_of)
    with FeatureReader(target.store_url) as reader:
        applied = reader.applied()
        found = reader.get_item_features([_id(movie_id)], moment)
        movie = reader.movies([movie_id]).get(movie_id)
    freshness = look_at_log(target, applied)
    return {
        "movie_id": movie_id,
        "title": movie.title if movie else "unknown title",
        "year": movie.year if movie else None,
        "genres": list(movie.genres) if movie else [],
        "as_of": moment,
        "known": bool(found.known[0]),
        **_row(found, "n_ratings", "mean_rating", "first_rated", "last_rated", "recency_s", "decayed_popularity"),
        "freshness": freshness.of_view("items", moment),
        "embeddings": _embeddings(target, "item", movie_id, moment, freshness),
        "windows": {
            name: {"n_ratings": int(found.window_n[name][0]), "mean_rating": _plain(found.window_mean[name][0])}
            for name in found.window_n
        },
        "windows_end": found.as_of,
    }


def describe_top(target: Target, ranking: str, k: int, as_of: str | None) -> dict[str, Any]:
    """The first ``k`` movies of a ranking (:data:`featurestore.popularity.RANKINGS`), best first, with their trends."""
    moment = parse_as_of(as_of)
    with PopularityReader(target.store_url) as reader:
        found = reader.top_items(ranking, moment, k)
        movies = reader.movies([item.movie_id for item in found.items])
    return {
        "window": ranking,
        "as_of": moment,
        "start": found.start,
        "end": found.end,
        "trend_step_s": found.step_s,
        "movies": [
            {
                "rank": rank,
                "movie_id": item.movie_id,
                "title": movie.title if (movie := movies.get(item.movie_id)) else None,
                "n_ratings": item.n_ratings,
                "mean_rating": item.mean_rating,
                "score": item.score,
                "trend": trend,
            }
            for rank, (item, trend) in enumerate(zip(found.items, found.trend.tolist(), strict=True), 1)
        ],
    }


def _taste(found: UserFeatures) -> list[dict[str, Any]]:
    """The genres the user rated, the largest share first."""
    order = np.argsort(-found.taste[0], kind="stable").tolist()
    return [
        {"genre": found.genres[i], "share": _plain(found.taste[0, i]), "mean_rating": _plain(found.taste_mean[0, i])}
        for i in order
        if found.taste[0, i] > 0
    ]


def _embeddings(
    target: Target, kind: Kind, entity_id: int, as_of: int | None, freshness: StoreFreshness
) -> list[dict[str, Any]]:
    """Which version of each model would be read, and whether it knows the user or movie."""
    try:
        store = EmbeddingStore(embeddings_url(target.store_url))
    except StoreMissing:
        return []
    found = []
    with store:
        for model in sorted({manifest.model for manifest in store.versions(kind)}):
            if store.latest(kind, model, as_of) is not None:
                read = store.read(kind, model, [entity_id], as_of=as_of)
                version = read.version
                found.append(
                    {
                        "model": model,
                        "version": version.version,
                        "as_of": version.as_of,
                        "known": bool(read.known[0]),
                        "freshness": freshness.of_embeddings(version, as_of),
                    }
                )
    return found


def _id(value: int) -> int:
    if value >= 2**63:
        raise ConfigError(f"ID: expected 0 to 2^63 - 1, found {value}")
    return value


def _row(columns: Any, *names: str) -> dict[str, Any]:
    return {name: _plain(getattr(columns, name)[0]) for name in names}


def _plain(value: np.generic) -> int | float | None:
    """A numpy scalar as JSON knows it; NaN is None."""
    plain: int | float = value.item()
    return None if plain != plain else plain
