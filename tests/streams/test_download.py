"""Downloads from a server that misbehaves: what arrives is whole and checked, and what was received is not lost."""

from __future__ import annotations

import hashlib
import io
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streams.dataset import open_dataset
from streams.download import Downloaded, download
from streams.errors import ConfigError, DataError, DataUnavailable
from streams.transfer import Part, Watch
from tests.archive_server import MOVIES, RATINGS, ArchiveServer, archive, serving

NAME = "ml-1m"
ZIP = f"/{NAME}.zip"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server() -> Iterator[ArchiveServer]:
    with serving() as server:
        server.files[ZIP] = archive()
        yield server


class Fetch:
    """``download`` into one folder, with what it said, and the seconds it would have waited."""

    def __init__(self, server: ArchiveServer, to: Path) -> None:
        self.server, self.to = server, to
        self.said: list[str] = []
        self.waits: list[float] = []
        self.phases: list[str] = []
        self.on_progress: Callable[[str, int, int | None], None] = lambda phase, done, total: None

    def __call__(self, **options: Any) -> Downloaded:
        def progress(phase: str, done: int, total: int | None) -> None:
            self.phases.append(phase)
            self.on_progress(phase, done, total)

        options = {"url": self.server.url, "timeout_s": 20.0, **options}
        return download(NAME, self.to, watch=Watch(self.said.append, progress), sleep=self.waits.append, **options)

    def fails(self, kind: type[DataError] = DataError, **options: Any) -> str:
        with pytest.raises(DataError) as error:
            self(**options)
        message = str(error.value)
        assert type(error.value) is kind
        assert "\n" not in message
        assert "expected" in message
        assert "found" in message
        return message

    def names(self) -> list[str]:
        return sorted(path.name for path in self.to.iterdir()) if self.to.exists() else []

    @property
    def part(self) -> Path:
        return self.to / f"{NAME}.zip.part"


@pytest.fixture
def fetch(server: ArchiveServer, tmp_path: Path) -> Fetch:
    return Fetch(server, tmp_path / "data")


def assert_complete(fetch: Fetch) -> None:
    """The dataset and nothing beside it."""
    assert fetch.names() == [NAME]
    assert sorted(path.name for path in (fetch.to / NAME).iterdir()) == ["README", "movies.dat", "ratings.dat"]
    assert (fetch.to / NAME / "ratings.dat").read_text() == RATINGS
    dataset = open_dataset(str(fetch.to / NAME))
    assert (dataset.n_ratings, dataset.movies()[2].title) == (3, "Les Misérables (1995)")


def test_a_release_is_fetched_and_unpacked(fetch: Fetch) -> None:
    assert fetch() == Downloaded(fetch.to / NAME, was_there=False)
    assert_complete(fetch)
    assert list(dict.fromkeys(fetch.phases)) == ["download", "unpack"]


def test_a_dataset_that_is_there_is_not_fetched_again_unless_forced(fetch: Fetch) -> None:
    fetch()
    (fetch.to / NAME / "mine.txt").write_text("?")
    asked = len(fetch.server.asked)
    assert fetch() == Downloaded(fetch.to / NAME, was_there=True)
    assert len(fetch.server.asked) == asked
    assert fetch(force=True) == Downloaded(fetch.to / NAME, was_there=False)
    assert_complete(fetch)


@pytest.mark.parametrize("top", ["ml-10M100K/", "", "./ml-1m/"])
def test_the_folder_is_named_as_the_release_whatever_the_archive_calls_it(fetch: Fetch, top: str) -> None:
    fetch.server.files[ZIP] = archive(top)
    fetch()
    assert_complete(fetch)


# The connection


