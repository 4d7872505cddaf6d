"""Running a part of a benchmark in a process of its own, so that memory and warm-up belong to that part alone."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from streams.kafka_settings import KafkaSettings, kafka_settings, use_kafka_settings

__all__ = ["in_fresh_process", "max_rss_mb", "rss_mb", "started"]

P = ParamSpec("P")
T = TypeVar("T")

_MIB = 1 << 20


def in_fresh_process(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``call(*args, **kwargs)`` in a newly started interpreter."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=use_kafka_settings, initargs=(_settings(),)) as pool:
        return pool.submit(call, *args, **kwargs).result()


def started(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> SpawnProcess:
    """``call(*args, **kwargs)`` going on in a newly started interpreter."""
    process = multiprocessing.get_context("spawn").Process(target=_with, args=(_settings(), call, args, kwargs))
    process.start()
    return process


def _settings() -> KafkaSettings:
    return replace(kafka_settings())  # a copy without what cannot be sent


def _with(settings: KafkaSettings, call: Callable[..., object], args: Any, kwargs: Any) -> None:
    use_kafka_settings(settings)
    call(*args, **kwargs)


def rss_mb() -> float:
    """Resident memory of this process now, in MiB."""
    statm = Path("/proc/self/statm")
    if not statm.exists():  # macOS
        return int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(os.getpid())])) / 1_024
    return int(statm.read_text().split()[1]) * resource.getpagesize() / _MIB


def max_rss_mb() -> float:
    """The highest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _MIB
    # Not ru_maxrss: Linux has a new process begin with that of whoever started it, large or not.
    (kib,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(kib) * 1_024 / _MIB
