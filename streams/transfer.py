"""Fetch a file over HTTP so that nothing fetched is lost: what was received stays in a ``.part`` file, and goes on.

A part goes on only while the server still has the same file: it is asked for with ``If-Range`` and the strong ``ETag``
or the ``Last-Modified`` the part began with, which stand in a ``.part.json`` beside it.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec

from streams.errors import DataError, DataUnavailable

__all__ = ["Part", "Transfer", "Watch", "disk_errors", "megabytes"]

_BLOCK = 1 << 18
_MAX_BYTES = 4 << 30
"""Of one file; the largest MovieLens archive has a third of a gigabyte."""
_MAX_TEXT = 1 << 16
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)$")


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how it goes. ``say``: a line; ``progress``: phase, bytes done, bytes in all where they are known."""

    say: Callable[[str], None] = lambda line: None
    progress: Callable[[str, int, int | None], None] = lambda phase, done, total: None


class _State(msgspec.Struct):
    """What a part is a part of."""

    url: str
    validator: str | None
    total: int | None


class _Broken(Exception):  # never leaves this module
    """This attempt failed, the next may not."""


def megabytes(n_bytes: int) -> str:
    """A size in decimal megabytes.

    >>> megabytes(5_917_549)
    '5.9 MB'
    """
    return f"{n_bytes / 1e6:,.1f} MB"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Within it a full disk is one line that says what to do, and any other failure names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataUnavailable(
                f"{path}: expected room to write, found {error.strerror}; free some space and give the same command"
            ) from error
        if error.filename is None:
            error.filename = str(path)
        raise


