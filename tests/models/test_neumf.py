from __future__ import annotations

import numpy as np
import pytest

from models.interactions import Histories
from models.neumf import NeuMF
from models.recommender import Epoch
from streams.errors import ModelError
from tests.models.two_tastes import newcomers, of_own_taste, two_tastes


def test_two_tastes_are_learnt_in_an_ever_smaller_loss() -> None:
    epochs: list[Epoch] = []
    model = NeuMF(factors=8, hidden=8, batch=128, learning_rate=0.01, epochs=30, patience=30)
    model.fit(two_tastes(), on_epoch=epochs.append)
    assert of_own_taste(model.recommend_for_history(newcomers(), 10).movie_ids) >= 0.9
    assert epochs[-1].loss < epochs[5].loss < epochs[0].loss


def test_a_user_of_training_is_answered_as_their_history_is() -> None:
    model = NeuMF(factors=4, hidden=4, epochs=2).fit(two_tastes())
    own = Histories.of_users(two_tastes(), model.user_ids)
    lists = model.recommend(model.user_ids, 10).movie_ids
    assert lists.tolist() == model.recommend_for_history(own, 10).movie_ids.tolist()


def test_serving_scores_what_training_learnt() -> None:
    import torch

    from models.neumf import _Trainer

    model = NeuMF(factors=4, hidden=6, epochs=2).fit(two_tastes())
    trained = _Trainer.__new__(_Trainer)
    trained._model = model
    trained._parameters = {name: torch.as_tensor(values) for name, values in model._weights.items()}
    history = [3, 5, 8]
    user = torch.as_tensor(model._weights["history"][history].sum(0)) / 3**0.5
    movies = torch.arange(len(model.movie_ids))
    expected = trained._logits(user.expand(len(movies), -1), movies).numpy()
    scores = model.score(Histories.of([(model.movie_ids[history], [4.0] * 3, [1, 2, 3])]))[0]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


def test_a_training_that_diverges_says_so() -> None:
    with pytest.raises(ModelError, match="learning rate"):
        NeuMF(factors=4, hidden=4, learning_rate=1e30, batch=64, epochs=3).fit(two_tastes())
