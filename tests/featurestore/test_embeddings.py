"""Embeddings by model, version and event time; a version is whole, never changed, and proven by its manifest."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from featurestore.embeddings import EmbeddingStore, embeddings_url, verify_embeddings
from streams.errors import StoreError, StoreMissing

IDS = np.array([7, 3, 2**62], np.int64)
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return embeddings_url(f"sqlite:///{tmp_path}/features.db")


def write(url: str, version: str, as_of: int, scale: float = 1.0, model: str = "mf") -> None:
    with EmbeddingStore(url, create=True) as store:
        store.write("item", model, version, IDS, VECTORS * np.float32(scale), as_of=as_of)


def sql(url: str, statement: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute(statement)


def test_what_was_written_is_read_in_the_order_asked_for(url: str) -> None:
    write(url, "v1", 100)
    with EmbeddingStore(url) as store:
        found = store.read("item", "mf", [3, 99, 2**62, 3])
    assert found.known.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(found.vectors, [VECTORS[1], np.zeros(4), VECTORS[2], VECTORS[1]])
    assert (found.version.version, found.version.n, found.version.dim) == ("v1", 3, 4)


def test_reads_as_of_a_time_take_the_newest_version_that_knew_nothing_from_then_on(url: str) -> None:
    for version, as_of in (("b", 200), ("a", 100), ("c", 300)):
        write(url, version, as_of, scale=as_of)
    write(url, "z", 250, model="other")
    with EmbeddingStore(url) as store:
        assert [v.version for v in store.versions("item", "mf")] == ["a", "b", "c"]
        assert [store.read("item", "mf", [7], as_of=t).version.version for t in (100, 199, 200, 299, 10**9)] == [
            *("a", "a", "b", "b", "c")
        ]
        assert store.read("item", "mf", [7]).version.version == "c"
        assert store.read("item", "mf", [7], version="a").vectors[0, 1] == 100.0
        with pytest.raises(StoreMissing, match="no item version as of 99 of mf"):
            store.read("item", "mf", [7], as_of=99)
        with pytest.raises(StoreMissing, match="no item version x of mf"):
            store.read("item", "mf", [7], version="x")
        with pytest.raises(StoreMissing, match="no user version of mf"):
            store.read("user", "mf", [7])


def test_a_version_never_changes_and_writing_it_again_is_harmless(url: str) -> None:
    write(url, "v1", 100)
    write(url, "v1", 100)
    with pytest.raises(StoreError, match="exists with other content"):
        write(url, "v1", 100, scale=2.0)
    with pytest.raises(StoreError, match="exists with other content"):
        write(url, "v1", 101)
    with EmbeddingStore(url) as store:
        assert len(store.versions()) == 1


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        (IDS[:2], VECTORS, "expected ids"),
        (IDS, VECTORS[:, :0], "expected ids"),
        (np.array([1, 1, 2]), VECTORS, "distinct"),
        (IDS, VECTORS * np.float32("nan"), "finite"),
    ],
)
def test_what_is_no_embedding_is_refused(url: str, ids: np.ndarray, values: np.ndarray, message: str) -> None:
    with EmbeddingStore(url, create=True) as store, pytest.raises(ValueError, match=message):
        store.write("user", "mf", "v1", ids, values, as_of=1)


def test_no_embeddings_yet(url: str) -> None:
    with pytest.raises(StoreMissing, match="none yet"):
        EmbeddingStore(url)
    assert verify_embeddings(url).mismatches == 0


def test_a_file_whose_tables_are_still_to_come_holds_none_yet(url: str) -> None:
    path = Path(url.removeprefix("sqlite:///"))
    path.touch()
    with pytest.raises(StoreMissing, match="none yet"):
        EmbeddingStore(url)
    assert verify_embeddings(url).rows == 0
    write(url, "v1", 100)
    assert verify_embeddings(url).rows == 3


def test_a_damaged_page_is_one_error_that_says_what_to_do(url: str) -> None:
    with EmbeddingStore(url, create=True) as store:
        store.write("item", "mf", "v1", np.arange(2_000), np.ones((2_000, 8), np.float32), as_of=1)
    path = Path(url.removeprefix("sqlite:///"))
    content = path.read_bytes()
    for page in range(3 * 4_096, len(content), 4_096):  # the manifest's page is the second or third one
        path.write_bytes(content[:page] + b"\xff" * 4_096 + content[page + 4_096 :])
        with pytest.raises(StoreError, match="not a healthy SQLite database"):
            verify_embeddings(url)


FAULTS = {
    "a wrong value": "UPDATE embeddings SET vector = x'00000000000000000000000000000000' WHERE entity_id = 7",
    "a lost vector": "DELETE FROM embeddings WHERE entity_id = 7",
    "a vector too many": "INSERT INTO embeddings SELECT kind, model, version, 8, vector FROM embeddings LIMIT 1",
    "a shifted id": "UPDATE embeddings SET entity_id = 8 WHERE entity_id = 7",
    "another width": "UPDATE embeddings SET vector = x'00000000' WHERE entity_id = 7",
    "no whole numbers": "UPDATE embeddings SET vector = vector || x'00' WHERE entity_id = 7",
    "not a number": "UPDATE embeddings SET vector = x'0000c07f0000803f0000803f0000803f' WHERE entity_id = 7",
    "no vectors": "DELETE FROM embeddings",
    "another manifest": "UPDATE embedding_versions SET n = 4",
    "no manifest": "DELETE FROM embedding_versions",
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_verify_finds_a_planted_fault(url: str, fault: str) -> None:
    write(url, "v1", 100)
    report = verify_embeddings(url)
    assert (report.rows, report.mismatches) == (3, 0)
    sql(url, fault)
    assert verify_embeddings(url).mismatches == 1


def test_a_vector_of_another_width_is_not_handed_out(url: str) -> None:
    write(url, "v1", 100)
    sql(url, FAULTS["another width"])
    with EmbeddingStore(url) as store, pytest.raises(StoreError, match="not 4 wide"):
        store.read("item", "mf", [7])


def test_a_writer_that_is_killed_leaves_no_half_version(url: str) -> None:
    write(url, "v1", 100)
    code = f"""
import os, signal
import numpy as np
from featurestore.embeddings import EmbeddingStore

store = EmbeddingStore({url!r}, create=True)
store.database.connection.set_trace_callback(
    lambda sql: os.kill(os.getpid(), signal.SIGKILL) if sql.startswith("COMMIT") else None
)
store.write("item", "mf", "v2", np.arange(5_000), np.ones((5_000, 8), np.float32), as_of=200)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with EmbeddingStore(url) as store:
        assert [v.version for v in store.versions()] == ["v1"]
    assert verify_embeddings(url).mismatches == 0
