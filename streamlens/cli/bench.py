"""``streamlens bench``: measure throughput, latency and memory on this machine."""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import Annotated, Any

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
    SNAPSHOT = "snapshot"
    VERIFY = "verify"
    FAILOVER = "failover"
    SCALING = "scaling"
    MODELS = "models"
    SERVE = "serve"
    DRIFT = "drift"
    LOOP = "loop"
    RETRAIN = "retrain"
    DASHBOARD = "dashboard"


_NAMES = (
    "pipeline: events per second, from the log to the store; replay: to the bus; latency: from published to visible; "
    "store: look-ups during ingest; memory: of a worker after 2 M and 10 M events; snapshot: of 1 M ratings "
    "during ingest; verify: of 25 M ratings, and its memory; failover (Kafka): from a worker's end to the next event; "
    "scaling (Kafka): two workers beside one; models: four trained and judged on 1 M ratings; "
    "serve: recommendations during ingest; drift: what detectors find, and how often they are wrong; "
    "loop: slates and feedback of a log, and how soon after a rating its slate is there; "
    "retrain: from publishing a retrain event to a consumer outside having it; "
    "dashboard: the pages in Chromium, from published to visible, and what they cost."
)

_ON_KAFKA = (
    Benchmark.PIPELINE,
    Benchmark.REPLAY,
    Benchmark.LATENCY,
    Benchmark.FAILOVER,
    Benchmark.SCALING,
    Benchmark.RETRAIN,
)
_KAFKA_NAMES = ", ".join(_ON_KAFKA)


def register(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    name: Annotated[Benchmark, typer.Argument(metavar="NAME", show_default=False, help=_NAMES)],
    events: Annotated[
        int | None,
        typer.Option("--events", min=1_000, metavar="N", help="Ratings to measure with, for a shorter look."),
    ] = None,
    bus: Annotated[
        str | None,
        typer.Option("--bus", metavar="URL", help=f"A kafka://HOST:PORT to measure on ({_KAFKA_NAMES})."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", help="A postgresql://USER@HOST:PORT/DATABASE (pipeline and scaling)."),
    ] = None,
    soak: Annotated[
        float | None,
        typer.Option("--soak", min=0.1, metavar="MINUTES", help="Keep five pages open so long (dashboard)."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Measure throughput, latency or memory on this machine; half a minute to a few minutes each."""
    from streamlens.settings import load_settings
    from streams.errors import ConfigError

    run = import_module(f"streamlens.bench.{name}").run
    given: dict[str, Any] = {} if events is None else {"events": events}
    if bus is not None:
        if name not in _ON_KAFKA:
            raise ConfigError(f"--bus: expected one that runs on Kafka ({_KAFKA_NAMES}), found {name}")
        load_settings()  # a cluster's password stands there
        given["bus"] = bus
    if store is not None:
        if name not in (Benchmark.PIPELINE, Benchmark.SCALING):
            raise ConfigError(f"--store: expected pipeline or scaling, which write to PostgreSQL too, found {name}")
        given["store"] = store
    if soak is not None:
        if name != Benchmark.DASHBOARD:
            raise ConfigError(f"--soak: expected dashboard, found {name}")
        given["soak_minutes"] = soak
    figures = run(**given)
    if as_json:
        print_json(figures)
        return
    for figure, value in figures.items():
        if not isinstance(value, list):  # single rounds are for programs
            typer.echo(f"{name:9} {figure:27} {text(value)}")
