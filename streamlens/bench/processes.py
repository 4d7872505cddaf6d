"""Running a part of a benchmark in a process of its own, so that memory and warm-up belong to that part alone."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

__all__ = ["in_fresh_process", "max_rss_mb", "rss_mb"]

P = ParamSpec("P")
T = TypeVar("T")

_MIB = 1 << 20


def in_fresh_process(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call(*args, **kwargs)`` in a newly started interpreter."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *args, **kwargs).result()


def rss_mb() -> float:
    """Resident memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / _MIB


def max_rss_mb() -> float:
    """The highest resident memory of this process so far, in MiB."""
    # Not ru_maxrss: Linux has a new process begin with that of whoever started it, large or not.
    status = Path("/proc/self/status").read_text()
    (kib,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1024 / _MIB
