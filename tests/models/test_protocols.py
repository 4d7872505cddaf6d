"""How ratings are split, and the stream slate by slate against a loop over ratings."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from models.interactions import Histories, Interactions
from models.kinds import make_model
from models.popularity import Popularity
from models.prequential import Stream, evaluate_prequential
from models.recommender import RatingPredictor, Recommender
from models.side_features import SideFeatures
from models.slates import LIKED_STARS, OUTCOME_S, SESSION_GAP_S
from models.splits import Split, known_by, random_rating_split, random_split, temporal_split
from streams.errors import DataError
from streams.events import DAY_S
from tests.models.test_contract import some_features, some_ratings

Make = Callable[..., Split]


def keys(ratings: Interactions) -> set[tuple[int, int]]:
    return set(zip(ratings.user_id.tolist(), ratings.movie_id.tolist(), strict=True))


@pytest.mark.parametrize("make", [random_split, random_rating_split])
def test_a_random_split_parts_the_ratings(make: Make) -> None:
    ratings = some_ratings()
    split = make(ratings, some_features(), seed=1)
    assert not keys(split.train) & keys(split.test)
    assert keys(split.train) | keys(split.test) == keys(ratings)
    assert keys(make(ratings, some_features(), seed=1).test) == keys(split.test)
    assert keys(make(ratings, some_features(), seed=2).test) != keys(split.test)


def test_a_fifth_of_each_user_is_held_out_or_a_tenth_of_all() -> None:
    ratings = some_ratings()
    split = random_split(ratings, some_features())
    for user in np.unique(ratings.user_id):
        n = (ratings.user_id == user).sum()
        assert (split.test.user_id == user).sum() == round(0.2 * n)
    assert len(random_rating_split(ratings, some_features()).test) == round(0.1 * len(ratings))


@pytest.mark.parametrize("make", [random_split, random_rating_split, temporal_split])
def test_a_search_never_sees_what_is_tested(make: Make) -> None:
    test = make(some_ratings(), some_features())
    search = make(some_ratings(), some_features(), validation=True)
    assert not keys(test.test) & (keys(search.train) | keys(search.test))
    assert not keys(search.train) & keys(search.test)


def test_one_moment_parts_all_users() -> None:
    split = temporal_split(some_ratings(), some_features())
    assert split.train.timestamp.max() < split.test.timestamp.min()
    assert set(split.test.user_id) <= set(split.train.user_id)
    assert len(split.train) / len(some_ratings()) == pytest.approx(0.8, abs=0.01)


def test_nobody_who_stays_is_said() -> None:
    with pytest.raises(DataError, match="found none"):
        temporal_split(Interactions([1, 2], [1, 1], [3.0, 3.0], [1, 2]), SideFeatures.none(), share=0.5)


def test_a_movie_of_the_future_is_not_ranked() -> None:
    features = SideFeatures(np.array([1, 2, 3, 4]), np.zeros((4, 0), np.float32), np.array([1999, 2001, 2001, 0]))
    y2k = 946_684_800 + 5 * DAY_S
    assert known_by(features, np.array([3]), y2k).movie_id.tolist() == [1, 3, 4]


def test_protocols_along_time_rank_no_movie_of_the_future() -> None:
    """A movie that nobody rates is ranked in the year it is released, and not before."""
    shown = []
    for year in (1969, 1971):
        unrated = SideFeatures(np.array([7_777]), np.zeros((1, 0), np.float32), np.array([year]))
        assert (7_777 in temporal_split(bursts(0), unrated).features.movie_id) == (year == 1969)
        stream = Stream.of(bursts(0), unrated, cutoff=100 * DAY_S, refit_days=10_000)
        shown.append(evaluate_prequential(Popularity, stream, k=200).measures["coverage@200"].value)
    assert shown[0] > shown[1]


# The stream


class Mean(Popularity, RatingPredictor):
    """Popularity, and as stars the mean of a history, or of training where there is none."""

    name = "mean"

    def predict(self, user_ids: object, movie_ids: object) -> np.ndarray:
        raise NotImplementedError

    def fit(self, interactions: Interactions, *more: object, **options: object) -> Mean:  # type: ignore[override]
        self.mean = float(interactions.rating.mean())
        super().fit(interactions, *more, **options)  # type: ignore[arg-type]
        return self

    def predict_for_history(self, histories: Histories, movie_ids: object) -> np.ndarray:
        parts = [histories.slice(i, i + 1).rating for i in range(len(histories))]
        return np.array([part.mean() if len(part) else self.mean for part in parts], np.float32)


STEPS = [0, 30, 600, 1_799, 1_800, 4 * DAY_S, 30 * DAY_S]
SHARES = [0.3, 0.3, 0.2, 0.05, 0.05, 0.05, 0.05]


def bursts(seed: int) -> Interactions:
    """Users with sessions of up to 30 ratings over 400 days, some of equal times."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(12):
        movies = iter(random.permutation(60))
        time = int(random.integers(0, 300 * DAY_S))
        for _ in range(int(random.integers(5, 55))):
            time += int(random.choice(STEPS, p=SHARES))
            rows.append((time, user, int(next(movies)), float(random.choice([2.0, 4.0, 5.0]))))
    rows.sort()
    return Interactions([r[1] for r in rows], [r[2] for r in rows], [r[3] for r in rows], [r[0] for r in rows])


