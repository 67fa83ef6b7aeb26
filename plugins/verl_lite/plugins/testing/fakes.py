"""Fakes for testing rewards: rollouts, groups, and a reward run exactly as in training."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from verl_lite.plugins.contract import Component, applies_always, definition_of
from verl_lite.plugins.execution import Execution, TimedScore
from verl_lite.plugins.rollout import Message, Rollout
from verl_lite.plugins.score import Score


def fake_rollout(
    completion: str = "The answer is 4.", *, question: str = "What is 2 + 2?", **fields: Any
) -> Rollout:
    """A rollout of one question; `fields` sets other fields of Rollout (reference, columns, id, ...)."""
    if "prompt" not in fields:
        fields["prompt"] = (Message(role="user", content=question),)
    return Rollout(completion=completion, **fields)


def fake_group(completions: Sequence[str], *, group: str = "group-0", **fields: Any) -> list[Rollout]:
    """The samples of one prompt: one rollout per completion, with ids and sample indices."""
    return [
        fake_rollout(completion, group=group, sample_index=index, id=f"{group}/{index}", **fields)
        for index, completion in enumerate(completions)
    ]


def component_for(
    reward: Callable[..., Any],
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    needs: Sequence[str] = (),
    applies: Callable[[Rollout, Mapping[str, Score]], bool] = applies_always,
    **options: Any,
) -> Component:
    """A decorated reward as a component with options, by default under its own name and deadline."""
    definition = definition_of(reward)
    return Component(
        name=name or definition.name,
        definition=definition,
        options=definition.options_model(**options),
        timeout_s=timeout_s or definition.timeout_s,
        needs=frozenset(needs),
        applies=applies,
    )


def score_rollouts(
    reward: Callable[..., Any],
    rollouts: Sequence[Rollout],
    *,
    workers: int | None = 1,
    debug_inline: bool = False,
    **options: Any,
) -> list[TimedScore]:
    """The scores of a single reward, run as in training."""
    component = component_for(reward, **options)
    return score_with(component, rollouts, workers=workers, debug_inline=debug_inline)


def score_with(
    component: Component, rollouts: Sequence[Rollout], *, workers: int | None = 1, debug_inline: bool = False
) -> list[TimedScore]:
    with Execution([component], workers=workers, debug_inline=debug_inline) as execution:
        run = execution.start()
        run.add(rollouts)
        return [row[component.name] for row in run.finish()]
