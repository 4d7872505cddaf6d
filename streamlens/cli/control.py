"""``streamlens control``: pause, resume or stop the running replay from another terminal, or change its speed."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated

import typer

from streamlens.cli import options

__all__ = ["app"]

app = typer.Typer(help="Pause, resume or stop the running replay, or change its speed.")


@app.command()
def pause(run: options.RunId = None, bus: options.Bus = None) -> None:
    """Stop the clock of the replay; event time stands still until `resume`."""
    _ask(run, bus, "pause")


@app.command()
def resume(run: options.RunId = None, bus: options.Bus = None) -> None:
    """Go on from where the replay was paused, without a jump."""
    _ask(run, bus, "resume")


@app.command()
def stop(run: options.RunId = None, bus: options.Bus = None) -> None:
    """End the replay as Ctrl-C does: another `streamlens replay` goes on with the run."""
    _ask(run, bus, "stop")


@app.command()
def speed(
    value: Annotated[str, typer.Argument(help="In the unit the run began with (--speed or --rate), or max.")],
    run: options.RunId = None,
    bus: options.Bus = None,
) -> None:
    """Another speed for the live part, from now on."""
    from streams.replay_options import parse_speed

    wanted = parse_speed(value)
    _ask(run, bus, "speed", None if wanted == math.inf else wanted)


def _ask(run: str | None, bus: str | None, action: str, speed: float | None = None) -> None:
    from streamlens.presence import holder
    from streams.control import ask
    from streams.errors import ConfigError

    target = options.find_target(run, bus=bus)
    # A request to nobody would be lost: a replay hears only what is asked while it runs.
    if target.folder is None or holder(target.folder, "replayer") is None:
        raise ConfigError(
            f"run {target.run_id or 'to control'}: expected a running replay, found none; start `streamlens replay`"
        )

    async def send() -> None:
        async with target.open_bus() as opened:
            await ask(opened, target.run_id, action, speed)

    asyncio.run(send())
    wish = f"go at speed {speed or 'max'}" if action == "speed" else action
    typer.echo(f"run {target.run_id}: asked the replay to {wish}")
