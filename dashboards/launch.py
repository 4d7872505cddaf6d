"""How Streamlit is started for the pages: its options, without Streamlit being imported."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from streams.errors import ConfigError

__all__ = ["APP", "free_port", "is_installed", "streamlit_arguments"]

APP = Path(__file__).parent / "app.py"

_PORT = 8501
_PORTS_TRIED = 20

_OPTIONS = {
    "browser.gatherUsageStats": "false",
    "server.fileWatcherType": "none",
    "server.runOnSave": "false",
    "runner.postScriptGC": "false",  # a whole collection after each rerun: a tenth of a second, every second, per page
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",
    "logger.level": "warning",
    "global.disableWidgetStateDuplicationWarning": "true",
    "theme.light.primaryColor": "#0b6e5c",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f5f4",
    "theme.light.textColor": "#1c2321",
    "theme.dark.primaryColor": "#2aa58d",
    "theme.dark.backgroundColor": "#14181a",
    "theme.dark.secondaryBackgroundColor": "#20262a",
    "theme.dark.textColor": "#e8edeb",
    "theme.baseRadius": "0.5rem",
}


def is_installed() -> bool:
    """Whether the extra ``pages`` is there."""
    return all(find_spec(name) is not None for name in ("streamlit", "altair"))


def streamlit_arguments(host: str, port: int, *, browser: bool) -> Sequence[str]:
    """The command line of ``streamlit`` that serves the pages on ``host:port``.

    >>> streamlit_arguments("127.0.0.1", 8501, browser=False)[0]
    'run'
    """
    options = {
        **_OPTIONS,
        "server.address": host,
        "server.port": str(port),
        "server.headless": "false" if browser else "true",
    }
    return ["run", str(APP), *(f"--{name}={value}" for name, value in options.items())]


def free_port(host: str, wanted: int | None = None) -> int:
    """A port that is free: the one that is wanted, or the first from 8501 on. Raises ConfigError."""
    problem: OSError | None = None
    for port in [wanted] if wanted is not None else range(_PORT, _PORT + _PORTS_TRIED):
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                found: int = probe.getsockname()[1]
                return found
        except OSError as error:
            problem = error
    raise ConfigError(f"dashboard: expected a free port on {host}, found none ({problem}); give --port or --host")
