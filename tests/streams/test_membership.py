"""Who may be a group's one live member, and what somebody else is told."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from streams.errors import BusUnavailable, GroupBusy
from streams.membership import FileLease, MemoryLease, instance_id


class Lease(Protocol):
    def release(self) -> None: ...


@pytest.fixture(params=["file", "memory"])
def join(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Lease]:
    held: set[str] = set()
    return lambda group: FileLease(tmp_path / "locks", group) if request.param == "file" else MemoryLease(held, group)


def test_a_second_member_is_refused_until_the_first_leaves(join: Callable[[str], Lease]) -> None:
    first = join("features")
    for _ in range(2):  # being refused changes nothing
        with pytest.raises(GroupBusy, match=rf"'features'.*{os.getpid()}.*kafka://"):
            join("features")
    first.release()
    second = join("features")
    first.release()  # twice does no harm, above all not to the successor
    with pytest.raises(GroupBusy):
        join("features")
    second.release()


def test_groups_do_not_stand_in_each_others_way(join: Callable[[str], Lease]) -> None:
    names = ["features", "Features", "features/1", "features%2F1", "..", "ü" * 300, "ü" * 299 + "u"]
    leases = [join(name) for name in names]
    for name in names:
        with pytest.raises(GroupBusy):
            join(name)
    for lease in leases:
        lease.release()


def test_locks_stay_in_their_folder_whatever_a_group_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "bus" / "locks"
    leases = [FileLease(folder, name) for name in ("../../out", "..", "/etc/group")]
    assert len(list(folder.iterdir())) == len(leases)
    assert list(tmp_path.iterdir()) == [tmp_path / "bus"]
    for lease in leases:
        lease.release()


def test_a_lock_that_cannot_be_made_is_no_busy_group(tmp_path: Path) -> None:
    (tmp_path / "locks").write_text("a file where the folder should be")
    with pytest.raises(BusUnavailable, match=r"'features'.*locks.*check that the folder can be written"):
        FileLease(tmp_path / "locks", "features")


def test_refusals_leave_no_file_open(tmp_path: Path) -> None:
    lease = FileLease(tmp_path, "features")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with pytest.raises(GroupBusy):
            FileLease(tmp_path, "features")
    assert len(os.listdir("/proc/self/fd")) == before
    lease.release()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_worker_that_starts_anew_has_its_name_again_and_one_beside_it_another(tmp_path: Path) -> None:
    with instance_id(tmp_path) as first, instance_id(tmp_path) as second:
        assert first != second
    with instance_id(tmp_path) as again:
        assert again == first


def test_the_same_folder_on_two_file_systems_makes_two_names(tmp_path: Path) -> None:
    folder = tmp_path / "var"
    with instance_id(folder) as of_one_container:
        pass
    shutil.rmtree(folder)  # as another container sees it, on its own file system, with the same path and host's name
    with instance_id(folder) as of_another:
        assert of_another != of_one_container
