"""What the registry is told of a job, once, and what it was told before."""

from __future__ import annotations

import msgspec

from agents.jobs import Job, Outcome
from models.registry import Registry
from streams.errors import ModelError

__all__ = ["decide", "outcome_decided"]

_BY = "trainer"


def decide(registry: Registry, job: Job, outcome: Outcome) -> Outcome:
    """Do in the registry what ``outcome`` asks for, once for a job's id; what cannot be done fails the job."""
    why = f"{outcome.reason}; asked for by {job.asked}" if job.asked else outcome.reason
    how = {"by": _BY, "why": why, "effective": job.due, "request": job.id}
    try:
        if outcome.decision == "roll back":
            champion = registry.champion()
            if registry.answer_to(job.id) is None and champion and champion.version_id != job.version_id:
                reason = f"{champion.version_id} takes over; nothing to roll back. {outcome.reason}"
                return msgspec.structs.replace(outcome, decision="none", reason=reason)
            registry.roll_back(**how, champion=job.version_id)  # type: ignore[arg-type]
        elif outcome.version_id is not None and outcome.decision == "promote":
            registry.promote(registry.get(outcome.version_id), **how)  # type: ignore[arg-type]
        elif outcome.version_id is not None and outcome.decision == "reject":
            registry.reject(registry.get(outcome.version_id), **how)  # type: ignore[arg-type]
    except ModelError as error:
        return msgspec.structs.replace(outcome, decision="fail", reason=str(error))
    return outcome


def outcome_decided(registry: Registry, job_id: str) -> Outcome | None:
    """What was decided on a job before, as far as the trail tells; None for nothing yet."""
    entry = registry.answer_to(job_id)
    if entry is None:
        return None
    decisions = {"promoted": "promote", "rejected": "reject", "rolled back": "roll back"}
    return msgspec.convert(
        {
            "decision": decisions[entry.action],
            "reason": entry.why,
            "version_id": None if entry.action == "rolled back" else entry.version_id,
            "against": entry.previous,
        },
        Outcome,
    )
