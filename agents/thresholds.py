"""When a model is looked at and when it is trained anew: rules, detectors and assumptions, read from one TOML file.

``thresholds.toml`` beside this module is the default and says what each entry means. A key that is not known is
refused, since a misspelt threshold would never fire.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeGuard

import msgspec

from streams.errors import ConfigError

__all__ = [
    "MEASURES",
    "SIGNALS",
    "Assumptions",
    "DetectorRule",
    "Gates",
    "Rule",
    "Severity",
    "Thresholds",
    "default_thresholds",
    "load_thresholds",
    "parse_thresholds",
]

Severity = Literal["critical", "schedule", "investigate"]

MEASURES = (
    "ctr",
    "ratings_per_session",
    "revenue_per_user",
    "rmse",
    "precision",
    "ndcg",
    "volume",
    "new_user_share",
    "new_item_share",
    "popularity_kl",
    "rating_kl",
)
"""What rules are about."""

SIGNALS = ("rating", "taste", "abs_error", "popularity", "new_user", "volume", "ctr", "session_length")
"""What detectors are fed with: :mod:`agents.detectors`."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold. Exactly one of ``fall``, ``rise``, ``change`` (parts of the baseline) and ``above`` is set."""

    severity: Severity
    window_days: int
    min_sample: int
    for_days: int = 1
    fall: float | None = None
    rise: float | None = None
    change: float | None = None
    above: float | None = None

    def __post_init__(self) -> None:
        limits = [limit for limit in (self.fall, self.rise, self.change, self.above) if limit is not None]
        if len(limits) != 1 or limits[0] <= 0:
            raise ValueError(f"expected exactly one of fall, rise, change and above, above 0, found {limits or 'none'}")
        if min(self.window_days, self.min_sample, self.for_days) < 1:
            raise ValueError("expected window_days, min_sample and for_days of 1 or more")


class DetectorRule(msgspec.Struct, frozen=True, kw_only=True):
    """A River detector on one signal.

    every: units of the signal (users of a day, sessions, days) that make one observation, their mean. warm_up:
    observations that tell the level and the spread. delta: for "page-hinkley" the drift that is allowed, in standard
    deviations; for "adwin" the significance. threshold, mode: of "page-hinkley": standard deviations, and in which
    direction a change counts.
    """

    signal: str
    kind: Literal["page-hinkley", "adwin"] = "page-hinkley"
    every: int = 1
    warm_up: int = 40
    delta: float = 0.25
    threshold: float = 20.0
    mode: Literal["both", "up", "down"] = "both"

    def __post_init__(self) -> None:
        if self.signal not in SIGNALS:
            raise ValueError(f"signal: expected one of {', '.join(SIGNALS)}, found {self.signal!r}")
        if self.every < 1 or self.warm_up < 10 or self.delta <= 0 or self.threshold <= 0:
            raise ValueError("expected every >= 1, warm_up >= 10, delta and threshold above 0")


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What nobody measured: dollars."""

    dollars_per_click: float
    dollars_per_session: float


class Gates(msgspec.Struct, frozen=True, kw_only=True):
    """What a newly trained model has to show before it serves, and after.

    min_slates: that champion and challenger are compared on. shadow_min_slates: on which the old champion is scored
    beside the new one. confidence, n_bootstrap: of the paired interval over users.
    """

    min_slates: int = 2_500
    shadow_min_slates: int = 2_500
    confidence: float = 0.95
    n_bootstrap: int = 1_000

    def __post_init__(self) -> None:
        if min(self.min_slates, self.shadow_min_slates) < 1 or self.n_bootstrap < 100:
            raise ValueError("expected min_slates and shadow_min_slates of 1 or more, n_bootstrap of 100 or more")
        if not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"confidence: expected 0.5 to less than 1, found {self.confidence}")


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """All that decides, by the name of its measure or detector."""

    cooldown_days: int
    schedule_at_least: int
    baseline_days: int
    longest_days: int
    rules: dict[str, Rule]
    assumptions: Assumptions
    gates: Gates = Gates()
    baselines: dict[str, float] = {}
    detectors: dict[str, DetectorRule] = {}


@cache
def default_thresholds() -> Thresholds:
    """Those that come with StreamLens."""
    return parse_thresholds((files("agents") / "thresholds.toml").read_text(), "thresholds.toml")


def load_thresholds(path: Path) -> Thresholds:
    """Those of a file. Raises ConfigError where it is missing, no TOML, or says what is not understood."""
    try:
        return parse_thresholds(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"thresholds: expected a TOML file at {path}, found {error}") from error


def parse_thresholds(text: str, where: str) -> Thresholds:
    """``where``: what errors call the text. Raises ConfigError.

    >>> default_thresholds().rules["ctr"].fall
    0.15
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: expected TOML, found {error}") from error
    _refuse_unknown(table, Thresholds, where)
    for section in ("rules", "baselines"):
        _refuse_keys(table.get(section, {}), MEASURES, f"{where} [{section}]")
    try:
        return msgspec.convert(table, Thresholds)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error


def _refuse_unknown(table: Any, struct: type[msgspec.Struct], where: str) -> None:
    if not isinstance(table, Mapping):
        return  # its type is refused when it is converted
    _refuse_keys(table, struct.__struct_fields__, where)
    for field in msgspec.structs.fields(struct):
        held, of_dict = table.get(field.name), getattr(field.type, "__args__", (None,))[-1]
        if _is_struct(field.type):
            _refuse_unknown(held, field.type, f"{where} [{field.name}]")
        elif _is_struct(of_dict) and isinstance(held, Mapping):
            for name, inner in held.items():
                _refuse_unknown(inner, of_dict, f"{where} [{field.name}.{name}]")


def _is_struct(kind: Any) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _refuse_keys(found: Iterable[str], known: Iterable[str], where: str) -> None:
    for key in found:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {nearest[0]}?" if nearest else ""
            raise ConfigError(f"{where}: expected keys among {', '.join(known)}, found {key!r}{hint}")
