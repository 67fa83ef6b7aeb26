"""What runs in a worker process: tools that are called, and the environment of one trajectory.

The parent kills the process at a deadline, so nothing here watches the time. A job is a tuple whose first
item names a method of `Trajectory`; the reply is its result, or `Failed`.
"""

import asyncio
import contextlib
import inspect
import os
import pickle
import random
import socket
import sys
import threading
import traceback
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import pydantic_core

from verl_lite.errors import EnvironmentFailed, PluginError, SandboxError
from verl_lite.plugins.environments.binding import Binding
from verl_lite.plugins.environments.callables import Anything
from verl_lite.plugins.environments.contract import CutText, Step, ToolError, ToolSchema, schema_name, tool_of
from verl_lite.plugins.environments.schema import BadArguments, Signature, signature_of
from verl_lite.plugins.execution.calls import error_text
from verl_lite.plugins.execution.spec import Spec, unpacked
from verl_lite.plugins.rollout import Message, TurnOutcome, clean_text
from verl_lite.workers import Serve, Slot, child_pids, receive_frame, send_frame

ROLES = ("user", "system", "tool")  # of an environment's messages
CATCH = (Exception, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)
ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True)
class Failed:
    """Why an environment could not answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    text: str
    outcome: TurnOutcome


@dataclass(frozen=True, slots=True)
class Opening:
    """An environment's first messages and tools; `own` are the names that its `step` answers itself."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...]
    own: frozenset[str]


@dataclass(frozen=True, slots=True)
class Reply:
    """An environment's step, its messages cut; `outcomes` has one entry per message."""

    messages: tuple[Message, ...]
    outcomes: tuple[TurnOutcome, ...]
    done: bool
    details: Mapping[str, object]


class ReadyTool:
    """A tool that was built. `opened` is one trajectory's."""

    def __init__(self, built: Anything, signature: Signature, *, has_state: bool, max_chars: int) -> None:
        self.built = built
        self.signature = signature
        self.has_state = has_state
        self._max_chars = max_chars

    def opened(self) -> "ReadyTool":
        if not self.has_state:
            return self
        opened = self.built.open()  # type: ignore[attr-defined]
        return ReadyTool(opened, self.signature, has_state=False, max_chars=self._max_chars)

    async def call(self, arguments: str) -> ToolAnswer:
        """The result as text; whatever the tool raises is a text too."""
        try:
            given = self.signature.read(arguments)
        except BadArguments as error:
            return ToolAnswer(f"Error: {error}", "malformed")
        try:
            result = await awaited(self.built(**given))
            if inspect.isasyncgen(result):  # as of a generator: a list of what it yields
                result = [item async for item in result]
            text = as_text(result)
        except TimeoutError as error:
            return ToolAnswer(f"Error: {error or 'no result in time'}"[: self._max_chars], "timeout")
        except SandboxError as error:  # our own failure, and nothing the model did
            raise EnvironmentFailed(f"tool {schema_name(self.signature.schema)!r}: {error}") from error
        except ToolError as error:
            return ToolAnswer(cut(clean_text(str(error)), self._max_chars)[0], "error")
        except CATCH as error:  # the border: a tool answers the model with its error
            return ToolAnswer(
                f"Error: {type(error).__name__}: {error_text(error)}"[: self._max_chars], "error"
            )
        text, was_cut = cut(text, self._max_chars)
        return ToolAnswer(text, "truncated" if was_cut or isinstance(result, CutText) else "ok")

    def prepare(self) -> None:
        """Start what all trajectories share, where the tool says how."""
        prepare = getattr(self.built, "prepare", None)
        if prepare is not None:
            prepare()

    async def close(self) -> None:
        close = getattr(self.built, "close", None)
        if close is not None:
            await awaited(close())


async def awaited(value: Awaitable[ValueT] | ValueT) -> ValueT:
    return await value if inspect.isawaitable(value) else value


