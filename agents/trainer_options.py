"""What a trainer runs on, and how."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.thresholds import Gates, default_thresholds
from streams.events import DAY_S

__all__ = ["TrainerOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerOptions:
    """What a trainer runs on, and how.

    partitions: of ``ratings``. models: the registry's folder; jobs: where each job has a folder while it runs.
    training_end: event time at which the live part begins; None: nothing is trained unless it is asked for. monitored:
    whether monitors belong to the run, so that its end is theirs. aligned: whether jobs run in event time, none before
    the monitors have decided up to it. champion,
    kinds: the kind that serves first, and those that are trained beside it. rating_model: trained along with every
    champion; None for none. train_delay_s: event time from what asks for a training to what it changes. lateness_s: how
    long ratings of an event time are waited for. data: the dataset. command: of a job's process.
    """

    bus_url: str
    store_url: str
    models: Path
    jobs: Path
    run_id: str = ""
    partitions: int = 4
    training_end: int | None = None
    champion: str = "ease"
    kinds: tuple[str, ...] = ()
    rating_model: str | None = "mf"
    train_delay_s: int = DAY_S
    lateness_s: int = DAY_S
    monitored: bool = False
    aligned: bool = True
    gates: Gates = default_thresholds().gates
    data: str | None = None
    time_limit_s: float = 3_600.0
    memory_limit_mib: float = 4_096.0
    max_attempts: int = 3
    niceness: int = 10
    store_patience_s: float = 30.0
    poll_s: float = 0.25
    command: Sequence[str] = (sys.executable, "-m", "agents.training_job")
