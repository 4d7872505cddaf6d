"""What asks for retraining: a CloudEvent (structured JSON, version 1.0), so that programs outside can act on it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md. One event to a record of the topic
``retrain``, keyed by model. Delivery is at least once: ``id`` is what a consumer dedupes by.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from streams.bus import Bus
from streams.events import RETRAIN

__all__ = ["RetrainRequest", "RetrainRequested", "ask_for_retrain"]


class RetrainRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a model is to be trained anew.

    reason: in a sentence. severity: "critical" (now) or "schedule" (with the next planned training). evidence: what was
    measured, by name, as JSON values. asked_by: the detector, rule or person. justification: what a person gave.
    """

    reason: str
    severity: Literal["critical", "schedule"]
    asked_by: str
    evidence: dict[str, Any] = {}
    justification: str | None = None


class RetrainRequested(msgspec.Struct, frozen=True, kw_only=True):
    """The CloudEvent around a request. Whoever decodes it refuses one that lacks an attribute.

    id: the dedupe key, the same each time the same decision is published. source: who publishes, a URI reference.
    subject: the model. time: event time of the decision; when it was published, the record's timestamp says.
    """

    specversion: Literal["1.0"]
    type: Literal["streamlens.retrain.requested"]
    datacontenttype: Literal["application/json"]
    id: str
    source: str
    subject: str
    time: datetime
    data: RetrainRequest

    @classmethod
    def of(cls, model: str, request: RetrainRequest, *, id: str, source: str, time: datetime) -> RetrainRequested:  # noqa: A002 (CloudEvents' name)
        """The event that asks for ``model``. Raises ValueError for a ``time`` without a zone, as RFC 3339 wants one.

        >>> from datetime import UTC
        >>> why = RetrainRequest(reason="CTR -17 % for 7 days", severity="critical", asked_by="ctr")
        >>> event = RetrainRequested.of("mf", why, id="1", source="run/monitors", time=datetime(2010, 1, 1, tzinfo=UTC))
        >>> event.subject, msgspec.json.decode(msgspec.json.encode(event.time))
        ('mf', '2010-01-01T00:00:00Z')
        """
        if time.tzinfo is None:
            raise ValueError(f"time: expected a datetime with a zone, found {time.isoformat()}")
        return cls(
            specversion="1.0",
            type="streamlens.retrain.requested",
            datacontenttype="application/json",
            id=id,
            source=source,
            subject=model,
            time=time,
            data=request,
        )


async def ask_for_retrain(bus: Bus, event: RetrainRequested) -> None:
    """Publish ``event`` and wait until it is durable."""
    async with bus.producer() as producer:
        await producer.send(RETRAIN, msgspec.json.encode(event), key=event.subject.encode())
        await producer.flush()
