"""Settings of the whole program: defaults < ``streamlens.toml`` < ``STREAMLENS_...`` variables < flags.

A section's variable carries the section's name: ``STREAMLENS_REPLAY_RATE=700`` is ``rate`` under ``[replay]``.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from featurestore.decay import MIN_HALF_LIFE_DAYS
from featurestore.freshness import FreshnessLimits
from streams.errors import ConfigError
from streams.events import DAY_S
from streams.kafka_settings import KafkaSettings, use_kafka_settings
from streams.topics import MAX_PARTITIONS

__all__ = [
    "DEFAULT_FILE",
    "ExperimentSettings",
    "FeatureSettings",
    "FreshnessSettings",
    "KafkaSection",
    "LoopSettings",
    "MonitorsSettings",
    "ReplaySettings",
    "Settings",
    "TrainerSettings",
    "VariantSettings",
    "load_settings",
]

DEFAULT_FILE = "streamlens.toml"
"""The settings file, in the current folder, that is read when it exists."""

_PREFIX = "STREAMLENS_"
_TEST_PREFIX = f"{_PREFIX}TEST_"
"""Of what tests are told, not the program."""
_FILE_VARIABLE = f"{_PREFIX}CONFIG"
_EVENT_VARIABLE = f"{_PREFIX}EVENT_ID"
"""No setting: `retrain watch` tells it to its command, which may be a command of this program."""


def _words(value: object) -> object:
    """A variable holds several values as words, where a file has a list."""
    return value.split() if isinstance(value, str) else value


class ReplaySettings(BaseModel):
    """What is replayed and how fast: ``[replay]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: str | None = None
    """A dataset folder, or ``synthetic``; None is the ml-latest-small of the checkout."""
    start: Annotated[str, BeforeValidator(str)] = "auto"
    """Where week 1 begins: a date, or ``auto``."""
    week: Annotated[int, Field(ge=1)] = 10
    """The first live week; what lies before it is published unpaced."""
    speed: Annotated[float, Field(gt=0)] | Literal["max"] | None = None
    """Event seconds per second, or ``max``; excludes ``rate``."""
    rate: Annotated[float, Field(gt=0)] | None = None
    """Mean events per second; excludes ``speed``."""
    arrival: str = "recorded"
    """How events are spaced: recorded, steady, poisson or bursty."""
    seed: Annotated[int, Field(ge=0)] = 0
    drift: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = ()
    """What is injected, in this order: ``kind@week:strength`` each."""


class FeatureSettings(BaseModel):
    """What the features agent counts, and when it writes: ``[features]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lateness_s: Annotated[int, Field(ge=0)] = 86_400
    """A rating older than the last boundary tick by more than this is late."""
    session_gap_s: Annotated[int, Field(gt=0)] = 1_800
    """A user's session ends where no rating follows for this long."""
    popularity_half_life_days: Annotated[float, Field(ge=MIN_HALF_LIFE_DAYS)] = 365.0
    """After how many days a rating counts half in a movie's decayed popularity."""
    taste_half_life_days: Annotated[float, Field(ge=MIN_HALF_LIFE_DAYS)] = 365.0
    """After how many days a rating counts half in a user's taste."""
    flush_records: Annotated[int, Field(gt=0)] = 100_000
    """Most events in one transaction under backlog; more is faster, and takes more memory."""
    linger_ms: Annotated[float, Field(ge=0, le=1_000)] = 10.0
    """How long a fetch waits for company at low rates: less is fresher, more saves CPU."""
    store_patience_s: Annotated[float, Field(ge=0)] = 30.0
    """How long a worker tries again while its store is away, before it ends with exit code 3."""
    quality_every_s: Annotated[float, Field(gt=0)] = 10.0
    """How often the quality of the features is measured, where anything was applied since."""
    cache: bool = True
    """Whether commands keep answers in the run's folder, to be faster the next time."""


