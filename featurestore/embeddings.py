"""User and item embeddings, versioned by model and time: written whole by training, read by whoever serves.

They lie in tables of their own, since another process writes them: in ``embeddings.db`` beside a SQLite store, in the
store's schema on PostgreSQL.
A version is written in one transaction and never changed; its manifest (count, width, SHA-256) proves that what is
read is what was written.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from sqlalchemy import BigInteger, Column, LargeBinary, MetaData, String, Table

from featurestore.aggregate import Bools
from featurestore.database import open_tables, store_label
from featurestore.sqlite import database_path
from featurestore.verify_report import Mismatch, ViewReport
from streams.errors import StoreError, StoreMissing
from streams.postgres_url import is_postgres
from streams.records import Int64s

__all__ = ["EmbeddingStore", "EmbeddingVersion", "Embeddings", "Kind", "embeddings_url", "verify_embeddings"]

Kind = Literal["user", "item"]
Float32s = npt.NDArray[np.float32]

_PAGE_VECTORS = 10_000
_REPAIR = "write the version again, or delete the file and train anew"

metadata = MetaData()

versions = Table(
    "embedding_versions",
    metadata,
    Column("kind", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("as_of", BigInteger, nullable=False),  # event time: trained on nothing from then on
    Column("created_ms", BigInteger, nullable=False),  # wall time
    Column("n", BigInteger, nullable=False),
    Column("dim", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),  # over ids and vectors, by rising id
    sqlite_with_rowid=False,
)

vectors = Table(
    "embeddings",
    metadata,
    Column("kind", String, primary_key=True),
    Column("model", String, primary_key=True),
    Column("version", String, primary_key=True),
    Column("entity_id", BigInteger, primary_key=True, autoincrement=False),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
    sqlite_with_rowid=False,
)


@dataclass(frozen=True, slots=True)
class EmbeddingVersion:
    """The manifest of one version. ``as_of``: the event time up to which it knows; ``created_ms``: wall time."""

    kind: Kind
    model: str
    version: str
    as_of: int
    created_ms: int
    n: int
    dim: int
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Embeddings:
    """One row per id asked for. vectors: float32 (n, dim), zeros where not ``known``, all of one ``version``."""

    ids: Int64s
    known: Bools
    vectors: Float32s
    version: EmbeddingVersion


def embeddings_url(store_url: str) -> str:
    """Where the embeddings of the feature store at ``store_url`` are.

    >>> embeddings_url("sqlite:///var/features.db")
    'sqlite:///var/embeddings.db'
    """
    if is_postgres(store_url):
        return store_url
    return f"sqlite:///{database_path(store_url).with_name('embeddings.db')}"


class EmbeddingStore:
    """The embeddings at ``url``. Not thread-safe. ``create``: make the database where there is none.

    Raises StoreMissing without ``create`` where nothing was ever written, StoreError where it is damaged.
    """

    def __init__(
        self,
        url: str,
        *,
        create: bool = False,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._wall_ms = wall_ms
        missing = StoreMissing(f"embeddings {store_label(url)}: none yet; training writes them")
        self.database = open_tables(url, metadata, what="embeddings", repair=_REPAIR, missing=missing, create=create)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.database.close()

    def write(
        self, kind: Kind, model: str, version: str, ids: Int64s, values: Float32s, *, as_of: int
    ) -> EmbeddingVersion:
        """Write a version whole; returns its manifest. The same version again, with the same content, changes nothing.

        ids: int64 (n,), distinct, any order; values: (n, dim), finite. Raises ValueError for other shapes, StoreError
        where the version exists with other content.
        """
        ids, values = _checked(ids, values)
        n, dim = values.shape
        manifest = EmbeddingVersion(kind, model, version, as_of, self._wall_ms(), n, dim, _digest(ids, values))
        with self.database.transaction(durable=True):
            kept = self._manifest(kind, model, version)
            if kept is not None:
                if (kept.sha256, kept.as_of, kept.dim) != (manifest.sha256, as_of, manifest.dim):
                    raise StoreError(
                        f"{self.database.label}: {kind} version {version} of {model} exists with other content; "
                        "a version never changes: write another"
                    )
                return kept
            self.database.execute(
                "INSERT INTO embedding_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                *(kind, model, version, as_of, manifest.created_ms, manifest.n, manifest.dim, manifest.sha256),
            )
            rows = ((kind, model, version, i, row.tobytes()) for i, row in zip(ids.tolist(), values, strict=True))
            self.database.execute_many("INSERT INTO embeddings VALUES (?, ?, ?, ?, ?)", rows)
        return manifest

    def forget(self, model: str, version: str) -> None:
        """Remove what there is of a version; nothing is no error."""
        with self.database.transaction():
            for table in ("embeddings", "embedding_versions"):
                self.database.execute(f"DELETE FROM {table} WHERE model = ? AND version = ?", model, version)

    def versions(self, kind: Kind | None = None, model: str | None = None) -> list[EmbeddingVersion]:
        """The manifests, oldest ``as_of`` first."""
        rows = self.database.rows(
            "SELECT kind, model, version, as_of, created_ms, n, dim, sha256 FROM embedding_versions"
            " WHERE coalesce(kind = ?, true) AND coalesce(model = ?, true) ORDER BY as_of, created_ms, version",
            *(kind, model),
        )
        return [EmbeddingVersion(*row) for row in rows]

    def latest(self, kind: Kind, model: str, as_of: int | None = None) -> EmbeddingVersion | None:
        """The newest version; with ``as_of`` the newest that was trained on nothing from that event time on."""
        known = [v for v in self.versions(kind, model) if as_of is None or v.as_of <= as_of]
        return known[-1] if known else None

    def read(
        self,
        kind: Kind,
        model: str,
        ids: Sequence[int] | Int64s,
        *,
        as_of: int | None = None,
        version: str | None = None,
    ) -> Embeddings:
        """The embeddings of ``ids`` in one version: the one named, else the latest as of an event time.

        Raises StoreMissing where there is no such version, StoreError for a vector of another width.
        """
        wanted = np.asarray(ids, np.int64)
        with self.database.snapshot():
            manifest = self._manifest(kind, model, version) if version else self.latest(kind, model, as_of)
            if manifest is None:
                what = f"version {version}" if version else "version" + (f" as of {as_of}" if as_of is not None else "")
                raise StoreMissing(f"{self.database.label}: no {kind} {what} of {model}; training writes them")
            rows = self.database.rows(
                "SELECT entity_id, CAST(vector AS BLOB) FROM embeddings WHERE kind = ? AND model = ? AND version = ?"
                " AND entity_id = ANY(?)",
                *(kind, model, manifest.version, wanted.tolist()),
            )
        found = dict(rows)
        size = manifest.dim * np.dtype("<f4").itemsize
        if any(len(vector) != size for vector in found.values()):
            raise StoreError(f"{self.database.label}: a vector of {model} is not {manifest.dim} wide; {_REPAIR}")
        nothing = bytes(size)
        joined = b"".join([found.get(i, nothing) for i in wanted.tolist()])
        return Embeddings(
            ids=wanted,
            known=np.array([i in found for i in wanted.tolist()], bool),
            vectors=np.frombuffer(joined, "<f4").reshape(len(wanted), manifest.dim).astype(np.float32),
            version=manifest,
        )

    def pages(self, manifest: EmbeddingVersion) -> Iterator[list[tuple[int, bytes]]]:
        """All ids and vectors of one version, by rising id, as they are stored."""
        return self.database.pages(
            "SELECT entity_id, CAST(vector AS BLOB) FROM embeddings"
            " WHERE kind = ? AND model = ? AND version = ? ORDER BY entity_id",
            *(manifest.kind, manifest.model, manifest.version),
            size=_PAGE_VECTORS,
        )

    def _manifest(self, kind: Kind, model: str, version: str) -> EmbeddingVersion | None:
        return next((v for v in self.versions(kind, model) if v.version == version), None)


def verify_embeddings(url: str) -> ViewReport:
    """Compare every version with its manifest: as many vectors, as wide, of the same content, all of them finite."""
    report = ViewReport()
    try:
        store = EmbeddingStore(url)
    except StoreMissing:
        return report
    with store, store.database.snapshot():
        known = store.versions()
        for manifest in known:
            report.rows += manifest.n
            found = _recount(store, manifest)
            expected = {"n": manifest.n, "dim": manifest.dim, "sha256": manifest.sha256, "finite": True}
            differ = {name: value for name, value in expected.items() if found[name] != value}
            if differ:
                key = {"kind": manifest.kind, "model": manifest.model, "version": manifest.version}
                report.add(Mismatch(key, differ, {name: found[name] for name in differ}))
        stray = store.database.rows(
            "SELECT kind, model, version, count(*) FROM embeddings GROUP BY kind, model, version"
        )
        for kind, model, version, n in stray:
            if not any((v.kind, v.model, v.version) == (kind, model, version) for v in known):
                report.rows += n
                report.add(Mismatch({"kind": kind, "model": model, "version": version}, None, {"n": n}))
    return report


def _recount(store: EmbeddingStore, manifest: EmbeddingVersion) -> dict[str, object]:
    digest = hashlib.sha256()
    n, finite = 0, True
    widths: set[int] = set()
    for page in store.pages(manifest):
        n += len(page)
        widths |= {len(row) // 4 for _, row in page}
        for entity_id, row in page:
            digest.update(entity_id.to_bytes(8, "little", signed=True) + row)
            finite &= len(row) % 4 == 0 and bool(np.isfinite(np.frombuffer(row, "<f4")).all())
    dim = widths.pop() if len(widths) == 1 else manifest.dim if not widths else -1
    return {"n": n, "dim": dim, "sha256": digest.hexdigest(), "finite": finite}


def _checked(ids: Int64s, values: Float32s) -> tuple[Int64s, Float32s]:
    """Both by rising id, vectors as little-endian float32."""
    ids, values = np.asarray(ids, np.int64), np.asarray(values, np.dtype("<f4"))
    if values.ndim != 2 or ids.shape != values.shape[:1] or values.shape[1] == 0:
        raise ValueError(f"embeddings: expected ids (n,) and values (n, dim), found {ids.shape} and {values.shape}")
    order = np.argsort(ids)
    ids, values = ids[order], values[order]
    if (np.diff(ids) == 0).any():
        raise ValueError("embeddings: expected distinct ids, found one twice")
    if not np.isfinite(values).all():
        raise ValueError("embeddings: expected finite values, found NaN or infinity; did training diverge?")
    return ids, values


def _digest(ids: Int64s, values: Float32s) -> str:
    """SHA-256 over (id, vector), packed, by rising id."""
    rows = np.empty(len(ids), [("id", "<i8"), ("vector", "<f4", (values.shape[1],))])
    rows["id"], rows["vector"] = ids, values
    return hashlib.sha256(rows.tobytes()).hexdigest()
