"""Recommender models, their evaluation, registry and serving. May import :mod:`streams` and :mod:`featurestore`.

One contract (:class:`models.recommender.Recommender`), one file per model, one test suite over all.
"""
