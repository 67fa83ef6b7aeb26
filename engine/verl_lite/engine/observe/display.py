"""Progress for the user: a live panel on a terminal, plain lines when piped."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from verl_lite.plugins.progress import bar_columns

DisplayMode = Literal["auto", "quiet", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """One step. `components` are the rewards' means; `seconds` has the stages in order."""

    step: int
    num_steps: int
    reward: float
    components: Mapping[str, float]
    accuracy: float
    tokens_per_s: float
    seconds: Mapping[str, float]

    def line(self) -> str:
        """The step in one plain line."""
        parts = " ".join(f"{name} {value:.3f}" for name, value in self.components.items())
        split = " ".join(f"{name} {value:.2f}s" for name, value in self.seconds.items())
        return (
            f"step {self.step:>4}/{self.num_steps}  reward {self.reward:.3f} ({parts})  "
            f"accuracy {self.accuracy:6.1%}  {self.tokens_per_s:,.0f} tokens/s  {split}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One line of the final table."""

    name: str
    before: float
    after: float
    is_fraction: bool = False


class Display(Protocol):
    def note(self, text: str) -> None:
        """Show a line of text."""

    def sft_step(self, step: int, num_steps: int, loss: float) -> None: ...

    def preference_step(self, step: int, num_steps: int, metrics: Mapping[str, float]) -> None:
        """A step of DPO or a reward model, counted from 1; `metrics` as in metrics.jsonl."""

    def step(self, report: StepReport) -> None: ...

    def finish(self) -> None:
        """Stop updating."""


def make_display(console: Console, mode: DisplayMode = "auto") -> Display:
    """auto: a live panel where it can be redrawn, else lines; quiet: only notes; json: JSON lines."""
    if mode == "json":
        return JsonDisplay(console)
    if mode == "auto" and console.is_interactive:
        return LiveDisplay(console)
    return PlainDisplay(console, shows_steps=mode == "auto")


def print_plain(console: Console, text: str) -> None:
    """Print `text` as it is, without wrapping: logs have no width."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


class PlainDisplay:
    """One line per step, if wanted; about ten lines for all of SFT."""

    def __init__(self, console: Console, *, shows_steps: bool = True) -> None:
        self._console = console
        self._shows_steps = shows_steps

    def note(self, text: str) -> None:
        self._print(text)

    def sft_step(self, step: int, num_steps: int, loss: float) -> None:
        every = max(num_steps // 10, 1)
        if (step + 1) % every == 0 or step + 1 == num_steps:
            self._line(f"sft {step + 1:>4}/{num_steps}  loss {loss:.4f} nats/token")

    def preference_step(self, step: int, num_steps: int, metrics: Mapping[str, float]) -> None:
        if step % max(num_steps // 10, 1) == 0 or step == num_steps:
            self._line(f"step {step:>4}/{num_steps}  {_preference_line(metrics)}")

    def step(self, report: StepReport) -> None:
        self._line(report.line())

    def finish(self) -> None:
        """Nothing is pending."""

    def _line(self, text: str) -> None:
        if self._shows_steps:
            self._print(text)

    def _print(self, text: str) -> None:
        print_plain(self._console, text)


class JsonDisplay(PlainDisplay):
    """One JSON object per line, each with a "kind": note, sft_step, preference_step or step."""

    def note(self, text: str) -> None:
        self._object("note", text=text)

    def sft_step(self, step: int, num_steps: int, loss: float) -> None:
        self._object("sft_step", step=step + 1, num_steps=num_steps, loss=loss)

    def preference_step(self, step: int, num_steps: int, metrics: Mapping[str, float]) -> None:
        self._object("preference_step", step=step, num_steps=num_steps, **metrics)

    def step(self, report: StepReport) -> None:
        self._object("step", **asdict(report))

    def _object(self, kind: str, **values: Any) -> None:
        flat = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
        self._print(json.dumps({"kind": kind, **flat}))


class LiveDisplay:
    """A progress bar and a table of the newest step, updated in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(*bar_columns(console), console=console)
        self._tasks: dict[str, Any] = {}
        self._body: Table | Text = Text("")
        self._live = Live(
            console=console, get_renderable=lambda: Group(self._progress, self._body), refresh_per_second=4
        )
        self._live.start()

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def sft_step(self, step: int, num_steps: int, loss: float) -> None:
        self._advance("SFT", step + 1, num_steps)
        self._body = Text(f"loss {loss:.4f} nats/token")

    def preference_step(self, step: int, num_steps: int, metrics: Mapping[str, float]) -> None:
        self._advance("preferences", step, num_steps)
        self._body = Text(_preference_line(metrics))

    def step(self, report: StepReport) -> None:
        self._advance("RL", report.step, report.num_steps)
        self._body = _step_table(report)

    def _advance(self, name: str, done: int, total: int) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done)

    def finish(self) -> None:
        self._live.stop()


def _preference_line(metrics: Mapping[str, float]) -> str:
    names = ("loss", "accuracy", "margin", "chosen", "rejected")
    return "  ".join(f"{name} {metrics['train/' + name]:.4f}" for name in names)


def _step_table(report: StepReport) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("reward", f"{report.reward:.3f}")
    for name, value in report.components.items():
        table.add_row(f"  {name}", f"{value:.3f}")
    table.add_row("accuracy", f"{report.accuracy:.1%}")
    table.add_row("tokens/s", f"{report.tokens_per_s:,.0f}")
    total = sum(report.seconds.values()) or 1.0
    for name, seconds in report.seconds.items():
        part = ProgressBar(total=total, completed=seconds, width=30)
        table.add_row(f"  {name}", f"{seconds:.2f} s", f"{seconds / total:.0%}", part)
    return table


def summary_table(rows: Sequence[SummaryRow], *, title: str, first_column: str = "held out, greedy") -> Table:
    """The table at the end of a run: each metric before and after."""
    table = Table(title=title, title_justify="left")
    for column, justify in ((first_column, "left"), ("before", "right"), ("after", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in rows:
        shape = "{:.1%}" if row.is_fraction else "{:.3f}"
        table.add_row(row.name, shape.format(row.before), shape.format(row.after))
    return table
