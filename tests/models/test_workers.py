"""Jobs in processes of their own: what they say, how they end, and that one's end is no other's."""

from __future__ import annotations

import multiprocessing
import os
import signal
from typing import Any

from models.workers import Died, Tell, run_jobs


def double(job: int, tell: Tell) -> int:
    tell(f"at {job}")
    return 2 * job


def one_ends_badly(job: str, tell: Tell) -> str:
    if job == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "killed while it speaks":
        (outbox,) = (cell.cell_contents for cell in tell.__closure__ or ())
        os.write(outbox.fileno(), (100).to_bytes(4, "big") + b"and then")
        os.kill(os.getpid(), signal.SIGKILL)
    if job == "leaves":
        os._exit(7)
    return job


def threads(job: int, tell: Tell) -> str | None:
    return os.environ.get("OMP_NUM_THREADS")


def endless(job: int, tell: Tell) -> int:
    if job:
        tell("started")
        signal.pause()
    return job


def test_each_job_has_its_result_and_its_words() -> None:
    said: list[tuple[int, Any]] = []
    results = run_jobs(double, [5, 6, 7], at_once=2, threads=1, on_message=lambda n, what: said.append((n, what)))
    assert sorted(results) == [(0, 10), (1, 12), (2, 14)]
    assert sorted(said) == [(0, "at 5"), (1, "at 6"), (2, "at 7")]


def test_a_process_that_dies_takes_no_other_along() -> None:
    jobs = ["killed", "well", "leaves", "killed while it speaks"]
    results = dict(run_jobs(one_ends_badly, jobs, at_once=4, threads=1))
    assert results[1] == "well"
    assert results[0] == results[3] == Died("its process was ended by SIGKILL; out of memory?")
    assert results[2] == Died("its process ended with exit code 7")


def test_threads_are_set_there_and_not_here() -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    assert list(run_jobs(threads, [1], at_once=1, threads=3)) == [(0, "3")]
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_who_stops_reading_ends_all_processes() -> None:
    results = run_jobs(endless, [0, 1], at_once=2, threads=1)
    assert next(results) == (0, 0)
    results.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()
