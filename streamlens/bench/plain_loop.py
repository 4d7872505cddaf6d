"""The yardstick: the same views kept by a plain Python loop over records in memory.

It decodes each record with msgspec and updates dictionaries; it neither validates, deduplicates, judges lateness,
writes anything nor survives a crash. It is what many a streaming prototype does, and is never slowed on purpose.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import msgspec

from featurestore.decay import LANDMARK
from streams.bus import open_bus
from streams.dataset import open_movies
from streams.events import DAY_S, HOUR_S, RATINGS, RatingsRecord

__all__ = ["plain_events_per_s"]

_SESSION_GAP_S = 1_800
_HALF_LIFE_S = 365 * DAY_S


async def _values(bus_url: str) -> list[bytes]:
    values: list[bytes] = []
    async with open_bus(bus_url) as bus, await bus.consumer(RATINGS) as consumer:
        while batches := await consumer.fetch(timeout_s=0.2):
            for batch in batches:
                values += batch.values
    return values


def plain_events_per_s(bus_url: str, dataset: str) -> float:
    """Ratings per second of the plain loop over the whole log, which is read into memory before the clock starts.

    dataset: the name of the ratings' dataset, whose movies the loop looks up genres in.
    """
    values = asyncio.run(_values(bus_url))
    genres = {movie.movie_id: movie.genres for movie in open_movies(dataset).values()}
    decode = msgspec.json.Decoder(RatingsRecord).decode
    hours: defaultdict[tuple[int, int], list[float]] = defaultdict(lambda: [0, 0.0])
    days: defaultdict[tuple[int, int], list[float]] = defaultdict(lambda: [0, 0.0])
    items: dict[int, list[float]] = {}
    users: dict[int, list[float]] = {}
    taste: defaultdict[tuple[int, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    history: defaultdict[int, list[tuple[int, int, float]]] = defaultdict(list)
    ratings = 0
    began = time.perf_counter()
    for value in values:
        r = decode(value)
        if r.type == "tick":
            continue
        ratings += 1
        movie, user, stars, t = r.movie_id, r.user_id, r.rating, r.timestamp
        bucket = hours[t // HOUR_S, movie]
        bucket[0] += 1
        bucket[1] += stars
        bucket = days[t // DAY_S, movie]
        bucket[0] += 1
        bucket[1] += stars
        item = items.get(movie)
        if item is None:
            items[movie] = [1, stars, t, t, 2.0 ** ((t // DAY_S * DAY_S - LANDMARK) / _HALF_LIFE_S)]
        else:
            item[0] += 1
            item[1] += stars
            item[3] = t
            item[4] += 2.0 ** ((t // DAY_S * DAY_S - LANDMARK) / _HALF_LIFE_S)
        row = users.get(user)
        if row is None:
            users[user] = [1, stars, t, t, t, 1]
        else:
            row[0] += 1
            row[1] += stars
            if t - row[3] < _SESSION_GAP_S:
                row[5] += 1
            else:
                row[4], row[5] = t, 1
            row[3] = t
        weight = 2.0 ** ((t - LANDMARK) / _HALF_LIFE_S)
        for genre in genres[movie]:
            liked = taste[user, genre]
            liked[0] += weight
            liked[1] += weight * stars
        history[user].append((t, movie, stars))
    return ratings / (time.perf_counter() - began)
