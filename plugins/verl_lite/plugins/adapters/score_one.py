"""`score_one(config)`: a plain function from a completion to its reward, for trainers without an adapter."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from verl_lite.errors import ConfigError
from verl_lite.plugins.adapters.bridge import (
    BridgeSettings,
    ConfigSource,
    RewardBridge,
    make_rollout,
)
from verl_lite.plugins.rollout import Rollout, spoken
from verl_lite.plugins.score import ScoredRollout


class ScoreOne:
    """Returned by `score_one`. Threads may call it at once; it pickles as its config; `close()` ends it."""

    def __init__(self, bridge: RewardBridge) -> None:
        self.bridge = bridge

    def __call__(
        self,
        completion: object,
        *,
        prompt: object = None,
        reference: object = None,
        columns: Mapping[str, object] | None = None,
    ) -> float:
        """The reward of one completion.

        completion, prompt  text or messages; of several messages the last one is the completion
        reference           the right answer; a list has several accepted ones
        columns             whatever else the rewards read
        Raises RewardError for a sample that the policies drop, unless there is a number for it (`dropped=`).
        """
        return self.bridge.reward(
            self.scored(completion, prompt=prompt, reference=reference, columns=columns)
        )

    async def call_async(
        self,
        completion: Any,
        *,
        prompt: Any = None,
        reference: Any = None,
        columns: Mapping[str, Any] | None = None,
    ) -> float:
        """The same for an event loop, which is not blocked meanwhile."""
        given: dict[str, Any] = {"prompt": prompt, "reference": reference, "columns": columns}
        return await asyncio.to_thread(self, completion, **given)

    def many(
        self,
        completions: Sequence[object],
        *,
        prompts: Sequence[object] | None = None,
        references: Sequence[object] | None = None,
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> list[float]:
        """The rewards of several completions, scored together. `columns` have one value each.

        Raises ConfigError for lists of different lengths, and RewardError as for one completion.
        """
        lists: dict[str, Sequence[object]] = {**(columns or {})}
        lists |= {"prompts": prompts} if prompts is not None else {}
        lists |= {"references": references} if references is not None else {}
        for name, values in lists.items():
            if len(values) != len(completions):
                raise ConfigError(f"{name} has {len(values)} values for {len(completions)} completions")
        rollouts = [
            _rollout(
                number,
                completion,
                prompts[number - 1] if prompts is not None else None,
                references[number - 1] if references is not None else None,
                {name: values[number - 1] for name, values in (columns or {}).items()},
            )
            for number, completion in enumerate(completions, start=1)
        ]
        return [self.bridge.reward(row) for row in self.bridge.score(rollouts).rows]

    def scored(
        self,
        completion: object,
        *,
        prompt: object = None,
        reference: object = None,
        columns: Mapping[str, object] | None = None,
    ) -> ScoredRollout:
        """Every component's score, outcome and reason; `reward` is None for a dropped sample."""
        (row,) = self.bridge.score([_rollout(1, completion, prompt, reference, columns or {})]).rows
        return row

    def close(self) -> None:
        self.bridge.close()


def score_one(
    config: ConfigSource,
    *,
    dropped: float | None = None,
    workers: int | None = None,
    debug_inline: bool = False,
) -> ScoreOne:
    """The rewards of `config` (a path, a dict or RewardsConfig) as a function of one completion.

    Raises ConfigError for rewards that compare the samples of a prompt, weights on a schedule and
    `combine: gdpo`: a single completion has neither a group nor a step.
    """
    settings = BridgeSettings(peer="score_one", dropped=dropped, workers=workers, debug_inline=debug_inline)
    return ScoreOne(RewardBridge(config, settings))


def _rollout(
    number: int, completion: Any, prompt: Any, reference: Any, columns: Mapping[str, Any]
) -> Rollout:
    said = spoken(completion)
    return make_rollout(number, prompt=prompt, **said, reference=reference, columns=dict(columns))
