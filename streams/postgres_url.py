"""Where a PostgreSQL store is: ``postgresql://USER@HOST:PORT/DATABASE[?schema=NAME]``, and other parameters of libpq.

A password may stand in the URL, and better stands in ``PGPASSWORD`` or ``~/.pgpass``; no message and no file shows it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from streams.errors import ConfigError

__all__ = [
    "DEFAULT_SCHEMA",
    "PostgresAddress",
    "is_postgres",
    "store_url_of_run",
    "with_schema_suffix",
    "without_password",
]

DEFAULT_SCHEMA = "streamlens"
"""Of a store that belongs to no run."""

_SCHEME = "postgresql"
_EXAMPLE = "postgresql://USER@HOST:PORT/DATABASE?schema=NAME"
_SCHEMA = re.compile(r"(?!pg_)[0-9a-zA-Z_.-]{1,63}")


def is_postgres(url: str) -> bool:
    """True for the URL of a PostgreSQL store."""
    return url.startswith(f"{_SCHEME}://")


@dataclass(frozen=True, slots=True)
class PostgresAddress:
    """server: for libpq, the schema left out. schema: the one named, or empty. secrets: what no message may show.

    >>> address = PostgresAddress.parse("postgresql://ann:secret@db:5432/features?schema=run_1&sslmode=require")
    >>> address.shown, address.schema
    ('postgresql://ann@db:5432/features?schema=run_1', 'run_1')
    """

    server: str = field(repr=False)
    shown: str
    schema: str
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> PostgresAddress:
        """Raises ConfigError for a URL that is none, or names an impossible schema."""
        parts = urlsplit(url)
        if parts.scheme != _SCHEME:
            raise ConfigError(f"store URL: expected {_EXAMPLE}, found one that begins with {parts.scheme!r}")
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        schema = parameters.pop("schema", "")
        if schema and not _SCHEMA.fullmatch(schema):
            raise ConfigError(
                f"store URL: expected a schema of 1 to 63 letters, digits, '_', '-' and '.' that does not begin with "
                f"pg_, found {schema!r}"
            )
        login, _, hosts = parts.netloc.rpartition("@")
        user, _, password = login.partition(":")
        secrets = {unquote(password), password, parameters.get("password", "")}
        query = urlencode(parameters, quote_via=quote)
        return cls(
            server=_url(parts.netloc, parts.path, query),
            shown=f"{_SCHEME}://{user}{'@' if user else ''}{hosts}{parts.path}{f'?schema={schema}' if schema else ''}",
            schema=schema,
            secrets=tuple(sorted(secrets - {""}, key=len, reverse=True)),
        )


def store_url_of_run(url: str, run_id: str) -> str:
    """A store of the run's own: in a PostgreSQL database, which runs share, the run's id names its schema.

    >>> store_url_of_run("postgresql://db/features", "ed2030b7f622")
    'postgresql://db/features?schema=run_ed2030b7f622'
    >>> store_url_of_run("postgresql://db/features?schema=team_a", "ed2030b7f622")
    'postgresql://db/features?schema=team_a'
    """
    if not is_postgres(url) or PostgresAddress.parse(url).schema:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}schema=run_{run_id}"


def with_schema_suffix(url: str, suffix: str) -> str:
    """The URL of a schema beside the one of ``url``, for tables that another program writes.

    >>> with_schema_suffix("postgresql://db/features?sslmode=require&schema=run_1", "loop")
    'postgresql://db/features?sslmode=require&schema=run_1_loop'
    """
    parts = urlsplit(url)
    parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
    parameters["schema"] = f"{parameters.get('schema') or DEFAULT_SCHEMA}_{suffix}"
    return _url(parts.netloc, parts.path, urlencode(parameters, quote_via=quote))


def without_password(url: str) -> str:
    """The URL as it may be written down.

    >>> without_password("postgresql://ann:secret@db/features?sslmode=require&password=secret&schema=run_1")
    'postgresql://ann@db/features?sslmode=require&schema=run_1'
    """
    if not is_postgres(url):
        return url
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "password"]
    return _url(f"{login.partition(':')[0]}{at}{hosts}", parts.path, urlencode(kept, quote_via=quote))


def _url(netloc: str, path: str, query: str) -> str:
    return f"{_SCHEME}://{netloc}{path}{'?' if query else ''}{query}"