@pytest.mark.parametrize("validator", ["etag", "last_modified"])
def test_a_connection_that_dies_is_resumed_where_it_died(fetch: Fetch, validator: str) -> None:
    if validator == "last_modified":
        fetch.server.etag, fetch.server.last_modified = 'W/"weak"', "Wed, 21 Oct 2015 07:28:00 GMT"
    fetch.server.faults.extend(["die", "die"])
    fetch()
    assert_complete(fetch)
    size = len(fetch.server.files[ZIP])
    half = size // 2
    assert fetch.server.archives_asked() == [None, f"bytes={half}-", f"bytes={half + (size - half) // 2}-"]
    assert fetch.waits == [1.0, 1.0]  # each attempt brought something
    assert "the connection ended after 0.5 MB of 1.0 MB; trying again at 0.5 MB in 1 s" in fetch.said


def test_a_later_call_goes_on_with_the_part(fetch: Fetch) -> None:
    def stop(phase: str, done: int, total: int | None) -> None:
        if done > 300_000:
            raise KeyboardInterrupt

    fetch.on_progress = stop
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert fetch.names() == [f"{NAME}.zip.part", f"{NAME}.zip.part.json"]
    kept = fetch.part.stat().st_size
    assert kept > 300_000
    fetch.on_progress = lambda phase, done, total: None
    fetch()
    assert_complete(fetch)
    assert fetch.server.archives_asked() == [None, f"bytes={kept}-"]


@pytest.mark.parametrize("change", ["etag", "url", "no validator", "damaged state"])
def test_a_part_of_something_else_starts_over(fetch: Fetch, change: str) -> None:
    fetch.server.etag = None if change == "no validator" else '"1"'
    fetch.server.faults.extend(["die", 403])
    fetch.fails()
    assert fetch.part.stat().st_size == len(fetch.server.files[ZIP]) // 2
    fetch.server.files[ZIP] = archive(seed=6)  # of the same length
    fetch.server.files[f"{ZIP}.md5"] = hashlib.md5(fetch.server.files[ZIP]).hexdigest().encode()
    if change == "etag":
        fetch.server.etag = '"2"'
    elif change == "url":
        fetch.server.files.update({f"/mirror{path}": content for path, content in fetch.server.files.items()})
    elif change == "damaged state":
        fetch.part.with_name(f"{fetch.part.name}.json").write_text("{")
    fetch(url=fetch.server.url + ("/mirror/" if change == "url" else ""))
    assert_complete(fetch)
    assert (fetch.to / NAME / "README").read_bytes() == random.Random(6).randbytes(1_000_000)


def test_a_server_that_ignores_ranges_is_asked_for_all_of_it(fetch: Fetch) -> None:
    fetch.server.ranges = False
    fetch.server.faults.append("die")
    fetch()
    assert_complete(fetch)
    assert any("starting over" in line for line in fetch.said)


def test_a_server_that_never_gets_beyond_the_middle_is_given_up(fetch: Fetch) -> None:
    fetch.server.ranges = False
    fetch.server.faults.extend(["die"] * 9)
    assert "5 times in a row" in fetch.fails(DataUnavailable)


def test_a_server_that_tells_no_length_is_believed_and_the_archive_is_not(fetch: Fetch) -> None:
    fetch.server.tells_length = False
    fetch.server.faults.append("die")
    message = fetch.fails()
    assert "expected a zip archive, found a damaged one" in message
    assert fetch.names() == []  # a whole one could not be had by going on
    fetch()
    assert_complete(fetch)


def test_a_range_that_is_refused_starts_over(fetch: Fetch) -> None:
    fetch.server.faults.extend(["die", 416])
    fetch()
    assert_complete(fetch)
    assert [asked is None for asked in fetch.server.archives_asked()] == [True, False, True]


@pytest.mark.parametrize(
    ("fault", "said"), [("wrong range", "another range than was asked for"), ("too much", "more than it told")]
)
def test_a_range_that_does_not_fit_starts_over(fetch: Fetch, fault: str, said: str) -> None:
    fetch.server.files[f"{ZIP}.md5"] = hashlib.md5(fetch.server.files[ZIP]).hexdigest().encode()
    fetch.server.faults.extend(["die", fault])
    fetch()
    assert_complete(fetch)
    assert any(said in line for line in fetch.said)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(fetch: Fetch, status: int) -> None:
    fetch.server.faults.extend([status, status])
    fetch()
    assert_complete(fetch)
    assert fetch.waits == [1.0, 2.0]


