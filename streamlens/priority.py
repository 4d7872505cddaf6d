"""How a command that may take its time stands back behind those that must not."""

from __future__ import annotations

import os

__all__ = ["yield_to_ingest"]

_NICENESS = 10


def yield_to_ingest() -> None:
    """Let this process run when replayer, workers and readers of the machine leave it a core.

    On two busy cores snapshots took 27 % of a worker's throughput at its own priority, and 7 % at this one.
    """
    os.nice(_NICENESS)
