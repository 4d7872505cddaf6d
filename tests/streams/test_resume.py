"""One run on a log: another one there is noticed before anything is published."""

from __future__ import annotations

import math

import pytest

from streams.bus import Bus, open_bus
from streams.dataset import open_dataset
from streams.errors import ConfigError
from streams.events import RATINGS
from streams.replay_options import ReplayOptions
from streams.replayer import Replayer, ReplaySummary
from streams.topics import run_topics

pytestmark = pytest.mark.streamlens_bus("memory", "sqlite", pytest.param("kafka", marks=pytest.mark.broker))

DATA = open_dataset("synthetic:ratings=2000,users=50")


async def replay(bus: Bus, run_id: str, limit: int = 500, *, append: bool = False) -> ReplaySummary:
    options = ReplayOptions(speed=math.inf, limit=limit)
    return await Replayer(DATA, bus, options, run_id=run_id, append=append).replay()


async def test_a_second_run_on_the_same_topics_is_refused_unless_it_is_to_append(streamlens_bus_url: str) -> None:
    async with open_bus(streamlens_bus_url) as bus:
        first = await replay(bus, "first")
        before = await bus.offsets(RATINGS)
        with pytest.raises(ConfigError, match=r"no run but second in topic ratings, found run first; name another"):
            await replay(bus, "second")
        assert await bus.offsets(RATINGS) == before
        assert (await replay(bus, "second", append=True)).n_ratings == first.n_ratings
        assert (await replay(bus, "second")).already_complete  # to resume needs no word


async def test_ratings_of_others_are_no_run(streamlens_bus_url: str) -> None:
    """Somebody's own client publishes them; time they do not tell."""
    async with open_bus(streamlens_bus_url) as bus:
        await bus.create_topics(*run_topics(4))
        async with bus.producer() as producer:
            foreign = b'{"user_id":1,"movie_id":2,"rating":3.0,"timestamp":1000000000,"source":"page","event_id":1}'
            for value in (foreign, b"garbage"):
                await producer.send(RATINGS, value, partition=0)
        assert (await replay(bus, "first")).completed