def by_loop(
    make: Callable[[], Recommender], ratings: Interactions, cutoff: int, refit_days: int, k: int
) -> dict[str, float]:
    columns = (ratings.timestamp, ratings.user_id, ratings.movie_id, ratings.rating)
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    last: dict[int, tuple[int, int]] = {}
    open_slates: dict[int, list[tuple[list[int], set[int]]]] = {}
    model: Recommender | None = None
    fitted = -1
    shown = clicks = 0
    precisions, recalls, squares = [], [], []
    for time, user, movie, stars in rows:
        previous, count = last.get(user, (None, 0))
        count = count + 1 if previous is not None and time - previous < SESSION_GAP_S else 0
        last[user] = (time, count)
        if count == 0:
            open_slates[user] = []
        if time < cutoff:
            continue
        window = (time - cutoff) // (refit_days * DAY_S)
        if window != fitted:
            model, fitted = make().fit(ratings.before(cutoff + window * refit_days * DAY_S)), window
        assert model is not None
        past = [row for row in rows if row[1] == user and row[0] < time]
        history = Histories.of([([r[2] for r in past], [r[3] for r in past], [r[0] for r in past])])
        if isinstance(model, RatingPredictor):
            squares.append((float(model.predict_for_history(history, [movie])[0]) - stars) ** 2)
        if count % 10 == 0:
            slate = [m for m in model.recommend_for_history(history, k).movie_ids[0].tolist() if m >= 0]
            shown += len(slate)
            open_slates[user].append((slate, set()))
            liked = {m for t, u, m, s in rows if u == user and time <= t < time + OUTCOME_S and s >= LIKED_STARS}
            if liked:
                precisions.append(len(liked & set(slate)) / k)
                recalls.append(len(liked & set(slate)) / len(liked))
        for slate, done in reversed(open_slates[user]):
            if movie in slate:
                clicks += movie not in done
                done.add(movie)
                break
    return {
        "ctr": clicks / shown,
        f"precision@{k}": float(np.mean(precisions)),
        f"recall@{k}": float(np.mean(recalls)),
        "rmse": float(np.sqrt(np.mean(squares))) if squares else -1.0,
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_a_loop_over_the_ratings(seed: int) -> None:
    ratings, cutoff = bursts(seed), 100 * DAY_S
    stream = Stream.of(ratings, SideFeatures.none(), cutoff=cutoff, refit_days=40)
    found = evaluate_prequential(Mean, stream, k=5)
    expected = by_loop(Mean, ratings, cutoff, 40, 5)
    assert expected["ctr"] > 0
    for name, value in expected.items():
        assert found.measures[name].value == pytest.approx(value, rel=1e-5), name


def test_who_predicts_no_stars_has_no_error_of_them() -> None:
    stream = Stream.of(bursts(0), SideFeatures.none(), cutoff=100 * DAY_S)
    found = evaluate_prequential(lambda: make_model("ease"), stream)
    assert "rmse" not in found.measures
    assert found.settings["refit_days"] == 90


def test_refits_are_told_and_cover_the_live_part() -> None:
    stream = Stream.of(bursts(0), SideFeatures.none(), cutoff=100 * DAY_S, refit_days=30)
    told: list[tuple[int, int]] = []
    evaluate_prequential(Popularity, stream, on_refit=lambda done, of: told.append((done, of)))
    parts = stream.refits()
    assert told == [(i + 1, len(parts)) for i in range(len(parts))]
    assert parts[0][1] == np.searchsorted(stream.ratings.timestamp, stream.cutoff)
    assert parts[-1][2] == len(stream.ratings)
    assert all(last == first for (_, _, last), (_, first, _) in pairwise(parts))


def test_a_stream_needs_both_parts() -> None:
    with pytest.raises(DataError, match="before and after"):
        Stream.of(bursts(0), SideFeatures.none(), cutoff=0)
