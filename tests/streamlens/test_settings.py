from __future__ import annotations

from pathlib import Path

import pytest

from streamlens.settings import load_settings
from streams.errors import ConfigError
from streams.kafka_settings import kafka_settings, use_kafka_settings


def test_each_source_overrides_the_one_before(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().replay.week == 10

    (workplace / "streamlens.toml").write_text("[replay]\nweek = 11\nseed = 5\n")
    assert load_settings().replay.week == 11

    monkeypatch.setenv("STREAMLENS_REPLAY_WEEK", "12")
    assert load_settings().replay.week == 12

    settings = load_settings({"replay": {"week": 13}})
    assert (settings.replay.week, settings.replay.seed) == (13, 5)


def test_a_flag_that_was_not_given_overrides_nothing(workplace: Path) -> None:
    (workplace / "streamlens.toml").write_text('bus = "sqlite:///here/bus.db"\n[replay]\nweek = 11\n')

    settings = load_settings({"bus": None, "replay": {"week": None, "start": None}})

    assert (settings.bus, settings.replay.week) == ("sqlite:///here/bus.db", 11)


@pytest.mark.parametrize(
    ("variable", "value", "section", "field", "expected"),
    [
        ("STREAMLENS_PARTITIONS", "8", None, "partitions", 8),
        ("STREAMLENS_VAR", "elsewhere", None, "var", Path("elsewhere")),
        ("STREAMLENS_FEATURES_SESSION_GAP_S", "60", "features", "session_gap_s", 60),
        ("STREAMLENS_FEATURES_LINGER_MS", "0", "features", "linger_ms", 0.0),
        ("STREAMLENS_REPLAY_SPEED", "max", "replay", "speed", "max"),
        ("STREAMLENS_REPLAY_SPEED", "86400", "replay", "speed", 86_400.0),
    ],
)
def test_a_variable_sets_its_field(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, section: str | None, field: str, expected: object
) -> None:
    monkeypatch.setenv(variable, value)

    settings = load_settings()

    assert getattr(getattr(settings, section) if section else settings, field) == expected


def test_a_date_may_be_written_as_toml_writes_dates(workplace: Path) -> None:
    (workplace / "streamlens.toml").write_text("[replay]\nstart = 2010-01-01\n")

    assert load_settings().replay.start == "2010-01-01"


def test_a_speed_on_the_command_line_replaces_a_rate_in_the_file(workplace: Path) -> None:
    (workplace / "streamlens.toml").write_text("[replay]\nrate = 700\n")

    settings = load_settings({"replay": {"speed": "max"}})

    assert (settings.replay.speed, settings.replay.rate) == ("max", None)


def test_another_file_may_be_named(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "streamlens.toml").write_text("partitions = 2\n")
    (workplace / "other.toml").write_text("partitions = 3\n")
    monkeypatch.setenv("STREAMLENS_CONFIG", "other.toml")

    assert load_settings().partitions == 3


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[replay]\nsped = 3\n", "streamlens.toml: replay.sped is not a setting; did you mean replay.speed?"),
        ("partition = 3\n", "streamlens.toml: partition is not a setting; did you mean partitions?"),
        ("[relay]\nspeed = 3\n", "streamlens.toml: relay is not a setting; did you mean replay?"),
        ("[replay]\nweek = 0\n", "streamlens.toml: replay.week: input should be greater than or equal to 1; found 0"),
        ("[replay]\nspeed = 'fast'\n", "found 'fast'"),
        ("replay = 3\n", "streamlens.toml: replay: "),
        ("[replay\n", "streamlens.toml: not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(workplace: Path, content: str, complaint: str) -> None:
    (workplace / "streamlens.toml").write_text(content)

    with pytest.raises(ConfigError) as caught:
        load_settings()

    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_REPLAY_SPED", "3")

    with pytest.raises(ConfigError, match=r"REPLAY_SPED: not a setting; did you mean STREAMLENS_REPLAY_SPEED\?"):
        load_settings()


def test_a_wrong_variable_is_named(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "streamlens.toml").write_text("[replay]\nweek = 11\n")
    monkeypatch.setenv("STREAMLENS_REPLAY_WEEK", "ten")

    with pytest.raises(ConfigError, match=r"^STREAMLENS_REPLAY_WEEK: .*found 'ten'"):
        load_settings()


def test_a_wrong_flag_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_REPLAY_RATE", "700")

    with pytest.raises(ConfigError, match=r"^--rate: .*found -1"):
        load_settings({"replay": {"rate": -1.0}})


def test_a_named_file_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLENS_CONFIG", "nowhere.toml")

    with pytest.raises(ConfigError, match=r"expected a settings file, found none at nowhere\.toml"):
        load_settings()


def test_a_kafka_password_comes_from_file_or_variable_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streamlens.toml").write_text(
        '[kafka]\nsecurity_protocol = "SASL_SSL"\nusername = "admin"\npassword = "hunter2"\n'
    )
    try:
        settings = load_settings()
        assert "hunter2" not in repr(settings)
        assert kafka_settings().password == "hunter2"
        monkeypatch.setenv("STREAMLENS_KAFKA_PASSWORD", "hunter3")
        load_settings()
        assert kafka_settings().password == "hunter3"
    finally:
        use_kafka_settings(None)


def test_a_kafka_password_of_another_type_is_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streamlens.toml").write_text("[kafka]\npassword = 31337\n")
    with pytest.raises(ConfigError, match=r"kafka\.password") as raised:
        load_settings()
    assert "31337" not in str(raised.value)
