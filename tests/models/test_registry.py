"""The registry: statuses and decisions, what is damaged, and what is refused."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from models.model_files import ABOUT, ARRAYS
from models.registry import Registry
from models.versions import MANIFEST
from streams.errors import ModelError, ModelMissing
from tests.models.registered import add_version, scores_of

WHO = {"by": "somebody", "why": "because"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


def statuses(registry: Registry) -> list[str]:
    return [version.status for version in registry.versions()]


def champion(registry: Registry) -> str | None:
    found = registry.champion()
    return found.version_id if found else None


def test_an_empty_registry_has_nothing(registry: Registry) -> None:
    assert registry.versions() == registry.challengers() == registry.audit() == []
    assert registry.champion() is None
    assert not registry.folder.exists(), "asking wrote something"
    with pytest.raises(ModelMissing, match="expected a version v1, found: none"):
        registry.get("v1")


def test_a_version_is_a_challenger_until_it_is_decided_on(registry: Registry) -> None:
    first, second, third = (add_version(registry) for _ in range(3))
    assert statuses(registry) == ["challenger"] * 3
    assert registry.promote(first, **WHO).status == "champion"
    assert registry.reject(second, **WHO).status == "rejected"
    assert registry.challengers() == [third]
    assert registry.promote(third, **WHO).status == "champion"
    assert statuses(registry) == ["retired", "rejected", "champion"]
    assert registry.champion() == registry.get(third.version_id)
    assert scores_of(third) == [1.0, -float("inf")]


def test_the_trail_says_who_did_what_and_why(registry: Registry) -> None:
    first, second = add_version(registry), add_version(registry)
    registry.promote(first, by="ada", why="the first")
    registry.promote(second, by="trainer", why="+0.4 % CTR")
    registry.roll_back(by="ada", why="slower")
    told = [(e.action, e.version_id, e.previous, e.by, e.why) for e in registry.audit()]
    assert told == [
        ("promoted", first.version_id, None, "ada", "the first"),
        ("promoted", second.version_id, first.version_id, "trainer", "+0.4 % CTR"),
        ("rolled back", first.version_id, second.version_id, "ada", "slower"),
    ]
    assert all(a.at <= b.at for a, b in pairwise(registry.audit()))
    assert json.loads((registry.folder / "registry.json").read_bytes())["entries"][0]["by"] == "ada"


def serving(registry: Registry, *event_times: int) -> list[str | None]:
    found = [registry.champion_at(event_time) for event_time in event_times]
    return [version.version_id if version else None for version in found]


def test_decisions_hold_from_their_event_times_on(registry: Registry) -> None:
    first, second, third = (add_version(registry) for _ in range(3))
    registry.promote(first, **WHO, effective=400)
    registry.promote(second, **WHO, effective=500)
    registry.reject(third, **WHO, effective=450)
    registry.roll_back(**WHO, effective=600)
    a, b = first.version_id, second.version_id
    assert serving(registry, 399, 400, 499, 500, 599, 600) == [None, a, a, b, b, a]
    assert [entry.effective for entry in registry.audit()] == [400, 500, 450, 600]
    assert champion(registry) == a
    registry.promote(second, **WHO)
    assert serving(registry, 0, 10**9) == [b, b], "at once, whatever was to hold later"


def test_a_request_is_decided_on_once(registry: Registry) -> None:
    first, second, third = (add_version(registry) for _ in range(3))
    registry.promote(first, **WHO)
    for _ in range(2):
        registry.promote(second, **WHO, request="event-1")
        registry.reject(third, **WHO, request="event-2")
        assert registry.roll_back(**WHO, request="event-3", champion=second.version_id).version_id == first.version_id
    assert [entry.request for entry in registry.audit()] == [None, "event-1", "event-2", "event-3"]
    answer = registry.answer_to("event-1")
    assert answer is not None
    assert (answer.action, answer.version_id) == ("promoted", second.version_id)
    assert registry.answer_to("event-4") is None
    with pytest.raises(ModelError, match="expected the champion nobody to roll back"):
        registry.roll_back(**WHO, champion="nobody")


def test_the_newest_that_may_serve_by_then(registry: Registry) -> None:
    early, late = add_version(registry), add_version(registry, effective=700)
    add_version(registry, "decayed-popularity")
    assert registry.newest("popularity", 399) is None
    assert registry.newest("ease", 10**9) is None
    assert registry.newest("popularity", 699) == registry.get(early.version_id)
    assert registry.newest("popularity", 700) == registry.get(late.version_id)
    registry.reject(late, **WHO, effective=800)
    assert registry.newest("popularity", 799) == registry.get(late.version_id)
    assert registry.newest("popularity", 800) == registry.get(early.version_id)


def test_one_damaged_version_is_named_and_the_others_work(registry: Registry) -> None:
    good, bad = add_version(registry), add_version(registry)
    (bad.folder / MANIFEST).write_text("{}")
    assert registry.versions() == [good]
    assert registry.challengers() == [good]
    (named,) = registry.damaged().items()
    assert named[0] == bad.version_id
    assert "train it again" in named[1]
    assert registry.promote(good, **WHO).status == "champion"
    with pytest.raises(ModelError, match="manifest"):
        registry.get(bad.version_id)


def test_rolls_back_champion_by_champion(registry: Registry) -> None:
    versions = [add_version(registry) for _ in range(3)]
    for version in versions:
        registry.promote(version, **WHO)
    assert registry.roll_back(**WHO).version_id == versions[1].version_id
    assert registry.roll_back(**WHO).version_id == versions[0].version_id
    with pytest.raises(ModelError, match=f"earlier champion to roll back to, found only {versions[0].version_id}"):
        registry.roll_back(**WHO)
    assert champion(registry) == versions[0].version_id
    assert len(registry.audit()) == 5
    registry.promote(versions[2], **WHO)
    assert registry.roll_back(**WHO).version_id == versions[0].version_id


def test_there_is_nothing_to_roll_back_to(registry: Registry) -> None:
    with pytest.raises(ModelError, match="found no champion at all"):
        registry.roll_back(**WHO)


def test_does_not_roll_back_to_what_was_rejected(registry: Registry) -> None:
    versions = [add_version(registry) for _ in range(3)]
    for version in versions:
        registry.promote(version, **WHO)
    registry.reject(versions[1], **WHO)
    assert registry.roll_back(**WHO).version_id == versions[0].version_id


def test_the_champion_is_neither_promoted_again_nor_rejected(registry: Registry) -> None:
    version = registry.promote(add_version(registry), **WHO)
    with pytest.raises(ModelError, match="it is the champion"):
        registry.promote(version, **WHO)
    with pytest.raises(ModelError, match="roll back, or promote another"):
        registry.reject(version, **WHO)
    assert len(registry.audit()) == 1


@pytest.mark.parametrize("file", [ABOUT, ARRAYS, MANIFEST])
def test_a_damaged_version_is_refused(registry: Registry, file: str) -> None:
    old, new = add_version(registry), add_version(registry)
    registry.promote(old, **WHO)
    path = new.folder / file
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))
    with pytest.raises(ModelError, match="damaged"):
        registry.promote(registry.get(new.version_id), **WHO)
    with pytest.raises(ModelError, match="damaged"):
        registry.get(new.version_id).load()
    assert champion(registry) == old.version_id
    assert len(registry.audit()) == 1


def test_does_not_roll_back_to_a_damaged_version(registry: Registry) -> None:
    old, new = add_version(registry), add_version(registry)
    registry.promote(old, **WHO)
    registry.promote(new, **WHO)
    (old.folder / ARRAYS).unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        registry.roll_back(**WHO)
    assert champion(registry) == new.version_id


def test_a_damaged_draft_is_not_taken_in(registry: Registry) -> None:
    version = add_version(registry)
    with registry.draft() as draft:
        copy = version.folder.rename(draft / "version")
        (copy / ARRAYS).write_bytes(b"")
        with pytest.raises(ModelError, match="damaged"):
            registry.add(copy)
    assert registry.versions() == []


def test_a_version_is_never_replaced(registry: Registry) -> None:
    version = add_version(registry)
    with registry.draft() as draft:
        copy = shutil.copytree(version.folder, draft / "version")
        with pytest.raises(ModelError, match="cannot be put there"):
            registry.add(copy)
    assert registry.versions() == [version]


@pytest.mark.parametrize("version_id", ["..", "", ".", "../models", "a/b"])
def test_a_name_that_leads_elsewhere_is_no_version(registry: Registry, version_id: str) -> None:
    add_version(registry)
    with pytest.raises(ModelMissing):
        registry.get(version_id)


def test_a_manifest_that_says_something_else_is_refused(registry: Registry) -> None:
    version = add_version(registry)
    path = version.folder / MANIFEST
    path.write_text(path.read_text().replace('"n_ratings": 3', '"n_ratings": 4'))
    with pytest.raises(ModelError, match="damaged, it was changed since training"):
        registry.get(version.version_id)


@pytest.mark.parametrize("why", ["", " "])
def test_nothing_is_decided_without_a_reason(registry: Registry, why: str) -> None:
    with pytest.raises(ModelError, match="expected a reason"):
        registry.promote(add_version(registry), by="somebody", why=why)
    assert registry.audit() == []


def test_a_way_back_that_nobody_came_is_no_trail(registry: Registry) -> None:
    first, second = add_version(registry), add_version(registry)
    registry.promote(first, **WHO)
    registry.promote(second, **WHO)
    path = registry.folder / "registry.json"
    path.write_text(path.read_text().replace('"promoted"', '"rolled back"', 1))
    with pytest.raises(ModelError, match=r"registry.json: expected the registry's decisions, found a way back"):
        registry.champion()


def test_damaged_decisions_are_said_and_not_overwritten(registry: Registry) -> None:
    version = add_version(registry)
    path = registry.folder / "registry.json"
    path.write_text('{"entries": [')
    with pytest.raises(ModelError, match=r"registry.json: expected the registry's decisions"):
        registry.promote(version, **WHO)
    assert path.read_text() == '{"entries": ['
