"""OpenRLHF: a file with `reward_func = as_openrlhf_reward_func("rewards.yaml")`.

    --reward.remote_url my_reward.py

OpenRLHF needs a number per sample. A sample that our policies drop raises RewardError, unless
`dropped=NUMBER` gives its number. OpenRLHF logs the exception and continues without a
reward for the sample.
"""

from collections.abc import Sequence
from typing import Any

from verl_lite.errors import DataError
from verl_lite.plugins.adapters.bridge import (
    BridgeSettings,
    ConfigSource,
    RewardBridge,
    component_values,
    make_rollout,
)
from verl_lite.plugins.rollout import Rollout

END_TOKENS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)


class OpenRlhfRewardFunc:
    """Returned by `as_openrlhf_reward_func`. OpenRLHF calls it from several threads."""

    def __init__(self, bridge: RewardBridge, end_tokens: Sequence[str]) -> None:
        self.bridge = bridge
        self.end_tokens = tuple(end_tokens)
        self.__name__ = "reward_func"

    def __call__(
        self, queries: Sequence[str], prompts: Sequence[str], labels: Sequence[object], **_: object
    ) -> dict[str, object]:
        import torch  # OpenRLHF has it; we need it only in a call

        rows = zip(queries, prompts, labels, strict=True)
        rollouts = [
            split_query(number, *row, end_tokens=self.end_tokens) for number, row in enumerate(rows, start=1)
        ]
        scored = self.bridge.score(rollouts).rows
        rewards = torch.tensor([self.bridge.reward(row) for row in scored], dtype=torch.float32)
        values = [component_values(row) for row in scored]
        logs = {name: torch.tensor([row[name] for row in values]) for name in (values[0] if values else ())}
        return {"rewards": rewards, "scores": rewards.clone(), "extra_logs": logs}

    def close(self) -> None:
        self.bridge.close()


def split_query(
    number: int, query: str, prompt: str, label: Any, *, end_tokens: Sequence[str] = END_TOKENS
) -> Rollout:
    """The rollout of a query, whose completion is what follows the prompt, without trailing `end_tokens`.

    Raises DataError for a query that does not begin with its prompt.
    """
    if not (isinstance(query, str) and isinstance(prompt, str) and query.startswith(prompt)):
        raise DataError(
            "OpenRLHF's query does not begin with its prompt (truncated, or changed by the tokenizer), "
            f"so the completion cannot be separated: query {query!r:.80}, prompt {prompt!r:.80}"
        )
    completion = query[len(prompt) :]
    ends = tuple(end_tokens)
    while completion.endswith(ends):
        completion = next(completion.removesuffix(t) for t in ends if completion.endswith(t))
    return make_rollout(
        number, prompt=prompt, completion=completion, reference=label, columns={"label": label}
    )


def as_openrlhf_reward_func(
    config: ConfigSource,
    *,
    end_tokens: Sequence[str] = END_TOKENS,
    dropped: float | None = None,
    workers: int | None = None,
    debug_inline: bool = False,
) -> OpenRlhfRewardFunc:
    """The rewards of `config` as OpenRLHF's `reward_func(queries, prompts, labels)`.

    The completion is the query without its prompt and without trailing `end_tokens`; the label is the
    reference. Returns `rewards` and `scores` (equal), and each component's value in `extra_logs`.
    Raises ConfigError for rewards that compare samples and for weight schedules: OpenRLHF passes one
    sample per call and no step.
    """
    settings = BridgeSettings(peer="OpenRLHF", dropped=dropped, workers=workers, debug_inline=debug_inline)
    return OpenRlhfRewardFunc(RewardBridge(config, settings), [token for token in end_tokens if token])
