"""Terminal output: tables, numbers, and progress bars when it is a terminal."""

import json
import math
import os
import signal
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from verl_lite.plugins.progress import bar_columns

console = Console(highlight=False)
LEVEL_STYLES = {"ok": "green", "note": "blue", "warn": "yellow", "fail": "bold red"}


JSON_VERSION = 2  # raise it when a key of any command's --json changes its meaning or goes away


def print_json(data: object) -> None:
    """Print `data` as a JSON object with its schema's version, a list under `results`; nan becomes null."""
    shown = data if isinstance(data, dict) else {"results": data}
    plain = _without_nan({"schema_version": JSON_VERSION, **shown})
    print(json.dumps(plain, indent=2, ensure_ascii=False, default=str))


def _without_nan(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, dict):
        return {key: _without_nan(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_without_nan(value) for value in data]
    return data


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column is text, the others are numbers."""
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns of text. On a terminal the last one is wrapped below itself; a level has its colour."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(widths) + 2 * len(widths)
    has_width = console.is_terminal or "COLUMNS" in os.environ
    for *cells, last in rows:
        lines = last.splitlines() or [""]
        if has_width:  # commands such as --golden are not broken
            room = max(console.width - indent, 30)
            lines = [p for line in lines for p in textwrap.wrap(line, room, break_on_hyphens=False)]
        first = "".join(cell.ljust(width + 2) for cell, width in zip(cells, widths, strict=True))
        text = Text(first + ("\n" + " " * indent).join(lines))
        text.rstrip()
        text.stylize(LEVEL_STYLES.get(cells[0].strip(), ""), 0, widths[0])
        console.print(text, soft_wrap=True)


def number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"


def share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else "0"


def excerpt(text: str, width: int = 160) -> str:
    """The end of `text`, where answers are, on one line and without control characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= width else "…" + line[1 - width :]


class Bars:
    """Watches the stages of long work: a bar on stderr for each open one, gone when it ends.

    stdout is left alone: it may be a pipe.
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bars = Progress(*bar_columns(console), console=console, transient=True, redirect_stdout=False)

    @contextmanager
    def __call__(self, what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        task = self._bars.add_task(what, total=total)
        self._bars.start()
        try:
            yield lambda done: self._bars.advance(task, done)
        finally:
            self._bars.remove_task(task)
            if not self._bars.tasks:
                self.close()

    def close(self) -> None:
        """Show the cursor again, whatever is still open."""
        self._bars.stop()


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does: nothing half-written and no process is left behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
