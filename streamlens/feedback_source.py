"""Who says what came of the slates of a run: decided once, since ids on both topics only rise."""

from __future__ import annotations

from contextlib import closing

from streamlens.target import Target
from streams.errors import ConfigError, StoreMissing

__all__ = ["tells_feedback"]

_NEXT = "one of them says what came of a run's slates, for its whole life; begin another run"


def tells_feedback(target: Target) -> bool:
    """Whether the loop itself does; else the reactive users of the run's synthetic world.

    Raises ConfigError where the data is none, and where this run has begun otherwise.
    """
    from agents.lines_store import read_tallies
    from agents.loop_store import loop_url, open_loop_store
    from agents.reactive_store import open_reactive_store
    from agents.reactive_worker import check_world

    if target.settings.loop.feedback == "replay":
        try:
            open_reactive_store(target.store_url).close()
        except StoreMissing:
            return True
        raise ConfigError(f'loop.feedback: expected "reactive", as this run has begun, found "replay": {_NEXT}')
    check_world(target.data)
    try:
        with closing(open_loop_store(loop_url(target.store_url))) as database:
            told = any(tally.shown for tally in read_tallies(database).values())
    except StoreMissing:
        return False
    if told:
        raise ConfigError(f'loop.feedback: expected "replay", as this run has begun, found "reactive": {_NEXT}')
    return False
