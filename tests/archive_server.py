"""A local server of archives that can do what servers do wrong: die in the middle, forget Range, answer 500."""

from __future__ import annotations

import io
import random
import threading
import zipfile
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

RATINGS = "1::1::5::978300760\n1::2::3::978300761\n2::1::4::978300762\n"
MOVIES = "1::Toy Story (1995)::Comedy\n2::Les Misérables (1995)::Drama\n"


def archive(
    top: str = "ml-1m/", files: Mapping[str, str | bytes] | None = None, *, ballast: int = 1_000_000, seed: int = 5
) -> bytes:
    """A zip of a small dataset in the format of 1M, with ``ballast`` bytes that do not compress (by ``seed``)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for name, content in (files or {"ratings.dat": RATINGS, "movies.dat": MOVIES}).items():
            zip_file.writestr(f"{top}{name}", content)
        if ballast:
            zip_file.writestr(f"{top}README", random.Random(seed).randbytes(ballast), zipfile.ZIP_STORED)
    return packed.getvalue()


class ArchiveServer(ThreadingHTTPServer):
    """Serves ``files`` by path. ``faults`` are taken one per request of an archive, before it is served normally:

    "die": half of what was asked for, then the connection closes; "stall": half, then nothing until ``release``;
    "wrong range": more than was asked for; "too much": a byte beyond the end; an int: that status instead.
    """

    daemon_threads = False  # closing waits for every request

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: deque[str | int] = deque()
        self.etag: str | None = '"1"'
        self.last_modified: str | None = None
        self.ranges = True
        self.tells_length = True
        self.release = threading.Event()
        self.asked: list[tuple[str, str | None]] = []
        """Path and Range of each request."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def archives_asked(self) -> list[str | None]:
        return [asked_range for path, asked_range in self.asked if path.endswith(".zip")]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the middle is what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        server = self.server
        asked_range = self.headers["Range"]
        server.asked.append((self.path, asked_range))
        content = server.files.get(self.path)
        fault = server.faults.popleft() if server.faults and self.path.endswith(".zip") else None
        if content is None or isinstance(fault, int):
            self.send_error(fault if isinstance(fault, int) else 404)
            return
        validators = [v for v in (server.etag, server.last_modified) if v and not v.startswith("W/")]
        start = 0
        if asked_range and server.ranges and self.headers["If-Range"] in (None, *validators):
            start = int(asked_range.removeprefix("bytes=").removesuffix("-"))
        if start and fault == "wrong range":
            start, fault = start // 2, None
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for name, value in (("ETag", server.etag), ("Last-Modified", server.last_modified)):
            if value is not None:
                self.send_header(name, value)
        body = content[start:]
        if fault == "too much":
            body, fault = body + b"?", None
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if fault else body)
        self.wfile.flush()
        if fault == "stall":
            server.release.wait(60)

    def log_message(self, *_: Any) -> None:
        """The tests ask ``server.asked``."""


@contextmanager
def serving() -> Iterator[ArchiveServer]:
    """A server on a free port of the loopback interface, ended with all its threads."""
    server = ArchiveServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
