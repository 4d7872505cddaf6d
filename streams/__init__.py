"""The streaming base: events, errors, the bus and what feeds it. Imports no other package of StreamLens.

Start with :mod:`streams.events` (what travels), :mod:`streams.bus` (what carries it) and :mod:`streams.batch` (ratings
as columns); :mod:`streams.replayer` is what publishes.
"""

from streams.bus import Bus, Consumer, Producer, TopicSpec, open_bus
from streams.errors import StreamLensError
from streams.events import Control, DeadLetter, Metric, Rating, Tick
from streams.records import RecordBatch, TopicPartition

__all__ = [
    "Bus",
    "Consumer",
    "Control",
    "DeadLetter",
    "Metric",
    "Producer",
    "Rating",
    "RecordBatch",
    "StreamLensError",
    "Tick",
    "TopicPartition",
    "TopicSpec",
    "open_bus",
]