class FreshnessSettings(BaseModel):
    """How old an answer may be before it says that it is stale, view by view: ``[freshness]``.

    Event time, but for ``waiting_ttl_s``; ``docs/features.md`` defines the ages.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    users_ttl_s: Annotated[float, Field(ge=0)] = 86_400.0
    items_ttl_s: Annotated[float, Field(ge=0)] = 86_400.0
    popular_ttl_days: Annotated[float, Field(ge=0)] = 7.0
    embeddings_ttl_days: Annotated[float, Field(ge=0)] = 28.0
    waiting_ttl_s: Annotated[float, Field(ge=0)] = 60.0
    """Wall time that a published record may wait to be applied, for users, items and popular lists alike."""

    @property
    def limits(self) -> FreshnessLimits:
        return FreshnessLimits(
            users_ttl_s=self.users_ttl_s,
            items_ttl_s=self.items_ttl_s,
            popular_ttl_s=self.popular_ttl_days * DAY_S,
            embeddings_ttl_s=self.embeddings_ttl_days * DAY_S,
            waiting_ttl_s=self.waiting_ttl_s,
        )


class LoopSettings(BaseModel):
    """The closed loop: ``[loop]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aligned: bool = True
    """Whether the loop waits for monitors and trainer, so that speed changes no result; else the newest champion
    serves."""
    rating_model: Literal["mf"] | None = "mf"
    """The kind whose predicted stars RMSE is measured by; None for no RMSE."""
    train_delay_days: Annotated[int, Field(ge=1)] = 1
    """Event days from a decision to retrain until its answer takes effect."""
    feedback: Literal["replay", "reactive"] = "replay"
    """Who says what came of a slate: the replayed ratings, or made-up users of a synthetic world (``--role reactive``).
    One for the life of a run."""
    records_at_once: Annotated[int, Field(gt=0)] = 10_000
    """About the most records of a partition in one step; more is faster under backlog, and takes more memory."""

    @field_validator("rating_model", mode="before")
    @classmethod
    def _none(cls, value: object) -> object:
        """TOML and the environment have no null."""
        return None if value == "none" else value


class MonitorsSettings(BaseModel):
    """What is watched, and when a model is trained anew: ``[monitors]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    thresholds: Path | None = None
    """The file of rules and detectors; None is the one that comes along."""
    slates: bool = True
    """Whether a loop makes slates in this run; without one, days close by ``ratings`` alone."""
    model: str | None = None
    """What retrain events ask for where no slate says which champion serves; None is the experiment's champion."""


class VariantSettings(BaseModel):
    """A variant: ``[[experiment.variants]]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Its share of the users, relative to those of the others."""
    model: str
    """``champion``, or a kind of model whose newest version it shows."""


class ExperimentSettings(BaseModel):
    """Which users see which model: ``[experiment]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)] = "champion-against-two"
    """Users are split anew for each name."""
    champion: str = "ease"
    """The kind that is trained and promoted before the first slate."""
    variants: Annotated[tuple[VariantSettings, ...], Field(min_length=1)] = (
        VariantSettings(name="champion", weight=50, model="champion"),
        VariantSettings(name="mf", weight=25, model="mf"),
        VariantSettings(name="popularity", weight=25, model="decayed-popularity"),
    )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that are trained beside the champion's, for variants."""
        return tuple(sorted({variant.model for variant in self.variants} - {"champion", self.champion}))


class TrainerSettings(BaseModel):
    """How retrain events are answered: ``[trainer]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_limit_s: Annotated[float, Field(gt=0)] = 3_600.0
    """A job's process that takes longer is killed, and the job has failed."""
    memory_limit_mib: Annotated[float, Field(gt=0)] = 4_096.0
    """A job's process with more in memory is killed, and the job has failed."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """How often a job is begun whose process, or trainer, dies."""
    niceness: Annotated[int, Field(ge=0, le=19)] = 10
    """How far a job's process stands back behind others: 0 not at all."""


class KafkaSection(BaseModel):
    """Security and compression of a ``kafka://`` bus: ``[kafka]``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    security_protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    sasl_mechanism: str = "PLAIN"
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    username: str | None = None
    password: SecretStr | None = None
    ca_file: str | None = None
    """Certificates to trust (PEM); None is the system's."""
    compression: str = "none"
    """Of what is published: none or lz4."""

    def settings(self) -> KafkaSettings:
        """What the bus takes. Raises ConfigError for values that do not go together."""
        password = None if self.password is None else self.password.get_secret_value()
        return KafkaSettings(**{**self.model_dump(), "password": password})


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_nested_delimiter="_", env_nested_max_split=1, extra="forbid", frozen=True
    )

    bus: str | None = None
    """The bus URL; None is the run's own ``bus.db``."""
    store: str | None = None
    """The feature store URL, of SQLite or PostgreSQL; None is the run's own ``features.db``."""
    var: Path = Path("var")
    """The folder that holds the runs."""
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)] = 4
    """Partitions of the topics a new run creates; fixed for its life."""
    log: Literal["debug", "info", "warning", "error"] = "warning"
    """What is logged on stderr: this and worse."""
    replay: ReplaySettings = ReplaySettings()
    features: FeatureSettings = FeatureSettings()
    freshness: FreshnessSettings = FreshnessSettings()
    loop: LoopSettings = LoopSettings()
    monitors: MonitorsSettings = MonitorsSettings()
    experiment: ExperimentSettings = ExperimentSettings()
    trainer: TrainerSettings = TrainerSettings()
    kafka: KafkaSection = KafkaSection()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, variables, then the file that :func:`load_settings` chose."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=_file())


