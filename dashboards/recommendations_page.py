"""Recommendations: what the champion lists for a user, why, and what rules make of it."""

from __future__ import annotations

import secrets

import numpy as np
import streamlit as st

from dashboards import charts
from dashboards.live import Live, NoRun, current_live
from dashboards.panels import Tile, day, empty, head, note, number, pill, table, tiles, title
from dashboards.posters import poster, shelf_html
from dashboards.production_figures import titled
from dashboards.publishing import publish_ratings
from dashboards.recommender import Given, Listed, Recommending, UserHistory, merged, shelves
from featurestore.features import History
from models.interactions import Histories
from models.registry import Version
from models.rules import Rules
from models.serving import CHAMPION
from streams.errors import ModelError, ModelMissing, StoreMissing, StreamLensError
from streams.events import IMPRESSIONS, Slate

__all__ = ["recommendations_page"]

_TO_RATE = 12
_NEEDED = 5
_MOMENTS = {"now": 0, "before the last 5 ratings": 5, "before the last 10": 10, "before the last 20": 20}
_NEW_USERS_FROM = 1_000_000_000
"""Ids of people who rate on the pages: far above those of any dataset."""
_REASONS = 5
_REVEALED = 20


def recommendations_page() -> None:
    live = current_live()
    if isinstance(live, NoRun):
        return
    try:
        recommending = live.recommending()
        recommending.variants()
    except StoreMissing:
        empty("No feature store yet", "Lists are made from the ratings that a worker has applied.", "streamlens worker")
        return
    except ModelMissing:
        empty(
            "No champion yet",
            "The trainer promotes one once the training part has been applied, or train one by hand.",
            "streamlens train --model two-tower --promote",
        )
        return
    except StreamLensError as error:
        empty("The store cannot be read for now", str(error))
        return
    who = st.segmented_control(
        "Who", ["A user of the run", "Me, as someone new"], default="A user of the run", key="who"
    )
    if who == "Me, as someone new":
        _someone_new(live, recommending)
    else:
        _stored_user(live, recommending)


def _stored_user(live: Live, recommending: Recommending) -> None:
    latest: list[Slate] = [placed.record for placed in live.subscriber.records.recent(IMPRESSIONS)]
    recent = list(dict.fromkeys(slate.user_id for slate in reversed(latest)))[:30]
    ids = [*recent, *(user for user in recommending.users() if user not in recent)]
    if not ids:
        empty("Nobody has rated yet", "Users come with the ratings.")
        return
    left, right = st.columns([1, 1], gap="small")
    with left:
        chosen = st.selectbox(
            "User (type any id)" + (", those seen last first" if recent else ""), [str(i) for i in ids],
            accept_new_options=True, key="user",
        )  # fmt: skip
    with right:
        moment = st.selectbox("Moment", list(_MOMENTS), key="moment", help="An earlier one shows what was rated next.")
    if not (chosen and chosen.isdigit()) or int(chosen) >= 2**63:
        empty("No such user", "A user id is a whole number.")
        return
    try:
        stored = recommending.history(int(chosen))
    except StreamLensError as error:
        empty("The store cannot be read for now", str(error))
        return
    _lists(live, recommending, int(chosen), UserHistory.split(stored, _MOMENTS[moment]), [])


def _someone_new(live: Live, recommending: Recommending) -> None:
    user_id: int = st.session_state.setdefault("new_user", _NEW_USERS_FROM + secrets.randbelow(10**9))
    given: list[Given] = st.session_state.setdefault("given", [])
    if not given:
        _rate(live, recommending, user_id)
        return
    st.html(
        f'<div class="sl-bar">{pill(f"user {user_id}", "idle")}<span>{len(given)} ratings, published as '
        f"<b>{live.source}</b></span></div>"
    )
    if st.button("Start over as someone else", icon=":material/restart_alt:", key="start_over"):
        for key in ("new_user", "given"):
            del st.session_state[key]
        st.rerun()
    try:
        stored = recommending.history(user_id)
    except StreamLensError:
        stored = _nothing()
    _lists(live, recommending, user_id, UserHistory.split(stored, 0), given)


def _nothing() -> History:
    """The history of someone of whom nothing is stored."""
    whole = np.zeros(0, np.int64)
    return History(whole, whole, np.zeros(0), np.zeros(0, bool))


