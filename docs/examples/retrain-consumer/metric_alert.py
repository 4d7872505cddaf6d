"""Tell when a metric is above its limit: python metric_alert.py BUS_URL NAME=LIMIT ...

After an alert that metric is quiet for COOLDOWN_S of wall time.
"""

import asyncio
import sys
from collections.abc import Callable

import msgspec

from streams import Bus, Metric, open_bus
from streams.clock import Clock, SystemClock
from streams.events import METRICS

COOLDOWN_S = 300.0


async def watch(bus: Bus, limits: dict[str, float], alert: Callable[[Metric], None], clock: Clock) -> None:
    quiet_until: dict[str, float] = {}
    async with await bus.consumer(METRICS) as consumer:
        while True:
            for batch in await consumer.fetch():
                for value in batch.values:
                    try:
                        metric = msgspec.json.decode(value, type=Metric)
                    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                        print(f"no metric: {error}", file=sys.stderr)
                        continue
                    quiet = clock.time() < quiet_until.get(metric.name, 0.0)
                    if metric.value > limits.get(metric.name, float("inf")) and not quiet:
                        quiet_until[metric.name] = clock.time() + COOLDOWN_S
                        alert(metric)


async def main(url: str, *limits: str) -> None:
    above = {name: float(limit) for name, _, limit in (text.partition("=") for text in limits)}
    async with open_bus(url) as bus:
        await watch(bus, above, lambda metric: print(f"{metric.name} is {metric.value:g}", flush=True), SystemClock())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
