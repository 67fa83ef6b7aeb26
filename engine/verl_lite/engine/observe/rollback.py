"""Detects a reward collapse or KL blow-up and reacts as monitors.rollback.on says.

It names the last good checkpoint, stops the run, or returns to that checkpoint with a lower learning rate.
events.jsonl in the run folder has one line per rollback; their number sets the learning rate, also after a
resume.
"""

import json
import math
import os
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from verl_lite.engine.config.monitors import MonitorsConfig
from verl_lite.engine.observe.display import Display
from verl_lite.engine.observe.metrics_log import MetricsLog
from verl_lite.engine.rundir.checkpoint_files import (
    clear_write_errors,
    newest_whole,
    remove_checkpoints_after,
)
from verl_lite.engine.rundir.folder import RunFolder
from verl_lite.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Trigger:
    """A broken rule: its name, why it broke, and the last step that was still good."""

    rule: str
    why: str
    good_step: int


class RollbackRules:
    """Checks every step's metrics. RollbackConfig describes the rules."""

    def __init__(self, config: MonitorsConfig) -> None:
        self._rules = config.rollback
        self._recent: deque[float] = deque(maxlen=config.window_steps)
        self._best = (-math.inf, 0)  # the best window mean and the step it ended at
        self._lowest = math.inf

    def check(self, metrics: Mapping[str, float], *, step: int) -> Trigger | None:
        """The rule that `step` broke, or None."""
        name = "policy/kl_reference" if "policy/kl_reference" in metrics else "policy/kl_sampler_trainer"
        kl = metrics.get(name, 0.0)
        if not kl <= self._rules.max_kl:  # nan counts as too much
            why = f"{name} is {kl:.3g}, above {self._rules.max_kl:g} nats per token"
            return Trigger("kl_blow_up", why, step - 1)
        return self._collapse(metrics.get("reward/mean"), step)

    def _collapse(self, reward: float | None, step: int) -> Trigger | None:
        if reward is None:
            return None
        self._recent.append(reward)
        if len(self._recent) < (self._recent.maxlen or 1):
            return None
        mean, (best, at) = fmean(self._recent), self._best
        reach = best - self._lowest
        if reach >= self._rules.min_reward_range and best - mean > self._rules.reward_drop_fraction * reach:
            steps = f"{len(self._recent)} steps"
            why = f"the mean reward of {steps} fell from {best:.3g} (at step {at}) to {mean:.3g}"
            return Trigger("reward_collapse", why, at)
        self._best = max(self._best, (mean, step))
        self._lowest = min(self._lowest, mean)
        return None

    def state_dict(self) -> dict[str, Any]:
        finite = math.isfinite(self._lowest)
        return {
            "recent": list(self._recent),
            "best": list(self._best) if finite else None,
            "lowest": self._lowest if finite else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._recent.clear()
        self._recent.extend(state["recent"])
        self._best = (float(state["best"][0]), int(state["best"][1])) if state["best"] else (-math.inf, 0)
        self._lowest = math.inf if state["lowest"] is None else float(state["lowest"])


class Rollback:
    """Checks the rules after each step and reacts as monitors.rollback.on says."""

    def __init__(
        self, config: MonitorsConfig, folder: RunFolder, *, log: MetricsLog, display: Display
    ) -> None:
        self._config = config.rollback
        self._folder = folder
        self._log = log
        self._display = display
        self._rules = RollbackRules(config)
        self._is_noted = False  # the broken rule was reported

    def check(
        self, metrics: Mapping[str, float], *, step: int, finish_saving: Callable[[], None]
    ) -> Path | None:
        """The checkpoint to roll back to, or None to continue.

        On a rollback newer checkpoints are deleted and records of later steps moved to rolled_back/.
        `finish_saving` waits until the newest checkpoint is on disk. Raises TrainingError to stop, at
        max_rollbacks, or if no good checkpoint is left.
        """
        trigger = self._rules.check(metrics, step=step)
        if trigger is None:
            self._is_noted = False
            return None
        if self._config.on != "nothing":
            finish_saving()
            return self._go_back(trigger, step)
        if not self._is_noted:
            finish_saving()
            self._display.note(advice(trigger, step=step, checkpoints=self._folder.checkpoints))
            self._is_noted = True
        return None

    def _go_back(self, trigger: Trigger, step: int) -> Path:
        path = self._last_good(trigger, step)
        to_step = int(path.name.removeprefix("step_"))
        remove_checkpoints_after(self._folder.checkpoints, to_step)
        number = self._num_rollbacks() + 1
        factor = self._config.learning_rate_factor**number
        self._record("rollback", step, trigger, to_step=to_step, learning_rate_factor=factor)
        into = f"{number:02d}"
        self._log.set_aside(to_step, into=self._folder.path / "rolled_back" / into / "metrics.jsonl")
        self._folder.set_aside(to_step, into=into)
        self._display.note(
            f"{trigger.rule} at step {step}: {trigger.why}; back to step {to_step}, "
            "with a lower learning rate"
        )
        return path

    def _last_good(self, trigger: Trigger, step: int) -> Path:
        why = f"step {step}, {trigger.rule}: {trigger.why}"
        if self._config.on == "stop":
            self._record("stop", step, trigger)
            raise TrainingError(
                f"{why}. Stopped, as monitors.rollback.on says; see docs/monitors.md#rollback"
            )
        if (done := self._num_rollbacks()) >= self._config.max_rollbacks:
            raise TrainingError(
                f"{why}. It was rolled back {done} times already (monitors.rollback.max_rollbacks)"
            )
        path, _ = newest_whole(self._folder.checkpoints, up_to_step=trigger.good_step)
        if path is None:
            raise TrainingError(
                f"{why}. There is no checkpoint of step {trigger.good_step} or before to go back to: write "
                "them more often (checkpoints.every_steps) or keep more (checkpoints.keep)"
            )
        return path

    def _record(self, event: str, step: int, trigger: Trigger, **details: float) -> None:
        line = {"event": event, "step": step, "rule": trigger.rule, "why": trigger.why, **details}
        path = self._folder.events
        with clear_write_errors(str(path)), path.open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            os.fsync(file.fileno())

    def _num_rollbacks(self) -> int:
        path = self._folder.events
        if not path.exists():
            return 0
        lines = path.read_text(encoding="utf-8").splitlines()
        return sum(line.startswith('{"event": "rollback"') and line.endswith("}") for line in lines)

    @property
    def learning_rate_scale(self) -> float:
        """The factor on the scheduled learning rate after the rollbacks so far."""
        return self._config.learning_rate_factor ** self._num_rollbacks()

    def state_dict(self) -> dict[str, Any]:
        return {"rules": self._rules.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._rules.load_state_dict(state["rules"])


def advice(trigger: Trigger, *, step: int, checkpoints: Path) -> str:
    """The note when the run continues: what broke, and the last good checkpoint."""
    path, _ = newest_whole(checkpoints, up_to_step=trigger.good_step)
    if path is None:
        then = f"no checkpoint of step {trigger.good_step} or before is left"
    else:
        then = (
            f"the last good checkpoint is {path}: continue from it with model.path={path / 'policy'}, or "
            "automatically with monitors.rollback.on=rollback"
        )
    return f"{trigger.rule} at step {step}: {trigger.why}; {then}; docs/monitors.md#rollback"
