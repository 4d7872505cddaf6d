"""Eight weeks in which the catalogue turns over: data in MovieLens' form, and the settings of a run with a loop."""

from __future__ import annotations

import random
from pathlib import Path

from streams.murmur2 import partition_for

__all__ = ["PARTITIONS", "prepare", "replay_command"]

PARTITIONS = 2
_N_DAYS, _TURNED_DAY = 56, 34
"""From ``_TURNED_DAY`` on everybody rates other movies than before."""
_OPENED = 1_262_304_000
"""2010-01-01."""
_SESSIONS_A_DAY, _SESSION, _GROUPS, _POOL = 14, 5, 3, 40

_THRESHOLDS = """
cooldown_days = 5
schedule_at_least = 2
baseline_days = 10
longest_days = 400

[rules.ctr]
severity = "critical"
fall = 0.3
window_days = 2
for_days = 2
min_sample = 20

[rules.popularity_kl]
severity = "investigate"
above = 0.5
window_days = 2
min_sample = 60

[rules.volume]
severity = "investigate"
change = 0.2
window_days = 2
min_sample = 20

[assumptions]
dollars_per_click = 0.1
dollars_per_session = 0.05

[gates]
min_slates = 40
shadow_min_slates = 60
n_bootstrap = 200

[detectors.popularity_drift]
signal = "popularity"
kind = "adwin"
every = 4
warm_up = 30
delta = 0.002
"""

_SETTINGS = """
partitions = 2

[replay]
data = "data"
start = "2010-01-01"
week = 4

[features]
quality_every_s = 60.0

[loop]
rating_model = "none"

[monitors]
thresholds = "thresholds.toml"

[trainer]
niceness = 0

[experiment]
name = "test"
champion = "ease"

[[experiment.variants]]
name = "champion"
weight = 75
model = "champion"

[[experiment.variants]]
name = "popularity"
weight = 25
model = "popularity"
"""


def prepare(folder: Path, *, seed: int = 1, idle: int | None = None) -> None:
    """Data, thresholds and settings in ``folder``, where the program is then run. idle: a partition without ratings."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    ratings = _ratings(random.Random(seed))
    if idle is not None:
        numbers = [n for n in range(1, 1_000) if partition_for(str(n).encode(), PARTITIONS) != idle]
        ratings = [(time, numbers[user], movie, stars) for time, user, movie, stars in ratings]
    lines = [f"{user},{movie},{stars},{time}" for time, user, movie, stars in ratings]
    (data / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    movies = [f"{m},Movie {m} (2000),Drama" for m in range(1, 2 * _GROUPS * _POOL + 1)]
    (data / "movies.csv").write_text("\n".join(["movieId,title,genres", *movies, ""]))
    (folder / "thresholds.toml").write_text(_THRESHOLDS)
    (folder / "streamlens.toml").write_text(_SETTINGS)


def replay_command(rate: float | None = None) -> list[str]:
    """Arguments of the program: all at once, or so many live ratings a second."""
    return ["replay", "--quiet", *(["--speed", "max"] if rate is None else ["--rate", str(rate)])]


def _ratings(draw: random.Random) -> list[tuple[int, int, int, float]]:
    """Users come with a taste, rate what those of their taste do, mostly what is popular, and leave once they have
    rated a good part of it; half of the sessions are of users who come for the first time.
    """
    found: list[tuple[int, int, int, float]] = []
    at_home: list[tuple[int, int, set[int]]] = []
    n_users = 0
    for day in range(_N_DAYS):
        first = 1 + (_GROUPS * _POOL if day >= _TURNED_DAY else 0)
        for _ in range(_SESSIONS_A_DAY):
            if len(at_home) < 12 or draw.random() < 0.3:
                n_users += 1
                at_home.append((n_users, draw.randrange(_GROUPS), set()))
            place = draw.randrange(len(at_home))
            user, taste, seen = at_home[place]
            moment = _OPENED + day * 86_400 + draw.randrange(80_000)
            for _ in range(1 + draw.randrange(2 * _SESSION)):
                movie = first + taste * _POOL + min(int(draw.expovariate(0.1)), _POOL - 1)
                if movie not in seen:
                    seen.add(movie)
                    found.append((moment, user, movie, draw.choice([3.0, 3.5, 4.0, 4.5, 5.0])))
                moment += 1 + draw.randrange(300)
            if len(seen) > 25:
                at_home.pop(place)
    return sorted(found)
