"""The figures behind the pages: pure functions of what was read."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from dashboards.experiment_figures import control_of, difference, over_time, variants_of, wilson
from dashboards.feature_importance import importances, window_of
from dashboards.live_records import LiveRecords
from dashboards.panels import Heard, age_text
from dashboards.posters import poster, shelf_html
from dashboards.production_figures import lag_rows, of_all_workers, overview, passed_over, trending
from dashboards.recommender import UserHistory, merged, shelves
from dashboards.registry_figures import asked
from dashboards.replay_panel import replay_state
from dashboards.store_probe import StoreView
from featurestore.features import History, PopularItem
from featurestore.reader import AppliedOffset
from models.bootstrap import Interval
from models.interactions import Histories, Interactions
from models.kinds import make_model
from models.serving import Answer
from models.side_features import SideFeatures
from streams.dataset import Movie
from streams.events import FEEDBACK, METRICS, MODELS, RETRAIN, Feedback, Metric, ModelEvent
from streams.retrain import RetrainRequest, RetrainRequested
from tests.dashboards.test_subscriber import batch

MOVIES = {m: Movie(m, f"Movie {m} (199{m})", 1990 + m, ("Comedy",) if m % 2 else ("War", "Drama")) for m in range(8)}


def records_of(**topics: list[object]) -> LiveRecords:
    records = LiveRecords()
    records.take([batch(topic, *values) for topic, values in topics.items()])
    return records


def test_tiles_show_the_newest_values_as_they_were_measured() -> None:
    records = records_of(
        **{
            METRICS: [
                Metric("features.ratings", 12_000.0, 1.0),
                Metric("features.ratings", 12_345.0, 2.0),
                Metric("features.latency_ms", 3.25, 2.0, {"quantile": "p50"}),
                Metric("replay.published", 500.0, 2.0),
                Metric("replay.total", 1_000.0, 2.0),
            ]
        }
    )
    shown = {tile.name: tile for tile in overview(records, StoreView(), {})}
    assert (shown["applied"].value, shown["applied"].note) == ("12,345", "50% of 1,000 published")
    assert shown["latency"].value == "3.2"
    assert shown["lag"].value == "-"


@pytest.mark.parametrize(
    ("told", "text", "answers"),
    [
        ({}, "no replayer heard", False),
        ({"process.rss_mib": 1.0}, "running", True),
        ({"process.rss_mib": 1.0, "replay.rate": 700.0, "replay.paused": 0.0}, "running, 700 events/s", True),
        ({"process.rss_mib": 1.0, "replay.rate": 0.0, "replay.paused": 1.0}, "paused", True),
        ({"process.rss_mib": 1.0, "replay.published": 9.0, "replay.total": 9.0}, "replay complete", False),
    ],
)
def test_a_replay_stands_as_its_replayer_says(told: dict[str, float], text: str, answers: bool) -> None:
    metrics = [
        Metric(name, value, 100.0, {"role": "replayer"} if "process" in name else {}) for name, value in told.items()
    ]
    state = replay_state(records_of(**{METRICS: metrics}), 102.0)
    assert (state.text, state.answers) == (text, answers)


def test_a_replayer_that_fell_silent_takes_no_request() -> None:
    records = records_of(**{METRICS: [Metric("process.rss_mib", 1.0, 100.0, {"role": "replayer"})]})
    state = replay_state(records, 130.0)
    assert (state.text, state.answers) == ("replayer silent, 30 s ago", False)


def applied(partition: int, ratings: int) -> AppliedOffset:
    return AppliedOffset("features", "ratings", partition, "log", 1, ratings, 0, 0, False, ratings, 1, 2, 3, 0, 0)


@pytest.mark.parametrize("last", ["a", "b"])
def test_two_workers_are_told_as_one_whoever_told_last(last: str) -> None:
    told = [
        Metric(name, value, 9.5 + 0.4 * (source == last), labels, source=f"features/{source}")
        for source, n, rate, p99 in (("a", 300.0, 40.0, 7.0), ("b", 500.0, 60.0, 9.0))
        for name, value, labels in (
            ("features.ratings", n, {}), ("features.throughput", rate, {}), ("features.lag", 1.0, {}),
            ("features.latency_ms", p99, {"quantile": "p99"}), ("features.freshness_s", p99, {}),
        )
    ]  # fmt: skip
    told.append(Metric("features.throughput", 900.0, 2.0, source="features/ended"))
    store = StoreView(state="there", applied=(applied(0, 310), applied(1, 510)))
    shown = {tile.name: tile for tile in overview(records_of(**{METRICS: list(told)}), store, {0: 330, 1: 515})}
    assert [shown[name].value for name in ("applied", "throughput", "lag", "freshness", "dead_letters")] == [
        "820", "100", "25", "9.00", "6"
    ]  # fmt: skip
    assert shown["latency"].note == "p99 9.0 ms"
    assert shown["throughput"].note == "into the features, by 2 workers"
    assert shown["dead_letters"].note == "4 late, 2 duplicates"


def test_a_chart_of_two_workers_has_one_line() -> None:
    told = [
        Metric("features.throughput", rate, at + gap, source=source)
        for source, rate, gap, until in (("a", 40.0, 0.0, 10), ("b", 60.0, 0.5, 5))
        for at in range(until)
    ]
    records = records_of(**{METRICS: list(told)})
    line = of_all_workers("features.throughput", records.of_workers("features.throughput"))
    assert line is not None
    rate = dict(zip(line.at.tolist(), line.value.tolist(), strict=True))
    assert (rate[0.0], rate[4.0], rate[9.0]) == (40.0, 100.0, 40.0)


def test_what_cannot_be_read_is_told_by_topic() -> None:
    records = records_of(**{METRICS: [b"{", b"[]"], FEEDBACK: [b"?"], MODELS: []})
    assert passed_over(records) == "not readable, and passed over: 1 on feedback, 2 on metrics"
    assert passed_over(LiveRecords()) == ""


def test_lag_is_what_is_published_and_not_applied() -> None:
    rows = lag_rows({0: 10, 1: 5}, StoreView())
    assert [(row.partition, row.lag) for row in rows] == [(0, None), (1, None)]


def test_trends_tell_where_a_movie_was() -> None:
    now = tuple(PopularItem(m, 10 - m, 4.0, 0.0) for m in (0, 1, 2))
    before = tuple(PopularItem(m, 5, 4.0, 0.0) for m in (2, 0))
    rows = trending(StoreView(popular=now, popular_before=before, movies=MOVIES))
    assert [(row.title, row.moved, row.before) for row in rows] == [
        ("Movie 0 (1990)", "▲ 1", 5),
        ("Movie 1 (1991)", "new", 0),
        ("Movie 2 (1992)", "▼ 2", 5),
    ]


def slate(i: int, variant: str, clicks: int, user_id: int) -> Feedback:
    return Feedback(
        f"s{i}", "s", user_id, variant, "v", 10, [1] * clicks, 5, 60, 86_400 * (1 + i), source="loop", event_id=i + 1
    )


def test_variants_are_summed_as_the_log_has_them() -> None:
    slates: list[object] = [slate(i, "champion" if i % 2 else "ease", i % 3, i % 23) for i in range(300)]
    rows, names = records_of(**{FEEDBACK: slates}).feedback()
    found = {one.name: one for one in variants_of(rows, names)}
    for name, parity in (("champion", 1), ("ease", 0)):
        clicks = sum(i % 3 for i in range(300) if i % 2 == parity)
        assert (found[name].clicks, found[name].shown, found[name].n_slates) == (clicks, 1_500, 150)
        assert found[name].ctr.low < found[name].ctr.value == clicks / 1_500 < found[name].ctr.high
    control = control_of(list(found.values()))
    assert control is not None
    assert control.name == "champion"
    drawn = over_time(rows, names, bins=3)
    assert sum(row["n"] for row in drawn) == 3_000
    assert all(row["low"] <= row["value"] <= row["high"] for row in drawn)


def test_intervals_of_a_difference_and_of_a_share() -> None:
    apart = difference(Interval(0.05, 0.04, 0.06), Interval(0.03, 0.02, 0.04))
    assert (apart.value, apart.low) == (pytest.approx(0.02), pytest.approx(0.02 - 0.01 * 2**0.5))
    assert wilson(5, 10).low == pytest.approx(0.2366, abs=1e-4)
    assert np.isnan(wilson(0, 0).value)


def request(event_id: str) -> RetrainRequested:
    why = RetrainRequest(reason="asked for", severity="schedule", asked_by="me", justification="because of this")
    return RetrainRequested.of("ease", why, id=event_id, source="pages", time=datetime(2010, 1, 1, tzinfo=UTC))


def test_requests_are_followed_to_their_end() -> None:
    answers = [
        ModelEvent("trained", "ease", "v2", 0, "challenger", request="1"),
        ModelEvent("rejected", "ease", "v2", 0, "inconclusive", request="1"),
        ModelEvent("promoted", "ease", "v9", 0, "the first"),
    ]
    found = asked(records_of(**{RETRAIN: [request("1"), request("1"), request("2")], MODELS: list(answers)}))
    by_id = {one.event.id: one for one in found}
    assert [placed.record.kind for placed in by_id["1"].answers] == ["trained", "rejected"]
    assert by_id["1"].outcome == answers[1]
    assert by_id["2"].outcome is None


def history(*movies: int) -> History:
    n = len(movies)
    return History(np.arange(100, 100 + n), np.array(movies), np.full(n, 4.0), np.zeros(n, bool))


def test_a_moment_splits_what_a_user_rated() -> None:
    user = UserHistory.split(history(1, 2, 3, 4), 2)
    assert (user.before.movie_id.tolist(), user.after.movie_id.tolist()) == ([1, 2], [3, 4])
    assert len(UserHistory.split(history(), 5).after) == 0
    assert UserHistory.split(history(1, 2), 0).before.movie_id.tolist() == [1, 2]


def test_ratings_just_given_count_once_with_those_stored() -> None:
    both = merged(history(1, 2), [(2, 1.0), (5, 5.0)], event_time=500)
    assert dict(zip(both.movie_id.tolist(), both.rating.tolist(), strict=True)) == {1: 4.0, 2: 1.0, 5: 5.0}


def test_shelves_are_parts_of_the_list() -> None:
    answer = Answer("champion", "v", np.arange(8), np.arange(8, 0, -1).astype(np.float32), cold=False)
    rows = shelves(answer, history(1, 3, 0), MOVIES, k=1)
    assert [(row.title, [place for place, _ in row.movies]) for row in rows] == [("Top picks", [1])]
    rows = shelves(answer, history(1, 3, 0), MOVIES, k=3)
    assert [(row.title, [place for place, _ in row.movies]) for row in rows] == [
        ("Top picks", [1, 2, 3]),
        ("More Comedy", [4, 6, 8]),
    ]
    for row in rows:
        assert all(answer.movie_ids[place - 1] == movie.movie_id for place, movie in row.movies)


def test_posters_escape_what_data_says() -> None:
    bad = Movie(3, '<script>alert("x")</script> (1999)', 1999, ("<b>",))
    for made in (poster(bad, place=1), shelf_html("<i>", "<u>", [(1, bad)], {3})):
        assert "<script>" not in made
        assert "<b>" not in made
        assert "<i>" not in made


def test_importance_is_that_of_what_the_model_reads() -> None:
    """Users like odd or even movies, whatever the stars and the order: only which movies matter to EASE."""
    random = np.random.default_rng(0)
    users, movies = [], []
    for user in range(60):
        liked = random.permutation(np.arange(user % 2, 40, 2))[:12]
        users += [user] * 12
        movies += liked.tolist()
    times = list(range(len(users)))
    ratings = Interactions(users, movies, random.integers(1, 6, len(users)), times)
    model = make_model("ease", l2=5.0).fit(ratings, SideFeatures.none())
    stored = [
        History(np.arange(12), np.array(movies[12 * u : 12 * u + 12]), np.full(12, 4.0), np.zeros(12, bool))
        for u in range(60)
    ]
    window = window_of(stored, 8, 12)
    assert (len(window), len(window.movie_id)) == (60, 240)
    whole, found = importances(model, window, SideFeatures.none())
    assert whole > 0
    assert found[0].name == "movies rated"
    assert found[0].fall.low > 0
    assert {one.name: one.fall.value for one in found}["order of ratings"] == pytest.approx(0, abs=0.02)


def test_ages_are_told_in_words_that_fit() -> None:
    assert [age_text(s) for s in (-1, 9.94, 119, 121)] == ["0.0 s ago", "9.9 s ago", "119 s ago", "2 min ago"]


def test_histories_that_are_empty_have_no_window() -> None:
    assert len(window_of([history()], 0, 10)) == 0
    assert len(window_of([history(1, 2)], 100, 200)) == 0, "nothing was rated before it"
    assert len(window_of([history(1, 2)], 101, 200)) == 1
    assert isinstance(window_of([], 0, 10).before, Histories)


@pytest.mark.parametrize(
    ("heard", "silent", "connecting"),
    [
        (Heard(0.0, 996.0), False, True),
        (Heard(0.0, 994.0), True, False),
        (Heard(996.0, 900.0), False, False),
        (Heard(994.0, 900.0), True, False),
    ],
)
def test_who_has_not_answered_yet_is_connecting_before_it_is_silent(
    heard: Heard, silent: bool, connecting: bool
) -> None:
    assert (heard.silent(1_000.0), heard.connecting(1_000.0)) == (silent, connecting)
