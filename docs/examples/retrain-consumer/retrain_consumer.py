"""Run a command for each retrain event: python retrain_consumer.py BUS_URL DONE_FILE COMMAND [ARGUMENT ...]

The command gets the event on stdin. The ids of events that are done are kept in DONE_FILE, a line each, since an event
may be delivered again. A crash between command and line runs the command again, so it must bear that.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from streams import Bus, open_bus
from streams.events import RETRAIN
from streams.retrain import RetrainRequested


async def consume(bus: Bus, done_file: Path, command: list[str]) -> None:
    done = set(done_file.read_text().splitlines()) if done_file.exists() else set()
    async with await bus.consumer(RETRAIN, group="retrain-consumer") as consumer:
        while True:
            for batch in await consumer.fetch():
                for value in batch.values:
                    try:
                        event = msgspec.json.decode(value, type=RetrainRequested)
                    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                        print(f"no retrain event: {error}", file=sys.stderr)
                        continue
                    if event.id not in done:
                        await run(command, value)
                        with done_file.open("a") as lines:
                            lines.write(f"{event.id}\n")
                        done.add(event.id)
                await consumer.commit()  # after the work: a crash before it has the events delivered again


async def run(command: list[str], value: bytes) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    await process.communicate(value)
    if process.returncode:
        raise SystemExit(f"{command[0]}: exit code {process.returncode}; mend it and start again, the event waits")


async def main(url: str, done_file: str, *command: str) -> None:
    async with open_bus(url) as bus:
        await consume(bus, Path(done_file), list(command))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
