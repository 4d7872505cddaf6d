"""``streamlens recommend``: a list for one user, from what they rated so far, and why each movie is on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamlens.cli import options
from streamlens.cli.console import heading, print_json, print_table

if TYPE_CHECKING:
    from models.rules import Rules

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(recommend)


def recommend(
    user_id: Annotated[int, typer.Argument(metavar="USER", min=0, max=2**63 - 1)],
    k: Annotated[int, typer.Option("--k", min=1, max=500, metavar="K", help="How many movies.")] = 10,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say why: what the score loses without a rating, or a feature.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", metavar="VERSION", help="A trained version; by default the champion.")
    ] = None,
    genre: Annotated[
        list[str] | None,
        typer.Option("--genre", metavar="NAME=WEIGHT", help="2 favours a genre, 0 buries it; may be repeated."),
    ] = None,
    diversity: Annotated[
        float, typer.Option("--diversity", min=0.0, max=1.0, metavar="L", help="How unlike the movies are, 0 to 1.")
    ] = 0.0,
    recency: Annotated[
        float,
        typer.Option("--recency", min=0.0, metavar="N", help="Favour the taste of the last ratings; N is a half-life."),
    ] = 0.0,
    run: options.RunId = None,
    store: options.Store = None,
    as_json: options.Json = False,
) -> None:
    """The best unseen movies for a user, by the champion, from the ratings that the feature store holds."""
    from streamlens.recommendations import describe_recommendations

    rules = _rules(genre or [], diversity, recency)
    target = options.find_target(run, store=store)
    found = describe_recommendations(target, user_id, k, rules=rules, version_id=model, why=explain)
    if as_json:
        print_json(found)
    else:
        _print(found, explain)


def _rules(genres: list[str], diversity: float, recency: float) -> Rules:
    from models.rules import Rules
    from streams.errors import ConfigError

    weights = []
    for text in genres:
        name, _, weight = text.rpartition("=")
        try:
            weights.append((name, float(weight)))
        except ValueError:
            raise ConfigError(f"--genre: expected NAME=WEIGHT such as Comedy=2, found {text}") from None
    try:
        return Rules(tuple(weights), diversity, recency)
    except ValueError as error:
        raise ConfigError(f"--genre, --diversity, --recency: {error}") from error


def _print(found: dict[str, Any], explained: bool) -> None:
    of = f"{found['version']}, the champion" if found["status"] == "champion" else f"{found['version']}"
    if found["cold"]:
        typer.echo(f"user {found['user_id']}: no ratings that the model knows; what is popular, by {of}")
    else:
        typer.echo(f"user {found['user_id']}, {found['history']} movies rated, by {of}")
    columns = ["#", "movie", "score", "ratings", "title"]
    rows = [[m["rank"], str(m["movie_id"]), m["score"], m["n_ratings"], m["title"]] for m in found["movies"]]
    print_table(columns, rows, fit=True)
    if explained and not found["cold"]:
        heading("why, and what the score would lose without it:")
        print_table(["#", "because you rated", "because of"], [_why(movie) for movie in found["movies"]], fit=True)


def _why(movie: dict[str, Any]) -> list[object]:
    rated = [f"{r['title'] or r['movie_id']}{_change(r['change'])}" for r in movie["because_you_rated"]]
    features = [f"{r['feature']}{_change(r['change'])}" for r in movie["because_of"]]
    return [movie["rank"], "; ".join(rated) or "-", "; ".join(features) or "-"]


def _change(change: float | None) -> str:
    """One without which nothing would be known of the user has no number."""
    return "" if change is None else f" ({change:.3g})"
