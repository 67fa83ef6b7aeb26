"""verifiers: a reward function for its tasks (from 0.3 on), or a Rubric for its classic environments.

    as_verifiers_reward  an async function (task, trace) to plug into a task's rewards by name
    as_verifiers_rubric  a `verifiers.Rubric`, which verifiers 0.4 no longer has

Both need a number per sample. A sample that our policies drop raises RewardError, unless
`dropped=NUMBER` gives its number. A task records the error on the trace. verifiers' own Rubric
logs it and scores 0.0; ours lets it through.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from verl_lite.errors import PluginError
from verl_lite.plugins.adapters.bridge import (
    BridgeSettings,
    ConfigSource,
    RewardBridge,
    component_values,
    make_rollout,
)
from verl_lite.plugins.rollout import Rollout, spoken


def as_verifiers_reward(
    config: ConfigSource,
    *,
    reference_key: str = "answer",
    dropped: float | None = None,
    workers: int | None = None,
    debug_inline: bool = False,
) -> Callable[[object, object], Awaitable[float]]:
    """The rewards of `config` as a reward function `(task, trace) -> float` of verifiers' tasks.

    The completion is the trace's last reply, the prompt everything before its first one, and the messages
    from there on are the rollout's turns, if there are several. Every field of the task's data is a column;
    `reference_key` is the one with the right answer. Component values are stored in
    `trace.info["verl_lite"]`. Raises ConfigError for rewards that compare samples and for weight
    schedules: a task is scored one trace at a time, without a step.
    """
    settings = BridgeSettings(peer="verifiers", dropped=dropped, workers=workers, debug_inline=debug_inline)
    bridge = RewardBridge(config, settings)

    async def verl_lite(task: Any, trace: Any) -> float:
        rollout = _rollout_of_trace(task, trace, reference_key)
        (row,) = (await asyncio.to_thread(bridge.score, [rollout])).rows
        trace.info["verl_lite"] = {name: part.score.value for name, part in row.components.items()}
        return bridge.reward(row)

    return verl_lite


def as_verifiers_rubric(
    config: ConfigSource,
    *,
    reference_key: str = "answer",
    dropped: float | None = None,
    workers: int | None = None,
    debug_inline: bool = False,
) -> Any:
    """The rewards of `config` as a `verifiers.Rubric` of a classic environment.

    Columns are the row's `answer`, `task`, `example_id` and the contents of `info`. Rewards that compare
    samples work if the environment scores groups. Component values are the state's `metrics`.
    Raises PluginError if verifiers is not installed or has no Rubric.
    """
    base = _rubric_class()
    settings = BridgeSettings(
        peer="verifiers", sees_groups=True, dropped=dropped, workers=workers, debug_inline=debug_inline
    )
    bridge = RewardBridge(config, settings)
    return _make_rubric(base, bridge, reference_key)


def _rollout_of_trace(task: Any, trace: Any, reference_key: str) -> Rollout:
    messages = [message.model_dump(exclude_none=True) for message in trace.messages]
    first = next((at for at, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    said = spoken(messages[first:] or "")
    columns = task.model_dump(mode="json", exclude_none=True)
    return make_rollout(
        1,
        id=trace.id,
        prompt=messages[:first],
        turns=said["turns"],
        completion=trace.last_reply,
        reference=columns.get(reference_key),
        finish_reason="length" if trace.is_truncated else "stop",
        columns=columns,
    )


def _rubric_class() -> type[object]:
    try:
        rubric: type[object] = import_module("verifiers").Rubric
    except ModuleNotFoundError as error:
        raise PluginError(f"as_verifiers_rubric needs the package verifiers: {error}") from None
    except AttributeError:
        try:
            found = version("verifiers")
        except PackageNotFoundError:
            found = "(of unknown version)"
        raise PluginError(
            f"verifiers {found} has no Rubric (removed in 0.4): plug as_verifiers_reward(config) into "
            "the task's rewards"
        ) from None
    return rubric


def _make_rubric(base: type[Any], bridge: RewardBridge, reference_key: str) -> Any:
    components = bridge.components

    class VerlLiteRubric(base):  # type: ignore[misc]
        """Scores with one of our configs, under its outcome policies; nothing silently becomes 0."""

        @property
        def has_group_rewards(self) -> bool:
            return any(component.definition.form == "group" for component in components)

        async def score_rollout(self, state: object) -> None:
            await self._score([state])

        async def score_group(self, states: Sequence[Any]) -> None:
            rewards = await self._score(states)
            mean = sum(rewards) / len(rewards) if rewards else 0.0
            for state, reward in zip(states, rewards, strict=True):
                state["advantage"] = reward - mean
                for turn in state.get("trajectory") or ():
                    for key in ("advantage", "reward"):
                        if turn.get(key) is None:
                            turn[key] = state[key]

        async def _score(self, states: Sequence[Any]) -> list[float]:
            rollouts = [
                _rollout_of_state(number, state, reference_key)
                for number, state in enumerate(states, start=1)
            ]
            rows = (await asyncio.to_thread(bridge.score, rollouts)).rows
            for state, row in zip(states, rows, strict=True):
                state["reward"] = bridge.reward(row)
                state["metrics"] = component_values(row)
            return [state["reward"] for state in states]

    return VerlLiteRubric()


def _rollout_of_state(number: int, state: Any, reference_key: str) -> Rollout:
    prompt = _plain(state["prompt"])
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    info = state.get("info") or {}
    columns = {
        **(info if isinstance(info, Mapping) else {"info": info}),
        **{key: state[key] for key in ("answer", "task", "example_id") if state.get(key) is not None},
    }
    return make_rollout(
        number,
        prompt=prompt,
        **spoken(_plain(state["completion"])),
        reference=columns.get(reference_key),
        finish_reason="length" if state.get("is_truncated") else "",
        columns=columns,
        group=str(state["example_id"]) if state.get("example_id") is not None else None,
    )


def _plain(messages: Any) -> Any:
    """Text, or messages as mappings: verifiers has its own message models."""
    if isinstance(messages, str) or messages is None:
        return messages or ""
    return [m if isinstance(m, Mapping) else m.model_dump(exclude_none=True) for m in messages]
