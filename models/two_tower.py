"""Two towers: a history becomes a vector, a movie becomes a vector, and their product is the score.

Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019 (in-batch
softmax, corrected by log Q, how often a movie is in a batch); Covington et al., "Deep Neural Networks for YouTube
Recommendations", RecSys 2016 (a user is the embeddings watched; what comes next is predicted from what came before).
What both towers are made of: :mod:`models.feature_towers`.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from models.early_stopping import train_stopping_early
from models.feature_towers import FeatureTowers
from models.recommender import OnEpoch, TrainingData

__all__ = ["TwoTower"]


class TwoTower(FeatureTowers):
    """Predicts the next ratings from those before, starting from the linear autoencoder of its width.

    width: of the vectors. ridge: see :mod:`models.factor_start`. horizon: how many ratings ahead are predicted.
    id_dropout: how often a movie to predict is known by its features only. batch_size: users of a batch. epochs: at
    most, of ``steps`` batches; early stopping takes fewer. recency_half_life, in ratings, and recency_floor: see
    :func:`models.history_weights.recency_weights`. device: "cpu", "cuda", or "auto": CUDA where there is one.
    """

    name: ClassVar[str] = "two-tower"

    def __init__(
        self,
        *,
        width: int = 128,
        ridge: float = 4.0,
        horizon: int = 10,
        id_dropout: float = 0.1,
        learning_rate: float = 1e-4,
        epochs: int = 4,
        patience: int = 2,
        batch_size: int = 100,
        steps: int = 50,
        recency_half_life: float = 0.0,
        recency_floor: float = 0.0,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        if not 0.0 <= id_dropout < 1.0:
            raise ValueError(f"id_dropout: expected 0 to below 1, found {id_dropout}")
        least = min(width, horizon, epochs, batch_size, steps)
        if least < 1:
            raise ValueError(f"sizes and counts: expected 1 or more, found {least}")
        self.width = width
        self.ridge = ridge
        self.horizon = horizon
        self.id_dropout = id_dropout
        self.learning_rate = learning_rate
        self.epochs = epochs
        self.patience = patience
        self.batch_size = batch_size
        self.steps = steps
        self.recency_half_life = recency_half_life
        self.recency_floor = recency_floor
        self.device = device
        self.seed = seed

    def _fit(self, data: TrainingData, on_epoch: OnEpoch | None) -> None:
        from models.two_tower_training import TwoTowerTrainer  # needs torch, serving does not

        self._restore(train_stopping_early(self, data, partial(TwoTowerTrainer, self), on_epoch))
