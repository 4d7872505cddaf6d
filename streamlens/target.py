"""Which run a command is about, and where its log and its store are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featurestore.catalogue import Catalogue
from streamlens.settings import Settings, load_settings
from streamlens.waiting import NothingYet
from streams.bus import Bus, open_bus
from streams.dataset import open_dataset, open_movies
from streams.errors import DataError
from streams.postgres_url import store_url_of_run
from streams.replay_options import parse_start
from streams.run import RunFolder, bus_url_of_run, current_run, open_run
from streams.split import split_at_week

__all__ = ["Target", "find_target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A run, or a bus and a store that were named instead of one, as on a machine that has no folder of the run.

    There the settings say what is replayed (``[replay]``, ``partitions``), and must say what the replayer was told.
    """

    settings: Settings
    run: RunFolder | None

    @property
    def run_id(self) -> str:
        """Empty where there is no run."""
        return self.run.run_id if self.run else ""

    @property
    def folder(self) -> Path | None:
        return self.run.path if self.run else None

    @property
    def data(self) -> str | None:
        return self.run.info.data if self.run else self.settings.replay.data

    @property
    def drift(self) -> list[str]:
        """What is injected into the run, ``kind@week:strength`` each."""
        return list(self.run.info.options.get("drift", [])) if self.run else []

    @property
    def bus_url(self) -> str:
        named = self.settings.bus
        if named is not None and self.run is not None:
            named = bus_url_of_run(named, self.run_id)
        return self._url("bus", named, self.run.bus_url if self.run else None)

    @property
    def store_url(self) -> str:
        named = self.settings.store
        if named is not None and self.run is not None:
            named = store_url_of_run(named, self.run_id)
        return self._url("store", named, self.run.store_url if self.run else None)

    @property
    def partitions(self) -> int:
        """Partitions of ``ratings``: the run's, since they are fixed for its life."""
        return int(self.run.info.options["partitions"]) if self.run else self.settings.partitions

    def _url(self, name: str, setting: str | None, of_run: str | None) -> str:
        url = setting or of_run
        if url is None:
            raise NothingYet(
                f"{name}: expected a run in {self.settings.var} or a URL, found neither; start a run with "
                f"`streamlens replay` or `streamlens demo`, or give --{name} URL",
                f"a run in {self.settings.var}; `streamlens replay` starts one",
            )
        return url

    def open_bus(self) -> Bus:
        """The bus, as an async context manager. A log that does not exist yet is an error, not a new log."""
        url = self.bus_url
        prefix = "sqlite:///"
        if url.startswith(prefix) and not Path(url.removeprefix(prefix)).exists():
            raise NothingYet(
                f"bus {url}: nothing is there yet; start `streamlens replay` first",
                f"the bus {url}; `streamlens replay` makes it",
            )
        return open_bus(url)

    def catalogue(self) -> Catalogue | None:
        """The movies of the data; None where nothing names any, or that of the run is no longer there.

        Raises DataError for data that settings name and that is not there: a store would be without movies for good.
        """
        try:
            return Catalogue(open_movies(self.data).values()) if self.data else None
        except DataError:
            if self.run is None:
                raise
            return None

    def training_end(self) -> int | None:
        """Event time at which the training part of the data ends; None where nothing says so. Raises DataError."""
        if self.run is not None:
            return self.run.info.split.cutoff if self.run.info.split else None
        if self.data is None:
            return None
        wanted = self.settings.replay
        return split_at_week(open_dataset(self.data), week=wanted.week, start=parse_start(wanted.start)).cutoff


def find_target(run_id: str | None, *, bus: str | None = None, store: str | None = None) -> Target:
    """The run of that id, else the current one, else none; flags and settings may name another bus or store."""
    settings = load_settings({"bus": bus, "store": store})
    return Target(settings, open_run(settings.var, run_id) if run_id else current_run(settings.var))
