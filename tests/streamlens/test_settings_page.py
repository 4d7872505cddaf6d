"""docs/settings.md: every setting, with its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from streamlens.settings import Settings
from streams.replay_options import DEFAULT_SPEED

PAGE = (Path(__file__).parents[2] / "docs" / "settings.md").read_text()
SHOWN = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \|", PAGE, re.MULTILINE))
IN_WORDS = ("experiment.variants",)


def defaults(section: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from defaults(field.annotation, f"{name}.")
        else:
            yield f"{prefix}{name}", field.default


def test_it_has_every_setting() -> None:
    assert list(SHOWN) == [name for name, _ in defaults()]


@pytest.mark.parametrize(("name", "default"), [one for one in defaults() if one[0] not in IN_WORDS])
def test_a_default_is_what_it_says(name: str, default: object) -> None:
    if name == "replay.speed":
        default = DEFAULT_SPEED
    match default:
        case None | ():
            assert SHOWN[name]  # what there is then, in words
        case bool():
            assert SHOWN[name] == f"`{str(default).lower()}`"
        case int() | float():
            assert SHOWN[name] == f"{default:,.10g}"
        case _:
            assert SHOWN[name] == f"`{default}`"
