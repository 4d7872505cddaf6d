"""The client on docs/retrain.md does what the page says, tested as docs/testing.md tells to."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from streams import Bus
from streams.events import RETRAIN
from streams.retrain import RetrainRequested
from streams.testing import publish_retrain

PAGE = (Path(__file__).parent.parent.parent / "docs" / "retrain.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_event_shown_is_one() -> None:
    shown = block("json").strip().encode()
    assert msgspec.json.encode(msgspec.json.decode(shown, type=RetrainRequested)) == shown


@pytest.mark.streamlens_bus("sqlite", "kafka")
async def test_the_client_gets_each_event_once_over_two_runs(
    streamlens_bus: Bus, streamlens_bus_url: str, tmp_path: Path
) -> None:
    client = tmp_path / "client.py"
    client.write_text(block("python").replace("timeout_s=5", "timeout_s=2"))
    printed = []
    for number in (1, 2):
        await publish_retrain(streamlens_bus, "ease", id=str(number))
        async with streamlens_bus.producer() as producer:
            await producer.send(RETRAIN, b"\xff no event", partition=0)
        command = [sys.executable, str(client), streamlens_bus_url]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        printed += done.stdout.splitlines()
    assert sum(bool(line.strip()) for line in block("python").splitlines()) == 16
    assert printed == ["1 ease CTR -17 % for 7 days", "2 ease CTR -17 % for 7 days"]
