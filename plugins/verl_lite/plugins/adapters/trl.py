"""TRL: `GRPOTrainer(reward_funcs=[as_trl_reward_func("rewards.yaml")])`.

TRL takes None as "no reward": a sample that our policies drop becomes None, never 0. If no other
function rewards that row, TRL warns and its advantage becomes 0. If another one does, TRL sums what is
left, as if ours had given 0: the first drop warns of that. With the other function in our config
(`use: trl:module.function`) the sample is dropped as a whole. Component values go into TRL's completions
table, the metrics of the pass into its log.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_lite.errors import ConfigError
from verl_lite.plugins.adapters.bridge import (
    BridgeSettings,
    ConfigSource,
    RewardBridge,
    component_values,
    make_rollout,
)
from verl_lite.plugins.rollout import Rollout, spoken
from verl_lite.plugins.score import ScoredBatch

_NOT_COLUMNS = ("trainer_state", "log_extra", "log_metric", "environments")


class TrlRewardFunc:
    """Returned by `as_trl_reward_func`. `close()` stops its worker processes."""

    def __init__(self, bridge: RewardBridge, reference_column: str, name: str) -> None:
        self.bridge = bridge
        self.reference_column = reference_column
        self.__name__ = name  # TRL's metrics have this name
        self._has_warned = False

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        given = {key: columns.pop(key, None) for key in _NOT_COLUMNS}
        ids = completion_ids if completion_ids is not None else [()] * len(prompts)
        step = int(getattr(given["trainer_state"], "global_step", 0) or 0)
        rows = zip(prompts, completions, ids, strict=True)
        rollouts = [
            self._rollout(number, row, {key: values[number - 1] for key, values in columns.items()}, step)
            for number, row in enumerate(rows, start=1)
        ]
        batch = self.bridge.score(rollouts, step=step)
        _log(batch, given["log_extra"], given["log_metric"])
        self._warn_of_drops(batch)
        return [row.reward for row in batch.rows]

    def _warn_of_drops(self, batch: ScoredBatch) -> None:
        dropped = [row for row in batch.rows if row.reward is None]
        if not dropped or self._has_warned:
            return
        self._has_warned = True
        warnings.warn(
            f"verl-lite dropped {len(dropped)} of {len(batch.rows)} samples (the first: "
            f"{dropped[0].dropped_because}). TRL sums the other reward_funcs for them, as if this one had "
            "given 0, which makes wrong advantages. If you have other reward_funcs, list them in the config "
            "instead: `other: {use: trl:my_module.my_function}`; then the sample is dropped as a whole. "
            "This is said once.",
            stacklevel=3,
        )

    def close(self) -> None:
        self.bridge.close()

    def _rollout(
        self, number: int, row: tuple[Any, Any, Sequence[int]], columns: Mapping[str, Any], step: int
    ) -> Rollout:
        prompt, completion, ids = row
        said = spoken(completion)
        return make_rollout(
            number,
            prompt=prompt,
            **said,
            completion_ids=() if said["turns"] else ids,  # TRL does not say which of them are a turn's
            reference=columns.get(self.reference_column),
            columns=dict(columns),
            policy_version=step,
            id=f"step-{step}/{number}",
        )


def as_trl_reward_func(
    config: ConfigSource,
    *,
    reference_column: str = "reference",
    name: str = "verl_lite",
    workers: int | None = None,
    debug_inline: bool = False,
) -> TrlRewardFunc:
    """The rewards of `config` (a path, a dict or RewardsConfig) as a TRL reward function.

    `reference_column` is the data set's column with the right answer. TRL passes all samples of a
    prompt together unless it spreads a group over several processes. Raises ConfigError
    and PluginError for a config that TRL cannot support.
    """
    if not name.isidentifier():
        raise ConfigError(f"name={name!r}: TRL names metrics by it; expected a Python identifier")
    settings = BridgeSettings(
        peer="TRL", sees_groups=True, tells_step=True, workers=workers, debug_inline=debug_inline
    )
    return TrlRewardFunc(RewardBridge(config, settings), reference_column, name)


def _log(
    batch: ScoredBatch,
    log_extra: Callable[[str, list[Any]], None] | None,
    log_metric: Callable[[str, float], None] | None,
) -> None:
    values = [component_values(row) for row in batch.rows]
    if log_extra is not None and values:
        for name in values[0]:
            log_extra(name, [row[name] for row in values])
    if log_metric is not None:
        for name, value in batch.metrics.items():
            log_metric(name, value)
