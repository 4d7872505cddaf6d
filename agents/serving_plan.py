"""Which version serves each variant, at an event time or now, and the models themselves, kept while they are in use."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from agents.variants import CHAMPION, Experiment
from models.recommender import Recommender
from models.registry import Registry, Version

__all__ = ["ServingPlan"]

_KEPT_MODELS = 8
_NO_END = 1 << 62

_Stamp = tuple[tuple[int, int, int] | None, ...]


class ServingPlan:
    """Looks into the registry in ``folder``, which need not be there yet. Not thread-safe.

    A variant whose kind has no version shows the champion.
    """

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.experiment = experiment
        self._registry = Registry(folder)
        self._plans: dict[int | None, Mapping[str, str] | None] = {}
        self._models: OrderedDict[str, Recommender] = OrderedDict()
        self._stamp: _Stamp = ()

    def refresh(self) -> None:
        """Notice what was decided or added since the last time."""
        stamp = (_stat(self._registry.folder), _stat(self._registry.folder / "registry.json"))
        if stamp != self._stamp:
            self._stamp = stamp
            self._plans.clear()

    def at(self, event_time: int | None) -> Mapping[str, str] | None:
        """The version of each variant by its name, as decided for an event time, or now; None without a champion."""
        if event_time not in self._plans:
            self._plans[event_time] = self._look(event_time)
        return self._plans[event_time]

    def _look(self, event_time: int | None) -> Mapping[str, str] | None:
        registry = self._registry
        champion = registry.champion() if event_time is None else registry.champion_at(event_time)
        if champion is None:
            return None
        newest: dict[str, Version | None] = {CHAMPION: champion}
        for variant in self.experiment.variants:
            if variant.model not in newest:
                newest[variant.model] = registry.newest(variant.model, _NO_END if event_time is None else event_time)
        return {v.name: (newest[v.model] or champion).version_id for v in self.experiment.variants}

    def model(self, version_id: str) -> Recommender:
        """Raises ModelError where it is damaged, ModelMissing where it is gone."""
        if version_id not in self._models:
            self._models[version_id] = self._registry.get(version_id).load()
            while len(self._models) > _KEPT_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(version_id)
        return self._models[version_id]


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
