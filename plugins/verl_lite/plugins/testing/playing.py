"""Play a trajectory with replies of your own, without a model and without processes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from pydantic import JsonValue

from verl_lite.errors import PluginError
from verl_lite.plugins.environments import Environments
from verl_lite.plugins.environments.binding import Binding, BoundEnvironment, BoundTool
from verl_lite.plugins.environments.contract import (
    EnvironmentDefinition,
    EnvironmentSession,
    environment_or_tool_of,
    tool_of,
)
from verl_lite.plugins.rollout import Message, Rollout, Turn

Reply = str | Message


def play(
    environment: type | None,
    replies: Sequence[Reply],
    *,
    tools: Sequence[Callable[..., object]] = (),
    row: Mapping[str, object] | None = None,
    seed: int = 0,
    **options: JsonValue,
) -> Rollout:
    """The trajectory of `replies`, the model's messages, as training would record it, without tokens.

    `environment` is a class with `@environment`, or None for tools alone. A reply is a text, or a message
    with `tool_calls`. The trajectory ends when the environment ends it ("stop") or the replies do ("turns").
    What an environment raises is raised as EnvironmentFailed.
    """
    binding = Binding(
        environment=None if environment is None else _bound(environment, options),
        tools=tuple(map(_bound_tool, tools)),
    )
    with Environments(binding=binding, debug_inline=True) as host:
        return asyncio.run(_play(host.open(row or {}, seed=seed), replies, row or {}))


async def _play(session: EnvironmentSession, replies: Sequence[Reply], row: Mapping[str, object]) -> Rollout:
    prompt = await session.reset()
    turns: list[Turn] = []
    details: dict[str, object] = {}
    is_done = False
    for reply in replies:
        message = Message(role="assistant", content=reply) if isinstance(reply, str) else reply
        turns.append(
            Turn(role="assistant", content=message["content"], tool_calls=message.get("tool_calls", ()))
        )
        step = await session.step(message)
        turns += [
            Turn(
                role=answer["role"],
                content=answer["content"],
                tool_call_id=answer.get("tool_call_id", ""),
                name=answer.get("name", ""),
                outcome=outcome,
                seconds=seconds,
            )
            for answer, outcome, seconds in zip(step.messages, step.outcomes, step.seconds, strict=True)
        ]
        details.update(step.details)
        is_done = step.done
        if is_done:
            break
    await session.close()
    said = [turn.content for turn in turns if turn.role == "assistant"]
    reference = row.get("reference")
    return Rollout(
        completion=said[-1] if said else "",
        prompt=tuple(prompt),
        reference=reference if isinstance(reference, str) else None,
        columns={**row, "environment": details},
        finish_reason="stop" if is_done else "turns",
        turns=tuple(turns),
    )


def _bound(environment: type, options: Mapping[str, JsonValue]) -> BoundEnvironment:
    definition = environment_or_tool_of(environment)
    if not isinstance(definition, EnvironmentDefinition):
        raise PluginError(f"{environment!r} is a tool: pass it as tools=[...]")
    return BoundEnvironment.of(definition, options, source=f"options of {definition.name}")


def _bound_tool(call: Callable[..., object]) -> BoundTool:
    definition = tool_of(call)
    return BoundTool.of(definition, {}, source=f"options of {definition.name}")