def _rate(live: Live, recommending: Recommending, user_id: int) -> None:
    store = live.store
    popular = [item.movie_id for item in store.popular if item.movie_id in recommending.movies]
    if len(popular) < _TO_RATE:
        popular += [m for m in recommending.movies if m not in popular][: _TO_RATE - len(popular)]
    head(f"Rate {_NEEDED} or more that you know", store.at or None, live.now(), stale_after_s=None)
    note("They are published as real events at the run's event time, and reach the features like everybody's.")
    extra = st.multiselect(
        "Others, by title", list(recommending.movies), format_func=lambda m: titled(store, m), key="others",
        placeholder="Search all movies",
    )  # fmt: skip
    stars: list[Given] = []
    shown = [*extra, *(m for m in popular if m not in extra)][: _TO_RATE + len(extra)]
    for first in range(0, len(shown), 6):
        for column, movie_id in zip(st.columns(6, gap="small"), shown[first : first + 6], strict=False):
            with column, st.container(key=f"rate_{movie_id}"):
                st.html(poster(recommending.movies[movie_id]))
                answer = st.feedback("stars", key=f"stars_{movie_id}")
                if answer is not None:
                    stars.append((movie_id, float(answer + 1)))
    ready = len(stars) >= _NEEDED
    label = "Publish, and see my list" if ready else f"{_NEEDED - len(stars)} more to go"
    if st.button(label, disabled=not ready, key="publish", icon=":material/send:"):
        try:
            publish_ratings(live, user_id, stars)
        except StreamLensError as error:
            st.error(str(error))
            return
        st.session_state["given"] = stars
        st.rerun()


@st.fragment
def _lists(live: Live, recommending: Recommending, user_id: int, user: UserHistory, given: list[Given]) -> None:
    """Everything that a slider changes: only this is run again then."""
    with st.container(border=True, key="panel_rules"):
        variant, rules = _rules(recommending)
    history = merged(user.before, given, live.event_time)
    try:
        listed = recommending.recommend(user_id, history, rules=rules, variant=variant)
    except ModelError as error:
        st.warning(str(error))
        return
    version = recommending.registry.get(listed.answer.version)
    _about(recommending, listed, user, version)
    liked = user.before if not given else _as_history(history)
    revealed: set[int] = set()
    after = user.after
    if len(after) and st.toggle(f"Show what they really rated next ({len(after)} ratings)", key="reveal"):
        revealed = set(after.movie_id.tolist())
    rows = shelves(listed.answer, liked, recommending.movies)
    st.html("".join(shelf_html(row.title, row.note, row.movies, revealed) for row in rows))
    if revealed:
        _revealed(recommending, listed, after)
    _why(recommending, listed)
    _latest_rated(recommending, history)


def _rules(recommending: Recommending) -> tuple[str, Rules]:
    variants = recommending.variants()
    one, two, three, four, five = st.columns(5, gap="medium")
    with one:
        names = [CHAMPION, *sorted(variants.keys() - {CHAMPION})]
        shown = {name: f"champion ({variants.get(name, '-')})" if name == CHAMPION else name for name in names}
        variant = st.selectbox("Model", names, key="variant", format_func=lambda name: shown.get(name, name))
    with two:
        diversity = st.slider(
            "Diversity", 0.0, 1.0, 0.0, 0.05, key="diversity", help="0: as scored. 1: as unlike as can be."
        )
    with three:
        recency = st.slider("Recency of taste", 0, 50, 0, 1, key="recency", help="Half-life in ratings; 0: none.")
    with four:
        genre = st.selectbox("Genre", ["none", *recommending.genres], key="genre")
    with five:
        weight = 1.0 if genre == "none" else st.slider("Genre weight", 0.0, 3.0, 2.0, 0.1, key="weight")
    weights = ((genre, weight),) if genre != "none" and weight != 1.0 else ()
    return variant, Rules(weights, diversity, float(recency))


def _about(recommending: Recommending, listed: Listed, user: UserHistory, version: Version) -> None:
    latency = recommending.latency()[listed.answer.variant]
    note_of = "from the cache" if listed.answer.cached else "computed"
    tiles(
        [
            Tile("request_ms", "This request", number(listed.ms, 1), "ms", f"on the server, {note_of}"),
            Tile("p50", "p50 of the variant", number(latency.p50_ms, 1), "ms", f"{latency.answers:,} answers here"),
            Tile("p95", "p95", number(latency.p95_ms, 1), "ms"),
            Tile("p99", "p99", number(latency.p99_ms, 1), "ms"),
            Tile("known", "Known of the user", number(len(listed.history.movie_id)), "movies"),
            Tile("learnt", "Model learnt before", day(version.manifest.as_of), "", version.manifest.kind),
        ]
    )
    if listed.answer.cold:
        note("Nothing of this history is known to the model: the list is what is popular (cold start).")
    if len(user.after) and version.manifest.as_of > int(user.after.timestamp[0]):
        note("This model has learnt from ratings after the chosen moment, perhaps from these: no fair test of it.")


def _as_history(history: Histories) -> History:
    """The merged history, so that shelves follow what was just given."""
    stars = history.rating.astype(np.float64)
    return History(history.timestamp, history.movie_id, stars, np.zeros(len(stars), bool))


def _revealed(recommending: Recommending, listed: Listed, after: History) -> None:
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


def _why(recommending: Recommending, listed: Listed) -> None:
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
            st.vega_lite_chart(
                charts.rows_table(rows, ("name", "value")), charts.bars("reasons", "score lost without it"),
                height=60 + 26 * len(rows), key="why_chart",
            )  # fmt: skip
        else:
            empty("No single reason", "Without any one rating the score is as high: it is the taste as a whole.")


def _latest_rated(recommending: Recommending, history: Histories) -> None:
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
