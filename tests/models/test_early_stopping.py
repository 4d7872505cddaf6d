"""What is held out lies after what is learnt, and training stops where it was best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.early_stopping import LastSlice, train_stopping_early
from models.interactions import Float32s, Histories
from models.recommender import Epoch, TrainingData
from models.side_features import SideFeatures


def data(n_users: int = 30, n_each: int = 20) -> TrainingData:
    row = np.repeat(np.arange(n_users), n_each)
    column = np.tile(np.arange(n_each), n_users)
    ids = np.arange(2 * n_each)  # half of them nobody rated
    features = SideFeatures.none().of_movies(ids)
    time = 1_000 * row + column
    return TrainingData(np.arange(n_users), ids, row, column, np.full(len(row), 4.0, np.float32), time, features)


def test_each_users_last_tenth_is_held_out_and_nothing_else() -> None:
    last = LastSlice.of(data())
    assert last.before.histories.lengths.tolist() == [18] * 30
    assert last.held.column.tolist() == [18, 19] * 30
    both = np.concatenate([part.row * 40 + part.column for part in (last.before, last.held)])
    assert np.sort(both).tolist() == (data().row * 40 + data().column).tolist()


def all_at_once(n_users: int, n_each: int = 20) -> TrainingData:
    """Everybody rates a movie at each moment."""
    every = data(n_users, n_each)
    return replace(every, timestamp=every.column)


def test_one_slice_of_time_is_held_out_of_all_users() -> None:
    last = LastSlice.of(all_at_once(n_users=100))
    assert last.held.timestamp.min() > last.before.timestamp.max()
    assert sorted(set(last.held.column.tolist())) == [18, 19]
    assert last.judged.tolist() == list(range(100))


def test_users_who_only_come_within_the_slice_are_not_judged() -> None:
    """Whom the model has never seen would be judged without a history."""
    some = all_at_once(n_users=120)
    late = some.row >= 110
    last = LastSlice.of(replace(some, timestamp=np.where(late, 19, some.timestamp)))
    assert last.judged.tolist() == list(range(110))
    assert last.before.user_ids.tolist() == last.held.user_ids.tolist() == list(range(110))
    assert last.before.histories.lengths.min() > 0, "a user without ratings to learn from"
    assert last.ndcg(lambda histories: np.tile(-np.arange(40, dtype=np.float32), (len(histories), 1))) is not None


def test_with_too_few_users_on_both_sides_each_users_own_last_ratings_are_held_out() -> None:
    few = LastSlice.of(all_at_once(n_users=99))
    assert few.held.timestamp.min() == few.before.timestamp.max() + 1 == 18
    one_after_the_other = LastSlice.of(data(n_users=200))
    assert len(LastSlice.of_time(data(n_users=200)).judged) == 0
    assert one_after_the_other.before.histories.lengths.tolist() == [18] * 200
    without_times = replace(all_at_once(n_users=200), timestamp=np.zeros(4_000, np.int64))
    assert LastSlice.of(without_times).before.histories.lengths.tolist() == [18] * 200


def test_ndcg_of_the_right_and_of_the_wrong_order() -> None:
    last = LastSlice.of(data())
    assert last.ndcg(lambda histories: np.tile(-np.arange(40, dtype=np.float32), (len(histories), 1))) == 1.0
    assert last.ndcg(lambda histories: np.tile(np.arange(40, dtype=np.float32), (len(histories), 1))) == 0.0


def test_users_of_few_ratings_are_not_held_out() -> None:
    assert LastSlice.of(data(n_each=9)).ndcg(lambda histories: np.zeros((len(histories), 18), np.float32)) is None


class _Counts:
    """A trainer whose scores are right after three epochs only, and that remembers what it was shown."""

    name, epochs, patience = "counts", 9, 3

    def __init__(self) -> None:
        self.started: list[int] = []

    def start(self, data: TrainingData) -> _CountsTrainer:
        self.started.append(len(data.row))
        return _CountsTrainer()

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self._epoch = int(arrays["epoch"])

    def _score(self, histories: Histories) -> Float32s:
        order = np.arange(40) if self._epoch != 3 else -np.arange(40)
        return np.tile(order.astype(np.float32), (len(histories), 1))


class _CountsTrainer:
    def __init__(self) -> None:
        self._epoch = 0

    def epoch(self) -> float:
        self._epoch += 1
        return 1.0 / self._epoch

    @property
    def learnt(self) -> dict[str, np.ndarray]:
        return {"epoch": np.array(self._epoch)}


def test_all_is_learnt_from_in_the_epochs_that_were_best_without_the_last_slice() -> None:
    model, epochs = _Counts(), list[Epoch]()
    learnt = train_stopping_early(model, data(), model.start, epochs.append)
    assert model.started == [540, 600]
    assert learnt["epoch"] == 3
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]


def test_without_a_slice_all_epochs_are_used_once() -> None:
    model = _Counts()
    assert train_stopping_early(model, data(n_each=9), model.start, None)["epoch"] == 9
    assert model.started == [270]
