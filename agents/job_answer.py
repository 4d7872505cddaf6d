"""What a training job finds: models trained, compared with the champion, and put where nobody serves them yet.

It decides nothing. Evidence and versions that a try before has left are used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from agents.jobs import Outcome
from agents.promotion_gates import evidence_of, judge_challenger, judge_in_shadow, too_few_slates
from agents.training_task import TrainingTask
from featurestore.snapshot import take_snapshot
from featurestore.snapshot_manifest import manifest_path
from featurestore.snapshot_reader import Snapshot
from models.kinds import MODELS
from models.recommender import Recommender
from models.registry import Registry, Version
from models.side_features import SideFeatures
from models.splits import known_by
from models.training import Recipe, describe, fit_version, keep_version, measures_of, ratings_of
from models.trials import hold_trial, shortest_window
from models.versions import Manifest, Validation, new_version_id
from streams.durable import replace_durably
from streams.errors import ModelError

__all__ = ["AnswerTask"]

_VERDICT = "verdict.json"
_NO_CHAMPION = Outcome(decision="promote", reason="there was no champion to compare with")

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class AnswerTask:
    """A task at work. tell: called with the name of each phase."""

    task: TrainingTask
    tell: Tell

    def outcome(self) -> Outcome:
        """Do the job. Raises what training, store and registry do."""
        if self.task.job.kind == "initial":
            return self._initial()
        return self._shadow() if self.task.job.kind == "shadow" else self._retrain()

    @property
    def _registry(self) -> Registry:
        return Registry(Path(self.task.models))

    def _initial(self) -> Outcome:
        job, registry = self.task.job, self._registry
        champion = registry.champion()
        first = None if champion else registry.newest(job.model, job.event_time) or self._train(Recipe(job.model))
        trained, failed = self._train_beside(
            kind
            for kind in dict.fromkeys([*self.task.kinds, *_given(self.task.rating_model)])
            if (first is None or kind != job.model) and self._missing(kind)
        )
        if champion is not None or first is None:
            found = champion.version_id if champion else ""
            return Outcome(decision="none", reason=f"{found} is champion already", metrics=failed, trained=trained)
        return Outcome(
            decision="promote",
            reason="the first champion",
            version_id=first.version_id,
            metrics=failed,
            trained=trained,
        )

    def _missing(self, kind: str) -> bool:
        """Whether nobody else has trained it: what a try before has left is this job's, and told of as such."""
        newest = self._registry.newest(kind, self.task.job.event_time)
        return newest is None or newest.manifest.request == self.task.job.id

    def _retrain(self) -> Outcome:
        job = self.task.job
        if job.model not in MODELS:
            return Outcome(decision="fail", reason=f"expected one of the models {', '.join(MODELS)}: {job.model!r}")
        champion = self._registry.champion_at(job.due)
        recipe = self._recipe(champion)
        outcome = self._verdict(recipe, champion)
        promoted = outcome.decision == "promote"
        if promoted:
            outcome = msgspec.structs.replace(outcome, version_id=self._train(recipe).version_id)
        beside = (kind for kind in _given(self.task.rating_model) if not (promoted and kind == job.model))
        trained, failed = self._train_beside(beside)
        return msgspec.structs.replace(outcome, metrics=outcome.metrics | failed, trained=trained)

    def _train_beside(self, kinds: Iterable[str]) -> tuple[dict[str, str], dict[str, Any]]:
        """Versions by kind, and as evidence those that could not be trained: they hold up nobody's promotion."""
        trained, failed = {}, {}
        for kind in kinds:
            try:
                trained[kind] = self._train(self._recipe_of(kind)).version_id
            except ModelError as error:
                failed[kind] = str(error)
        return trained, {"not_trained": failed} if failed else {}

    def _recipe(self, champion: Version | None) -> Recipe:
        """The champion's own, where its kind is asked for."""
        kind = self.task.job.model
        return _recipe_in(champion.manifest) if champion and champion.manifest.kind == kind else self._recipe_of(kind)

    def _recipe_of(self, kind: str) -> Recipe:
        newest = self._registry.newest(kind, self.task.job.due)
        return _recipe_in(newest.manifest) if newest else Recipe(kind)

    def _verdict(self, recipe: Recipe, champion: Version | None) -> Outcome:
        """Written down before anything is made of it, so that a second try goes by the same."""
        path = Path(self.task.folder) / _VERDICT
        with suppress(FileNotFoundError):
            return msgspec.json.decode(path.read_bytes(), type=Outcome)
        found = self._compare(recipe, champion) if champion else _NO_CHAMPION
        replace_durably(path, msgspec.json.encode(found))
        return found

    def _compare(self, recipe: Recipe, champion: Version) -> Outcome:
        """Champion and challenger on the newest slates that neither has learnt from."""
        job, gates, snapshot = self.task.job, self.task.gates, self._snapshot()
        known = champion.manifest.as_of
        ratings = ratings_of(snapshot, late=False)
        start, n_slates = shortest_window(ratings, least_slates=gates.min_slates, not_before=known)
        metrics = {"champion": champion.version_id, "champion_as_of": known, "window": [start, job.event_time]}
        reason = too_few_slates(n_slates, gates)
        if reason is not None:
            metrics["slates"] = n_slates
            return Outcome(decision="reject", reason=reason, metrics=metrics, against=champion.version_id)
        self.tell("training the challenger")
        features = SideFeatures.of_catalogue(snapshot.catalogue, self._groups())
        before = ratings.before(start)
        challenger = recipe.make().fit(before, known_by(features, before.movie_id, start))
        self.tell("comparing it with the champion")
        trial = hold_trial(
            challenger,
            champion.load(),
            ratings,
            features,
            start=start,
            end=job.event_time,
            level=gates.confidence,
            draws=gates.n_bootstrap,
        )
        decision, reason = judge_challenger(trial.difference, gates.confidence)
        metrics |= evidence_of(trial, gates.confidence)
        metrics["challenger_ratings_more"] = len(before) - len(ratings.before(known))
        version_id = None
        if decision == "reject":
            measured = Validation(
                start,
                trial.n_users,
                trial.n_slates,
                measures_of(trial.newcomer),
                {champion.version_id: measures_of(trial.incumbent)},
            )
            there = self._left(recipe.kind, start)
            version = there or self._keep(
                challenger, describe(recipe.kind, challenger, snapshot, start, len(before), measured)
            )
            version_id = version.version_id
        return Outcome(
            decision=decision, reason=reason, version_id=version_id, metrics=metrics, against=champion.version_id
        )

    def _shadow(self) -> Outcome:
        job, gates, registry = self.task.job, self.task.gates, self._registry
        served = registry.champion_at(job.event_time)
        if served is None or served.version_id != job.version_id or job.since is None or job.against is None:
            found = served.version_id if served else "nobody"
            return Outcome(decision="none", reason=f"{found} serves by now; nothing to roll back")
        new, old = registry.get(served.version_id), registry.get(job.against)
        snapshot = self._snapshot()
        self.tell("scoring the champion before in shadow")
        trial = hold_trial(
            new.load(),
            old.load(),
            ratings_of(snapshot, late=False),
            SideFeatures.of_catalogue(snapshot.catalogue, self._groups()),
            start=job.since,
            end=job.event_time,
            level=gates.confidence,
            draws=gates.n_bootstrap,
        )
        decision, reason = judge_in_shadow(trial.difference, gates.confidence)
        return Outcome(decision=decision, reason=reason, metrics=evidence_of(trial, gates.confidence))

    def _snapshot(self) -> Snapshot:
        """As of the job's event time; taken once."""
        folder = Path(self.task.folder) / "snapshot"
        if not manifest_path(folder).exists():
            self.tell("taking a snapshot")
            take_snapshot(self.task.store_url, folder, self.task.job.event_time)
        return Snapshot(folder, check=False)

    def _train(self, recipe: Recipe) -> Version:
        """On all before the job's event time; the version that a try before has left, where there is one."""
        there = self._left(recipe.kind, self.task.job.event_time)
        if there is not None:
            return there
        started, snapshot = time.monotonic(), self._snapshot()
        model, manifest = fit_version(
            recipe,
            snapshot,
            self._groups(),
            lambda phase, epoch: self.tell(f"{recipe.kind}: {phase}" + (f", epoch {epoch.number}" if epoch else "")),
            late=False,
        )
        return self._keep(model, msgspec.structs.replace(manifest, seconds=round(time.monotonic() - started, 3)))

    def _left(self, kind: str, as_of: int) -> Version | None:
        """The version that a try before has left."""
        for version in self._registry.versions():
            manifest = version.manifest
            if (manifest.request, manifest.kind, manifest.as_of) == (self.task.job.id, kind, as_of):
                return version
        return None

    def _keep(self, model: Recommender, manifest: Manifest) -> Version:
        job = self.task.job
        self.tell(f"{manifest.kind}: saving")
        manifest = msgspec.structs.replace(
            manifest,
            version_id=new_version_id(manifest.kind, manifest.as_of, job.id),
            request=job.id,
            effective=job.due,
        )
        return keep_version(self.task.store_url, self._registry, model, manifest)

    def _groups(self) -> Mapping[int, str]:
        from streams.dataset import open_user_groups
        from streams.errors import DataError

        with suppress(DataError):  # the data is not on this machine
            return open_user_groups(self.task.data) if self.task.data else {}
        return {}


def _given(kind: str | None) -> tuple[str, ...]:
    return (kind,) if kind else ()


def _recipe_in(manifest: Manifest) -> Recipe:
    return Recipe(manifest.kind, {k: v for k, v in manifest.hyperparameters.items() if k != "seed"}, manifest.seed)
