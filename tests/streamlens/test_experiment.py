"""``streamlens experiment``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from streamlens.cli.app import run

Capture = pytest.CaptureFixture[str]
WORLD = "synthetic:users=60,ratings=3000,movies=800,seed=5"


def experiment(*arguments: str) -> int:
    return run(["experiment", "--data", WORLD, "--quiet", *arguments])


def test_prints_a_table_with_yardsticks_and_says_what_it_shows(workplace: Path, capsys: Capture) -> None:
    assert experiment("--models", "ease", "--set", "ease.l2=50") == 0
    out = capsys.readouterr().out
    header, *rows = out.splitlines()
    assert header.split()[:3] == ["model", "ndcg@10", "precision@10"]
    assert [row.split()[0] for row in rows[:4]] == ["ease", "popularity", "decayed-popularity", "oracle"]
    assert "95 % interval over users" in out
    (folder,) = (workplace / "var" / "experiments").iterdir()
    assert str(folder.relative_to(workplace)) in out
    chosen = json.loads((folder / "experiment.json").read_text())["outcomes"][0]["hyperparameters"]
    assert chosen["l2"] == 50


def test_the_live_part_begins_where_it_is_told_to(capsys: Capture) -> None:
    asked = ("--models", "popularity", "--protocol", "prequential", "--refit-days", "900", "--json")
    slates = []
    for since in ((), ("--live-from", "2016-07-01")):
        assert experiment(*asked, *since) == 0
        slates.append(json.loads(capsys.readouterr().out)["outcomes"][0]["n_lists"])
    assert 0 < slates[1] < slates[0]


def test_programs_get_every_measure(capsys: Capture) -> None:
    assert experiment("--models", "popularity", "--protocol", "prequential", "--refit-days", "900", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["experiment"]["refit_days"] == 900
    assert {"ctr", "ndcg@10", "coverage@10"} <= set(found["outcomes"][0]["measures"])
    assert experiment("--models", "popularity", "--protocol", "temporal", "--csv") == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["model"] for row in rows} == {"popularity", "decayed-popularity", "ease", "oracle"}
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in rows if row["value"])


def test_a_failed_model_is_told_and_the_exit_code_says_so(capsys: Capture) -> None:
    assert experiment("--models", "ease", "--set", "ease.l2=1e-300", "--set", "ease.top_weights=5") == 1
    out = capsys.readouterr().out
    assert "ease (seed 0) failed: ease: the weights are not determined" in out
    assert "\npopularity " in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "nope"], "found 'nope'"),
        (["--models", "ease", "--set", "l2=5"], "MODEL.NAME=VALUE"),
        (["--models", "ease", "--set", "ease.nope=5"], "nope"),
        (["--models", "ease", "--set", "vae.width=5"], "models that are compared, found vae's"),
        (["--models", "ease", "--seeds", "a"], "numbers such as"),
        (["--models", "ease", "--json", "--csv"], "one of them"),
        (["--models", "ease", "--data", "nowhere"], "MovieLens folder"),
    ],
)
def test_a_wrong_option_is_one_line(capsys: Capture, arguments: list[str], said: str) -> None:
    assert experiment(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1
