"""Who serves at an event time and who is to, as the pages tell it, and what became of what was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboards.live_records import LiveRecords
from dashboards.recommender import Recommending
from dashboards.registry_figures import Asked, changed_at, comparison_rows, heard_of
from dashboards.registry_view import Change, RegistryView, changes_to_come, read_registry, serving_version
from models.decisions import AuditEntry
from models.registry import Registry, Version
from streams.events import METRICS, Metric, ModelEvent
from streams.run import RunFolder
from tests.dashboards.conftest import Prepared
from tests.dashboards.runs import add_version, finished, make_run, replay, work_until
from tests.dashboards.test_figures import records_of, request
from tests.dashboards.test_subscriber import batch


def promoted(version_id: str, effective: int | None = None, action: str = "promoted") -> AuditEntry:
    return AuditEntry("", action, version_id, None, "", "", effective)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("trail", "expected"),
    [
        ([], ()),
        ([promoted("a")], ()),
        ([promoted("a"), promoted("b", 100)], (Change(100, "b"),)),
        ([promoted("a"), promoted("b", 50)], ()),
        ([promoted("a"), promoted("b", 100), promoted("a", 200, "rolled back")], (Change(100, "b"), Change(200, "a"))),
        ([promoted("a"), promoted("b", 100, "rejected")], ()),
        ([promoted("a"), promoted("b", 100), promoted("c")], ()),
    ],
)
def test_what_is_decided_for_later_is_to_come(trail: list[AuditEntry], expected: tuple[Change, ...]) -> None:
    assert changes_to_come(trail, 60) == expected


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "var")


@pytest.fixture
def two(run: RunFolder) -> tuple[Registry, Version, Version]:
    """The second serves from event time 2,000 on, the first from the start."""
    assert run.info.split is not None
    registry = Registry(run.path / "models")
    old = add_version(run, "popularity", as_of=run.info.split.cutoff)
    new = add_version(run, "decayed-popularity", as_of=run.info.split.cutoff)
    registry.promote(old, by="test", why="the first", effective=1_000)
    registry.promote(new, by="test", why="better", effective=2_000)
    return registry, old, new


def standings(view: RegistryView) -> dict[str, str]:
    return {one.version_id: view.standing(one) for one in view.versions}


def test_who_was_replaced_serves_until_the_decision_holds(two: tuple[Registry, Version, Version]) -> None:
    registry, old, new = two
    view = read_registry(registry.folder, 1_999)
    assert (view.serving, view.to_come) == (old.version_id, (Change(2_000, new.version_id),))
    assert standings(view) == {old.version_id: "serves", new.version_id: "to come"}
    assert view.champion is not None
    assert view.champion.version_id == old.version_id
    assert {row["name"]: row["series"] for row in comparison_rows(view, "ctr", newest=8)[:2]} == standings(view)
    view = read_registry(registry.folder, 2_000)
    assert (view.serving, view.to_come) == (new.version_id, ())
    assert standings(view) == {old.version_id: "retired", new.version_id: "serves"}
    assert read_registry(registry.folder, 999).champion is None
    assert read_registry(registry.folder, 0).serving == new.version_id, (
        "where event time is not known: the last decision"
    )
    assert changed_at(view) is not None
    assert old.version_id not in {row["name"] for row in comparison_rows(view, "ctr", newest=1)}


def test_lists_are_made_by_who_serves_at_the_runs_event_time(
    run: RunFolder, two: tuple[Registry, Version, Version]
) -> None:
    registry, old, new = two

    async def fill() -> None:
        await replay(run, 0, 40)
        await work_until(run, 40)

    finished(fill())
    now, clock = [1_500], iter(range(0, 100, 10))
    recommending = Recommending(
        run.store_url, registry.folder, event_time=lambda: now[0], clock_s=lambda: float(next(clock))
    )
    try:
        assert recommending.variants() == {"champion": old.version_id}
        now[0] = 2_500
        assert recommending.variants() == {"champion": new.version_id}
    finally:
        recommending.close()
    early = serving_version(registry, 500)
    assert early is not None
    assert early.version_id == new.version_id, "before anybody serves: what was decided last"


def test_a_damaged_version_is_named(prepared: Prepared, tmp_path: Path) -> None:
    registry = Registry(prepared.run.path / "models")
    manifest = registry.folder / prepared.challenger.version_id / "manifest.json"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-10])
    try:
        view = read_registry(registry.folder, 0)
        assert set(view.damaged) == {prepared.challenger.version_id}
        assert [one.version_id for one in view.versions] == [prepared.champion.version_id]
    finally:
        manifest.write_bytes(whole)


def asked_with(*answers: ModelEvent) -> Asked:
    records = LiveRecords()
    records.take([batch("models", *answers)])
    return Asked(request("1"), 0.0, records.recent("models"))


def test_a_promotion_that_was_undone_is_told() -> None:
    back = AuditEntry("", "rolled back", "a", "b", "trainer", "worse in shadow", 300)
    won, lost = (ModelEvent(kind, "ease", "b", 0, "", request="1") for kind in ("promoted", "rejected"))  # type: ignore[arg-type]
    assert asked_with(won).undone([promoted("b"), back]) == back
    assert asked_with(won).undone([promoted("b")]) is None
    assert asked_with(won).undone([AuditEntry("", "rolled back", "x", "a", "", "")]) is None
    assert asked_with(lost).undone([back]) is None
    assert asked_with().undone([back]) is None


def test_a_role_was_heard_of_at_its_newest_heartbeat() -> None:
    beats = [
        Metric("process.rss_mib", 90.0, at, {"role": role, "pid": pid})
        for at, role, pid in ((5.0, "trainer", "1"), (9.0, "trainer", "2"), (20.0, "features", "3"))
    ]
    records = records_of(**{METRICS: list(beats)})
    assert (heard_of(records, "trainer"), heard_of(records, "loop")) == (9.0, None)
