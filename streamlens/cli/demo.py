"""``streamlens demo``: all of it at once, in a minute or two."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from streamlens.cli.console import StatusLine, day, heading, is_terminal, moment, print_table, text
from streamlens.signals import run_until_signal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from streamlens.demo import DemoProgress, DemoSummary
    from streamlens.demo_loop import LoopProgress
    from streamlens.loop_story import LoopStory
    from streamlens.replay_run import PreparedReplay
    from streams.events import ModelEvent
    from streams.retrain import RetrainRequested

__all__ = ["print_summary", "progress_table", "register"]

_TITLE_WIDTH = 44
_NAME_WIDTH = 13
"""Of the longest name, dead-lettered: table and summary align."""
_DRIFT = "What is injected; popularity-flip@120:high unless another data set is named."
_BESIDE_TITLES = 20
"""Columns that the two counts and the gaps take on a line with two titles."""


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    data: Annotated[str | None, typer.Option("--data", help="A MovieLens folder, or synthetic.")] = None,
    rate: Annotated[float, typer.Option("--rate", help="Live events per second.")] = 700.0,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="At most N live ratings.")] = None,
    no_pages: Annotated[bool, typer.Option("--no-pages", help="Serve no live pages meanwhile.")] = False,
    drift: Annotated[str | None, typer.Option("--drift", metavar="KIND@WEEK:STRENGTH|none", help=_DRIFT)] = None,
) -> None:
    """Replay MovieLens live through the closed loop, watch it, and verify what came out; a minute or two."""
    with suppress(KeyboardInterrupt):  # Ctrl-C before there is anything to drain
        from dashboards.launch import free_port, is_installed
        from streamlens.demo import run_demo
        from streamlens.demo_loop import DRIFT, loop_settings
        from streamlens.logs import configure_logs
        from streamlens.replay_run import prepare_run
        from streamlens.settings import load_settings

        injected = {"none": [], None: None}.get(drift, [drift])
        settings = loop_settings(load_settings({"replay": {"data": data, "rate": rate, "drift": injected}}))
        if drift is None and settings.replay.data is None and not settings.replay.drift:
            replay = settings.replay.model_copy(update={"drift": (DRIFT,)})
            settings = settings.model_copy(update={"replay": replay})
        configure_logs(settings.log)
        prepared = prepare_run(settings, new_run=True, limit=limit)
        typer.echo(prepared.describe())
        port = free_port("127.0.0.1") if is_installed() and not no_pages else None
        if port is not None:
            typer.echo(f"watch it at http://127.0.0.1:{port} while it runs; afterwards `streamlens dashboard`")
        with _live_table() as show:
            summary = run_until_signal(lambda stopping: run_demo(prepared, settings, stopping, show, pages_port=port))
        if summary is None:
            typer.echo("stopped before anything was stored")
            return
        print_summary(summary, prepared)
        if not summary.report.ok:
            raise typer.Exit(1)


@contextmanager
def _live_table() -> Iterator[Callable[[DemoProgress], None]]:
    """A table that is redrawn in a terminal, else a plain line every five seconds."""
    if not is_terminal():
        with StatusLine() as line:
            yield lambda now: line.show("  ".join(f"{name} {value}" for name, value in _rows(now)))
        return
    from rich.live import Live

    with Live(refresh_per_second=4) as live:
        yield lambda now: live.update(progress_table(now))


def _rows(now: DemoProgress) -> list[tuple[str, str]]:
    return [
        ("phase", now.phase),
        ("event time", moment(now.clock)),
        ("events", f"{text(now.applied)} of {text(now.total)}"),
        ("events/s", text(round(now.events_per_s))),
        ("lag", text(now.lag)),
        ("freshness", _quantiles(now.p50_ms, now.p99_ms)),
        ("late", text(now.late)),
        ("duplicates", text(now.duplicates)),
        ("dead-lettered", text(now.dead_lettered)),
        *_loop_rows(now.loop),
    ]


def _loop_rows(loop: LoopProgress | None) -> list[tuple[str, str]]:
    """Of the loop, always as many, so that the table does not jump."""
    if loop is None:
        return [(name, "-") for name in ("loop", "champion", "retrain")]
    ctr = f", CTR {loop.clicks / loop.shown:.2%} of the champion's" if loop.shown else ""
    failed = f", {loop.failed} failed" if loop.failed else ""
    answers = f"{text(loop.retrains)} asked for, {loop.promoted} promoted, {loop.rejected} rejected{failed}"
    return [
        ("loop", f"{moment(loop.clock)}, {text(loop.slates)} slates{ctr}"),
        ("champion", loop.champion or "-"),
        ("retrain", answers),
    ]


def _quantiles(p50_ms: float | None, p99_ms: float | None) -> str:
    return "-" if p50_ms is None or p99_ms is None else f"p50 {p50_ms:,.0f} ms, p99 {p99_ms:,.0f} ms"


def progress_table(now: DemoProgress) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", width=_NAME_WIDTH)
    table.add_column()
    for name, value in _rows(now):
        table.add_row(name, value)
    table.add_row("progress", ProgressBar(total=max(now.total, 1), completed=now.applied, width=40))
    return table


def print_summary(summary: DemoSummary, prepared: PreparedReplay) -> None:
    last = summary.last
    ending = "" if summary.completed else " (stopped early)"
    live = max(last.applied - prepared.plan.n_training, 0)
    heading(f"{text(last.applied)} events in {summary.elapsed_s:.0f} s{ending}, each counted once")
    rate = live / summary.live_s if summary.live_s > 0 else 0.0
    typer.echo(f"live           {text(live)} events, {text(round(rate))}/s")
    measured = "" if summary.p50_ms is None else " from published to stored"
    typer.echo(f"freshness      {_quantiles(summary.p50_ms, summary.p99_ms)}{measured}")
    typer.echo(f"lag            {text(last.lag)} at the end")
    typer.echo(f"late           {text(last.late)}")
    typer.echo(f"duplicates     {text(last.duplicates)}")
    typer.echo(f"dead-lettered  {text(last.dead_lettered)}")
    report = summary.report
    proof = "passed: the store equals a batch pass over the log" if report.ok else "FAILED; see `streamlens verify`"
    typer.echo(f"verify         {proof} ({text(report.rows)} rows, {report.seconds:.1f} s)")
    print_story(summary.story)
    _print_popular(summary, prepared)
    heading("try next:")
    typer.echo("  streamlens dashboard                       the live pages")
    typer.echo("  streamlens status                          how the run stands")
    if summary.popular:
        typer.echo(f"  streamlens features item {summary.popular[0].movie_id:<17} windows of the most popular movie")
    typer.echo("  streamlens topics tail metrics --from-beginning | head")
    typer.echo("  streamlens replay --new-run --speed 86400  a day a second; then `streamlens worker` beside it")


def print_story(story: LoopStory) -> None:
    """What happened in the loop."""
    heading("the closed loop:")
    if story.drift is None:
        typer.echo("drift          none was injected")
    else:
        typer.echo(f"drift          {story.drift.kind}, {story.drift.strength}, from {day(story.drift.begins)} on")
        typer.echo(f"detected       {_detected(story)}")
    if story.retrains:
        heading("retrain events:")
        for event, answer in story.retrains:
            _print_retrain(event, answer)
        if story.answer_s:
            typer.echo(f"answered       {_seconds(story.answer_s)}")
        if story.serving_s:
            typer.echo(f"serving        {_seconds(story.serving_s)}: the first slate of what was promoted")
    for told in story.models:
        if told.kind == "rolled_back":
            typer.echo(f"{day(told.event_time)}     rolled back: {told.reason}")
    if story.periods:
        heading("clicks on what the champion showed (replayed users cannot react: a hit rate):")
        print_table(
            ["", "until", "slates", "users", "ctr", "95 %"],
            [
                [
                    p.name,
                    day(p.until),
                    p.n_slates,
                    p.n_users,
                    f"{p.ctr.value:.2%}",
                    f"{p.ctr.low:.2%} to {p.ctr.high:.2%}",
                ]
                for p in story.periods
            ],
        )


def _print_retrain(event: RetrainRequested, answer: ModelEvent | None) -> None:
    why, *others = event.data.reason.split("; ")
    more = f", and {len(others)} more" if others else ""
    typer.echo(f"{event.time:%Y-%m-%d}     {event.data.severity}: {why}{more}")
    typer.echo(f"               {'no answer yet' if answer is None else f'{answer.kind}, {answer.reason}'}")


def _seconds(found: Sequence[float]) -> str:
    return f"{statistics.median(found):.1f} s after they were published, {max(found):.1f} s at most"


def _detected(story: LoopStory) -> str:
    found = story.detection
    if found is None:
        return "not found by a detector that is silent on the same data without it"
    return f"{found.detector}, {day(found.at)}, {found.after_s // 86_400} event days after; silent without the drift"


def _title_width() -> int:
    """So that two titles and their counts fit on a line of the terminal; what is piped is not cut for one."""
    if not is_terminal():
        return _TITLE_WIDTH
    return max(12, min(_TITLE_WIDTH, (shutil.get_terminal_size().columns - _BESIDE_TITLES) // 2))


def _print_popular(summary: DemoSummary, prepared: PreparedReplay) -> None:
    from streamlens.demo import YEAR_S

    movies = prepared.dataset.movies()
    width = _title_width()

    def name(movie_id: int) -> str:
        title = movies[movie_id].title if movie_id in movies else f"movie {movie_id}"
        return title if len(title) <= width else f"{title[: width - 3]}..."

    now = [(name(movie.movie_id), movie.n_ratings) for movie in summary.popular]
    before = [(name(movie.movie_id), movie.n_ratings) for movie in summary.popular_a_year_ago]
    rows = max(len(now), len(before))
    now += [("-", 0)] * (rows - len(now))
    before += [("-", 0)] * (rows - len(before))
    heading(f"most rated in the year up to {day(summary.clock)}, and up to {day(summary.clock - YEAR_S)}:")
    print_table(
        ["now", "ratings", "a year ago", "ratings"],
        [[*left, *right] for left, right in zip(now, before, strict=True)],
    )