def as_text(result: object) -> str:
    """A tool's result as the model reads it: a text as it is, nothing as "", anything else as JSON."""
    if isinstance(result, str):
        return clean_text(result)
    return "" if result is None else clean_text(pydantic_core.to_json(result, fallback=_plain).decode())


def _plain(value: object) -> object:
    """What JSON has no type for: numpy's and torch's numbers and arrays as JSON's, the rest as text."""
    to_list = getattr(value, "tolist", None)
    found = to_list() if callable(to_list) else None
    return found if isinstance(found, (bool, int, float, str, list)) else str(value)


def cut(text: str, max_chars: int) -> tuple[str, bool]:
    """`text` with at most `max_chars` characters, and whether it was cut, which its end says.

    >>> cut("abcdef", 4)
    ('abcd\\n[2 more characters were cut]', True)
    """
    if len(text) <= max_chars:
        return text, False
    return f"{text[:max_chars]}\n[{len(text) - max_chars} more characters were cut]", True


def build_tools(binding: Binding) -> dict[str, ReadyTool]:
    """Every tool of `binding`, by name. What a constructor raises passes through."""
    return {
        tool.name: ReadyTool(
            tool.definition.call(tool.options) if tool.definition.is_class else tool.definition.call,
            tool.signature(),
            has_state=tool.has_state,
            max_chars=binding.max_result_chars,
        )
        for tool in binding.tools
    }


def prepare(spec: Spec) -> Serve:
    """For the fork server: import and build. Raises PluginError that says what cannot be."""
    try:
        binding = cast(Binding, unpacked(spec))
        tools = build_tools(binding)
        if binding.environment is not None:
            load = getattr(binding.environment.definition.call, "prepare", None)
            if load is not None:
                load(binding.environment.options)
    except BaseException as error:
        why = f"{type(error).__name__}: {error_text(error)}"[:1000]
        raise PluginError(f"{spec.name} cannot be loaded in a worker process: {why}") from error
    return partial(_serve, binding, tools)


def _serve(binding: Binding, tools: Mapping[str, ReadyTool], channel: socket.socket, slot: Slot) -> None:
    _silence()
    process = os.getpid()
    trajectory = Trajectory(binding, tools)
    while True:
        try:
            method, *arguments = pickle.loads(receive_frame(channel))
        except (EOFError, OSError):
            return
        reply = trajectory.answer(method, arguments)
        if os.getpid() != process:
            os._exit(0)  # a copy of this worker that a tool forked and let return
        is_clean = not child_pids() and threading.active_count() == 1
        send_frame(channel, bytes([is_clean]) + pickle.dumps(reply, 5))


