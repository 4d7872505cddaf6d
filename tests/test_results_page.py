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
    page = "\n".join(script.page(experiments, p99_ms=3.25))
    (ctr, low, high) = next(o for o in experiments["prequential"]["outcomes"] if o["model"] == "ease")["measures"][
        "ctr"
    ]
    assert re.search(rf"\| ease \| \**{ctr:.4f}\** \({low:.4f} to {high:.4f}\)", page)
    assert "| ctr less that of | popularity |" in page
    assert "p99 3.2 ms" in page
    assert "| RMSE < 0.85 | nan (no model)" in page  # none here predicts stars
    assert "refitted every 700 event days" in page
    assert "| oracle |" in page


def test_what_was_measured_is_not_measured_again(script: ModuleType) -> None:
    folder = script.FOLDER / "random"
    folder.mkdir(parents=True)
    (folder / "experiment.json").write_text(json.dumps({"outcomes": []}))
    assert script.measure("random") == {"outcomes": []}