def load_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings in force; ``flags`` as nested as the settings are, None meaning not given.

    Raises ConfigError that names the file, variable or flag at fault, and the nearest name where one is unknown.
    """
    given = _without_none(flags or {})
    if "replay" in given and len(given["replay"].keys() & {"speed", "rate"}) == 1:
        given["replay"] = {"speed": None, "rate": None, **given["replay"]}  # a flag replaces the file's choice
    _refuse_unknown_variables()
    try:
        settings = Settings(**given)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_file()}: not valid TOML: {error}") from error
    except ValidationError as error:
        raise ConfigError(_explain(error, given)) from error
    if settings.var.exists() and not settings.var.is_dir():
        raise ConfigError(
            f"{_origin(('var',), given)}: var: expected a folder for the runs, found a file: {settings.var}"
        )
    use_kafka_settings(settings.kafka.settings())
    return settings


def _file() -> Path | None:
    chosen = os.environ.get(_FILE_VARIABLE)
    if chosen is None:
        return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None
    if not Path(chosen).is_file():
        raise ConfigError(f"{_FILE_VARIABLE}: expected a settings file, found none at {chosen}")
    return Path(chosen)


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: _without_none(v) if isinstance(v, Mapping) else v for k, v in values.items() if v is not None}
    return {k: v for k, v in kept.items() if v != {}}


def _sections() -> dict[str, type[BaseModel]]:
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def _refuse_unknown_variables() -> None:
    """pydantic-settings ignores a variable that fits no field; a typo deserves an answer."""
    known = {_FILE_VARIABLE, _EVENT_VARIABLE}
    for name in Settings.model_fields:
        section = _sections().get(name)
        fields = [f"{name}_{field}" for field in section.model_fields] if section else [name]
        known.update(f"{_PREFIX}{field.upper()}" for field in fields)
    for variable in sorted(os.environ):
        if variable.upper().startswith(_TEST_PREFIX):
            continue
        if variable.upper().startswith(_PREFIX) and variable.upper() not in known:
            raise ConfigError(f"{variable}: not a setting{_nearest(variable.upper(), sorted(known))}")


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"


def _explain(error: ValidationError, flags: Mapping[str, Any]) -> str:
    """The first setting at fault on one line, with the place it comes from."""
    problems = error.errors(include_url=False)
    path = _setting_path(problems[0]["loc"])
    name = ".".join(path)
    if problems[0]["type"] == "extra_forbidden":
        section = _sections().get(path[0]) if len(path) > 1 else None
        known = [".".join((*path[:-1], field)) for field in (section or Settings).model_fields]
        return f"{_origin(path, flags)}: {name} is not a setting{_nearest(name, known)}"
    reasons = [p["msg"][0].lower() + p["msg"][1:] for p in problems if _setting_path(p["loc"]) == path]
    found = "" if path[-1] == "password" else f"; found {problems[0]['input']!r}"
    return f"{_origin(path, flags)}: {name}: {' or '.join(reasons)}{found}"


def _setting_path(loc: tuple[int | str, ...]) -> tuple[str, ...]:
    """The names of section and field; pydantic appends the member of a union that it tried."""
    depth = 2 if str(loc[0]) in _sections() else 1
    return tuple(str(part) for part in loc[:depth])


def _origin(path: tuple[str, ...], flags: Mapping[str, Any]) -> str:
    value: Any = flags
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    if value is not None:
        return f"--{path[-1].replace('_', '-')}"
    variable = f"{_PREFIX}{'_'.join(path)}".upper()
    given = [name for name in os.environ if name.upper() == variable]
    return given[0] if given else str(_file() or "settings")
