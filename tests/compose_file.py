"""``docker-compose.yml`` as an engine reads it, its variables at their defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

__all__ = ["ROOT", "services", "settings_of"]

ROOT = Path(__file__).parent.parent
_VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


def services() -> dict[str, dict[str, Any]]:
    text = _VARIABLE.sub(lambda found: found["default"], (ROOT / "docker-compose.yml").read_text())
    assert "${" not in text, "a variable without a default: `docker compose up` alone would not start"
    loaded: dict[str, dict[str, Any]] = YAML(typ="safe").load(text)["services"]
    return loaded


def settings_of(service: dict[str, Any]) -> dict[str, str]:
    """The variables of the program that a service sets."""
    return {name: str(value) for name, value in service["environment"].items()}