def test_a_server_that_stays_in_trouble_is_given_up_after_growing_waits(fetch: Fetch) -> None:
    fetch.server.faults.extend([500] * 9)
    message = fetch.fails(DataUnavailable)
    assert "the server says 500 Internal Server Error, 5 times in a row" in message
    assert fetch.waits == [1.0, 2.0, 4.0, 8.0]
    assert not fetch.to.exists()


def test_without_a_network_one_line_says_so(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url
    waits: list[float] = []
    with pytest.raises(DataUnavailable, match=r"expected an answer, found no answer \(Connection refused\)") as error:
        download(NAME, tmp_path, url=url, sleep=waits.append)
    assert error.value.exit_code == 3
    assert len(waits) == 4
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_is_not_waited_for_for_ever(fetch: Fetch) -> None:
    fetch.server.faults.append("stall")
    fetch(timeout_s=0.2)
    assert_complete(fetch)
    assert "nothing came for 0.2 s; trying again at 0.5 MB in 1 s" in fetch.said


@pytest.mark.parametrize("status", [404, 403])
def test_an_address_without_the_archive_is_not_asked_again(fetch: Fetch, status: int) -> None:
    fetch.server.faults.append(status)
    assert f"{ZIP}: expected a file, found {status}" in fetch.fails()
    assert (fetch.waits, fetch.to.exists()) == ([], False)


def test_two_downloads_of_one_release_do_not_meet(fetch: Fetch) -> None:
    fetch.to.mkdir()
    with Part(fetch.part):
        assert "found one at work" in fetch.fails()
    fetch()
    assert_complete(fetch)


# The archive


@pytest.mark.parametrize("line", ["MD5 (ml-1m.zip) = {}\n", "{}  ml-1m.zip\n", "{}"])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_published_checksum_is_compared(fetch: Fetch, line: str, case: Callable[[str], str]) -> None:
    digest = case(hashlib.md5(fetch.server.files[ZIP]).hexdigest())
    fetch.server.files[f"{ZIP}.md5"] = line.format(digest).encode()
    fetch()
    assert_complete(fetch)
    assert fetch.said == []
    assert "check" in fetch.phases


def test_an_archive_with_another_checksum_is_refused_and_removed(fetch: Fetch) -> None:
    fetch.server.files[f"{ZIP}.md5"] = b"0" * 32
    message = fetch.fails()
    assert f"expected the published MD5 {'0' * 32}, found " in message
    assert fetch.names() == []
    del fetch.server.files[f"{ZIP}.md5"]
    fetch()
    assert fetch.said == ["no checksum is published for it; each file is checked against its CRC in the archive"]
    assert_complete(fetch)


def test_a_checksum_that_is_none_is_refused_and_the_part_kept(fetch: Fetch) -> None:
    fetch.server.files[f"{ZIP}.md5"] = b"<html>please log in</html>"
    assert "expected one MD5, found '<html>" in fetch.fails()
    del fetch.server.files[f"{ZIP}.md5"]
    fetch()
    assert_complete(fetch)
    assert len(fetch.server.archives_asked()) == 1


def damaged() -> bytes:
    """One flipped bit in the middle of a stored file."""
    content = bytearray(archive())
    content[len(content) // 2] ^= 1
    return bytes(content)


def linked() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as zip_file:
        link = zipfile.ZipInfo("ml-1m/ratings.dat")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        zip_file.writestr(link, "/etc/passwd")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (archive()[:-5_000], "expected a zip archive, found a damaged one"),
        (damaged(), "Bad CRC-32 for file 'ml-1m/README'"),
        (b"<html>please log in</html>", "expected a zip archive"),
        (archive(files={"../../evil.dat": "?"}), "expected files inside the archive's folder, found 'ml-1m/../../evil"),
        (archive("/"), "expected files inside the archive's folder, found '/ratings.dat'"),
        (archive("..\\"), "expected files inside the archive's folder"),
        (archive("C:"), "expected files inside the archive's folder"),
        (linked(), "found 'ml-1m/ratings.dat', a link or device"),
        (archive(files={"ratings.dat": RATINGS, "./ratings.dat": RATINGS}), "'ml-1m/./ratings.dat' twice"),
        (archive(files={"a": "?", "a/b": "?"}), "'ml-1m/a/b' inside a file"),
        (archive(files={"notes.txt": "?"}), "expected a MovieLens archive, found README, notes.txt in it"),
        (archive(files={f"{n}": "" for n in range(10_001)}, ballast=0), "expected at most 10,000 files"),
    ],
)
def test_an_archive_that_is_wrong_leaves_nothing(fetch: Fetch, content: bytes, expected: str) -> None:
    fetch.server.files[ZIP] = content
    message = fetch.fails()
    assert expected in message
    assert f"{fetch.server.url}{ZIP}: " in message
    assert not fetch.to.exists()
    assert [path.name for path in fetch.to.parent.iterdir()] == []


