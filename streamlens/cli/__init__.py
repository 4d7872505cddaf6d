"""The command line. :mod:`streamlens.cli.app` lists the commands; each group has a module of its own.

Exit codes: 0 done (a stopped ``replay``, ``worker``, ``demo`` or ``topics tail`` included), 1 ``verify`` or ``doctor``
found a fault or ``deadletter replay`` left a record unpublished, 2 the user can mend it, 3 something is away for now,
130 any other command was interrupted.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """The ``streamlens`` command."""
    try:
        # A title that the terminal's encoding does not know is no reason to fail.
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        from streamlens.cli.app import run  # Ctrl-C while this loads must not print a traceback

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
