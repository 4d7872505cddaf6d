"""What a job's process is told, on its stdin."""

from __future__ import annotations

import msgspec

from agents.jobs import Job
from agents.thresholds import Gates

__all__ = ["TrainingTask"]


class TrainingTask(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told. models: the registry's folder; folder: the job's own. kinds: of the initial job, what it
    trains beside the champion's kind. rating_model: trained anew with the champion; None for none. data: the dataset,
    for its users' groups."""

    job: Job
    store_url: str
    models: str
    folder: str
    gates: Gates
    kinds: tuple[str, ...] = ()
    rating_model: str | None = None
    data: str | None = None
    niceness: int = 0
