"""Aligned mode: how far the loop may go ahead of features, monitors and trainer, so that speed changes no result.

Every wait is on earlier event time, or on the stage before, so that no two agents can wait for each other: features
wait for nobody, monitors for the boundary ticks that the loop has passed, the trainer for features.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agents.jobs import FINAL

__all__ = ["NO_CHAMPION", "Gate", "Progress", "needed_boundary", "no_champion", "waits_for"]

NO_CHAMPION = "a champion: the trainer makes one, and so does `streamlens train --model NAME --promote`"


@dataclass(frozen=True, slots=True)
class Gate:
    """How far the loop may go. live_from: event time at which the training part ends. aligned: as this module says;
    else who serves is who is champion now. train_delay_s: from a retrain event to its answer.
    """

    live_from: int = 0
    aligned: bool = True
    train_delay_s: int = 86_400


@dataclass(frozen=True, slots=True)
class Progress:
    """How far monitors and trainer are. monitors_closed: event time, None where no monitors have run yet.

    initial: the state of the trainer's initial job, None for none yet. open_due: event time at which the first answer
    is due that is not there yet, to a request of the monitors or of the trainer's own; None for none. asked: its id.
    reason: what the trainer said of the initial job.
    """

    monitors_closed: int | None = None
    initial: str | None = None
    open_due: int | None = None
    asked: str = ""
    reason: str = ""


def needed_boundary(boundaries: Sequence[int], moment: int, train_delay_s: int) -> int | None:
    """The last of ``boundaries``, event times that rise, whose decisions may take effect at ``moment``.

    >>> needed_boundary([0, 86_400, 172_800], 172_800, 86_400)
    86400
    """
    at = bisect_right(boundaries, moment - train_delay_s)
    return boundaries[at - 1] if at else None


def waits_for(moment: int, boundaries: Sequence[int], progress: Progress, *, train_delay_s: int) -> str:
    """What must be done before anything from event time ``moment`` on may be served; empty for nothing.

    boundaries: those that were passed, rising.
    """
    if progress.initial not in FINAL:
        state = "it has not begun" if progress.initial is None else f"it is {progress.initial}"
        return f"the trainer's first training, {state}"
    needed = needed_boundary(boundaries, moment, train_delay_s)
    if needed is not None and (progress.monitors_closed is None or progress.monitors_closed < needed):
        found = "nothing yet" if progress.monitors_closed is None else _shown(progress.monitors_closed)
        return f"the monitors to close {_shown(needed)}, they have closed {found}"
    if progress.open_due is not None and progress.open_due <= moment:
        return f"the trainer's answer to {progress.asked}, due at {_shown(progress.open_due)}"
    return ""


def no_champion(progress: Progress) -> str:
    """Why there is no champion and none is on its way, where there is none; empty where one may still come.

    >>> no_champion(Progress(initial="running"))
    ''
    >>> no_champion(Progress(initial="failed", reason="no ratings"))
    "the trainer's first training failed: no ratings"
    """
    if progress.initial not in FINAL:
        return ""
    return f"the trainer's first training {progress.initial}" + (f": {progress.reason}" if progress.reason else "")


def _shown(event_time: int) -> str:
    return f"{datetime.fromtimestamp(event_time, UTC):%Y-%m-%d %H:%M}"