class Part:
    """The file in the making, locked: two processes never write it at once. Use as a context manager.

    Raises DataError while another process holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beside = path.with_name(f"{path.name}.json")
        self._file = self._opened()
        self._discarded = False
        self.size = os.fstat(self._file.fileno()).st_size
        self.state = self._read_state()
        if self.state is None:
            self.restart(None)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        """Keep what was received, for the next time; nothing of nothing."""
        if self.size == 0 and not self._discarded:
            self.discard()
        self._file.close()

    @property
    def complete(self) -> bool:
        return self.state is not None and self.size == self.state.total

    def restart(self, state: _State | None) -> None:
        """Empty, and from now on a part of something else. In this order: old bytes never pass for new ones."""
        with disk_errors(self.path):
            self._file.truncate(0)
            self.size = 0
            self.state = state
            if state is None:
                self._beside.unlink(missing_ok=True)
            else:
                self._beside.write_bytes(msgspec.json.encode(state))

    def append(self, block: bytes) -> None:
        left = memoryview(block)
        with disk_errors(self.path):
            while left:
                written = self._file.write(left)
                self.size += written
                left = left[written:]

    def finish(self) -> None:
        """All is there, also where the server had not said how much that is."""
        if self.state is not None and self.state.total is None:
            self.state.total = self.size
            with disk_errors(self.path):
                self._beside.write_bytes(msgspec.json.encode(self.state))

    def discard(self) -> None:
        self._beside.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self.size = 0
        self._discarded = True

    def _opened(self) -> FileIO:
        """The file, locked; unbuffered, so that a full disk is met where it is written and not again on closing."""
        while True:
            with disk_errors(self.path):
                file = self.path.open("ab", buffering=0)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    return file
            except BlockingIOError:
                file.close()
                raise DataError(f"{self.path}: expected no other download of it, found one at work; wait") from None
            except FileNotFoundError:
                pass
            file.close()  # whoever held it is done with it and has removed it: make another

    def _read_state(self) -> _State | None:
        try:
            return msgspec.json.decode(self._beside.read_bytes(), type=_State)
        except (FileNotFoundError, msgspec.DecodeError):
            return None


class Transfer:
    """Requests with timeouts, tried again with growing waits.

    timeout_s: for connecting and for each wait for more bytes. attempts: in a row that bring nothing new.
    sleep: how to wait; tests replace it.
    """

    def __init__(
        self,
        watch: Watch,
        *,
        timeout_s: float = 30.0,
        attempts: int = 5,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._watch = watch
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._sleep = sleep

    def fetch(self, url: str, part: Part) -> None:
        """Bring ``part`` to the whole of ``url``. Raises DataUnavailable, with the part kept, or DataError."""
        if part.state is not None and part.state.url != url:
            part.restart(None)
        failures = 0
        while not part.complete:
            before = part.size
            try:
                self._receive(url, part)
                part.finish()
            except _Broken as broken:
                failures = 1 if part.size > before else failures + 1
                self._wait(url, str(broken), failures, f" at {megabytes(part.size)}" if part.size else "")

    def read_text(self, url: str) -> str | None:
        """A small text; None where there is none (404)."""
        failures = 0
        while True:
            try:
                with self._open(url, {}) as response, self._network():
                    return str(response.read(_MAX_TEXT).decode("utf-8", "replace"))
            except urllib.error.HTTPError as error:
                if error.code in (404, 410):
                    return None
                raise self._refused(url, error) from None
            except _Broken as broken:
                failures += 1
                self._wait(url, str(broken), failures, "")

    def _receive(self, url: str, part: Part) -> None:
        headers = {}
        if part.size and part.state is not None and part.state.validator is not None:
            headers = {"Range": f"bytes={part.size}-", "If-Range": part.state.validator}
        try:
            response = self._open(url, headers)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the file has become shorter than the part
                part.restart(None)
                raise _Broken("the file changed on the server") from None
            raise self._refused(url, error) from None
        with response:
            total = self._begin(url, response, part)
            self._watch.progress("download", part.size, total)
            while True:
                with self._network():
                    block = response.read1(_BLOCK)  # what is there: read() would lose it if the rest never comes
                if not block:
                    break
                part.append(block)
                _check_size(url, part.size)
                self._watch.progress("download", part.size, total)
        if total is not None and part.size > total:
            part.restart(None)
            raise _Broken("the server sent more than it told")
        if total is not None and part.size < total:
            raise _Broken(f"the connection ended after {megabytes(part.size)} of {megabytes(total)}")

    def _begin(self, url: str, response: Any, part: Part) -> int | None:
        """Make ``part`` fit what the server is about to send; returns how long the whole file is, if it says so."""
        if response.status == 206:
            sent = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
            known = part.state.total if part.state is not None else None
            if sent is None or int(sent[1]) != part.size or (known is not None and sent[2] not in ("*", str(known))):
                part.restart(None)
                raise _Broken("the server sent another range than was asked for")
            self._watch.say(f"going on at {megabytes(part.size)}")
            total = known if sent[2] == "*" else int(sent[2])
        elif response.status == 200:
            if part.size:
                self._watch.say("the server has another version or cannot go on in the middle: starting over")
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            part.restart(_State(url, _validator(response.headers), total))
        else:
            raise DataError(f"{url}: expected a file, found the status {response.status}; check the address")
        if total is not None:
            _check_size(url, total)
            _check_room(part.path, total - part.size)
        return total

    def _open(self, url: str, headers: dict[str, str]) -> Any:
        """Raises HTTPError for what the server refuses for good, _Broken for what may pass."""
        sent = {"User-Agent": "streamlens", "Accept-Encoding": "identity", **headers}
        with self._network():
            return urllib.request.urlopen(urllib.request.Request(url, headers=sent), timeout=self._timeout_s)

    @contextmanager
    def _network(self) -> Iterator[None]:
        """What can go wrong between here and the server, sorted into what may pass and what will not."""
        try:
            yield
        except urllib.error.HTTPError as error:
            if error.code in _TRY_AGAIN:
                error.close()
                raise _Broken(f"the server says {error.code} {error.reason}") from error
            raise
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise DataUnavailable(
                    f"expected a certificate that this machine trusts, found: {error.reason.verify_message}; "
                    "check the clock, the proxy and the certificates of this machine"
                ) from error
            raise _Broken(f"no answer ({_said(error.reason)})") from error
        except (http.client.InvalidURL, ValueError) as error:
            raise DataError(f"expected an address, found {error}; check it") from error
        except TimeoutError as error:
            raise _Broken(f"nothing came for {self._timeout_s:g} s") from error
        except (http.client.HTTPException, OSError) as error:
            raise _Broken(f"the connection broke ({_said(error)})") from error

    def _wait(self, url: str, reason: str, failures: int, where: str) -> None:
        if failures >= self._attempts:
            raise DataUnavailable(
                f"{url}: expected an answer, found {reason}, {failures} times in a row; "
                "check the network and give the same command: it goes on where it stopped"
            )
        wait_s = float(2 ** (failures - 1))
        self._watch.say(f"{reason}; trying again{where} in {wait_s:g} s")
        self._sleep(wait_s)

    def _refused(self, url: str, error: urllib.error.HTTPError) -> DataError:
        error.close()
        return DataError(f"{url}: expected a file, found {error.code} {error.reason}; check the address")


def _validator(headers: Any) -> str | None:
    """What ``If-Range`` may hold: a strong ETag, else the time of the last change."""
    etag = headers.get("ETag")
    return str(etag) if etag and not etag.startswith("W/") else headers.get("Last-Modified")


def _check_size(url: str, n_bytes: int) -> None:
    if n_bytes > _MAX_BYTES:
        raise DataError(f"{url}: expected at most {megabytes(_MAX_BYTES)}, found more; check the address")


def _check_room(path: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if n_bytes > free:
        raise DataUnavailable(
            f"{path.parent}: expected {megabytes(n_bytes)} of room, found {megabytes(free)}; "
            "free some space and give the same command"
        )


def _said(reason: object) -> str:
    if isinstance(reason, OSError):
        return reason.strerror or str(reason) or type(reason).__name__
    return str(reason) or type(reason).__name__
