"""docker-compose.yml: pinned, of this machine only, each service watched, and with commands that the program has.

Its schema is checked by `make check`; its commands are run by tests/streamlens/test_containers.py, without an engine.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer.main

from streamlens.cli.app import app
from streamlens.settings import Settings, load_settings
from streams.testing import REDPANDA_IMAGE
from tests.compose_file import ROOT, services, settings_of

SERVICES = services()
OWN_IMAGE = "streamlens:local"
OWN = [name for name, service in SERVICES.items() if service["image"] == OWN_IMAGE]
each = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def test_it_has_what_it_says() -> None:
    assert set(SERVICES) == {"redpanda", "console", "postgres", "replayer", "worker"}
    assert OWN == ["replayer", "worker"]
    assert [name for name, service in SERVICES.items() if "build" in service] == ["replayer"]


@each
def test_images_are_pinned(service: dict[str, Any]) -> None:
    image = service["image"]
    assert image == OWN_IMAGE or re.search(r":v?\d+\.\d+(\.\d+)?(-alpine)?$", image)


def test_the_broker_is_the_one_of_the_tests() -> None:
    assert SERVICES["redpanda"]["image"] == REDPANDA_IMAGE


@each
def test_ports_are_of_this_machine_only(service: dict[str, Any]) -> None:
    for port in service.get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@each
def test_each_is_watched_started_again_and_has_no_privileges(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"].split(":")[0] in ("unless-stopped", "on-failure")
    assert not {"privileged", "network_mode", "pid", "cap_add", "devices"} & service.keys()


@each
def test_what_is_waited_for_is_there_and_healthy(service: dict[str, Any]) -> None:
    for name, wanted in service.get("depends_on", {}).items():
        assert wanted == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[name]


@each
def test_what_is_kept_is_in_named_volumes_and_nothing_else_is_written(service: dict[str, Any]) -> None:
    for volume in service.get("volumes", []):
        assert volume == "./data:/data:ro" or re.fullmatch(r"(redpanda|postgres|replayer):/var/lib/[\w/]+", volume)


def test_workers_may_be_any_number() -> None:
    worker = SERVICES["worker"]
    assert not {"container_name", "ports", "hostname"} & worker.keys()
    assert all(volume.endswith(":ro") for volume in worker["volumes"])
    assert worker["deploy"]["replicas"] > 1


@pytest.mark.parametrize("name", OWN)
def test_own_services_drop_every_capability_and_have_time_to_drain(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 30


@pytest.mark.parametrize("name", OWN)
def test_commands_are_those_of_the_program(name: str) -> None:
    command, *options = SERVICES[name]["command"]
    found = typer.main.get_group(app).commands[command]  # type: ignore[attr-defined]
    found.make_context(command, options)  # raises for an option that is not there


@pytest.mark.parametrize("name", OWN)
def test_variables_are_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in settings_of(SERVICES[name]).items():
        monkeypatch.setenv(variable, value)
    assert isinstance(load_settings(), Settings)  # raises for a variable that is none


def test_replayer_and_worker_are_told_of_the_same_run() -> None:
    replayer, worker = (settings_of(SERVICES[name]) for name in OWN)
    assert worker.items() <= replayer.items()


def test_store_and_database_are_the_same() -> None:
    made, worker = SERVICES["postgres"]["environment"], SERVICES["worker"]["environment"]
    server = f"postgresql://{made['POSTGRES_USER']}@postgres:5432/{made['POSTGRES_DB']}"
    assert worker["STREAMLENS_STORE"].split("?")[0] == server
    assert worker["PGPASSWORD"] == made["POSTGRES_PASSWORD"]


def test_run_and_store_have_one_name_for_all_and_none_of_their_own() -> None:
    """Else each folder would add its run's id, and workers have none."""
    worker = settings_of(SERVICES["worker"])
    assert worker["STREAMLENS_BUS"].endswith("/compose")
    assert worker["STREAMLENS_STORE"].endswith("?schema=compose")


def test_the_pages_name_addresses_that_are_published() -> None:
    page = (ROOT / "docs" / "kafka.md").read_text()
    published = {port.rsplit(":", 1)[0] for service in SERVICES.values() for port in service.get("ports", [])}
    assert published == set(re.findall(r"127\.0\.0\.1:\d+", page))
