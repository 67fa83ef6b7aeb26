"""A host of environments without processes, for testing what calls one."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from verl_lite.errors import EnvironmentFailed
from verl_lite.plugins.environments.contract import Step, StepResult, ToolSchema
from verl_lite.plugins.rollout import Message, TurnOutcome

Reply = Callable[[Message], Step]


class FakeEnvironments:
    """An EnvironmentHost: `tools` are plain functions of keyword arguments, `reply` the environment.

    Each answer takes `delay_s`, awaited. A tool that raises answers its error; a `reply` that raises is
    EnvironmentFailed. `num_open` counts the sessions that were reset and not closed.

    >>> def double(x):
    ...     "Twice x."
    ...     return 2 * x
    >>> host = FakeEnvironments(tools=[double])
    >>> session = host.open({"prompt": [{"role": "user", "content": "2 * 21?"}]}, seed=0)
    >>> call = {"id": "1", "type": "function", "function": {"name": "double", "arguments": '{"x": 21}'}}
    >>> asyncio.run(session.step({"role": "assistant", "content": "", "tool_calls": [call]})).messages
    ({'role': 'tool', 'content': '42', 'tool_call_id': '1', 'name': 'double'},)
    """

    def __init__(
        self, *, tools: Sequence[Callable[..., object]] = (), reply: Reply | None = None, delay_s: float = 0.0
    ) -> None:
        self.tools = {tool.__name__: tool for tool in tools}
        self.reply = reply
        self.delay_s = delay_s
        self.num_open = 0
        self.seeds: list[int] = []

    def open(self, row: Mapping[str, object], *, seed: int) -> "FakeSession":
        self.seeds.append(seed)
        return FakeSession(self, row)

    def close(self) -> None:
        self.tools = {}


class FakeSession:
    def __init__(self, host: FakeEnvironments, row: Mapping[str, object]) -> None:
        self._host = host
        self._row = row
        self._is_open = False

    @property
    def tools(self) -> Sequence[ToolSchema]:
        return [_schema(name, tool) for name, tool in self._host.tools.items()]

    async def reset(self) -> Sequence[Message]:
        self._is_open = True
        self._host.num_open += 1
        return cast(Sequence[Message], self._row["prompt"])

    async def step(self, message: Message) -> StepResult:
        delay_s = self._host.delay_s
        if delay_s:
            await asyncio.sleep(delay_s)
        calls = message.get("tool_calls") or ()
        if calls:
            answers = [self._call(call["function"]["name"], call["function"]["arguments"]) for call in calls]
            messages = tuple(
                Message(
                    role="tool", content=text, tool_call_id=call.get("id", ""), name=call["function"]["name"]
                )
                for call, (text, _) in zip(calls, answers, strict=True)
            )
            return StepResult(
                messages=messages,
                outcomes=tuple(outcome for _, outcome in answers),
                seconds=(delay_s,) * len(calls),
            )
        if self._host.reply is None:
            return StepResult(done=True)
        try:
            step = self._host.reply(message)
        except Exception as error:
            raise EnvironmentFailed(f"{type(error).__name__}: {error}") from error
        return StepResult(
            messages=step.messages,
            done=step.done,
            outcomes=["ok" for _ in step.messages],
            seconds=[delay_s for _ in step.messages],
            details=step.details,
        )

    def _call(self, name: str, arguments: str) -> tuple[str, TurnOutcome]:
        tool = self._host.tools.get(name)
        if tool is None:
            return f"there is no tool {name!r}", "unknown_tool"
        try:
            given = json.loads(arguments)
        except ValueError as error:
            return f"the arguments are not JSON: {error}", "malformed"
        try:
            return str(tool(**given)), "ok"
        except Exception as error:  # noqa: BLE001 - the border: a tool answers the model with its error
            return f"{type(error).__name__}: {error}", "error"

    async def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._host.num_open -= 1


def _schema(name: str, tool: Callable[..., object]) -> ToolSchema:
    parameters: dict[str, object] = {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": name, "description": tool.__doc__ or "", "parameters": parameters},
    }
