"""What the registry knows of a version that slates name: its kind, and what it was worth on its validation window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import structlog

from models.registry import Registry
from models.slates import SLATE_SIZE
from models.versions import Manifest
from streams.errors import ModelError

__all__ = ["VersionFacts"]

_OF_VALIDATION = {"ctr": "ctr", "precision": f"precision@{SLATE_SIZE}", "ndcg": f"ndcg@{SLATE_SIZE}"}
"""Measures that validation takes slate by slate, as the loop does. RMSE is not among them: of the live part it is
measured with histories as of the day's start, of validation with those of the moment, so the two differ anyway."""

_KIND = re.compile(r"(.+)-[0-9]{8}-[0-9a-f]+")

log = structlog.get_logger(__name__)


class VersionFacts:
    """Of the versions in ``folder``; each is looked up once it is found."""

    def __init__(self, folder: Path) -> None:
        self._registry = Registry(folder)
        self._manifests: dict[str, Manifest] = {}

    def kind(self, version_id: str) -> str | None:
        """Its kind, by its name where the registry does not know it; None for a name that tells none."""
        manifest = self._manifest(version_id)
        if manifest is not None:
            return manifest.kind
        named = _KIND.fullmatch(version_id)
        return named[1] if named else None

    def baselines(self, version_id: str) -> Mapping[str, float]:
        """Measures of its validation window, by the names that rules have; empty where it has none."""
        manifest = self._manifest(version_id)
        measured = manifest.validation.measures if manifest is not None and manifest.validation is not None else {}
        return {name: measured[theirs][0] for name, theirs in _OF_VALIDATION.items() if theirs in measured}

    def _manifest(self, version_id: str) -> Manifest | None:
        if version_id not in self._manifests:
            try:
                self._manifests[version_id] = self._registry.get(version_id).manifest
            except ModelError as error:
                log.warning("nothing known of the champion; its first window becomes its baseline", error=str(error))
                return None
        return self._manifests[version_id]
