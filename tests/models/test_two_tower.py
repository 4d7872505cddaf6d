"""The two-tower model learns the next ratings; its loss is the softmax over all movies, sampled."""

from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Histories
from models.kinds import make_model
from models.recommender import Epoch
from models.two_tower import TwoTower
from streams.errors import ModelError
from tests.models.planted import N_MOVIES, NEW_EVEN, NEW_ODD, features, new_movies, training_data, two_tastes

torch = pytest.importorskip("torch", reason="training needs torch: pip install streamlens[train]")

EVEN = Histories.of([([2, 4, 6, 8], [4.0] * 4, [1, 2, 3, 4])])


def small(**hyperparameters: object) -> TwoTower:
    model = make_model("two-tower", **{"width": 8, "epochs": 4, "learning_rate": 1e-3} | hyperparameters)
    assert isinstance(model, TwoTower)
    return model


@pytest.fixture(scope="module")
def trained() -> tuple[TwoTower, list[Epoch]]:
    epochs: list[Epoch] = []
    return small(patience=9).fit(two_tastes(), features(), on_epoch=epochs.append), epochs


def test_the_loss_falls_and_the_last_time_slice_is_measured(trained: tuple[TwoTower, list[Epoch]]) -> None:
    _, epochs = trained
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert epochs[-1].loss < epochs[0].loss
    assert all(epoch.validation is not None and 0 < epoch.validation <= 1 for epoch in epochs)


def test_a_planted_taste_is_found(trained: tuple[TwoTower, list[Epoch]]) -> None:
    found = trained[0].recommend_for_history(EVEN, 10).movie_ids[0]
    assert (found % 2 == 0).sum() >= 9


def test_a_new_movie_is_ranked_by_what_it_is_like(trained: tuple[TwoTower, list[Epoch]]) -> None:
    wider = trained[0].with_movies(new_movies())
    scores = dict(zip(wider.movie_ids.tolist(), wider.score(EVEN)[0].tolist(), strict=True))
    odd = [scores[movie] for movie in range(1, N_MOVIES, 2)]
    assert scores[NEW_EVEN] > max(odd)
    assert scores[NEW_EVEN] > scores[NEW_ODD]


def test_a_history_of_new_movies_says_something(trained: tuple[TwoTower, list[Epoch]]) -> None:
    wider = trained[0].with_movies(new_movies())
    found = wider.recommend_for_history(Histories.of([([NEW_ODD], [4.0], [1])]), 10)
    assert not found.cold.any()
    assert (found.movie_ids[0] % 2 == 1).sum() >= 9


def test_the_latest_ratings_count_most() -> None:
    model = small(recency_half_life=1.0, recency_floor=0.0).fit(two_tastes(), features())
    turned = Histories.of([([2, 4, 6, 8, 1, 3, 5, 7], [4.0] * 8, range(8))])
    assert (model.recommend_for_history(turned, 5).movie_ids[0] % 2 == 1).all()


def test_log_q_makes_the_batch_stand_for_all_movies() -> None:
    """Brute force: in the mean over batches drawn by a skewed q, the partition function is that over all movies."""
    from models.two_tower_training import in_batch_loss

    random = np.random.default_rng(0)
    n_movies, size, batches = 50, 400, 100
    taste = random.normal(size=n_movies)
    q = np.exp(taste) / np.exp(taste).sum()
    everything = np.log(np.exp(taste).sum())
    errors: dict[str, list[float]] = {"corrected": [], "raw": []}
    for _ in range(batches):
        target = random.choice(n_movies, size, p=q)
        logits = torch.tensor(np.tile(taste[target], (size, 1)))
        owner, wrong = torch.arange(size), torch.tensor(target[:, None] != target[None, :])
        log_q = np.log(q[target] * size)
        for name, correction in (("corrected", log_q), ("raw", np.full(size, np.log(size / n_movies)))):
            loss = in_batch_loss(logits, owner, wrong, torch.tensor(correction))
            own = (taste[target] - correction).mean()
            errors[name].append(float(loss) + own - everything)
    assert abs(np.mean(errors["corrected"])) < 0.1
    assert abs(np.mean(errors["raw"])) > 0.15


def test_what_a_user_rated_is_no_wrong_answer() -> None:
    from models.two_tower_training import in_batch_loss

    logits = torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 0.5]])
    wrong = torch.tensor([[False, False, True], [True, True, False]])
    loss = in_batch_loss(logits, torch.tensor([0, 0, 1]), wrong, torch.zeros(3))
    first = np.log(np.exp(1.0) + 1.0) - 1.0
    last = np.log(2 * np.exp(2.0) + np.exp(0.5)) - 0.5
    assert float(loss) == pytest.approx((2 * first + last) / 3, abs=1e-5)


def test_what_is_expected_in_a_batch_is_what_batches_hold() -> None:
    from models.two_tower_training import TwoTowerTrainer, expected_in_batch

    data = training_data(two_tastes())
    trainer = TwoTowerTrainer(small(horizon=4, batch_size=50), data)
    found = np.zeros(data.n_movies)
    for seed in range(400):
        rows = np.random.default_rng(seed).choice(data.n_users, 50, replace=False)
        _, _, answers, _ = trainer._batch(rows)
        found += np.bincount(answers, minlength=data.n_movies) / 400
    expected = expected_in_batch(data, 4, 50)
    np.testing.assert_allclose(expected, found, atol=0.45)
    assert expected.sum() == pytest.approx(found.sum(), rel=0.01)


def test_encoding_in_numpy_is_the_forward_pass_of_torch() -> None:
    from models.tower_network import TowerNetwork

    random = np.random.default_rng(0)
    inputs = random.normal(size=(5, 3)).astype(np.float32)
    network = TowerNetwork(inputs, *random.normal(size=(2, 5, 4)).astype(np.float32), np.ones(5, np.float32), 1.0, 0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.from_numpy(random.normal(size=parameter.shape)).float()
    model = small(recency_half_life=0.0)
    model._restore(network.arrays())
    history = Histories.of([([1, 3, 4], [4.0] * 3, [1, 2, 3])])
    with torch.no_grad():
        users = network.users(network.taste(torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0]]) * 3**-0.5))
        expected = network.scores_of(users, torch.arange(5), torch.ones(5))
        np.testing.assert_allclose(expected.numpy(), network.scores(users).numpy(), rtol=1e-5)
    np.testing.assert_allclose(model.user_vectors(history), users.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model._score(history), expected.numpy(), rtol=1e-5, atol=1e-5)


def test_training_that_diverges_says_so() -> None:
    with pytest.raises(ModelError, match="learning rate"):
        small(learning_rate=1e30).fit(two_tastes(), features())


def test_the_callers_random_numbers_are_left_alone() -> None:
    before = torch.random.get_rng_state()
    small(epochs=1).fit(two_tastes(), features())
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="expected auto, cpu"):
        small(device="tpu-9").fit(two_tastes())
