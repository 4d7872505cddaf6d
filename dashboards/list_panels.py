"""Panels of the recommendations page about one list: what was rated next, why a movie, latency, what is known."""

from __future__ import annotations

import numpy as np
import streamlit as st

from dashboards import charts
from dashboards.panels import chart, day, empty, note, number, table, title
from dashboards.recommender import Listed, Recommending
from featurestore.features import History
from models.interactions import Histories

__all__ = ["known_ratings", "latency_panel", "rated_next", "why_panel"]

_REASONS = 5
_REVEALED = 20


def rated_next(recommending: Recommending, listed: Listed, after: History) -> None:
    top = listed.answer.movie_ids[:10].tolist()
    hits = len(set(top) & set(after.movie_id.tolist()))
    place = {movie: i for i, movie in enumerate(listed.answer.movie_ids.tolist(), 1)}
    title(f"Really rated next: {hits} of the first 10 listed")
    rows = []
    for i in range(min(len(after), _REVEALED)):
        movie_id = int(after.movie_id[i])
        movie = recommending.movies.get(movie_id)
        listed_at = f"place {place[movie_id]}" if movie_id in place else "not listed"
        rows.append(
            [day(after.timestamp[i]), movie.title if movie else str(movie_id), f"{after.rating[i]:.1f}", listed_at]
        )
    table(["event day", "movie", "stars", "in the list"], rows, numbers=(2,), label="Really rated next")


def why_panel(recommending: Recommending, listed: Listed) -> None:
    with st.container(border=True, key="panel_why"):
        title("Why this movie")
        names = {
            m: recommending.movies[m].title for m in listed.answer.movie_ids[:40].tolist() if m in recommending.movies
        }
        chosen = st.selectbox(
            "Movie", list(names), format_func=lambda m: names[m], key="why", label_visibility="collapsed"
        )
        if chosen is None or chosen not in names:
            return
        reasons = recommending.explain(listed, chosen)
        if reasons is None:
            empty("It is popular", "Nothing is known of the user that could be a reason.")
            return
        rows = [
            {"name": f"rated {recommending.movies[m].title if m in recommending.movies else m}", "value": change}
            for m, change in reasons.strongest(_REASONS)
            if not np.isnan(change)
        ]
        rows += [
            {"name": "the year" if name == "year" else f"genre {name}", "value": float(change)}
            for name, change in zip(reasons.features, reasons.feature_changes.tolist(), strict=True)
            if change > 0
        ]
        note("How much of the movie's score is lost without each: a leave-one-out difference, for every model.")
        if rows:
            chart(
                charts.rows_table(rows, ("name", "value")), charts.bars("reasons", "score lost without it"),
                height=60 + 26 * len(rows), key="why_chart",
            )  # fmt: skip
        else:
            empty("No single reason", "Without any one rating the score is as high: it is the taste as a whole.")


def known_ratings(recommending: Recommending, history: Histories) -> None:
    if not len(history.movie_id):
        return
    with st.expander(f"What is known: {len(history.movie_id)} rated movies"):
        rows = []
        for movie_id, stars, at in zip(
            history.movie_id[::-1][:50].tolist(),
            history.rating[::-1].tolist(),
            history.timestamp[::-1].tolist(),
            strict=False,
        ):
            movie = recommending.movies.get(movie_id)
            rows.append([day(at), movie.title if movie else str(movie_id), f"{stars:.1f}"])
        table(["event day", "movie", "stars"], rows, numbers=(2,), label="Rated movies")


def latency_panel(recommending: Recommending) -> None:
    versions = recommending.server.versions
    rows = [
        [
            name,
            versions.get(name, "withdrawn"),
            number(one.answers),
            number(one.hits),
            *(number(ms, 1) for ms in (one.p50_ms, one.p95_ms, one.p99_ms)),
        ]
        for name, one in sorted(recommending.latency().items())
        if one.answers
    ]
    with st.container(border=True, key="panel_latency_by_variant"):
        title("Latency by variant", "of the answers given on these pages")
        table(
            ["variant", "version", "answers", "from the cache", "p50, ms", "p95, ms", "p99, ms"],
            rows,
            numbers=(2, 3, 4, 5, 6),
            label="Latency by variant",
        )
