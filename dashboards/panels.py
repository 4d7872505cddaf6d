"""What all pages are made of: tiles, panels that tell the age of their data, tables, and states without any."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files

import pyarrow as pa
import streamlit as st

from dashboards.charts import INKS, Spec, inked

__all__ = [
    "STALE_S",
    "Heard",
    "Tile",
    "age_text",
    "blank",
    "chart",
    "day",
    "empty",
    "head",
    "moment",
    "note",
    "number",
    "panel",
    "pill",
    "style",
    "table",
    "tiles",
    "title",
]

STALE_S = 5.0
"""Data that comes every half second and is older than this has stopped coming."""


_UNBROKEN = 28
"""Letters: cells that are shorter stay on one line."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Wall times: at which whoever data comes from answered last, 0 before it ever did, and since when it is asked."""

    at: float
    since: float

    def silent(self, now: float) -> bool:
        """Nobody knows any more what has happened there; at first it has as long as later to answer."""
        return now - max(self.at, self.since) > STALE_S

    def connecting(self, now: float) -> bool:
        """It has not answered yet, and is not late."""
        return not self.at and not self.silent(now)


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure. name: what tests and programs find it by."""

    name: str
    label: str
    value: str
    unit: str = ""
    note: str = ""


def style() -> None:
    """The pages' style sheet."""
    st.html(f"<style>{files('dashboards').joinpath('style.css').read_text()}</style>")


def number(value: float | None, digits: int = 0) -> str:
    """
    >>> number(1234.56), number(0.1234, 2), number(None)
    ('1,235', '0.12', '-')
    """
    return "-" if value is None else f"{value:,.{digits}f}"


def age_text(seconds: float) -> str:
    """
    >>> age_text(0.24), age_text(12.4), age_text(200), age_text(9_000), age_text(200_000)
    ('0.2 s ago', '12 s ago', '3 min ago', '2.5 h ago', '2.3 days ago')
    """
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s ago"
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3_600:.1f} h ago" if seconds < 172_800 else f"{seconds / 86_400:.1f} days ago"


def day(event_time: float) -> str:
    """An event time as its date in UTC; - for 0."""
    return f"{datetime.fromtimestamp(event_time, UTC):%Y-%m-%d}" if event_time else "-"


def moment(wall_s: float) -> str:
    """A wall time in UTC, to the second."""
    return f"{datetime.fromtimestamp(wall_s, UTC):%Y-%m-%d %H:%M:%S}"


def pill(text: str, kind: str) -> str:
    """HTML of a label; kind: good, warn, bad or idle."""
    return f'<span class="sl-pill sl-{kind}">{html.escape(text)}</span>'


def tiles(shown: Sequence[Tile], *, old: bool = False) -> None:
    """A grid of figures; ``old``: they are greyed."""
    cells = "".join(
        f'<div class="sl-tile"><div class="sl-label">{html.escape(tile.label)}</div>'
        f'<div class="sl-value"><span data-figure="{tile.name}">{html.escape(tile.value)}</span>'
        + (f'<span class="sl-unit">{html.escape(tile.unit)}</span>' if tile.unit else "")
        + "</div>"
        + f'<div class="sl-note">{html.escape(tile.note) or "&nbsp;"}</div></div>'
        for tile in shown
    )
    st.html(f'<div class="sl-tiles{" sl-old" if old else ""}">{cells}</div>')


def head(
    title: str,
    at: float | None,
    now: float,
    *,
    stale_after_s: float | None = STALE_S,
    heard: Heard | None = None,
    name: str = "",
) -> None:
    """A panel's title and the age of its data. at: wall time of the newest; None where there is none yet.

    stale_after_s: None for data that comes only when something happens. heard: of whoever it comes from, None
    where that cannot go away.
    """
    if heard is not None and heard.silent(now):
        silence = f"stale, last answer {age_text(now - heard.at)}" if heard.at else "stale, no answer yet"
        age, state = pill(silence, "warn"), "stale"
    elif heard is not None and heard.connecting(now):
        age, state = '<span class="sl-age">connecting</span>', "none"
    elif at is None:
        age, state = '<span class="sl-age">no data yet</span>', "none"
    elif stale_after_s is not None and now - at > stale_after_s:
        age, state = pill(f"stale, {age_text(now - at)}", "warn"), "stale"
    else:
        age, state = f'<span class="sl-age">{age_text(now - at)}</span>', "fresh"
    marker = " sl-stale" if state == "stale" else ""
    st.html(
        f'<div class="sl-head{marker}" data-panel="{name}" data-state="{state}">'
        f"<h3>{html.escape(title)}</h3>{age}</div>"
    )


def title(text: str, beside: str = "") -> None:
    """A panel's title where there is no age to tell: of what does not change by itself."""
    st.html(f'<div class="sl-head"><h3>{html.escape(text)}</h3><span class="sl-age">{html.escape(beside)}</span></div>')


@contextmanager
def panel(
    name: str,
    title: str,
    at: float | None,
    now: float,
    *,
    stale_after_s: float | None = STALE_S,
    heard: Heard | None = None,
) -> Iterator[None]:
    """A framed part of a page under :func:`head`."""
    with st.container(border=True, key=f"panel_{name}"):
        head(title, at, now, stale_after_s=stale_after_s, heard=heard, name=name)
        yield


def chart(data: pa.Table, spec: Spec, *, height: int, key: str) -> None:
    """Draw ``data``, written in what is legible on the reader's ground. key: of the place on the page."""
    ink = INKS["dark" if st.context.theme.type == "dark" else "light"]
    st.vega_lite_chart(data, inked(spec, ink), height=height, key=key)


def note(text: str) -> None:
    """A line of small print."""
    st.html(f'<p class="sl-note-line">{html.escape(text)}</p>')


def empty(title: str, text: str, command: str = "") -> None:
    """In the place of data that is not there: what is missing, and what would bring it."""
    code = f"<br><code>{html.escape(command)}</code>" if command else ""
    st.html(f'<div class="sl-empty"><b>{html.escape(title)}</b>{html.escape(text)}{code}</div>')


def blank(title: str, text: str, commands: Sequence[str] = ()) -> None:
    """In the place of a whole page."""
    lines = "\n".join(map(html.escape, commands))
    block = f"<br><pre>{lines}</pre>" if commands else ""
    st.html(f'<div class="sl-blank"><h2>{html.escape(title)}</h2><div>{html.escape(text)}</div>{block}</div>')


def table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int] = (), label: str = ""
) -> None:
    """A plain table; ``numbers``: columns that are aligned to the right. Cells are text, or HTML that begins with <.

    Only cells of some length are broken into lines.
    """

    def cell(tag: str, i: int, text: str) -> str:
        kind = "sl-n" if i in numbers else "sl-w" if len(text) < _UNBROKEN else ""
        return f'<{tag} class="{kind}">{text if text.startswith("<") else html.escape(text)}</{tag}>'

    top = "".join(cell("th", i, name) for i, name in enumerate(columns))
    lines = ("".join(cell("td", i, text) for i, text in enumerate(row)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    named = html.escape(label or columns[0], quote=True)
    st.html(
        f'<div class="sl-scroll" tabindex="0" role="region" aria-label="{named}">'
        f'<table class="sl-table"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )
