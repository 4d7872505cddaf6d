"""``streamlens features``: one user's or movie's features, or the most rated movies, now or as of a time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import heading, moment, print_csv, print_json, print_stale, print_table, sparkline

__all__ = ["Window", "app"]

_GENRES = 6

app = typer.Typer(help="Features of one user or movie, and the most rated movies, now or as of any time.")

_AsOf = Annotated[
    str | None, typer.Option("--as-of", metavar="TIME", help="As of a date, a date and time (UTC), or epoch seconds.")
]


@app.command()
def user(
    user_id: Annotated[int, typer.Argument(metavar="ID", min=0)],
    as_of: _AsOf = None,
    run: options.RunId = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Totals, current session and latest ratings of one user."""
    from streamlens.feature_views import describe_user

    found = describe_user(options.find_target(run, store=store), user_id, as_of)
    if as_json:
        print_json(found)
        return
    if not found["known"]:
        typer.echo(f"user {user_id}: no ratings {_when(found['as_of'])}; a model would take the cold-start path")
        print_stale(found["freshness"])
        return
    typer.echo(f"user {user_id} {_when(found['as_of'])}")
    print_stale(found["freshness"])
    print_table(
        ["ratings", "mean", "first rated", "last rated", "session since", "ratings in session"],
        [
            [
                *(found["n_ratings"], found["mean_rating"], moment(found["first_rated"]), moment(found["last_rated"])),
                *(moment(found["session_start"]), found["session_n"]),
            ]
        ],
    )
    if found["taste"]:
        heading("taste, later ratings weighing more:")
        liked = [[row["genre"], f"{row['share']:.0%}", row["mean_rating"]] for row in found["taste"][:_GENRES]]
        print_table(["genre", "share", "mean"], liked)
    _print_embeddings(found)
    heading("latest ratings:")
    rows = [[moment(r["timestamp"]), r["rating"], r["title"], r["late"]] for r in found["history"]]
    print_table(["time", "stars", "movie", "late"], rows)


@app.command()
def item(
    movie_id: Annotated[int, typer.Argument(metavar="ID", min=0)],
    as_of: _AsOf = None,
    run: options.RunId = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """Totals and rolling windows of one movie."""
    from streamlens.feature_views import describe_item

    found = describe_item(options.find_target(run, store=store), movie_id, as_of)
    if as_json:
        print_json(found)
        return
    if not found["known"]:
        typer.echo(
            f"movie {movie_id} ({found['title']}): no ratings {_when(found['as_of'])}; "
            "a model would take the cold-start path"
        )
        print_stale(found["freshness"])
        return
    typer.echo(f"movie {movie_id} ({found['title']}) {_when(found['as_of'])}")
    print_stale(found["freshness"])
    typer.echo(", ".join(found["genres"]) or "no genres known")
    windows = [[name, row["n_ratings"], row["mean_rating"]] for name, row in found["windows"].items()]
    print_table(["window", "ratings", "mean"], [*windows, ["all", found["n_ratings"], found["mean_rating"]]])
    typer.echo(f"decayed popularity {found['decayed_popularity']:.1f}")
    typer.echo(f"first rated {moment(found['first_rated'])}, last rated {moment(found['last_rated'])}")
    _print_embeddings(found)


class Window(StrEnum):
    """What movies can be ranked by: :data:`featurestore.popularity.RANKINGS`, which `--help` need not wait for."""

    HOUR = "1h"
    DAY = "1d"
    WEEK = "7d"
    FOUR_WEEKS = "28d"
    ALL = "all"
    DECAYED = "decayed"


@app.command()
def top(
    window: Annotated[
        Window, typer.Option("--window", help="Ratings of this window; decayed: of all, later ones weighing more.")
    ] = Window.FOUR_WEEKS,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000, metavar="N", help="How many movies.")] = 10,
    as_of: _AsOf = None,
    run: options.RunId = None,
    store: options.Store = None,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """The most rated movies of a window, each with how its ratings came in."""
    from streamlens.feature_views import describe_top

    options.one_format(as_json, as_csv)
    found = describe_top(options.find_target(run, store=store), window.value, limit, as_of)
    if as_json:
        print_json(found)
    elif as_csv:
        columns = ["rank", "movie_id", "title", "n_ratings", "mean_rating", "score"]
        print_csv(
            [*columns, "trend", "trend_step_s"],
            [
                [*(row[name] for name in columns), " ".join(map(str, row["trend"])), found["trend_step_s"]]
                for row in found["movies"]
            ],
        )
    else:
        _print_top(found)


def _print_top(found: dict[str, Any]) -> None:
    from streams.events import DAY_S, HOUR_S

    over = f"{_day_or_moment(found['start'])} to {_day_or_moment(found['end'])}"
    if not found["movies"]:
        typer.echo(f"no ratings from {over}; a longer --window may hold some")
        return
    decayed = found["window"] == "decayed"
    typer.echo(f"movies of the highest decayed popularity, {over}" if decayed else f"most rated movies, {over}")
    step = found["trend_step_s"]
    unit = "hour" if step == HOUR_S else "day" if step == DAY_S else f"{step // DAY_S} days"
    columns = ["#", "movie", *(["decayed"] if decayed else []), "ratings", "mean", f"per {unit}", "title"]
    rows = []
    for row in found["movies"]:
        score = [row["score"]] if decayed else []
        bars = sparkline(row["trend"]).rjust(len(f"per {unit}"))
        rows.append(
            [row["rank"], str(row["movie_id"]), *score, row["n_ratings"], row["mean_rating"], bars, row["title"]]
        )
    print_table(columns, rows, fit=True)


def _day_or_moment(seconds: int) -> str:
    return moment(seconds).removesuffix(" 00:00:00")


def _print_embeddings(found: dict[str, Any]) -> None:
    for row in found["embeddings"]:
        known = "" if row["known"] else ", which does not know it"
        typer.echo(f"embedding {row['model']}, version {row['version']} of {moment(row['as_of'])}{known}")
        print_stale(row["freshness"])


def _when(as_of: int | None) -> str:
    return "now" if as_of is None else f"as of {moment(as_of)}"
