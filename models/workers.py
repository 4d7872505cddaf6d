"""Jobs in processes of their own, a few at a time: one that fails, or dies, takes no other along.

A pool of processes would not do: where one is killed (out of memory, say) all its jobs are lost.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

__all__ = ["Died", "Tell", "run_jobs"]

J = TypeVar("J")
R = TypeVar("R")

Tell = Callable[[Any], None]
"""What a job calls to say how far it is."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Died:
    """In place of a result: the process ended without one."""

    why: str


@dataclass(slots=True)
class _Running(Generic[J]):
    number: int
    process: BaseProcess
    inbox: Connection


def run_jobs(
    call: Callable[[J, Tell], R],
    jobs: Sequence[J],
    *,
    at_once: int,
    threads: int,
    on_message: Callable[[int, Any], None] = lambda number, message: None,
) -> Iterator[tuple[int, R | Died]]:
    """``call(job, tell)`` for each job, ``at_once`` of them, each in a new process; (number, result) as they end.

    call, jobs, messages and results are pickled between processes of this program. threads: of numpy and torch in each.
    ``call`` should return what went wrong: what it raises is :class:`Died`. Whoever stops reading ends all processes.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(enumerate(jobs))[::-1]
    running: list[_Running[J]] = []
    try:
        while waiting or running:
            while waiting and len(running) < max(1, at_once):
                number, job = waiting.pop()
                inbox, outbox = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(call, job, outbox), daemon=True)
                with _environment(dict.fromkeys(_THREAD_VARIABLES, str(threads))):
                    process.start()
                outbox.close()
                running.append(_Running(number, process, inbox))
            ready = wait([one.inbox for one in running])
            for one in [one for one in running if one.inbox in ready]:
                try:
                    done, value = one.inbox.recv()
                except (EOFError, OSError):  # OSError: killed in the middle of a message
                    one.process.join()
                    done, value = True, Died(_ending(one.process.exitcode))
                if not done:
                    on_message(one.number, value)
                    continue
                one.process.join()
                running.remove(one)
                yield one.number, value
    finally:
        for one in running:
            one.process.kill()
            one.process.join()


def _child(call: Callable[[J, Tell], R], job: J, outbox: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent, which gets it too, ends its children
    outbox.send((True, call(job, lambda message: outbox.send((False, message)))))


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"its process was ended by {signal.Signals(-code).name}; out of memory?"
    return f"its process ended with exit code {code}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For processes started within: libraries read these when they are loaded."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
