"""Recommender models, their evaluation, registry and serving. May import :mod:`streams` and :mod:`featurestore`.

One contract (:class:`models.recommender.Recommender`), one file per model, one test suite over all. From any ratings to
measured lists, which docs/evaluation.md explains:

>>> from models.evaluation import evaluate
>>> from models.interactions import Interactions
>>> from models.kinds import make_model
>>> from models.side_features import SideFeatures
>>> from models.splits import random_split
>>> ratings = Interactions([u for u in range(8) for m in range(5)], [u % 2 * 5 + m for u in range(8) for m in range(5)],
...                        [4.0] * 40)
>>> split = random_split(ratings, SideFeatures.none(), seed=1)
>>> ease, popular = (make_model(name).fit(split.train, split.features) for name in ("ease", "popularity"))
>>> better = evaluate(ease, split, k=1).difference(evaluate(popular, split, k=1), "ndcg@1")
>>> better.value > 0
True
"""
