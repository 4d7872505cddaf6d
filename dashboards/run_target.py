"""Which run the pages show: the one they were started for, else whichever ``var/current`` names now."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from streams.drift import GROUND_TRUTH, InjectedDrift, read_ground_truth
from streams.errors import ConfigError, DataError
from streams.postgres_url import store_url_of_run
from streams.run import RunFolder, bus_url_of_run, current_run, open_run

__all__ = ["ENVIRONMENT", "Pointer", "RunTarget", "find_run", "pointer_from_environment"]

ENVIRONMENT = "_STREAMLENS_PAGES"
"""Variable with a :class:`Pointer` as JSON: how the command that starts the pages tells them what to show.
It is no setting, so it does not begin as these do."""


class Pointer(msgspec.Struct, frozen=True):
    """var: the folder of runs. run: an id, None for the current one. bus, store: URLs that take the place of the run's.

    partitions of ``ratings`` are read off the bus.
    """

    var: str = "var"
    run: str | None = None
    bus: str | None = None
    store: str | None = None


@dataclass(frozen=True, slots=True)
class RunTarget:
    """A run's bus, store and folders. Empty or None where it is not known, as on a machine without the run's folder."""

    bus_url: str
    store_url: str
    models: Path
    experiments: Path
    run_id: str = ""
    data: str = ""
    folder: Path | None = None
    drift: tuple[InjectedDrift, ...] = ()


def pointer_from_environment() -> Pointer:
    """What the pages were started for; the current run of ``./var`` where nobody said."""
    given = os.environ.get(ENVIRONMENT)
    return msgspec.json.decode(given, type=Pointer) if given else Pointer()


def find_run(pointer: Pointer) -> RunTarget | None:
    """The run that is to be shown now; None while there is none. Raises ConfigError for one that is not there."""
    var = Path(pointer.var)
    run = open_run(var, pointer.run) if pointer.run else current_run(var)
    if run is None:
        if pointer.bus is None or pointer.store is None:
            return None
        return RunTarget(pointer.bus, pointer.store, var / "models", var / "experiments")
    bus, store = pointer.bus, pointer.store
    return RunTarget(
        bus_url=run.bus_url if bus is None else bus_url_of_run(bus, run.run_id),
        store_url=run.store_url if store is None else store_url_of_run(store, run.run_id),
        models=run.path / "models",
        experiments=var / "experiments",
        run_id=run.run_id,
        data=Path(run.info.data).name or run.info.data,
        folder=run.path,
        drift=_injected(run),
    )


def _injected(run: RunFolder) -> tuple[InjectedDrift, ...]:
    if not (run.path / GROUND_TRUTH).exists():
        return ()
    try:
        return tuple(read_ground_truth(run.path).drifts)
    except (DataError, ConfigError):
        return ()  # it is being written
