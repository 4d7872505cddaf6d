"""A protocol from its name: the data once, and any model judged on it, or the part of it that a search may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from featurestore.catalogue import Catalogue
from models.evaluation import Evaluation, evaluate
from models.interactions import Interactions
from models.prequential import REFIT_DAYS, OnRefit, Stream, evaluate_oracle, evaluate_prequential
from models.rankers import OracleRanker
from models.recommender import OnEpoch, RatingPredictor, Recommender
from models.side_features import SideFeatures
from models.splits import Split, random_rating_split, random_split, temporal_split
from streams.dataset import open_dataset, open_user_groups
from streams.split import split_at_week
from streams.synthetic import SyntheticDataset

__all__ = ["OBJECTIVES", "PROTOCOLS", "Judge", "RatedData", "load_rated_data"]

PROTOCOLS = ("random", "temporal", "prequential")
OBJECTIVES = {"random": "ndcg", "temporal": "ndcg", "prequential": "ctr"}
"""What a search raises, by protocol; of lists of k, but for the click rate."""
_VALIDATION_SHARE = 0.2
_FIRST_LIVE_WEEK = 10


@dataclass(frozen=True, slots=True, eq=False)
class RatedData:
    """A dataset in memory. cutoff: where the live part of a replay begins. oracle: of a synthetic world."""

    name: str
    fingerprint: str
    ratings: Interactions
    features: SideFeatures
    cutoff: int
    oracle: OracleRanker | None


def load_rated_data(name: str) -> RatedData:
    """The dataset that :func:`streams.dataset.open_dataset` knows by ``name``. Raises as that does."""
    dataset = open_dataset(name)
    ratings = Interactions.concat(map(Interactions.of_ratings, dataset.chunks()))
    features = SideFeatures.of_catalogue(Catalogue(dataset.movies().values()), open_user_groups(name))
    oracle = OracleRanker(dataset.oracle, features.movie_id) if isinstance(dataset, SyntheticDataset) else None
    cutoff = split_at_week(dataset, week=_FIRST_LIVE_WEEK).cutoff
    return RatedData(name, dataset.fingerprint, ratings, features, cutoff, oracle)


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """A protocol on data. k: the length of lists. seed: of the split, where one is drawn.

    refit_days: of ``prequential``. validation: judge on a part of what the protocol itself trains on.
    """

    protocol: str
    data: RatedData
    k: int = 10
    seed: int = 0
    refit_days: int = REFIT_DAYS
    validation: bool = False

    def judge(
        self,
        make: Callable[[], Recommender],
        *,
        on_epoch: OnEpoch | None = None,
        on_refit: OnRefit | None = None,
        ranks: bool = True,
        rates: bool = True,
    ) -> list[Evaluation]:
        """What a model, new from ``make`` for each fit, is worth; stars and lists apart where their splits are.

        ranks, rates: leave out the splits for lists, or for stars, where ``random`` has one for each.
        """
        if self.protocol == "prequential":
            return [evaluate_prequential(make, self._stream(), k=self.k, on_epoch=on_epoch, on_refit=on_refit)]
        rates = rates and isinstance(make(), RatingPredictor)
        found = []
        for split in self._splits(ranks, rates):
            model = make().fit(split.train, split.features, on_epoch=on_epoch)
            found.append(evaluate(model, split, k=self.k))
        return found

    def judge_oracle(self) -> list[Evaluation]:
        """The same for the oracle of a synthetic world; nothing for other data."""
        if self.data.oracle is None:
            return []
        if self.protocol == "prequential":
            return [evaluate_oracle(self.data.oracle, self._stream(), k=self.k)]
        return [evaluate(self.data.oracle, split, k=self.k) for split in self._splits(True, True)]

    def _splits(self, ranks: bool, rates: bool) -> list[Split]:
        ratings, features = self.data.ratings, self.data.features
        if self.protocol == "temporal":
            return [temporal_split(ratings, features, validation=self.validation)]
        makes = [make for make, wanted in ((random_split, ranks), (random_rating_split, rates)) if wanted]
        return [make(ratings, features, seed=self.seed, validation=self.validation) for make in makes]

    def _stream(self) -> Stream:
        ratings, cutoff = self.data.ratings, self.data.cutoff
        if self.validation:
            ratings = ratings.before(cutoff)
            cutoff = int(np.quantile(ratings.timestamp, 1 - _VALIDATION_SHARE)) if len(ratings) else cutoff
        return Stream.of(ratings, self.data.features, cutoff=cutoff, refit_days=self.refit_days)
