"""Which run a command is about, and where its log and its store are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from featurestore.catalogue import Catalogue
from featurestore.database import open_reader, store_label
from streamlens.settings import Settings, load_settings
from streamlens.waiting import NothingYet
from streams.bus import Bus, open_bus
from streams.dataset import open_dataset, open_movies
from streams.errors import ConfigError, DataError, StoreMissing
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
    def models(self) -> Path:
        """Where the trained versions are: beside the store that they learnt from, as far as that has a folder here."""
        return (self.folder or self.settings.var) / "models"

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

    def catalogue(self, *, new_store: bool = False) -> Catalogue | None:
        """The movies of the data; None where it is not known or no longer there, but a store is, which has its own.

        new_store: it is about to be built anew. One that was built without movies would be without them for good:
        raises NothingYet where nothing names the data, DataError where it is not there.
        """
        try:
            if self.data:
                return Catalogue(open_movies(self.data).values())
            missing: ConfigError | DataError = NothingYet(
                f"store {store_label(self.store_url)}: expected a run in {self.settings.var}, or the data that is "
                "replayed, to know the movies by, found neither; set STREAMLENS_REPLAY_DATA to what the replayer has",
                f"a run in {self.settings.var}, or a store at {store_label(self.store_url)}; on a machine without the "
                "run set STREAMLENS_REPLAY_DATA to what the replayer has",
            )
        except DataError as error:
            if self.run is None:
                raise
            missing = error
        if new_store or not _is_there(self.store_url):
            raise missing
        return None

    def training_end(self) -> int | None:
        """Event time at which the training part of the data ends; None where nothing says so. Raises DataError."""
        if self.run is not None:
            return self.run.info.split.cutoff if self.run.info.split else None
        if self.data is None:
            return None
        wanted = self.settings.replay
        return split_at_week(open_dataset(self.data), week=wanted.week, start=parse_start(wanted.start)).cutoff


def _is_there(store_url: str) -> bool:
    try:
        open_reader(store_url).close()
    except StoreMissing:
        return False
    return True


def find_target(run_id: str | None, *, bus: str | None = None, store: str | None = None) -> Target:
    """The run of that id, else the current one, else none; flags and settings may name another bus or store."""
    settings = load_settings({"bus": bus, "store": store})
    return Target(settings, open_run(settings.var, run_id) if run_id else current_run(settings.var))
