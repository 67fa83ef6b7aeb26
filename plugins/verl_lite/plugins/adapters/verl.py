"""verl: a file with `compute_score = as_verl_compute_score("rewards.yaml")`, named by its config.

    reward.custom_reward_function.path=my_reward.py reward.custom_reward_function.name=compute_score

verl needs a number per sample. A sample that our policies drop raises RewardError, unless
`dropped=NUMBER` gives its number.
"""

from collections.abc import Mapping

from verl_lite.errors import ConfigError
from verl_lite.plugins.adapters.bridge import (
    BridgeSettings,
    ConfigSource,
    RewardBridge,
    component_values,
    make_rollout,
)


class VerlComputeScore:
    """Returned by `as_verl_compute_score`. verl calls it from several threads."""

    def __init__(self, bridge: RewardBridge, prompt_key: str) -> None:
        self.bridge = bridge
        self.prompt_key = prompt_key
        self.__name__ = "compute_score"

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: object,
        extra_info: Mapping[str, object] | None = None,
        **settings: object,
    ) -> dict[str, float]:
        extra = dict(extra_info or {})
        rollout = make_rollout(
            1,
            prompt=extra.get(self.prompt_key),
            completion=solution_str,
            reference=ground_truth,
            columns={**extra, **settings, "data_source": data_source, "ground_truth": ground_truth},
        )
        (row,) = self.bridge.score([rollout]).rows
        # the same keys for every sample: verl drops keys that only some have
        return {**component_values(row), "score": self.bridge.reward(row)}

    def close(self) -> None:
        self.bridge.close()


def as_verl_compute_score(
    config: ConfigSource,
    *,
    prompt_key: str = "question",
    dropped: float | None = None,
    workers: int | None = None,
    debug_inline: bool = False,
) -> VerlComputeScore:
    """The rewards of `config` as verl's `compute_score`: a dict with `score` and each component's value.

    verl does not pass the prompt; `prompt_key` is the key of `extra_info` with the question, if the data
    set has one. `data_source` is a column, so `sources:` works. A component without a value is nan in
    the dict. Raises ConfigError for rewards that compare samples and for weight schedules: verl passes
    one sample per call and no step.
    """
    settings = BridgeSettings(peer="verl", dropped=dropped, workers=workers, debug_inline=debug_inline)
    bridge = RewardBridge(config, settings)
    if "score" in bridge.config.rewards:
        raise ConfigError("rewards.score: verl keeps the name 'score' for the total; rename that reward")
    return VerlComputeScore(bridge, prompt_key)
