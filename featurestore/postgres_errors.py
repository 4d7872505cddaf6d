"""What PostgreSQL's errors mean to whoever runs the program: which pass, which do not, and the next step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from streams.errors import ConfigError, StoreError, StoreUnavailable, StreamLensError
from streams.postgres_url import PostgresAddress

__all__ = ["GRANT", "postgres_errors", "refused_connection"]

GRANT = "GRANT this user what docs/postgresql.md lists, or name another user"

_PASSING = {  # by SQLSTATE, or by its class; see PostgreSQL's manual, appendix A
    "53100": "disk full; free space on the server",
    "53200": "the server is out of memory; give it more, or fewer clients",
    "53300": "too many connections; close some, or raise max_connections",
    "55P03": "locked by another process for too long; close what holds it",
    "25P03": "the connection stood still in a transaction; was this process stopped?",
    "25006": "read-only for now; is it a standby, or in recovery?",
    "08": "the connection was lost; is PostgreSQL up?",
    "53": "the server is short of something; look into its log",
    "57": "PostgreSQL ended the connection or the statement; is it being restarted?",
    "58": "the server's disk fails; look into its log",
    "40": "another transaction stood in the way; try again",
    "55": "in use by another process; try again",
}

_REFUSALS = {  # of a connection libpq gives no SQLSTATE, only the server's words
    r"authentication failed|no password supplied": "set PGPASSWORD, or put the password into ~/.pgpass",
    r"no pg_hba\.conf entry": "have the server's pg_hba.conf allow this user from this machine",
    r"permission denied for database": "GRANT CONNECT ON DATABASE to this user",
    r'role ".*" does not exist': "create the user with `createuser`, or name another",
    r'database ".*" does not exist': "create it with `createdb`, or name another",
    r"server does not support SSL|certificate verify failed|root certificate": "set sslmode in the URL",
}


@contextmanager
def postgres_errors(label: str, address: PostgresAddress, repair: str) -> Iterator[None]:
    """Turn what psycopg raises into the errors of ``label``; ``repair`` is the next step where no other is known."""
    try:
        yield
    except psycopg.Error as error:
        said = _said(error, address)
        state = error.sqlstate or ""
        if hint := _PASSING.get(state) or _PASSING.get(state[:2]):
            raise StoreUnavailable(f"{label}: {hint} ({said})") from error
        if not state and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            raise StoreUnavailable(f"{label}: {_PASSING['08']} ({said})") from error
        if state == "42501":
            raise StoreError(f"{label}: {said}; {GRANT}") from error
        raise StoreError(f"{label}: {said}; {repair}") from error


def refused_connection(label: str, address: PostgresAddress, error: psycopg.Error) -> StreamLensError:
    """Why there is no connection: StoreError for what waiting does not mend."""
    said = _said(error, address)
    if isinstance(error, psycopg.ProgrammingError):
        return ConfigError(f"store URL: {said}")
    for words, hint in _REFUSALS.items():
        if re.search(words, said):
            return StoreError(f"{label}: {said}; {hint}")
    return StoreUnavailable(f"{label}: cannot be reached ({said}); is PostgreSQL up, and the address right?")


def _said(error: psycopg.Error, address: PostgresAddress) -> str:
    """The message on one line, without the password."""
    text = " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
    for secret in address.secrets:
        text = text.replace(secret, "***")
    return text
