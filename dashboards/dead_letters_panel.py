"""Panel of the production page: dead letters, page by page; look into one, replay it."""

from __future__ import annotations

from collections import Counter

import streamlit as st

from dashboards.live import Live
from dashboards.panels import age_text, empty, note, number, panel, table
from dashboards.publishing import replay_letter
from streams.deadletter_replay import Outcome
from streams.deadletters import LettersPage, PlacedLetter, letters_page
from streams.errors import StreamLensError
from streams.events import DEADLETTER

__all__ = ["dead_letters_panel"]

_PAGE = 10
_LONGEST_REASON = 90
_CHOSEN = "chosen_letter"
_SAID = "said_of_letter"


def dead_letters_panel(live: Live) -> None:
    records, now = live.subscriber.records, live.now()
    heard = live.bus_heard
    with panel("deadletters", "Dead letters", records.published(DEADLETTER), now, stale_after_s=None, heard=heard):
        if not records.recent(DEADLETTER):
            empty("None", "What cannot be processed comes here with its reason; nothing is lost silently.")
            return
        try:
            shown = _read(records.generation, records.count(DEADLETTER), _page_wanted(), live)
        except StreamLensError as error:
            empty("The dead letters cannot be read for now", str(error))
            return
        reasons = Counter(one.record.reason.partition(":")[0] for one in records.recent(DEADLETTER))
        n = sum(reasons.values())
        note(
            f"{number(shown.total)} in all; the last {number(n)} by reason: "
            + ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        )
        table(
            ["came", "stood at", "reason"],
            [[age_text(now - one.timestamp_ms / 1_000), one.origin, _shortened(one)] for one in shown.letters],
            label="Dead letters, newest first",
        )
        _choice(live, shown)


def _page_wanted() -> int:
    return int(st.session_state.get("letters_page", 1)) - 1


@st.cache_data(show_spinner=False, max_entries=16, ttl=600)
def _read(generation: int, n_letters: int, page: int, _live: Live) -> LettersPage:
    """Once for each page while no letter comes, whoever looks."""
    return _live.subscriber.submit(lambda bus: letters_page(bus, page, _PAGE))


def _shortened(placed: PlacedLetter) -> str:
    reason = placed.letter.reason
    return reason if len(reason) <= _LONGEST_REASON else f"{reason[:_LONGEST_REASON]}..."


def _choice(live: Live, shown: LettersPage) -> None:
    """Which page, and which letter of it; one that was chosen stays while newer ones push it to other pages."""
    letters = {one.origin: one for one in shown.letters}
    held: PlacedLetter | None = st.session_state.get(_CHOSEN)
    if held is not None:
        letters.setdefault(held.origin, held)
    left, right = st.columns([1, 3], gap="small")
    with left:
        if shown.pages > 1:
            st.session_state["letters_page"] = min(st.session_state.get("letters_page", 1), shown.pages)
            st.number_input(f"Page of {shown.pages:,}", 1, shown.pages, key="letters_page")
    with right:
        chosen = st.selectbox(
            "Look into one", list(letters), index=None, placeholder="topic/partition/offset of its record", key="letter"
        )
    st.session_state[_CHOSEN] = letters.get(chosen) if chosen else None
    if st.session_state[_CHOSEN] is not None:
        _letter(live, st.session_state[_CHOSEN])


def _letter(live: Live, placed: PlacedLetter) -> None:
    letter = placed.letter
    table(
        ["dead letter", "what it says"],
        [
            ["reason", letter.reason],
            ["stood at", f"{letter.topic}, partition {letter.partition}, offset {letter.offset}"],
            ["size", "whole" if letter.size is None else f"first part of {letter.size:,} bytes"],
        ],
        label="Dead letter",
    )
    st.code(letter.payload[:4_000], language="json", wrap_lines=True)
    if letter.topic == DEADLETTER:
        note("A record that is no dead letter stands on the topic of the dead letters; it has nowhere to go back to.")
        return
    note(
        "Replayed as it is, it counts once, however often. "
        "To mend it first: streamlens deadletter replay --set FIELD=VALUE"
    )
    force = st.checkbox("Publish even where its readers would refuse it again", key="force_letter")
    if st.button("Replay this record", icon=":material/replay:", key="replay_letter"):
        try:
            done = replay_letter(live, placed, force=force)
        except StreamLensError as error:
            st.session_state[_SAID] = (placed.origin, "error", str(error))
        else:
            said = f"{placed.origin}: {done.outcome}{f' ({done.problem})' if done.problem else ''}"
            st.session_state[_SAID] = (
                placed.origin,
                "success" if done.outcome is Outcome.PUBLISHED else "warning",
                said,
            )
    origin, kind, said = st.session_state.get(_SAID, ("", "", ""))
    if origin == placed.origin:  # until another one is looked into: the panel is drawn anew every other second
        getattr(st, kind)(said)
