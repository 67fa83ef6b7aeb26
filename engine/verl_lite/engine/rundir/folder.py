"""The folder of a run, never shared by two runs.

config.yaml  environment.json  metrics.jsonl  rollouts/  checkpoints/  summary.json
"""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import chain, count
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import yaml

from verl_lite.engine.rundir.checkpoint_files import (
    PassedOver,
    clear_write_errors,
    remove_leftovers,
    rename_damaged,
)
from verl_lite.engine.rundir.environment import describe_environment
from verl_lite.engine.rundir.lock import LOCK_FILE
from verl_lite.errors import ConfigError
from verl_lite.plugins.config_file import ConfigModel, load_config

# settings that trade memory for time; a resumed run may change them
FREE_FOR_MEMORY = (
    "rollout.vllm.kv_cache_gib",
    "rollout.vllm.gpu_memory_utilization",
    "learner.max_tokens_per_micro_batch",
    "learner.gradient_checkpointing",
    "learner.offload_activations",
)
# settings that a resumed run may change: they do not affect what was computed so far
FREE_TO_CHANGE = (
    *("steps", "evaluation", "checkpoints", "monitors", "logging", "name", *FREE_FOR_MEMORY),
    *("cluster", "learner.num_ranks", "learner.parallel", "rollout.num_engines"),
)


class FolderConfig(Protocol):
    """The part of a config that a run's folder uses."""

    @property
    def name(self) -> str: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def choose_run_dir(config: FolderConfig, run_dir: Path | None, *, resume: bool) -> Path:
    """`run_dir`, or runs/<name>, or the first free runs/<name>-2, -3, ... of a new run.

    Raises ConfigError if a new run's folder is not empty, or if there is nothing to resume.
    """
    if resume:
        chosen = run_dir or Path("runs") / config.name
        if not (chosen / "config.yaml").is_file():
            raise ConfigError(f"--resume: {chosen} holds no run; name its folder with --run-dir")
        return chosen
    if run_dir is not None:
        if run_dir.is_file():
            raise ConfigError(f"--run-dir {run_dir} is a file; name a folder")
        # a run killed while it wrote its first file leaves only .config.yaml.part and its lock
        if run_dir.is_dir() and any(
            path.suffix != ".part" and path.name != LOCK_FILE for path in run_dir.iterdir()
        ):
            raise ConfigError(
                f"{run_dir} already holds another run or other files: choose another --run-dir, "
                "or continue that run with --resume"
            )
        return run_dir
    names = chain([config.name], (f"{config.name}-{number}" for number in count(2)))
    candidates = (Path("runs") / name for name in names)
    return next(path for path in candidates if not path.exists())


class RunFolder:
    """The paths of a run and the small files that describe it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"
        self.sft_checkpoints = path / "sft_checkpoints"
        self.summary = path / "summary.json"
        self.metrics = path / "metrics.jsonl"
        self.timeline = path / "timeline.jsonl"
        self.bad_batches = path / "bad_batches"
        self.environment = path / "environment.json"
        self.events = path / "events.jsonl"

    def rollouts(self, step: int) -> Path:
        return self.path / "rollouts" / f"step_{step:06d}.parquet"

    def claim(
        self,
        config: FolderConfig,
        plugins: Sequence[Mapping[str, str]],
        data: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
        *,
        date: str = "",
    ) -> None:
        """Create the folder with config.yaml and environment.json; `date` is what chat templates write."""
        with clear_write_errors(str(self.path)):
            self.path.mkdir(parents=True, exist_ok=True)
            text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
            write_whole(self.path / "config.yaml", text)
            environment = describe_environment(plugins, data, date=date)
            write_whole(self.environment, json.dumps(environment, indent=2) + "\n")

    def check_same_run(self, config: ConfigModel, *, free: Sequence[str] = FREE_TO_CHANGE) -> None:
        """Raise ConfigError if `config` differs from the run's settings, except in `free` (dotted paths)."""
        began = load_config(type(config), self.path / "config.yaml")
        old, new = (_without(one.model_dump(mode="json"), free) for one in (began, config))
        changed = [key for key in new if json.dumps(old.get(key)) != json.dumps(new[key])]
        if changed:
            raise ConfigError(
                f"--resume: {', '.join(changed)} differ from what {self.path} began with; continue with its "
                f"own config ({self.path / 'config.yaml'}), or start a new run. These may change: "
                f"{', '.join(free)}"
            )

    def refuse_finished(self) -> None:
        """Raise ConfigError if the run is finished."""
        if self.summary.is_file():
            raise ConfigError(f"--resume: {self.path} is finished: its model is in {self.model}/")

    def cut_back(self, step: int, passed_over: Sequence[PassedOver]) -> None:
        """Delete what the run wrote after `step` (MetricsLog cuts metrics); rename damaged checkpoints."""
        with clear_write_errors(str(self.path)):
            remove_leftovers(self.checkpoints)
            for passed in passed_over:
                rename_damaged(passed)
            for path in [*self.rollouts(0).parent.glob("step_*.parquet"), *self.path.rglob(".*.part")]:
                if path.suffix == ".part" or int(path.stem.removeprefix("step_")) > step:
                    path.unlink()
            self.summary.unlink(missing_ok=True)

    def set_aside(self, step: int, *, into: str) -> None:
        """Move the records of later steps to rolled_back/<into>/rollouts/ (MetricsLog moves metrics)."""
        aside = self.path / "rolled_back" / into / "rollouts"
        with clear_write_errors(str(aside)):
            aside.mkdir(parents=True, exist_ok=True)
            for path in self.rollouts(0).parent.glob("step_*.parquet"):
                if int(path.stem.removeprefix("step_")) > step:
                    os.replace(path, aside / path.name)

    def write_calibration(self, bins: Sequence[Mapping[str, Any]]) -> None:
        """Write calibration.json: accuracy on held-out pairs, by the model's confidence."""
        write_whole(self.path / "calibration.json", json.dumps(list(bins), indent=1) + "\n")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        write_whole(self.summary, json.dumps(summary, indent=2) + "\n")


def bad_batch_path(folder: Path, number: int) -> Path:
    """The file of bad step `number`, counted from 1."""
    return folder / f"bad_batch_{number:03d}.jsonl"


def write_whole(path: Path, text: str) -> None:
    """Write the file atomically: a reader sees all of it or none."""
    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


def _without(tree: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """The tree without the dotted paths."""
    rest = dict(tree)
    for path in paths:
        head, _, tail = path.partition(".")
        if not tail:
            rest.pop(head, None)
        elif isinstance(rest.get(head), Mapping):
            rest[head] = _without(rest[head], [tail])
    return rest
