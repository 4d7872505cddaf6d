"""docs/cli.md: it has every command, option and topic, and shows what commands print."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer.main

from streamlens.cli.app import app, run
from streams.events import TOPICS

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
NOT_RUN = ("experiment", "train", "models", "deadletter replay --exec")  # they train for minutes, or need jq
VARIES = (  # what differs from run to run, and what stands in its place
    (r"(sqlite:///)/\S+/var/|/\S+/var\b", r"\1VAR/"),
    (r"\b20(2[5-9]|[3-9]\d)-\d\d-\d\d \d\d:\d\d:\d\d", "TODAY"),
    (r"\b\d{13}\b", "TODAY_MS"),
    (r"\b[\d,.]+ s\b", "SECONDS"),
    (r"\b[\d,]+/s", "SPEED"),
    (r"^(metrics +0 +0) .*", r"\1 SOME"),  # one a second
    (r"[\d,]+ records$", "SOME records"),  # those of metrics among them
    (r"^snapshot [0-9a-f]{12}", "snapshot ID"),  # of a log with an identity of its own
    (r"(\.parquet +[\d,]+) +[\d,]+", r"\1 BYTES"),
    (r"^ok +(python|sqlite|extras|disk) .*", r"ok \1 OF THIS MACHINE"),
    (r" +", " "),
)


def leaves(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Each command that does something, by its whole name: groups too that do something by themselves."""
    nested = getattr(command, "commands", {})
    if name and (not nested or any(p.param_type_name == "option" for p in command.params)):
        yield name, command
    for child, one in nested.items():
        yield from leaves(one, f"{name} {child}".strip())


COMMANDS = dict(leaves(typer.main.get_command(app)))


def row(name: str, command: Any) -> str:
    """What the page's table holds of a command."""
    arguments = [p.metavar or p.name for p in command.params if p.param_type_name == "argument"]
    names = [p.opts[0] for p in command.params if p.param_type_name == "option" and not p.hidden]
    synopsis = " ".join([name, *(argument.strip("{}").upper() for argument in arguments)])
    return f"| `{synopsis}` | {', '.join(f'`{option}`' for option in names)} |"


def table(section: str) -> list[str]:
    """The rows of the one table of a section, without its head."""
    (found,) = re.findall(rf"^## {section}\n.*?^\|---[^\n]*\n((?:\|[^\n]*\n)+)", PAGE, re.MULTILINE | re.DOTALL)
    return str(found).splitlines()


def test_it_has_every_option_of_every_command() -> None:
    assert sorted(table("All options")) == sorted(row(name, command) for name, command in COMMANDS.items())


def test_it_says_which_listings_come_as_csv() -> None:
    (shown,) = re.findall(r"Listings also take `--csv`: (.*?)\. CSV has", PAGE, re.DOTALL)
    listings = {name for name, command in COMMANDS.items() if any("--csv" in p.opts for p in command.params)}
    assert set(re.findall(r"`([^`]+)`", shown)) == {name.replace("models list", "models") for name in listings}


def test_it_has_every_topic() -> None:
    assert sorted(re.match(r"\| `(\w+)`", line)[1] for line in table("topics")) == sorted(TOPICS)  # type: ignore[index]


def examples() -> Iterator[tuple[str, list[str]]]:
    """Each command that the page shows, with the lines that it prints."""
    for block in re.findall(r"^```\n(\$ streamlens .*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for one in re.split(r"^\$ streamlens ", block, flags=re.MULTILINE)[1:]:
            command, *lines = one.splitlines()
            yield command, lines


def alike(lines: list[str]) -> list[str]:
    for pattern, kept in VARIES:
        lines = [re.sub(pattern, kept, line).strip() for line in lines]
    return lines


def printed(command: str) -> list[str]:
    """What a command line prints, stdout and stderr as they come; ``| head -N`` and ``| tail -N`` are known."""
    line, _, cut = command.partition(" | ")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with redirect_stdout(terminal), redirect_stderr(terminal):
        run(shlex.split(line))
    terminal.seek(0)
    lines = terminal.read().splitlines()
    match cut.replace("-", "").split():
        case ["head", count]:
            return lines[: int(count)]
        case ["tail", count]:
            return lines[-int(count) :]
    assert not cut
    return lines


@pytest.mark.slow
def test_commands_print_what_it_shows() -> None:
    (first,) = re.findall(r"^```sh\n(streamlens replay.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    begun = {line: printed(line) for line in first.replace("streamlens ", "").splitlines()}
    for command, lines in examples():
        if not command.startswith(NOT_RUN):
            assert alike(begun.get(command) or printed(command)) == alike(lines), command
