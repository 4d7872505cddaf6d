"""How the trainings of a run stand, as plain values: jobs, those that came to no decision, and why nobody serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from agents.job_store import read_jobs
from agents.jobs import Job
from models.registry import Registry
from streams.errors import ModelError

__all__ = ["jobs_status", "no_champion", "undecided_jobs"]


def jobs_status(store_url: str) -> list[dict[str, Any]]:
    """The trainer's jobs, by event time; none where no trainer was there."""
    return [msgspec.to_builtins(job) for job in read_jobs(store_url)]


def undecided_jobs(store_url: str) -> list[Job]:
    """Those that the registry knows nothing of, since they came to no version: failed, or rejected without one."""
    jobs = read_jobs(store_url)
    return [job for job in jobs if job.state == "failed" or (job.state == "rejected" and job.version_id is None)]


def no_champion(store_url: str, models: Path) -> str:
    """Why there is no champion and none will come by itself, and what to do; empty for anything else."""
    failed = [job for job in read_jobs(store_url) if job.kind == "initial" and job.state == "failed"]
    if not failed:
        return ""
    try:
        if Registry(models).champion() is not None:
            return ""
    except ModelError as error:
        return str(error)
    (first,) = failed
    return (
        f"the first training, of {first.model}, failed: {first.reason}. Mend that, then "
        f"`streamlens train --model {first.model} --promote`, or `streamlens retrain` for the trainer to do it"
    )
