"""The most rated movies of a window, each with how its ratings came in over that window.

The windows are those of item features: they end with the running hour, or with the last whole hour before ``as_of``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featurestore.features import WINDOWS_S, PopularItem
from featurestore.reader import FeatureReader
from streams.events import DAY_S, HOUR_S
from streams.records import Int64s

__all__ = ["RANKINGS", "PopularityReader", "TopItems"]

RANKINGS = (*WINDOWS_S, "all", "decayed")
"""What movies can be ranked by: ratings in a rolling window, all of them, or those that later ones outweigh."""

_LONGEST_TREND = 28
_BY_COUNT = "GROUP BY movie_id ORDER BY sum(n) DESC, sum(half_stars) DESC, movie_id LIMIT ?"


@dataclass(frozen=True, slots=True, eq=False)
class TopItems:
    """The first k movies of a ranking, best first, over event times from ``start`` to before ``end``.

    trend: int64 (k, steps), the ratings of each movie in consecutive spans of ``step_s`` seconds, the last of which
    ends with ``end``: hours of windows up to a day, days of longer ones. Where all ratings are ranked it is at most 28
    spans of equally many days; the last ends with the day of ``end``, and the first may begin before ``start``.
    """

    items: list[PopularItem]
    start: int
    end: int
    step_s: int
    trend: Int64s


class PopularityReader(FeatureReader):
    """A feature reader that ranks movies."""

    def top_items(self, ranking: str, as_of: int | None = None, k: int = 10) -> TopItems:
        """The ``k`` first of ``ranking``, one of :data:`RANKINGS`, now or as of an event time; one read transaction.

        Of equal counts the higher mean comes first, then the lower id. Decayed popularity is one of whole days.
        """
        with self.snapshot():
            if ranking in WINDOWS_S:
                end = self._now_hour() if as_of is None else as_of // HOUR_S
                hours = WINDOWS_S[ranking] // HOUR_S
                items = self._most_rated(end - hours, end, k)
                return self._with_trend(items, end - hours, end, 1 if hours <= 24 else 24, whole_days=False)
            if as_of is None:
                end = -(-self._now_hour() // 24) * 24
                items = self._most_rated_ever(k) if ranking == "all" else self.popular_decayed(k=k)
            elif ranking == "all":
                end = as_of // HOUR_S
                items = self._most_rated(0, end, k)
            else:
                end = as_of // DAY_S * 24
                items = self.popular_decayed(as_of, k)
            ((first_day,),) = self._rows("SELECT coalesce(min(day), 0) FROM item_days")
            start = min(first_day * 24, end)
            step_days = -(-(end - start) // (24 * _LONGEST_TREND))
            return self._with_trend(items, start, end, max(step_days, 1) * 24, whole_days=True)

    def _most_rated(self, start_hour: int, end_hour: int, k: int) -> list[PopularItem]:
        first_day, end_day = -(-start_hour // 24), end_hour // 24
        edges = [start_hour, end_hour, 0, 0]
        if first_day < end_day:
            edges = [start_hour, first_day * 24, end_day * 24, end_hour]
        rows = self._rows(
            "SELECT movie_id, sum(n), sum(half_stars) FROM ("
            " SELECT movie_id, n, half_stars FROM item_hours WHERE (hour >= ? AND hour < ?) OR (hour >= ? AND hour < ?)"
            " UNION ALL SELECT movie_id, n, half_stars FROM item_days WHERE day >= ? AND day < ?) AS buckets"
            f" {_BY_COUNT}",
            *(*edges, first_day, end_day, k),
        )
        return [PopularItem(movie_id, n, half_stars / 2 / n, n) for movie_id, n, half_stars in rows]

    def _most_rated_ever(self, k: int) -> list[PopularItem]:
        rows = self._rows(f"SELECT movie_id, sum(n), sum(half_stars) FROM items {_BY_COUNT}", k)
        return [PopularItem(movie_id, n, half_stars / 2 / n, n) for movie_id, n, half_stars in rows]

    def _with_trend(
        self, items: list[PopularItem], start_hour: int, end_hour: int, step_hours: int, *, whole_days: bool
    ) -> TopItems:
        """``whole_days``: the window is too long to be read by the hour, but for its last day if that is not whole."""
        trend_end = -(-end_hour // 24) * 24 if whole_days else end_hour
        by_hour_from = end_hour // 24 * 24 if whole_days else start_hour
        steps = -(-(trend_end - start_hour) // step_hours)
        trend = np.zeros((len(items), steps), np.int64)
        for row, item in enumerate(items):
            days = self._buckets("item_days", "day", item.movie_id, range(start_hour // 24, by_hour_from // 24))
            hours = self._buckets("item_hours", "hour", item.movie_id, range(by_hour_from, end_hour))
            for hour, n in (*((day * 24, n) for day, n, _ in days), *((hour, n) for hour, n, _ in hours)):
                trend[row, steps - 1 - (trend_end - 1 - hour) // step_hours] += n
        return TopItems(items, start_hour * HOUR_S, end_hour * HOUR_S, step_hours * HOUR_S, trend)
