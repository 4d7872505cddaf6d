"""Where logs go: stderr, one line each, so that stdout stays what a command prints."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOBase
from typing import TextIO, cast

import structlog

from streams.errors import StreamLensError

__all__ = ["configure_logs"]


class _SaidOnce(logging.Filter):
    """Faust logs what stops it, with a traceback; an error meant for the user is the command's last line already."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, StreamLensError)


class _Stderr(TextIOBase):
    """Whatever stderr is when something is written: a stream that stood in for it once may be closed by then."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logs(level: str) -> None:
    """Log ``level`` and worse: our own (structlog) and that of Faust and aiokafka (logging)."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    stderr = _Stderr()
    logging.basicConfig(level=threshold, stream=stderr, format="%(levelname)s %(name)s: %(message)s", force=True)
    if threshold > logging.DEBUG:
        for handler in logging.getLogger().handlers:
            handler.addFilter(_SaidOnce())
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, stderr)),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper("%H:%M:%S"),
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR")),
        ],
    )