def _silence() -> None:
    """What a tool prints is not its result, and nobody reads it here."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)


class Trajectory:
    """The environment and the stateful tools of one trajectory; without any, calls of any trajectory."""

    def __init__(self, binding: Binding, tools: Mapping[str, ReadyTool]) -> None:
        self._binding = binding
        self._ready = tools
        self._opened: dict[str, ReadyTool] = {}
        self._environment: Any = None  # an instance of the plugin's class
        self._environment_tools: dict[str, ReadyTool] = {}
        self._loop = asyncio.new_event_loop()  # one for all jobs: what a tool opens on it stays usable

    def answer(self, method: str, arguments: Sequence[Any]) -> Any:
        """The result of the method that a job names."""
        return self._loop.run_until_complete(getattr(self, method)(*arguments))

    def close_loop(self) -> None:
        """After this, nothing can be answered."""
        self._loop.close()

    async def call(self, name: str, arguments: str) -> ToolAnswer:
        if name not in self._opened:
            try:
                self._opened[name] = self._ready[name].opened()
            except CATCH as error:
                return ToolAnswer(
                    f"Error: {name} does not start: {type(error).__name__}: {error_text(error)}", "error"
                )
        return await self._opened[name].call(arguments)

    async def call_own(self, name: str, arguments: str) -> ToolAnswer:
        """Call a function that the environment offers as a tool."""
        return await self._environment_tools[name].call(arguments)

    async def reset(self, row: Mapping[str, object], seed: int) -> Opening | Failed:
        bound = self._binding.environment
        assert bound is not None
        random.seed(seed)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed(seed % 2**32)
        try:
            self._environment = bound.definition.call(bound.options, row)
            messages = await awaited(self._environment.reset())
            tools = tuple(getattr(self._environment, "tools", ()))
            schemas: list[ToolSchema] = [
                cast(ToolSchema, item) for item in tools if isinstance(item, Mapping)
            ]
            own = [self._ready_tool(item) for item in tools if not isinstance(item, Mapping)]
            self._environment_tools = dict(own)
            names = sorted([schema_name(schema) for schema in schemas] + [name for name, _ in own])
            if len(set(names)) < len(names):
                raise PluginError(f"two of its tools have one name: {', '.join(names)}")
            return Opening(
                tuple(_messages(messages, (*ROLES, "assistant"))),
                (*schemas, *(tool.signature.schema for _, tool in own)),
                frozenset(map(schema_name, schemas)),
            )
        except CATCH as error:
            return Failed(self._why(error))

    def _ready_tool(self, function: Anything) -> tuple[str, ReadyTool]:
        name = tool_of(function).name
        signature = signature_of(function, name=name)
        return name, ReadyTool(function, signature, has_state=False, max_chars=self._binding.max_result_chars)

    async def step(self, message: Message) -> Reply | Failed:
        try:
            step = await awaited(self._environment.step(message))
            if not isinstance(step, Step):
                raise TypeError(
                    "step must return a Step(messages=[...], done=..., details={...}), "
                    f"got {type(step).__name__}"
                )
            if not step.messages and not step.done:
                return Failed("step returned no message and done=False: the model would see nothing new")
            messages = _messages(step.messages, ROLES)
            details = pydantic_core.to_jsonable_python(dict(step.details or {}), fallback=_plain)
        except CATCH as error:
            return Failed(self._why(error))
        outcomes: list[TurnOutcome] = []
        for number, found in enumerate(messages):
            text, was_cut = cut(found["content"], self._binding.max_result_chars)
            messages[number] = {**found, "content": text}
            outcomes.append("truncated" if was_cut else "ok")
        return Reply(tuple(messages), tuple(outcomes), step.done, details)

    def _why(self, error: BaseException) -> str:
        """The error, and the deepest line of it in the environment's own file."""
        assert self._binding.environment is not None
        kind = self._binding.environment.definition.call
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        frames = traceback.walk_tb(error.__traceback__)
        own = [line for frame, line in frames if frame.f_code.co_filename == file]
        is_ours = kind.__module__.startswith("verl_lite.")
        where = f" ({os.path.basename(str(file))}:{own[-1]})" if own and not is_ours else ""
        return f"{type(error).__name__}: {error_text(error)}"[:1000] + where

    async def close(self) -> None:
        close = getattr(self._environment, "close", None)
        with contextlib.suppress(*CATCH):
            if close is not None:
                await awaited(close())
        for tool in self._opened.values():
            with contextlib.suppress(*CATCH):
                await tool.close()


def _messages(given: object, roles: Sequence[str]) -> list[Message]:
    if not isinstance(given, Sequence | None) or isinstance(given, str):
        raise TypeError(
            f'expected a list of messages [{{"role": "user", "content": ...}}], got {given!r:.100}'
        )
    return [_message(message, roles) for message in given or ()]


def _message(given: object, roles: Sequence[str]) -> Message:
    if not isinstance(given, Mapping) or given.get("role") not in roles:
        shown = f"{given!r:.100}"
        raise TypeError(f"expected messages with a role of {', '.join(roles)} and a content, got {shown}")
    content = given.get("content")
    if not isinstance(content, str):
        raise TypeError(f"a message's content must be text, got {type(content).__name__}")
    plain = pydantic_core.to_jsonable_python(dict(given), fallback=_plain)
    return cast(Message, {**plain, "content": clean_text(content)})
