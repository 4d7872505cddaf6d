"""A PostgreSQL of a test's own, which it may stop and start; made by the server's programs, where they are there."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.local_kafka import free_ports

__all__ = ["LocalPostgres"]


def _programs() -> Path | None:
    on_path = shutil.which("pg_ctl")
    if on_path:
        return Path(on_path).resolve().parent
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")]  # Debian's, off the PATH
    return max(installed, key=lambda path: int(path.parent.name)) if installed else None


class LocalPostgres:
    """One server for ``USER`` without a password, on a port of its own. Skips the test where there is none to start.

    PostgreSQL refuses to run as root; then it runs as the user ``postgres``.
    """

    USER = "tester"

    def __init__(self, *settings: str) -> None:
        programs = _programs()
        if programs is None:
            pytest.skip("expected pg_ctl on PATH, to stop and start PostgreSQL in the test: apt install postgresql")
        self._programs = programs
        self._settings = settings
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self._folder = Path(tempfile.mkdtemp(prefix="streamlens-pg-"))
        if self._as:
            shutil.chown(self._folder, "postgres")
        (self._port,) = free_ports(1)
        self._run("initdb", "--auth=trust", f"--username={self.USER}", "--encoding=UTF8", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://{self.USER}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = (
            f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        )
        options = " -c ".join([options, *self._settings])
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options={options}")

    def stop(self, mode: str = "fast") -> None:
        """``fast`` ends every session; ``immediate`` is a crash."""
        self._run("pg_ctl", "stop", "--wait", f"--mode={mode}")

    def allow(self, line: str) -> None:
        """Put a line in front of ``pg_hba.conf``."""
        path = self._folder / "data" / "pg_hba.conf"
        path.write_text(f"{line}\n{path.read_text()}")
        self._run("pg_ctl", "reload")

    def remove(self) -> None:
        if (self._folder / "data" / "postmaster.pid").exists():
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as, self._programs / program, f"--pgdata={self._folder / 'data'}", *arguments]
        # A server that is started keeps what it inherits: a pipe would never end.
        with tempfile.TemporaryFile("w+") as said:
            done = subprocess.run(command, stdout=said, stderr=said, cwd=self._folder, timeout=60, check=False)
            said.seek(0)
            assert done.returncode == 0, said.read()
