"""The hybrid VAE finds tastes, knows new movies by their features, and weighs its latent by the KL term."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from models.hybrid_vae import HybridVae
from models.interactions import Histories
from models.kinds import make_model
from models.recommender import Epoch
from streams.errors import ModelError
from tests.models.planted import N_MOVIES, NEW_EVEN, NEW_ODD, features, new_movies, training_data, two_tastes

torch = pytest.importorskip("torch", reason="training needs torch: pip install streamlens[train]")

EVEN = Histories.of([([2, 4, 6, 8], [4.0] * 4, [1, 2, 3, 4])])


def small(**hyperparameters: object) -> HybridVae:
    model = make_model("vae", **{"width": 8, "epochs": 8, "learning_rate": 1e-3} | hyperparameters)
    assert isinstance(model, HybridVae)
    return model


@pytest.fixture(scope="module")
def trained() -> tuple[HybridVae, list[Epoch]]:
    epochs: list[Epoch] = []
    return small(patience=9).fit(two_tastes(), features(), on_epoch=epochs.append), epochs


def test_the_loss_falls_and_the_last_time_slice_is_measured(trained: tuple[HybridVae, list[Epoch]]) -> None:
    _, epochs = trained
    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert np.mean([epoch.loss for epoch in epochs[-2:]]) < np.mean([epoch.loss for epoch in epochs[:2]])
    assert all(epoch.validation is not None and 0 < epoch.validation <= 1 for epoch in epochs)


def test_a_planted_taste_is_found(trained: tuple[HybridVae, list[Epoch]]) -> None:
    found = trained[0].recommend_for_history(EVEN, 10).movie_ids[0]
    assert (found % 2 == 0).sum() >= 9


def test_a_new_movie_is_ranked_by_what_it_is_like(trained: tuple[HybridVae, list[Epoch]]) -> None:
    wider = trained[0].with_movies(new_movies())
    scores = dict(zip(wider.movie_ids.tolist(), wider.score(EVEN)[0].tolist(), strict=True))
    assert scores[NEW_EVEN] > max(scores[movie] for movie in range(1, N_MOVIES, 2))
    assert scores[NEW_EVEN] > scores[NEW_ODD]


def test_the_kl_term_is_that_of_two_gaussians() -> None:
    from models.vae_training import kl_to_standard_normal

    mean = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    log_variance = torch.log(torch.tensor([[1.0, 1.0], [1.0, 1.0], [4.0, 1.0]]))
    expected = [0.0, (1 + 4) / 2, (4 - 1 - np.log(4.0)) / 2]
    np.testing.assert_allclose(kl_to_standard_normal(mean, log_variance).numpy(), expected, rtol=1e-6)


def test_encoding_in_numpy_is_the_forward_pass_of_torch() -> None:
    from models.vae_training import VaeNetwork

    random = np.random.default_rng(0)
    inputs = random.normal(size=(5, 3)).astype(np.float32)
    network = VaeNetwork(inputs, *random.normal(size=(2, 5, 4)).astype(np.float32), np.ones(5, np.float32), 1.0, 0)
    with torch.no_grad():
        network.log_sharpness.zero_()
        for parameter in network.parameters():
            parameter += 0.1 * torch.from_numpy(np.asarray(random.normal(size=parameter.shape))).float()
    model = small(recency_half_life=0.0)
    model._restore(network.arrays())
    history = Histories.of([([1, 3, 4], [4.0] * 3, [1, 2, 3])])
    with torch.no_grad():
        mean, _ = network.encode(torch.tensor([[0.0, 1.0, 0.0, 1.0, 1.0]]) * 3**-0.5)
        logits = network.scores(mean)
    np.testing.assert_allclose(model.user_vectors(history), mean.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model._score(history), logits.numpy(), rtol=1e-5, atol=1e-5)


def test_what_is_to_be_predicted_is_not_given() -> None:
    from models.vae_training import VaeTrainer

    data = training_data(two_tastes())
    rows = np.arange(50)
    given, wanted = (t.numpy() > 0 for t in VaeTrainer(small(dropout=0.9), data)._noised(rows))
    rated = np.zeros_like(given)
    own = data.histories.take(rows)
    rated[own.row, own.movie_id] = True
    assert not (given & wanted).any()
    np.testing.assert_array_equal(given | wanted, rated)
    assert 0.2 < wanted.sum() / rated.sum() < 0.7


def test_the_kl_term_is_annealed(monkeypatch: pytest.MonkeyPatch) -> None:
    from models import vae_training

    told: list[float] = []
    loss = vae_training._loss

    def listening(network: Any, given: Any, wanted: Any, kl_weight: float, noise: Any) -> Any:
        told.append(kl_weight)
        return loss(network, given, wanted, kl_weight, noise)

    monkeypatch.setattr(vae_training, "_loss", listening)
    trainer = vae_training.VaeTrainer(small(kl_weight=0.4, anneal_epochs=4), training_data(two_tastes()))
    for _ in range(6):
        trainer.epoch()
    assert list(dict.fromkeys(told)) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_training_that_diverges_says_so() -> None:
    with pytest.raises(ModelError, match="learning rate"):
        small(learning_rate=1e30).fit(two_tastes(), features())
