"""``streamlens bench``: measure throughput, latency and memory on this machine."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import Annotated

import typer

from streamlens.cli import options
from streamlens.cli.console import print_json, text

__all__ = ["register"]


class Benchmark(StrEnum):
    """Each is a module of :mod:`streamlens.bench`."""

    PIPELINE = "pipeline"
    REPLAY = "replay"
    LATENCY = "latency"
    STORE = "store"
    MEMORY = "memory"


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(name: Annotated[Benchmark, typer.Argument()], as_json: options.Json = False) -> None:
    """Measure throughput, latency or memory on this machine.

    pipeline: events per second, from the log to the store. replay: to the bus. latency: from published to visible.
    store: look-ups during ingest. memory: of a worker after 10 M events.
    """
    figures = import_module(f"streamlens.bench.{name}").run()
    if as_json:
        print_json(figures)
        return
    for figure, value in figures.items():
        if not isinstance(value, list):  # single rounds are for programs
            typer.echo(f"{name:9} {figure:27} {text(value)}")
