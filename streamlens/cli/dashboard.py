"""``streamlens dashboard``: the live pages, in a browser."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import typer

from streamlens.cli import options

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    app.command()(dashboard)


def dashboard(
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="0 for any; by default 8501, or the next that is free."),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", help="Others can reach it on 0.0.0.0: there is no login.")
    ] = "127.0.0.1",
    run: options.RunId = None,
    bus: options.Bus = None,
    store: options.Store = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser; print the address.")] = False,
    with_parent: options.WithParent = False,
) -> None:
    """The live pages: production, recommendations, ML engineering, experiments; until Ctrl-C.

    They follow the run that was started last, also one that is started later, unless --run names one.
    """
    import msgspec

    from dashboards.launch import free_port, is_installed, streamlit_arguments
    from dashboards.run_target import ENVIRONMENT, Pointer
    from streamlens.logs import configure_logs
    from streamlens.settings import load_settings
    from streams.errors import ConfigError
    from streams.run import open_run

    if not is_installed():
        raise ConfigError("dashboard: expected Streamlit, found none; pip install 'streamlens[pages]'")
    settings = load_settings({"bus": bus, "store": store})
    configure_logs(settings.log)
    if run is not None:
        open_run(settings.var, run)  # a mistyped id shall be told here, and not in the browser
    pointer = Pointer(str(settings.var.resolve()), run, settings.bus, settings.store)
    os.environ[ENVIRONMENT] = msgspec.json.encode(pointer).decode()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # beside ingest, BLAS threads wait for each other
    chosen = free_port(host, port)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"pages at http://{shown}:{chosen}; Ctrl-C ends them")
    sys.stdout.flush()
    if with_parent:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    from streamlit.web.cli import main

    main(streamlit_arguments(host, chosen, browser=not no_browser), prog_name="streamlit", standalone_mode=False)


def _end_with_parent() -> None:
    import signal

    while os.read(sys.stdin.fileno(), 1_024):
        continue
    os.kill(os.getpid(), signal.SIGTERM)
