"""Each kind at each strength: its effect is in the stream as strong as it says, and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from streams.dataset import Dataset, Ratings, open_dataset
from streams.drift import DriftedDataset, InjectedDrift, parse_drift
from streams.drift.malformed import SORTS
from streams.drift.spec import KINDS
from streams.drift.taste_shift import leading_genres
from streams.events import DAY_S
from streams.split import WEEK_S, auto_start
from streams.summary import concatenate

WEEK = 14
STRENGTHS = ("low", "middle", "high")
DATA = {"real": "ml-latest-small", "synthetic": "synthetic:ratings=150000,seed=4"}
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


@dataclass
class Before:
    """A dataset and where drift will begin in it."""

    dataset: Dataset
    ratings: Ratings
    start: int

    @property
    def begins(self) -> int:
        return self.start + (WEEK - 1) * WEEK_S

    @property
    def begun(self) -> Bools:
        return self.ratings.timestamp >= self.begins

    @property
    def affected_part(self) -> Ratings:
        return self.ratings.take(np.flatnonzero(self.begun))


@dataclass
class After:
    """The same with one drift in it."""

    ratings: Ratings
    arrival: Counts
    malformed: Counts
    injected: InjectedDrift

    @property
    def parameters(self) -> dict[str, Any]:
        return self.injected.parameters


@pytest.fixture(scope="module", params=DATA)
def before(request: pytest.FixtureRequest) -> Before:
    dataset = open_dataset(DATA[request.param])
    return Before(dataset, concatenate(dataset.chunks()), auto_start(dataset))


def drift(before: Before, kind: str, strength: str, seed: int = 0) -> After:
    spec = parse_drift(f"{kind}@{WEEK}:{strength}")
    drifted = DriftedDataset(before.dataset, [spec], start=before.start, seed=seed)
    chunks = list(drifted.chunks())
    zeros = [np.zeros(len(c), np.uint8) if c.malformed is None else c.malformed for c in chunks]
    after = After(
        concatenate(chunks), np.concatenate([c.arrives for c in chunks]), np.concatenate(zeros), drifted.injected()[0]
    )
    assert len(after.ratings) == drifted.n_ratings
    assert np.all(np.diff(after.arrival) >= 0)
    assert (after.injected.kind, after.injected.week, after.injected.strength) == spec
    assert after.injected.begins == before.begins
    return after


def table(ratings: Ratings) -> npt.NDArray[np.float64]:
    return np.column_stack([ratings.user_id, ratings.movie_id, ratings.rating, ratings.timestamp])


def sorted_rows(ratings: Ratings) -> npt.NDArray[np.float64]:
    rows = table(ratings)
    return rows[np.lexsort(rows.T)]


def replace_movies(ratings: Ratings, goes: dict[int, int]) -> Ratings:
    movies = np.array([goes.get(m, m) for m in ratings.movie_id.tolist()])
    return Ratings(ratings.user_id, movies, ratings.rating, ratings.timestamp)


def chance(n: int, share: float) -> Any:
    """What a share of n may be by chance."""
    return pytest.approx(n * share, abs=4.5 * np.sqrt(n * share * (1 - share)))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_before_the_beginning_is_touched(before: Before, kind: str) -> None:
    after = drift(before, kind, "high")
    n = int((~before.begun).sum())
    assert np.array_equal(table(after.ratings)[:n], table(before.ratings)[:n])
    assert np.array_equal(after.arrival[:n], before.ratings.timestamp[:n])
    assert not after.malformed[:n].any()
    assert after.ratings.timestamp[n:].min() >= before.begins
    assert after.injected.first_ordinal is not None
    assert n < after.injected.first_ordinal < n + 1_500


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_what_chance_does(before: Before, kind: str) -> None:
    one, same, other = (drift(before, kind, "middle", seed) for seed in (1, 1, 2))
    assert np.array_equal(table(one.ratings), table(same.ratings))
    assert np.array_equal(one.malformed, same.malformed)
    if kind != "new-user-flood":  # leaves nothing to chance
        differs = len(one.ratings) != len(other.ratings) or not np.array_equal(table(one.ratings), table(other.ratings))
        assert differs or not np.array_equal(one.malformed, other.malformed)


@pytest.mark.parametrize(("strength", "stars"), [("low", 0.25), ("middle", 0.5), ("high", 1.0)])
def test_rating_bias_lowers_the_mean_by_what_it_says(before: Before, strength: str, stars: float) -> None:
    after = drift(before, "rating-bias", strength)
    was, now = before.ratings.rating, after.ratings.rating
    fall = (was - now)[before.begun]
    assert np.mean(fall) == pytest.approx(stars, abs=4.5 * 0.25 / np.sqrt(len(fall)))
    # Each falls alike: by one of two neighbouring numbers of half stars, but for those that reach the lowest.
    free = now[before.begun] > 0.5
    assert len(np.unique(fall[free])) <= 2
    assert np.ptp(fall[free]) <= 0.5
    assert set(np.unique(now)) <= set(np.arange(1, 11) / 2)
    assert after.parameters["amount"] == stars
    assert after.parameters["mean_shift"] == pytest.approx(-stars, abs=1e-9)
    assert after.injected.n_records == (was != now).sum()
    assert after.injected.first_ordinal == np.argmax(was != now) + 1
    assert np.array_equal(np.delete(table(after.ratings), 2, axis=1), np.delete(table(before.ratings), 2, axis=1))


@pytest.mark.parametrize(("strength", "share"), [("low", 0.1), ("middle", 0.3), ("high", 0.6)])
def test_popularity_flip_swaps_the_head_that_holds_the_mass(before: Before, strength: str, share: float) -> None:
    after = drift(before, "popularity-flip", strength)
    pairs = after.parameters["swapped"]
    head, tail = [h for h, _ in pairs], [t for _, t in pairs]
    assert len({*head, *tail}) == 2 * len(pairs)

    # Where the mass is: the head holds the share, to half a movie, and nothing outside it is more popular.
    part = before.affected_part
    ids, counts = np.unique(part.movie_id, return_counts=True)
    popularity = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    held = sum(popularity[m] for m in head) / len(part)
    assert held == pytest.approx(share, abs=counts.max() / 2 / len(part))
    assert after.parameters["head_share"] == pytest.approx(held)
    rest = [n for m, n in popularity.items() if m not in {*head, *tail}]
    assert min(popularity[m] for m in head) >= max(rest)
    assert max(popularity[m] for m in tail) <= min(rest)

    # Swapping back gives the data: nothing else has happened, and before the beginning nothing at all.
    goes = {**dict(pairs), **{t: h for h, t in pairs}}
    part_after = after.ratings.take(np.flatnonzero(after.ratings.timestamp >= before.begins))
    assert np.array_equal(sorted_rows(replace_movies(part_after, goes)), sorted_rows(part))
    now = dict(zip(*(a.tolist() for a in np.unique(part_after.movie_id, return_counts=True)), strict=True))
    assert all(now[t] == popularity[h] and now[h] == popularity[t] for h, t in pairs)
    assert after.injected.n_records == sum(popularity[m] for m in goes)


@pytest.mark.parametrize(("strength", "share"), [("low", 0.2), ("middle", 0.4), ("high", 0.8)])
def test_taste_shift_turns_the_taste_of_so_many_users(before: Before, strength: str, share: float) -> None:
    after = drift(before, "taste-shift", strength)
    goes = dict(after.parameters["moved"])
    assert goes.keys() == set(goes.values())  # a permutation

    part = before.affected_part
    part_after = after.ratings.take(np.flatnonzero(after.ratings.timestamp >= before.begins))
    kept = by_user(part)
    turned = by_user(replace_movies(part, goes))
    found = by_user(part_after)
    assert found.keys() == kept.keys()
    shifted = {u for u in found if not np.array_equal(found[u], kept[u])}
    assert all(np.array_equal(found[u], turned[u]) for u in shifted)
    assert len(shifted) == pytest.approx(len(found) * share, abs=1)
    assert after.parameters["n_users"] == len(found)
    assert after.parameters["n_shifted"] == pytest.approx(len(shifted), abs=1)

    # Popularity keeps its shape; what is watched has another genre.
    of_shifted = np.isin(part.user_id, list(shifted))
    was = part.movie_id[of_shifted]
    now = replace_movies(part, goes).movie_id[of_shifted]
    assert np.array_equal(
        np.sort(np.unique(was, return_counts=True)[1]), np.sort(np.unique(now, return_counts=True)[1])
    )
    assert after.injected.n_records == (was != now).sum()
    ids, counts = np.unique(part.movie_id, return_counts=True)
    rank = dict(zip(ids[np.argsort(-counts, kind="stable")].tolist(), range(len(ids)), strict=True))
    ranks = [[rank[m] for m in movies.tolist()] for movies in (was, now)]
    assert np.corrcoef(np.log1p(ranks[0]), np.log1p(ranks[1]))[0, 1] > 0.85
    genre = dict(zip(ids.tolist(), leading_genres(ids.tolist(), counts.tolist(), before.dataset.movies()), strict=True))
    assert np.mean([genre[a] != genre[b] for a, b in zip(was.tolist(), now.tolist(), strict=True)]) > 0.98


def by_user(ratings: Ratings) -> dict[int, npt.NDArray[np.float64]]:
    rows = table(ratings)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 3], rows[:, 0]))]
    users, first = np.unique(rows[:, 0], return_index=True)
    return dict(zip(users.astype(int).tolist(), np.split(rows, first[1:]), strict=True))


@pytest.mark.parametrize(("strength", "share"), [("low", 0.2), ("middle", 0.4), ("high", 0.7)])
def test_volume_drop_leaves_out_so_many_whoever_gave_them(before: Before, strength: str, share: float) -> None:
    after = drift(before, "volume-drop", strength)
    rows = {tuple(row): at for at, row in enumerate(table(before.ratings).tolist())}
    kept = [rows[tuple(row)] for row in table(after.ratings).tolist()]
    assert kept == sorted(set(kept))  # what is left is what was, in its order
    dropped = np.ones(len(rows), bool)
    dropped[kept] = False
    n = int(before.begun.sum())
    assert dropped.sum() == chance(n, share)
    assert dropped.sum() == after.injected.n_records
    assert after.injected.first_ordinal == np.argmax(dropped) + 1
    for stars in range(1, 11):
        of_stars = before.begun & (before.ratings.rating == stars / 2)
        assert (dropped & of_stars).sum() == chance(int(of_stars.sum()), share)
    users, n_of_user = np.unique(before.affected_part.user_id, return_counts=True)
    for user in users[np.argsort(-n_of_user)[:5]].tolist():
        of_user = before.begun & (before.ratings.user_id == user)
        assert (dropped & of_user).sum() == chance(int(of_user.sum()), share)


@pytest.mark.parametrize(("strength", "factor"), [("low", 2), ("middle", 4), ("high", 8)])
def test_new_user_flood_multiplies_new_users_only(before: Before, strength: str, factor: int) -> None:
    after = drift(before, "new-user-flood", strength)
    users = np.unique(before.ratings.user_id)
    known = np.unique(before.ratings.user_id[~before.begun])
    new = np.setdiff1d(users, known)
    is_companion = ~np.isin(after.ratings.user_id, users)
    assert np.array_equal(table(after.ratings)[~is_companion], table(before.ratings))  # the others, untouched
    first_seen = np.setdiff1d(np.unique(after.ratings.user_id), known)
    assert len(first_seen) == factor * len(new)
    assert after.parameters["n_new_users"] == len(new)
    assert after.parameters["n_companions"] == (factor - 1) * len(new)
    assert after.injected.n_records == is_companion.sum()
    assert after.injected.first_ordinal == np.argmax(is_companion) + 1

    of_companion = by_user(after.ratings.take(np.flatnonzero(is_companion)))
    of_new = by_user(before.ratings.take(np.flatnonzero(np.isin(before.ratings.user_id, new))))
    step = after.parameters["companion_id_step"]
    for user, rows in of_new.items():
        for number in range(1, factor):
            assert np.array_equal(of_companion[user + number * step][:, 1:], rows[:, 1:])


@pytest.mark.parametrize(("strength", "share"), [("low", 0.001), ("middle", 0.01), ("high", 0.05)])
def test_malformed_replaces_so_many_records_by_every_sort(before: Before, strength: str, share: float) -> None:
    after = drift(before, "malformed", strength)
    assert np.array_equal(table(after.ratings), table(before.ratings))
    assert np.array_equal(after.arrival, before.ratings.timestamp)
    n = int((after.malformed > 0).sum())
    assert n == chance(int(before.begun.sum()), share)
    assert after.injected.n_records == n
    assert after.injected.first_ordinal == np.argmax(after.malformed > 0) + 1
    sorts = np.bincount(after.malformed, minlength=len(SORTS) + 1)[1:]
    assert all(count == chance(n, 1 / len(SORTS)) for count in sorts.tolist())


@pytest.mark.parametrize(("strength", "share"), [("low", 0.001), ("middle", 0.01), ("high", 0.05)])
def test_late_delays_so_many_records_beyond_the_bound(before: Before, strength: str, share: float) -> None:
    after = drift(before, "late", strength)
    assert np.array_equal(sorted_rows(after.ratings), sorted_rows(before.ratings))
    delay = after.arrival - after.ratings.timestamp
    late = delay > 0
    n = int(late.sum())
    assert n == chance(int(before.begun.sum()), share)
    assert after.injected.n_records == n
    assert after.injected.first_ordinal == np.argmax(late) + 1
    assert delay[late].min() >= 2 * DAY_S
    assert delay[late].max() <= 11 * DAY_S
    if n > 300:
        assert np.quantile(delay[late] - DAY_S, [0.1, 0.5, 0.9]) / DAY_S == pytest.approx([1.9, 5.5, 9.1], abs=0.6)
    on_time = after.ratings.take(np.flatnonzero(~late))
    assert np.all(np.diff(on_time.timestamp) >= 0)
