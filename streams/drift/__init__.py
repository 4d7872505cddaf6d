"""Drift with ground truth: what goes wrong in a recommender's world, put into a stream at a known place and strength.

``spec`` reads ``kind@week:strength``; each kind has a file of its own (``rating_bias``, ``popularity_flip``,
``taste_shift``, ``volume_drop``, ``new_user_flood``, ``late``, ``malformed``), an ``Effect`` over ``columns``;
``drifted`` makes a dataset of data and drifts; ``ground_truth`` tells what was done.
"""

from streams.drift.drifted import DriftedDataset
from streams.drift.ground_truth import GROUND_TRUTH, GroundTruth, InjectedDrift, read_ground_truth
from streams.drift.spec import DriftSpec, parse_drift, parse_drifts

__all__ = [
    "GROUND_TRUTH",
    "DriftSpec",
    "DriftedDataset",
    "GroundTruth",
    "InjectedDrift",
    "parse_drift",
    "parse_drifts",
    "read_ground_truth",
]
