"""Trajectories of several turns for the estimators: which tokens were sampled, and which samples they make.

Returns and advantages run over the sampled tokens alone: what the environment wrote between two turns neither
discounts nor gets a value. A reward at such a token counts at the last token sampled before it.

Turn-level GAE: a turn is one action, whose value is the critic's at its first token and whose reward is the
sum over its tokens; gamma and lambda apply from turn to turn, and every token of a turn has its advantage and
target.

Shapes: T completion tokens, S of them sampled, K turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

from verl_lite.engine.types import TrainingSample
from verl_lite.plugins import Rollout

ValueT = TypeVar("ValueT", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePart:
    """The tokens [start, end) of a rollout's completion that were sampled behind `prompt_ids`."""

    prompt_ids: Sequence[int]
    start: int
    end: int


def sample_parts(rollout: Rollout) -> list[SamplePart]:
    """The rollout's training samples: one, or one per segment where the template rewrote earlier turns."""
    if not rollout.segments:
        return [SamplePart(prompt_ids=rollout.prompt_ids, start=0, end=len(rollout.completion_ids))]
    parts, start = [], 0
    for segment in rollout.segments:
        end = start + len(segment.completion_ids)
        parts.append(SamplePart(prompt_ids=segment.prompt_ids, start=start, end=end))
        start = end
    return parts


def bare_samples(rollout: Rollout) -> list[TrainingSample]:
    """The rollout's samples without advantages, for forward passes alone."""
    return [
        TrainingSample(
            prompt_ids=part.prompt_ids,
            completion_ids=rollout.completion_ids[part.start : part.end],
            group=rollout.group,
        )
        for part in sample_parts(rollout)
    ]


def sampled(values_T: Sequence[ValueT], mask_T: Sequence[int]) -> list[ValueT]:
    """The values of the sampled tokens."""
    return [value for value, bit in zip(values_T, mask_T, strict=True) if bit]


def spread(values_S: Sequence[float], mask_T: Sequence[int]) -> list[float]:
    """The values back at their tokens, 0.0 at the others.

    >>> spread([1.0, 2.0], [1, 0, 1])
    [1.0, 0.0, 2.0]
    """
    rest = iter(values_S)
    return [next(rest) if bit else 0.0 for bit in mask_T]


def sampled_rewards(rewards_T: Sequence[float], mask_T: Sequence[int]) -> list[float]:
    """Rewards of the sampled tokens, with those at other tokens added to the last one before them.

    >>> sampled_rewards([0.0, 0.25, 0.5, 1.0], [1, 1, 0, 1])
    [0.0, 0.75, 1.0]
    """
    rewards_S: list[float] = []
    early = 0.0
    for reward, bit in zip(rewards_T, mask_T, strict=True):
        if bit:
            rewards_S.append(reward + early)
            early = 0.0
        elif rewards_S:
            rewards_S[-1] += reward
        else:
            early += reward
    return rewards_S


def turn_lengths(mask_T: Sequence[int]) -> list[int]:
    """The number of tokens of each sampled turn.

    >>> turn_lengths([1, 1, 0, 0, 1])
    [2, 1]
    """
    return [len(list(bits)) for bit, bits in groupby(mask_T) if bit]
