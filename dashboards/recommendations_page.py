"""Recommendations: what the champion lists for a user, why, and what rules make of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
import streamlit as st

from dashboards.list_panels import known_ratings, latency_panel, rated_next, why_panel
from dashboards.live import Live, shown_live
from dashboards.panels import blank, day, empty, head, note, number, pill
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
_READ_AT = "lists_read_at"
_MOMENTS = {"now": 0, "before the last 5 ratings": 5, "before the last 10": 10, "before the last 20": 20}
_NEW_USERS_FROM = 1_000_000_000
"""Ids of people who rate on the pages: far above those of any dataset."""


def recommendations_page() -> None:
    live = shown_live()
    if live is None:
        return
    recommending = _ready(live)
    if isinstance(recommending, Lacking):
        _wait(recommending)
        return
    _age()
    who = st.segmented_control(
        "Who", ["A user of the run", "Me, as someone new"], default="A user of the run", key="who"
    )
    if who == "Me, as someone new":
        _someone_new(live, recommending)
    else:
        _stored_user(live, recommending)


@dataclass(frozen=True, slots=True)
class Lacking:
    """What there must be before anything can be recommended, and what would bring it."""

    title: str
    text: str
    command: str = ""


def _ready(live: Live) -> Recommending | Lacking:
    try:
        recommending = live.recommending()
        recommending.variants()
        recommending.users(1)  # models that are in memory do not tell that the store has gone
    except StoreMissing:
        text = "Lists are made from the ratings that a worker has applied."
        return Lacking("No feature store yet", text, "streamlens worker")
    except ModelMissing:
        text = "The trainer promotes one once the training part has been applied, or train one by hand."
        return Lacking("No champion yet", text, "streamlens train --model two-tower --promote")
    except ModelError as error:
        return Lacking("The models cannot be read for now", str(error))
    except StreamLensError as error:
        return _store_away(error)
    return recommending


def _store_away(error: StreamLensError) -> Lacking:
    return Lacking("The store cannot be read for now", str(error))


@st.fragment(run_every=2)
def _wait(lacking: Lacking) -> None:
    """Say what is lacking until it is there, or something else is lacking; then the page is drawn anew."""
    blank(lacking.title, lacking.text, [lacking.command] if lacking.command else [])
    live = shown_live()
    if live is None or _ready(live) != lacking:
        st.rerun()


@st.fragment(run_every=2)
def _age() -> None:
    """How old what stands below is, which is drawn anew only on demand."""
    live = shown_live()
    if live is not None:
        head(
            "Lists, from what the store had", st.session_state.get(_READ_AT), live.now(), stale_after_s=None,
            heard=live.store_heard, name="lists",
        )  # fmt: skip


def _stored_user(live: Live, recommending: Recommending) -> None:
    latest: list[Slate] = [placed.record for placed in live.subscriber.records.recent(IMPRESSIONS)]
    recent = list(dict.fromkeys(slate.user_id for slate in reversed(latest)))[:30]
    try:
        stored_ids = recommending.users()
    except StreamLensError as error:
        _wait(_store_away(error))
        return
    ids = [*recent, *(user for user in stored_ids if user not in recent)]
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
        _wait(_store_away(error))
        return
    _lists(live, recommending, int(chosen), UserHistory.split(stored, _MOMENTS[moment]), [], live.now())


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
    _lists(live, recommending, user_id, UserHistory.split(stored, 0), given, live.now())


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
def _lists(
    live: Live, recommending: Recommending, user_id: int, user: UserHistory, given: list[Given], read_at: float
) -> None:
    """Everything that a slider changes: only this is run again then. read_at: wall time at which ``user`` was read."""
    history = merged(user.before, given, live.event_time)
    try:
        with st.container(border=True, key="panel_rules"):
            variant, rules = _rules(recommending)
        listed = recommending.recommend(user_id, history, rules=rules, variant=variant)
        version = recommending.registry.get(listed.answer.version)
        st.session_state[_READ_AT] = read_at
    except StreamLensError as error:
        st.warning(str(error))
        return
    _about(listed, user, version)
    liked = user.before if not given else _as_history(history)
    revealed: set[int] = set()
    after = user.after
    if len(after) and st.toggle(f"Show what they really rated next ({len(after)} ratings)", key="reveal"):
        revealed = set(after.movie_id.tolist())
    elif not len(after) and not given:
        note("What they rated next can be shown of an earlier moment.")
    rows = shelves(listed.answer, liked, recommending.movies)
    st.html("".join(shelf_html(row.title, row.note, row.movies, revealed) for row in rows))
    if revealed:
        rated_next(recommending, listed, after)
    why_panel(recommending, listed)
    latency_panel(recommending)
    known_ratings(recommending, history)


def _rules(recommending: Recommending) -> tuple[str, Rules]:
    variants = recommending.variants()
    one, two, three, four, five = st.columns([2, 1, 1, 1, 1], gap="medium")
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


def _about(listed: Listed, user: UserHistory, version: Version) -> None:
    how = "from the cache" if listed.answer.cached else "computed"
    parts = [
        f'this request <b><span data-figure="request_ms">{number(listed.ms, 1)}</span> ms</b> on the server, {how}',
        f'made of <b><span data-figure="known">{number(len(listed.history.movie_id))}</span></b> rated movies',
        f"{version.manifest.kind}, learnt before <b>{day(version.manifest.as_of)}</b>",
    ]
    st.html(f'<div class="sl-bar">{"".join(f"<span>{part}</span>" for part in parts)}</div>')
    if listed.answer.cold:
        note("Nothing of this history is known to the model: the list is what is popular (cold start).")
    if len(user.after) and version.manifest.as_of > int(user.after.timestamp[0]):
        note("This model has learnt from ratings after the chosen moment, perhaps from these: no fair test of it.")


def _as_history(history: Histories) -> History:
    """The merged history, so that shelves follow what was just given."""
    stars = history.rating.astype(np.float64)
    return History(history.timestamp, history.movie_id, stars, np.zeros(len(stars), bool))
