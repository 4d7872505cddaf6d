"""What was injected into a run, in ``ground_truth.json`` of its folder: what detectors are judged by.

``docs/drift.md`` describes the file. It is written before the first record, and read back by
:func:`read_ground_truth`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from streams.errors import DataError

__all__ = ["GROUND_TRUTH", "GroundTruth", "InjectedDrift", "read_ground_truth"]

GROUND_TRUTH = "ground_truth.json"


class InjectedDrift(msgspec.Struct, frozen=True):
    """One drift of a run.

    begins: event time, seconds since the epoch; nothing before it is touched. first_ordinal: ``event_id`` of the
    first record that was changed, added, replaced or came late; of a volume drop, of what came in place of the first
    rating left out; None where nothing was touched. n_records: how many records of the run the drift shows in; of a
    volume drop, how many it lacks. parameters: by kind, see docs/drift.md.
    """

    kind: str
    week: int
    strength: str
    begins: int
    first_ordinal: int | None
    n_records: int
    parameters: dict[str, Any]


class GroundTruth(msgspec.Struct, frozen=True):
    """Drifts of a run in the order in which they were put in, and what their weeks and ordinals count from.

    start: event time at which week 1 begins; cutoff: at which the live part begins. n_training, n_total: records of
    the run, the malformed ones included.
    """

    run_id: str
    seed: int
    start: int
    cutoff: int
    n_training: int
    n_total: int
    drifts: list[InjectedDrift]

    def encode(self) -> bytes:
        """The file's content."""
        return msgspec.json.encode(self) + b"\n"


def read_ground_truth(path: Path) -> GroundTruth:
    """The ground truth in a file or a run's folder. Raises DataError where there is none, or it cannot be read."""
    file = path / GROUND_TRUTH if path.is_dir() else path
    try:
        return msgspec.json.decode(file.read_bytes(), type=GroundTruth)
    except FileNotFoundError:
        raise DataError(
            f"{file}: expected the ground truth of a run with drift, found no such file; was it replayed with --drift?"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected the ground truth of a run, found {error}") from None
