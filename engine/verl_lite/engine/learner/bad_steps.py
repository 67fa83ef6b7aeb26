"""Bad steps (nan or inf in the gradients): skipped, counted, and their batches written to disk."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from verl_lite.engine.rundir.folder import bad_batch_path
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import TrainingError


class BadStepGuard:
    """Counts bad steps of the policy and its critic; training stops at `max_bad_steps`."""

    def __init__(self, folder: Path | None, *, max_bad_steps: int) -> None:
        self._folder = folder
        self._max_bad_steps = max_bad_steps
        self.num_bad_steps = 0

    def record(self, samples: Sequence[TrainingSample], grad_norm: float) -> None:
        """Count the step and write its batch as JSON lines; raises TrainingError at the limit."""
        self.num_bad_steps += 1
        where = "not kept: no folder was given"
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = bad_batch_path(self._folder, self.num_bad_steps)
            lines = [json.dumps(_row(sample)) for sample in samples]
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            where = f"kept in {path}"
        if self.num_bad_steps >= self._max_bad_steps:
            raise TrainingError(
                f"{self.num_bad_steps} updates had a gradient norm that is not finite (the last: "
                f"{grad_norm}), the limit set by optimizer.max_bad_steps; the last batch is {where}. "
                "Look for a learning rate that is too high or rewards of extreme size"
            )


def _row(sample: TrainingSample) -> dict[str, object]:
    row = {field.name: getattr(sample, field.name) for field in dataclasses.fields(sample)}
    row["components"] = {name: list(weights_T) for name, weights_T in sample.components.items()}
    row["teacher"] = None if sample.teacher is None else sample.teacher.logprobs_TK.tolist()
    plain = (str, int, dict, type(None))
    return {name: value if isinstance(value, plain) else list(value) for name, value in row.items()}
