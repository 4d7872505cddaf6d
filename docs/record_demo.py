"""Record the picture of the README from a real demo: ``make picture``.

What the terminal shows once a challenger was promoted, then the summary of the same run; nothing is drawn by hand.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from streamlens.cli.demo import print_summary, progress_table
from streamlens.demo import DemoProgress, run_demo
from streamlens.demo_loop import DRIFT, loop_settings
from streamlens.replay_run import prepare_run
from streamlens.settings import load_settings
from streamlens.signals import run_until_signal

PICTURE = Path(__file__).parent / "images" / "demo.svg"
WIDTH = 110
RATE = 700.0

THEME = TerminalTheme(
    (16, 20, 28),
    (205, 214, 226),
    [
        *[(60, 66, 78), (240, 113, 120), (126, 200, 136), (230, 190, 110)],
        *[(104, 160, 246), (198, 140, 236), (96, 200, 206), (205, 214, 226)],
    ],
)

# Rich's own template loads a web font, which a picture in a README may not: the reader's monospace font serves.
SVG = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" aria-label="streamlens demo">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> int:
    tables: list[Table] = []

    def show(now: DemoProgress) -> None:
        if now.loop and now.loop.promoted and not tables:
            tables.append(progress_table(now))

    with TemporaryDirectory(prefix="streamlens-picture-") as folder:
        os.environ["STREAMLENS_VAR"] = folder  # not as a flag: the demo's children find the run by it
        settings = loop_settings(load_settings({"replay": {"rate": RATE, "drift": [DRIFT]}}))
        prepared = prepare_run(settings, new_run=True)
        summary = run_until_signal(lambda stopping: run_demo(prepared, settings, stopping, show))
        said = io.StringIO()
        if summary is not None:
            with redirect_stdout(said):
                print_summary(summary, prepared)
    if summary is None or not (summary.completed and summary.report.ok and tables):
        print("the demo did not end well: no picture", file=sys.stderr)  # noqa: T201
        return 1

    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.assemble(("$ ", "green"), ("make demo", "bold")))
    console.print(prepared.describe(), highlight=False)
    console.print(tables[0])
    console.print(Text(said.getvalue().rstrip()))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(console.export_svg(title="streamlens demo", theme=THEME, code_format=SVG, unique_id="demo"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
