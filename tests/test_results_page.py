"""docs/write_results.py: a page whose every figure is in the folders that it reads."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

WORLD = "synthetic:users=60,ratings=3000,movies=800"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "write_results", Path(__file__).parent.parent / "docs/write_results.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(module, "COMPETITORS", ("ease",))
    experiments = {
        "prequential": ("--protocol", "prequential", "--refit-days", "700", "--data", WORLD),
        "random": ("--seeds", "0,1", "--data", WORLD),
    }
    monkeypatch.setattr(module, "EXPERIMENTS", experiments)
    return module


def test_the_page_is_what_the_folders_hold(script: ModuleType) -> None:
    experiments = {name: script.measure(name) for name in script.EXPERIMENTS}
    cost = script.costs("ease", WORLD)
    page = "\n".join(script.page(experiments, cost, [], p99_ms=3.25))
    (ctr, low, high) = next(o for o in experiments["prequential"]["outcomes"] if o["model"] == "ease")["measures"][
        "ctr"
    ]
    assert re.search(rf"\| ease \| \**{ctr:.4f}\** \({low:.4f} to {high:.4f}\)", page)
    assert "| ctr less that of | popularity |" in page
    assert "p99 3.2 ms" in page
    assert f"| 1 | {cost['lists'][-1]['coverage']:.1%} | {cost['lists'][-1]['ndcg']:.4f} |" in page
    assert f"| p95 < 50 ms | {cost['p95_ms']:.1f} ms (ease)" in page
    assert script.costs("ease", WORLD) == cost  # kept
    assert "| RMSE < 0.85 | nan (no model)" in page  # none here predicts stars
    assert "No competitor was measured." in page  # EASE is a yardstick
    assert "refitted every 700 event days" in page
    assert "| oracle |" in page


def test_what_was_measured_is_not_measured_again(script: ModuleType) -> None:
    folder = script.FOLDER / "random"
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps({"outcomes": []}))
    assert script.measure("random") == {"outcomes": []}


def test_a_choice_goes_on_where_it_was_left(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "LATER", ("2016-01-01",))
    monkeypatch.setattr(script, "TRIED", (("popularity", {}),))
    first = script.choice(WORLD)
    monkeypatch.setattr(script, "TRIED", (("popularity", {}), ("ease", {"recency_half_life": 2.0})))
    rows = script.choice(WORLD)
    assert rows[:1] == first
    assert [row["model"] for row in rows] == ["popularity", "ease"]
    assert f"| ease | recency_half_life 2 | {rows[1]['ctr'][0]:.4f}" in "\n".join(script.choice_table(rows))


def test_the_verdict_tells_below_from_above(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "COMPETITORS", ("mf", "vae"))
    ctr = {"mf": 0.03, "vae": 0.04, "ease": 0.05, "decayed-popularity": 0.02}
    outcomes = [{"model": model, "measures": {"ctr": [value, 0.0, 1.0]}} for model, value in ctr.items()]
    said = script.verdict({"outcomes": outcomes}, "ctr")
    assert said == "The best of the four by ctr, vae, is 20.0% below EASE and 100.0% above decayed popularity."
