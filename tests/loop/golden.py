"""The retrain events of the small world, as they are expected: ``python -m tests.loop.golden`` writes the file anew.

Legitimate where a change was meant to change what is decided; the change of the file is then part of what is reviewed.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import msgspec

from tests.loop.together import Results, together

__all__ = ["GOLDEN", "lines_of"]

GOLDEN = Path(__file__).with_name("golden_retrains.jsonl")
_VARIATION = "at-once"


def lines_of(results: Results) -> list[str]:
    """A line of JSON for each event: numbers of the evidence have six digits, and offsets stay out."""
    found = []
    for line in results.topics["retrain/0"]:
        event = msgspec.json.decode(line)
        told = {name: event[name] for name in ("id", "time", "subject")}
        told |= {name: event["data"][name] for name in ("severity", "reason")}
        evidence = {name: value for name, value in event["data"]["evidence"].items() if name != "offsets"}
        found.append(msgspec.json.encode(told | {"evidence": _rounded(evidence)}).decode())
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        results = together(Path(folder), _VARIATION, timeout_s=300)[_VARIATION]
    GOLDEN.write_text("\n".join([*lines_of(results), ""]))


if __name__ == "__main__":
    main()
