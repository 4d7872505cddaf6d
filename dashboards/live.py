"""What all sessions of the pages share of the run that is shown: subscriber, look at the store, publisher, models."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass
from itertools import count

import streamlit as st

from dashboards.panels import Heard
from dashboards.recommender import Recommending
from dashboards.run_target import Pointer, RunTarget, find_run, pointer_from_environment
from dashboards.store_probe import StoreProbe, StoreView
from dashboards.subscriber import Subscriber
from streams.errors import StreamLensError

__all__ = ["Live", "NoRun", "close_live", "current_live", "shown_live"]


@dataclass(frozen=True, slots=True)
class NoRun:
    """There is nothing to show, and why."""

    problem: str


class Live:
    """One run, watched. ``source``: who publishes what is given on the pages; its ids rise."""

    def __init__(self, target: RunTarget) -> None:
        self.target = target
        self._began = self.now()
        self.subscriber = Subscriber(target.bus_url).start()
        self.probe = StoreProbe(target.store_url, target.folder).start()
        self.source = f"pages/{uuid.uuid4().hex[:12]}"
        self._ids = count(1)
        self._numbering = threading.Lock()
        self._opening = threading.Lock()
        self.publishing = threading.Lock()
        """Held from numbering ratings until they are published."""
        self._recommending: Recommending | None = None

    def next_id(self) -> int:
        with self._numbering:
            return next(self._ids)

    def now(self) -> float:
        """Wall time, which ages are told by."""
        return time.time()

    @property
    def store(self) -> StoreView:
        return self.probe.view

    @property
    def event_time(self) -> int:
        """Where the run is, in event time: as the store says, or the features' metrics; 0 before the first tick."""
        return self.store.clock or self.subscriber.records.event_time

    @property
    def bus_heard(self) -> Heard:
        return Heard(self.subscriber.heard_at, self._began)

    @property
    def store_heard(self) -> Heard:
        return Heard(self.store.at, self._began)

    @property
    def event_time_heard(self) -> Heard:
        """Of whoever tells :attr:`event_time`."""
        return self.store_heard if self.store.clock else self.bus_heard

    def recommending(self) -> Recommending:
        """The models, served; made when first asked for. Raises StoreMissing and other errors of the store."""
        with self._opening:  # which takes long while the store is locked; numbering must not wait for it
            if self._recommending is None:
                self._recommending = Recommending(
                    self.target.store_url, self.target.models, event_time=lambda: self.event_time
                )
            return self._recommending

    def close(self) -> None:
        self.subscriber.close()
        self.probe.close()
        if self._recommending is not None:
            self._recommending.close()


class _Shown:
    """The run that is shown; another one takes its place when there is one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: Live | None = None

    def of(self, pointer: Pointer) -> Live | NoRun:
        try:
            target = find_run(pointer)
        except StreamLensError as error:
            return NoRun(str(error))
        with self._lock:
            if target is None:
                return NoRun("")
            if self._live is None or self._live.target != target:
                if self._live is not None:
                    threading.Thread(target=self._live.close, daemon=True).start()
                self._live = Live(target)
            return self._live

    def close(self) -> None:
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            live.close()


@st.cache_resource(show_spinner=False)
def _shown() -> _Shown:
    return _Shown()


def current_live() -> Live | NoRun:
    """The run to show now, shared by all sessions of this process."""
    return _shown().of(pointer_from_environment())


def shown_live() -> Live | None:
    """The run that is shown; None where there is none, which the page as a whole tells."""
    live = current_live()
    return None if isinstance(live, NoRun) else live


def close_live() -> None:
    """Watch nothing any more, until a page asks again; returns once the threads have ended."""
    _shown().close()