def test_absurd_sizes_are_refused(fetch: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.unpack._MAX_BYTES", 1_000_000)
    assert "expected at most 1.0 MB in the archive, found 1.0 MB" in fetch.fails()
    monkeypatch.setattr("streams.transfer._MAX_BYTES", 900_000)
    assert "expected at most 0.9 MB, found more" in fetch.fails()
    fetch.server.tells_length = False
    assert "expected at most 0.9 MB, found more" in fetch.fails()
    assert fetch.server.archives_asked() == [None] * 3


# The disk


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "room", "kept"), [(500_000, "1.0 MB of room, found 0.5 MB", 0), (1_000_500, "of room to unpack", 1)]
)
def test_a_disk_without_room_is_told_before_it_is_full(
    fetch: Fetch, monkeypatch: pytest.MonkeyPatch, free: int, room: str, kept: int
) -> None:
    fetch.server.files[ZIP] = archive(files={"ratings.dat": RATINGS * 100, "movies.dat": MOVIES})
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: Usage(1 << 30, (1 << 30) - free, free))
        assert room in fetch.fails(DataUnavailable)
    assert fetch.part.exists() == bool(kept)
    fetch()
    assert fetch.names() == [NAME]
    assert len(fetch.server.archives_asked()) == 2 - kept


def test_a_disk_that_becomes_full_keeps_what_fits(fetch: Fetch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        message = fetch.fails(DataUnavailable)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"{fetch.part}: expected room to write, found File too large; free some space" in message
    assert fetch.part.stat().st_size == 300_000
    fetch()
    assert_complete(fetch)
    assert fetch.server.archives_asked() == [None, "bytes=300000-"]


def test_a_folder_that_may_not_be_written_is_named(fetch: Fetch) -> None:
    fetch.to.write_text("a file where the folder above should be")
    fetch.to /= "below"
    with pytest.raises(OSError, match="Not a directory") as error:
        fetch()
    assert error.value.filename == str(fetch.to)


# What is in the way


def test_an_empty_folder_is_filled(fetch: Fetch) -> None:
    (fetch.to / NAME).mkdir(parents=True)
    fetch()
    assert_complete(fetch)


def test_a_folder_with_something_else_is_left_alone_unless_forced(fetch: Fetch) -> None:
    (fetch.to / NAME).mkdir(parents=True)
    (fetch.to / NAME / "thesis.txt").write_text("?")
    assert "found thesis.txt" in (message := fetch.fails())
    assert message.endswith("or replace it with --force")
    assert (fetch.server.asked, fetch.names()) == ([], [NAME])
    fetch(force=True)
    assert_complete(fetch)


def test_a_file_is_no_place_for_folders(fetch: Fetch) -> None:
    fetch.to.write_text("?")
    with pytest.raises(ConfigError, match=rf"--to {fetch.to}: expected a folder, found a file; name another"):
        fetch()
    assert fetch.to.read_text() == "?"


def test_a_file_in_the_way_is_left_alone(fetch: Fetch) -> None:
    fetch.to.mkdir()
    (fetch.to / NAME).write_text("?")
    assert "found a file" in fetch.fails()
    assert "found a file" in fetch.fails(force=True)
    assert (fetch.to / NAME).read_text() == "?"
    (fetch.to / NAME).unlink()
    (fetch.to / NAME).symlink_to("nowhere")
    assert "found a link that leads nowhere" in fetch.fails()
    assert fetch.server.asked == []


@pytest.mark.parametrize("content", [b"no zip", archive(files={"../x": ""})])
def test_a_forced_download_that_fails_leaves_the_old_folder(fetch: Fetch, content: bytes) -> None:
    fetch()
    fetch.server.files[ZIP] = content
    fetch.fails(force=True)
    assert_complete(fetch)


def test_a_link_to_a_folder_is_replaced_and_not_what_it_leads_to(fetch: Fetch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("?")
    fetch.to.mkdir()
    (fetch.to / NAME).symlink_to(tmp_path / "elsewhere")
    fetch(force=True)
    assert_complete(fetch)
    assert (tmp_path / "elsewhere" / "thesis.txt").exists()


# kill -9

KILLED = """
import os, signal, sys
from pathlib import Path
from streams.download import download
from streams.transfer import Watch
url, to, phase, least = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

def progress(now, done, total):
    if now == phase and done >= least:
        os.kill(os.getpid(), signal.SIGKILL)

real_rename = Path.rename
def rename(self, target):
    real_rename(self, target)
    if phase == "swap":
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = rename
download("ml-1m", to, url=url, force=phase == "swap", watch=Watch(progress=progress))
"""


@pytest.mark.parametrize(
    ("phase", "least", "requests"), [("download", 1, 2), ("download", 700_000, 2), ("unpack", 1, 1), ("swap", 0, 2)]
)
def test_a_killed_download_leaves_nothing_or_all_and_is_finished_by_the_next(
    fetch: Fetch, phase: str, least: int, requests: int
) -> None:
    if phase == "swap":
        fetch()
    arguments = [sys.executable, "-c", KILLED, fetch.server.url, str(fetch.to), phase, str(least)]
    assert subprocess.run(arguments, timeout=60).returncode == -signal.SIGKILL
    assert not (fetch.to / NAME).exists()
    assert fetch().was_there == (phase == "swap")  # the old folder was aside, and is back
    assert [name for name in fetch.names() if "part" not in name] == [NAME]
    assert len(fetch.server.archives_asked()) == requests
    fetch(force=True)
    assert_complete(fetch)


def test_a_download_killed_while_it_waits_goes_on(fetch: Fetch) -> None:
    fetch.server.faults.append("stall")
    arguments = [sys.executable, "-c", KILLED, fetch.server.url, str(fetch.to), "never", "0"]
    half = len(fetch.server.files[ZIP]) // 2
    with subprocess.Popen(arguments) as process:
        deadline = time.monotonic() + 60
        while not (fetch.part.exists() and fetch.part.stat().st_size == half):
            assert time.monotonic() < deadline
            assert process.poll() is None
            os.sched_yield()
        process.kill()
    fetch()
    assert_complete(fetch)
    assert fetch.server.archives_asked() == [None, f"bytes={half}-"]


# What was asked for


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'ml-1n': did you mean ml-1m\? expected one of ml-latest-small, "):
        download("ml-1n", tmp_path)


@pytest.mark.parametrize("url", ["http://exa mple.org", "http://[bad", "http://127.0.0.1:port"])
def test_an_address_that_is_none_is_not_tried_again(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="expected an address, found ") as error:
        download(NAME, tmp_path / "data", url=url)
    assert error.value.exit_code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc", "ftp://example.org", "example.org"])
def test_only_http_is_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="expected an address that begins with"):
        download(NAME, tmp_path, url=url)
