import subprocess
import sys
from pathlib import Path

import pytest

from streams.errors import ConfigError
from streams.run import RunFolder, current_run, list_runs, open_run, run_id_of, start_run

OPTIONS: dict[str, object] = {"week": 10, "speed": 86_400.0, "seed": 0}


def start(var: Path, options: dict[str, object] = OPTIONS, *, data: str = "ml", new_run: bool = False) -> RunFolder:
    return start_run(var, data=data, data_fingerprint=f"hash of {data}", options=options, new_run=new_run)


def test_identity_follows_data_options_and_seed_only() -> None:
    ids = [
        run_id_of("a", OPTIONS),
        run_id_of("b", OPTIONS),
        run_id_of("a", {**OPTIONS, "seed": 1}),
        run_id_of("a", {**OPTIONS, "week": 3}),
        run_id_of("a", OPTIONS, nonce="x"),
    ]
    assert len(set(ids)) == len(ids)
    assert run_id_of("a", dict(reversed(OPTIONS.items()))) == ids[0]
    assert {len(i) for i in ids} == {12}


def test_a_run_keeps_its_log_and_store_in_its_own_folder(tmp_path: Path) -> None:
    run = start(tmp_path)
    assert run.path == tmp_path / "runs" / run.run_id
    assert run.bus_url == f"sqlite:///{run.path}/bus.db"
    assert run.store_url == f"sqlite:///{run.path}/features.db"
    assert open_run(tmp_path, run.run_id) == run
    assert current_run(tmp_path) == run


def test_asking_for_the_same_again_continues_the_run(tmp_path: Path) -> None:
    assert start(tmp_path) == start(tmp_path)
    assert len(list_runs(tmp_path)) == 1


def test_other_options_on_an_unfinished_run_are_refused_by_name(tmp_path: Path) -> None:
    run = start(tmp_path)
    with pytest.raises(ConfigError, match=rf"run {run.run_id} is unfinished.*week=10, found week=11.*--new-run"):
        start(tmp_path, {**OPTIONS, "week": 11})
    with pytest.raises(ConfigError, match=r"expected data ml, found other"):
        start(tmp_path, data="other")
    assert current_run(tmp_path) == run


def test_a_new_run_is_another_one_even_with_the_same_options(tmp_path: Path) -> None:
    first = start(tmp_path)
    second = start(tmp_path, new_run=True)
    assert first.run_id != second.run_id
    assert first.bus_url != second.bus_url
    assert current_run(tmp_path) == second


def test_a_new_run_can_be_resumed_like_any_other(tmp_path: Path) -> None:
    start(tmp_path)
    second = start(tmp_path, new_run=True)
    assert start(tmp_path) == second


def test_a_complete_run_makes_way_for_other_options(tmp_path: Path) -> None:
    first = start(tmp_path).complete()
    assert open_run(tmp_path, first.run_id).info.completed_at is not None
    second = start(tmp_path, {**OPTIONS, "week": 11})
    assert second.run_id != first.run_id
    assert start(tmp_path, {**OPTIONS, "week": 11}) == second


def test_given_urls_are_kept_with_the_run(tmp_path: Path) -> None:
    def begin(bus_url: str | None) -> RunFolder:
        return start_run(tmp_path, data="ml", data_fingerprint="a", options=OPTIONS, bus_url=bus_url)

    run = begin("memory://here")
    assert current_run(tmp_path) == run
    assert run.bus_url == "memory://here"
    assert begin(None).bus_url == "memory://here"
    with pytest.raises(ConfigError, match="expected its bus memory://here, found memory://there"):
        begin("memory://there")


def test_an_unknown_run_names_the_known_ones(tmp_path: Path) -> None:
    run = start(tmp_path)
    with pytest.raises(ConfigError, match=f"known runs: {run.run_id}"):
        open_run(tmp_path, "feedfeedfeed")
    with pytest.raises(ConfigError, match="expected an id"):
        open_run(tmp_path, "../../etc")


def test_a_broken_description_is_one_line(tmp_path: Path) -> None:
    run = start(tmp_path)
    (run.path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json: expected a run's description"):
        current_run(tmp_path)


def test_nothing_was_ever_run(tmp_path: Path) -> None:
    assert current_run(tmp_path) is None
    assert list_runs(tmp_path) == []


def test_one_replayer_per_run_across_processes_and_free_after_a_kill(tmp_path: Path) -> None:
    run = start(tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from streams.run import open_run\n"
        f"with open_run(Path({str(tmp_path)!r}), {run.run_id!r}).claim('replayer'):\n"
        "    print('claimed', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"claimed\n"
        with pytest.raises(ConfigError, match=f"found process {child.pid}"), run.claim("replayer"):
            pytest.fail("claimed twice")
        child.kill()
        child.wait()
        with run.claim("replayer"):
            pass


def test_a_moved_folder_is_still_a_run(tmp_path: Path) -> None:
    run_id = start(tmp_path / "before").run_id
    (tmp_path / "before").rename(tmp_path / "after")
    run = open_run(tmp_path / "after", run_id)
    assert run.bus_url == f"sqlite:///{tmp_path}/after/runs/{run_id}/bus.db"
