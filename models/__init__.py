"""Recommender models, their evaluation, registry and serving. May import :mod:`streams` and :mod:`featurestore`."""
