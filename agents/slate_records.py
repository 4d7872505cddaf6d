"""What a step of the loop puts on ``impressions`` and ``feedback``: records as JSON lines, with running ids.

Slates and boundary ticks go to ``impressions``, what came of each slate and the ticks to ``feedback``, both in the
order of the log. One sequence numbers them all, so that on either topic the ids rise. Where others tell what came of
the slates (:mod:`agents.reactive`), all that goes out is ``impressions``.
"""

from __future__ import annotations

from agents.lines import Lines, Page
from agents.sessions import Session, ShownSlate, Step
from agents.tally import Tally
from streams.events import FEEDBACK, IMPRESSIONS, Feedback, Slate, Tick

__all__ = ["records_of"]


def records_of(
    step: Step, source: str, emitted: int, *, tells: bool = True
) -> tuple[list[Lines], int, dict[str, Tally]]:
    """The records of a finished step, the last id given, and what each variant gains.

    emitted: the last id that was given before. tells: whether what came of the slates is told, and counted.
    """
    impressions, feedback = Page(IMPRESSIONS), Page(FEEDBACK)
    gained: dict[str, list[int]] = {}
    for told in step.told:
        if isinstance(told, ShownSlate):
            emitted += 1
            impressions.put(_slate(told, source, emitted), told.session.user_id)
            gained.setdefault(told.variant, [0, 0, 0])[0] += 1
        elif isinstance(told, Session):
            for slate in told.slates if tells else ():
                emitted += 1
                feedback.put(_feedback(told, slate, source, emitted), told.user_id)
                counts = gained.setdefault(slate.variant, [0, 0, 0])
                counts[1] += len(slate.movie_ids)
                counts[2] += len(slate.clicked)
        else:
            for page in (impressions, feedback) if tells else (impressions,):
                emitted += 1
                page.put(Tick(told.event_time, source, emitted, end_of_run=told.ends_run))
    tallies = {variant: Tally(*counts) for variant, counts in gained.items()}
    return [*impressions.batches(), *feedback.batches()], emitted, tallies


def _slate(slate: ShownSlate, source: str, event_id: int) -> Slate:
    return Slate(
        slate_id=slate.slate_id,
        session_id=slate.session.session_id,
        user_id=slate.session.user_id,
        variant=slate.variant,
        model_version=slate.model_version,
        movie_ids=slate.movie_ids,
        timestamp=slate.timestamp,
        source=source,
        event_id=event_id,
    )


def _feedback(session: Session, slate: ShownSlate, source: str, event_id: int) -> Feedback:
    return Feedback(
        slate_id=slate.slate_id,
        session_id=session.session_id,
        user_id=session.user_id,
        variant=slate.variant,
        model_version=slate.model_version,
        n_shown=len(slate.movie_ids),
        clicked=slate.clicked,
        n_ratings=session.n,
        session_seconds=session.last - session.start,
        timestamp=session.over_at,
        source=source,
        event_id=event_id,
    )
