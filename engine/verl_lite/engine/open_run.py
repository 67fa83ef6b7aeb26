"""The life-cycle of a run: `train`, `sft`, `dpo` and `reward-model` all work inside `open_run`."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from rich.console import Console

from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.config.records import CheckpointConfig
from verl_lite.engine.observe.display import (
    Display,
    DisplayMode,
    SummaryRow,
    make_display,
    print_plain,
    summary_table,
)
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.rundir.checkpoint_files import clear_write_errors
from verl_lite.engine.rundir.checkpoints import retire
from verl_lite.engine.rundir.environment import seed_torch
from verl_lite.engine.rundir.folder import FolderConfig, RunFolder, choose_run_dir
from verl_lite.engine.rundir.interrupt import Interrupt, StopRequested
from verl_lite.engine.rundir.lock import run_lock
from verl_lite.engine.rundir.switches import check_switches

KILLED = "was killed while it trained here; if nobody did that, the kernel was out of memory (see dmesg)"
FIRST_COLUMN = {"dpo": "held-out pairs", "reward-model": "held-out pairs"}  # of the summary, by command
Inputs = TypeVar("Inputs")


class RunConfig(FolderConfig, Protocol):
    """The settings that every run has."""

    @property
    def seed(self) -> int: ...
    @property
    def deterministic(self) -> bool: ...
    @property
    def checkpoints(self) -> CheckpointConfig: ...
    @property
    def learner(self) -> LearnerConfig: ...


@dataclass(slots=True, kw_only=True)
class Run(Generic[Inputs]):
    """An open run. `inputs` is the result of `prepare`; `stopped`: Ctrl-C ended the run.

    `summary` is the content of summary.json, empty before `finish`.
    """

    config: RunConfig
    command: str
    folder: RunFolder
    inputs: Inputs
    display: Display
    interrupt: Interrupt
    started: float
    summary: Mapping[str, Any] = field(default_factory=dict)
    stopped: bool = False
    model: Path | None = None

    @property
    def how_to_continue(self) -> str:
        """The command that resumes the run."""
        path = self.folder.path
        return f"verl-lite {self.command} {path / 'config.yaml'} --run-dir {path} --resume"

    def open_log(
        self, trackers: Sequence[str], *, resume_at: int | None, file_name: str = "metrics.jsonl"
    ) -> AbstractContextManager[MetricsLog]:
        """The log of one stage; `resume_at`: finished steps of a resumed stage."""
        return closing(
            MetricsLog(
                self.folder.path,
                run_name=self.config.name,
                trackers=trackers,
                config=self.config.model_dump(mode="json"),
                resume_at=resume_at,
                file_name=file_name,
            )
        )

    def finish(
        self, metrics: Mapping[str, Mapping[str, float]], *, model: Path | None = None, **counts: int
    ) -> None:
        """Write summary.json: the counts, the seconds so far and {metric: {"before": ..., "after": ...}}.

        `model` is the folder of the trained model, if it is not only in the checkpoints.
        """
        seconds = round(time.perf_counter() - self.started, 1)
        summary = {"name": self.config.name, **counts, "seconds": seconds, "metrics": metrics}
        with clear_write_errors(str(self.folder.summary)):
            self.folder.write_summary(summary)
        self.summary, self.model = summary, model

    def retire(self, checkpoints: Path) -> None:
        """Delete a finished stage's checkpoints, except those to keep permanently."""
        retire(checkpoints, self.config.checkpoints)

    def tell(self, console: Console, *, as_json: bool) -> None:
        """Print how the run ended: the summary, or the command that continues it."""
        if as_json:
            stopped = {"stopped": True, "continue_with": self.how_to_continue}
            line = {"kind": "summary", **(stopped if self.stopped else self.summary)}
            print_plain(console, json.dumps(line))
        elif self.stopped:
            print_plain(console, f"stopped; continue with: {self.how_to_continue}")
        else:
            if rows := _rows(self.summary["metrics"]):
                steps = f": {self.summary['steps']} steps" if "steps" in self.summary else ""
                title = f"{self.config.name}{steps}"
                column = FIRST_COLUMN.get(self.command, "held out, greedy")
                console.print(summary_table(rows, title=title, first_column=column))
            result = f"the model is in {self.model}/" if self.model else f"{self.folder.path}/"
            print_plain(console, f"{self.summary['seconds']:.0f} s, {result}")


@contextmanager
def open_run(
    config: RunConfig,
    prepare: Callable[[RunFolder], Inputs],
    *,
    command: str,
    run_dir: Path | None = None,
    resume: bool = False,
    console: Console | None = None,
    show: DisplayMode = "auto",
) -> Iterator[Run[Inputs]]:
    """Lock the run's folder, prepare, run the body, and print the result; `verl-lite <command>` resumes it.

    `prepare` checks and reads everything, so that a refused run writes nothing; the body claims the folder
    of a new run. After Ctrl-C the body raises StopRequested at its next safe point, which sets `stopped`
    here. Other errors propagate. Raises ConfigError if the folder is in use.
    """
    started = time.perf_counter()
    # FORCE_COLOR makes a pipe a terminal to rich: it may have colours, but no panel
    console = console or Console(force_interactive=None if sys.stdout.isatty() else False)
    notes = check_switches(config.learner)
    folder = RunFolder(choose_run_dir(config, run_dir, resume=resume))
    with ExitStack() as held:
        inputs, killed = _lock_and_prepare(held, folder, prepare, resume=resume)
        seed_torch(config.seed, deterministic=config.deterministic)
        interrupt = held.enter_context(Interrupt())
        display = make_display(console, show)
        held.callback(display.finish)
        for note in (*notes, *([f"{killed} {KILLED}"] if killed else [])):
            display.note(note)
        run = Run(
            config=config,
            command=command,
            folder=folder,
            inputs=inputs,
            display=display,
            interrupt=interrupt,
            started=started,
        )
        try:
            yield run
        except StopRequested:
            run.stopped = True
    run.tell(console, as_json=show == "json")


def _lock_and_prepare(
    held: ExitStack, folder: RunFolder, prepare: Callable[[RunFolder], Inputs], *, resume: bool
) -> tuple[Inputs, str]:
    """(what was prepared, a note on the process that left its lock); an earlier run is locked before reading.

    Another process may still be writing.
    """
    killed = held.enter_context(run_lock(folder.path)) if resume else ""
    inputs = prepare(folder)
    if not resume:
        held.enter_context(run_lock(folder.path))
    return inputs, killed


def _rows(metrics: Mapping[str, Mapping[str, float]]) -> list[SummaryRow]:
    """Metrics with values before and after; evaluation/reward_mean is shown as "reward mean"."""
    return [
        SummaryRow(
            name=name.partition("/")[2].replace("_", " "),
            before=values["before"],
            after=values["after"],
            is_fraction=name.endswith("accuracy"),
        )
        for name, values in metrics.items()
        if "before" in values
    ]
