"""Posters made of a movie's genres, year and title alone: no picture is fetched from anywhere."""

from __future__ import annotations

import html
from collections.abc import Container, Sequence

from streams.dataset import Movie

__all__ = ["poster", "shelf_html"]

_HUES = {
    "Action": 8, "Adventure": 32, "Animation": 48, "Children": 58, "Comedy": 42, "Crime": 350, "Documentary": 200,
    "Drama": 222, "Fantasy": 268, "Film-Noir": 230, "Horror": 0, "IMAX": 190, "Musical": 310, "Mystery": 250,
    "Romance": 332, "Sci-Fi": 186, "Thriller": 205, "War": 96, "Western": 24,
}  # fmt: skip


def _hue(genre: str) -> int:
    return _HUES.get(genre, sum(genre.encode()) * 37 % 360)


def _pattern(movie_id: int, hue: int) -> str:
    """One of five patterns, by the id: the same movie always looks the same."""
    line = f"hsla({hue}, 60%, 78%, .16)"
    angle = movie_id * 29 % 180
    x, y = 15 + movie_id * 17 % 70, 10 + movie_id * 31 % 45
    return (
        f"repeating-linear-gradient({angle}deg, {line} 0 7px, transparent 7px 20px)",
        f"radial-gradient(circle at {x}% {y}%, {line} 0 26%, transparent 26.5%)",
        f"repeating-radial-gradient(circle at {x}% {y}%, {line} 0 6px, transparent 6px 17px)",
        f"conic-gradient(from {angle}deg at {x}% {y}%, {line} 0 25%, transparent 0 50%, {line} 0 75%, transparent 0)",
        f"linear-gradient({angle}deg, {line} 0 42%, transparent 42.5%)",
    )[movie_id % 5]


def poster(movie: Movie, *, place: int | None = None, hit: str = "") -> str:
    """HTML of a movie's tile. place: in the list; hit: what is said in the corner, as that it was rated next."""
    first = _hue(movie.genres[0]) if movie.genres else 215
    second = _hue(movie.genres[1]) if len(movie.genres) > 1 else first + 24
    ground = f"linear-gradient(160deg, hsl({first}, 46%, 34%), hsl({second}, 50%, 19%))"
    title, _, _ = movie.title.rpartition(" (")
    rank = f'<span class="sl-rank">{place}</span>' if place is not None else ""
    mark = f'<span class="sl-hit">{html.escape(hit)}</span>' if hit else ""
    return (
        f'<div class="sl-movie" data-movie="{movie.movie_id}"><div class="sl-poster" '
        f'style="background: {_pattern(movie.movie_id, first)}, {ground}">{rank}{mark}'
        f'<div class="sl-name">{html.escape(title or movie.title)}</div>'
        f'<div class="sl-year">{movie.year or ""}</div></div>'
        f'<div class="sl-genres">{html.escape(", ".join(movie.genres) or "no genre")}</div></div>'
    )


def shelf_html(title: str, note: str, movies: Sequence[tuple[int | None, Movie]], hits: Container[int] = ()) -> str:
    """A row of tiles that scrolls sideways; ``hits``: ids of movies that the user rated next."""
    cells = "".join(
        poster(movie, place=place, hit="rated next" if movie.movie_id in hits else "") for place, movie in movies
    )
    said = f"<span>{html.escape(note)}</span>" if note else ""
    return (
        f'<div class="sl-row-title">{html.escape(title)}{said}</div>'
        f'<div class="sl-shelf" tabindex="0" role="region" aria-label="{html.escape(title, quote=True)}">{cells}</div>'
    )
