"""In what unit a chart counts: of measures, of what detectors watch, of curves; shares are drawn in per cent."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Unit", "curve_unit", "signal_unit", "unit_of"]


@dataclass(frozen=True, slots=True)
class Unit:
    """What an axis says, and by what values are multiplied first."""

    title: str
    scale: float = 1.0


def _share(of: str) -> Unit:
    return Unit(f"{of}, %", 100.0)


_UNITS = {
    "ctr": _share("CTR"),
    "rmse": Unit("RMSE, stars"),
    "mae": Unit("mean absolute error, stars"),
    "volume": Unit("ratings a day"),
    "ratings_per_session": Unit("ratings"),
    "revenue_per_user": Unit("dollars (assumed)"),
    "popularity_kl": Unit("nats"),
    "rating_kl": Unit("nats"),
    "new_user_share": _share("of a day's users"),
    "new_item_share": _share("of a day's movies"),
    "hit_rate": _share("users with a hit@10"),
    "coverage": _share("movies listed@10"),
    "precision": Unit("precision@10, 0 to 1"),
    "recall": Unit("recall@10, 0 to 1"),
    "ndcg": Unit("NDCG@10, 0 to 1"),
    "map": Unit("MAP@10, 0 to 1"),
    "mrr": Unit("MRR@10, 0 to 1"),
    "diversity": Unit("diversity@10, 0 to 1"),
}
_SIGNALS = {
    "rating": Unit("stars"),
    "error": Unit("stars off"),
    "popularity": Unit("decile, 0 (most rated) to 1"),
    "taste": Unit("log of likelihoods"),
    "new_user": _share("new users"),
    "volume": Unit("log(1 + ratings a day)"),
    "session": Unit("log of ratings"),
    "ctr": _share("CTR"),
}
_CURVES = {"loss": Unit("training loss"), "validation": Unit("objective on validation")}


def unit_of(measure: str) -> Unit:
    """Of a measure of the monitors, a validation or an experiment; its own name where it is not known. Slates hold 10.

    >>> unit_of("ctr"), unit_of("recall@20").title, unit_of("surprise").title
    (Unit(title='CTR, %', scale=100.0), 'recall@20, 0 to 1', 'surprise')
    """
    name, _, k = measure.partition("@")
    unit = _UNITS.get(name, Unit(measure))
    return replace(unit, title=unit.title.replace("@10", f"@{k}")) if k else unit


def signal_unit(detector: str) -> Unit:
    """Of what a detector observes, a mean of its signal: by the detector's name."""
    return _SIGNALS.get(detector.removesuffix("_drift"), Unit("mean of the signal"))


def curve_unit(column: str) -> Unit:
    """Of ``loss`` or ``validation`` by epoch."""
    return _CURVES[column]
