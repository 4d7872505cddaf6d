"""Fetch a MovieLens release from GroupLens and unpack it, all or nothing.

The archive grows in ``NAME.zip.part`` and goes on after any interruption; its MD5 is compared with the one GroupLens
publishes beside it, where there is one, and each file with its CRC. The folder appears by a rename once it is whole.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from streams.errors import ConfigError, DataError, DataUnavailable
from streams.movielens.layout import find_layout
from streams.movielens.releases import RELEASES
from streams.transfer import Part, Transfer, Watch, disk_errors
from streams.unpack import unpack

__all__ = ["GROUPLENS", "Downloaded", "download"]

GROUPLENS = "https://files.grouplens.org/datasets/movielens"

_MD5 = re.compile(r"\b[0-9a-fA-F]{32}\b")
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Where the dataset is, and whether it was there already."""

    folder: Path
    was_there: bool


def download(
    name: str,
    to: Path,
    *,
    url: str = GROUPLENS,
    force: bool = False,
    watch: Watch | None = None,
    timeout_s: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Downloaded:
    """Bring the release ``name`` into the folder ``to/name``, from ``url/name.zip``.

    A folder that holds a dataset is left alone, unless ``force``: then it is replaced once the new one is whole.
    sleep: how to wait between attempts. Raises ConfigError for an unknown name or address, DataUnavailable for no
    network or no room (the same call then goes on), DataError for an archive that is not what it should be.
    """
    if name not in RELEASES:
        near = difflib.get_close_matches(name, RELEASES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{name!r}: {hint}expected one of {', '.join(RELEASES)}; see `streamlens data list`")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url}: expected an address that begins with http:// or https://")
    watch = watch or Watch()
    folder = to / name
    if not force and _is_there(folder):
        return Downloaded(folder, was_there=True)
    if os.path.lexists(folder) and not folder.is_dir():
        found = "a file" if folder.exists() else "a link that leads nowhere"
        raise DataError(f"{folder}: expected a folder or nothing, found {found}; move it away")
    address = f"{url.rstrip('/')}/{name}.zip"
    with _made(to), Part(to / f"{name}.zip.part") as part:
        _clear_up(folder)
        if not force and _is_there(folder):  # another process was quicker, or a killed one has been undone
            return Downloaded(folder, was_there=True)
        transfer = Transfer(watch, timeout_s=timeout_s, sleep=sleep)
        transfer.fetch(address, part)
        published = _published_md5(transfer, f"{address}.md5", watch)
        with _discarded_if_wrong(address, part):
            if published is not None:
                _compare(part.path, published, watch)
            _unpack_into(folder, part.path, watch)
        part.discard()
    return Downloaded(folder, was_there=False)


def _is_there(folder: Path) -> bool:
    """True for a folder with a dataset, False for nothing or an empty folder. Raises DataError for anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        find_layout(folder)
    except DataError as error:
        raise DataError(f"{error}; or replace it with --force") from None
    return True


@contextmanager
def _made(to: Path) -> Iterator[None]:
    """The folder to work in; one that was made for nothing goes again."""
    was_there = to.is_dir()
    if to.exists() and not was_there:
        raise ConfigError(f"--to {to}: expected a folder, found a file; name another")
    with disk_errors(to):
        to.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        if not was_there:
            with suppress(OSError):
                to.rmdir()  # refuses unless empty


def _clear_up(folder: Path) -> None:
    """Finish or undo what a killed download left: nothing else is at work here, since the part is locked."""
    for draft in folder.parent.glob(f".{folder.name}.unpacking-*"):
        _remove(draft)
    for old in folder.parent.glob(f".{folder.name}.replaced-*"):
        if folder.exists():
            _remove(old)
        else:
            old.rename(folder)


def _published_md5(transfer: Transfer, address: str, watch: Watch) -> str | None:
    text = transfer.read_text(address)
    if text is None:
        watch.say("no checksum is published for it; each file is checked against its CRC in the archive")
        return None
    found: set[str] = {digest.lower() for digest in _MD5.findall(text)}
    if len(found) != 1:
        raise DataError(f"{address}: expected one MD5, found {text[:60]!r}; try again later, or check the address")
    return found.pop()


@contextmanager
def _discarded_if_wrong(address: str, part: Part) -> Iterator[None]:
    """An archive that is wrong is not kept: going on with it would never end well."""
    try:
        yield
    except DataUnavailable:
        raise
    except DataError as error:
        part.discard()
        raise DataError(f"{address}: {error}; it was removed: give the same command to fetch it anew") from error


def _compare(path: Path, published: str, watch: Watch) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    total, done = path.stat().st_size, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            done += len(block)
            watch.progress("check", done, total)
    if digest.hexdigest() != published:
        raise DataError(f"expected the published MD5 {published}, found {digest.hexdigest()}")


def _unpack_into(folder: Path, archive: Path, watch: Watch) -> None:
    draft = folder.parent / f".{folder.name}.unpacking-{secrets.token_hex(4)}"
    try:
        with disk_errors(draft):
            draft.mkdir()
        unpack(archive, draft, lambda done, total: watch.progress("unpack", done, total))
        try:
            find_layout(draft)
        except DataError:
            names = ", ".join(sorted(path.name for path in draft.iterdir())[:6]) or "nothing"
            raise DataError(f"expected a MovieLens archive, found {names} in it") from None
        _put_in_place(draft, folder)
    finally:
        _remove(draft)


def _put_in_place(draft: Path, folder: Path) -> None:
    """Rename, with the old folder aside meanwhile; :func:`_clear_up` brings it back if the process dies in between."""
    if not folder.exists():
        draft.rename(folder)
        return
    old = folder.with_name(f".{folder.name}.replaced-{secrets.token_hex(4)}")
    folder.rename(old)
    try:
        draft.rename(folder)
    except BaseException:
        old.rename(folder)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
