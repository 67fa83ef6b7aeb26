"""The contract of environments and tools: `@tool`, `@environment`, `register_environments`.

A tool is a function that the model may call; an environment is a class that answers the model's messages.
What runs them is an `EnvironmentHost`; one trajectory is an `EnvironmentSession`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol, TypedDict, TypeVar

from pydantic import BaseModel

from verl_lite.errors import PluginError
from verl_lite.plugins.contract import Declared, NoOptions, Register, hookspec, refuse_mistakes
from verl_lite.plugins.environments.callables import Anything, name_of
from verl_lite.plugins.rollout import Message, TurnOutcome

CallableT = TypeVar("CallableT", bound=Anything)


class FunctionSchema(TypedDict):
    """`parameters` is a JSON schema of type "object"."""

    name: str
    description: str
    parameters: dict[str, object]


class ToolSchema(TypedDict):
    """One tool as OpenAI's `tools` and chat templates take it."""

    type: Literal["function"]
    function: FunctionSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What an environment answers to a message: further messages for the model, and whether it ends.

    `details` (numbers, texts, lists, mappings) are kept with the rollout, in its column `environment`.
    """

    messages: Sequence[Message] = ()
    done: bool = False
    details: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """One step of a session. `outcomes` and `seconds` have one entry per message.

    A tool that failed, hung or does not exist is a message that tells the model, with its outcome.
    """

    messages: Sequence[Message] = ()
    done: bool = False
    outcomes: Sequence[TurnOutcome] = ()
    seconds: Sequence[float] = ()
    details: Mapping[str, object] = field(default_factory=dict)


class EnvironmentSession(Protocol):
    """One trajectory. Belongs to the event loop that `reset` ran on; its methods are awaited one by one."""

    @property
    def tools(self) -> Sequence[ToolSchema]:
        """What the model may call, for the chat template."""
        ...

    async def reset(self) -> Sequence[Message]:
        """The whole prompt: the messages that the model sees first. Raises EnvironmentFailed."""
        ...

    async def step(self, message: Message) -> StepResult:
        """Answer an assistant's message. Raises EnvironmentFailed.

        With tool calls, the answer is one message of role "tool" per call, in order; without, it is the
        environment's. Without an environment such a message ends the trajectory.
        """
        ...

    async def close(self) -> None:
        """Free what the trajectory holds. Also after a failure; a second call does nothing."""
        ...


class EnvironmentHost(Protocol):
    """Runs the environments and tools of a config. Thread-safe."""

    def open(self, row: Mapping[str, object], *, seed: int) -> EnvironmentSession:
        """A trajectory of the data set's `row`: its columns, and its `prompt` as messages. Starts nothing."""
        ...

    def close(self) -> None:
        """End every session and worker."""
        ...


def schema_name(schema: ToolSchema) -> str:
    return schema["function"]["name"]


class CutText(str):
    """A tool's result that the tool itself has cut: its outcome is "truncated"."""

    __slots__ = ()


class ToolError(Exception):
    """Raise it in a tool to answer the model with the message as it is, and the outcome "error"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDefinition(Declared):
    """A tool as its author declared it.

    call        a function, sync or async: called with the model's arguments. Or a class: built once with its
                options, then `open()` makes one tool per trajectory (state), which is called and closed;
                without `open`, the object itself is called
    options_model  of a class
    isolate     run in a worker process that is killed at the deadline
    timeout_s   the deadline of one call
    """

    kind: ClassVar[Literal["tool"]] = "tool"

    isolate: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentDefinition(Declared):
    """An environment as its author declared it: `call(options, row)` makes the one of a trajectory.

    It has `reset() -> messages` and `step(message) -> Step`, sync or async, and may have `tools` (functions
    or methods that the model may call), `close()`, and a class method `prepare(options)`, called once
    before any trajectory: what it loads is shared by all. `timeout_s` is the deadline of one reset or step.
    """

    kind: ClassVar[Literal["environment"]] = "environment"

    timeout_s: float = 30.0


DefinitionT = TypeVar("DefinitionT", ToolDefinition, EnvironmentDefinition)


@hookspec
def register_environments(register: Register) -> None:
    """Hook, called once at start-up: call `register(it)` for each environment and tool of this plugin."""


def tool(
    name: str = "",
    *,
    options: type[BaseModel] | None = None,
    timeout_s: float = 10.0,
    isolate: bool = True,
) -> Callable[[CallableT], CallableT]:
    """Declare a function or class as a tool, by default under its own name; it stays callable as before.

    Type hints and the docstring become its JSON schema. ToolDefinition explains the arguments. Raises
    PluginError for a declaration that cannot work.
    """

    def declare(call: CallableT) -> CallableT:
        definition = ToolDefinition(
            name=name or name_of(call),
            call=call,
            options_model=options or NoOptions,
            timeout_s=timeout_s,
            isolate=isolate,
        )
        call.__verl_lite_tool__ = _checked(definition)  # type: ignore[attr-defined]
        return call

    return declare


def environment(
    name: str, *, options: type[BaseModel] | None = None, timeout_s: float = 30.0
) -> Callable[[CallableT], CallableT]:
    """Declare a class as the environment `name`. EnvironmentDefinition says what it has.

    Raises PluginError for a declaration that cannot work.
    """

    def declare(call: CallableT) -> CallableT:
        definition = EnvironmentDefinition(
            name=name, call=call, options_model=options or NoOptions, timeout_s=timeout_s
        )
        call.__verl_lite_environment__ = _checked(definition)  # type: ignore[attr-defined]
        return call

    return declare


def tool_of(call: Anything, *, name: str = "") -> ToolDefinition:
    """The declaration of `@tool` on `call`; without one, a tool under `name` or its own."""
    found = getattr(call, "__verl_lite_tool__", None)
    if isinstance(found, ToolDefinition):
        return replace(found, call=call)  # of a method, the one of its instance
    return _checked(ToolDefinition(name=name or name_of(call), call=call))


def environment_of(call: Anything, *, name: str) -> EnvironmentDefinition:
    """The declaration of `@environment` on `call`; without one, an environment under `name`."""
    found = getattr(call, "__verl_lite_environment__", None)
    return found or _checked(EnvironmentDefinition(name=name, call=call))


def environment_or_tool_of(call: Anything) -> EnvironmentDefinition | ToolDefinition:
    """The declaration of `@environment` or `@tool` on `call`. Raises PluginError if there is none."""
    found = getattr(call, "__verl_lite_environment__", None) or getattr(call, "__verl_lite_tool__", None)
    if not isinstance(found, (EnvironmentDefinition, ToolDefinition)):
        raise PluginError(
            f"{call!r} is no environment and no tool: decorate it with @environment('name') or @tool()"
        )
    return found


def _checked(definition: DefinitionT) -> DefinitionT:
    refuse_mistakes(definition, _mistakes(definition))
    return definition


def _takes(call: Anything, count: int) -> bool:
    """Whether it can be called with `count` arguments; what does not say so, as a class of C, is trusted."""
    try:
        inspect.signature(call).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def _mistakes(definition: ToolDefinition | EnvironmentDefinition) -> list[str]:
    call = definition.call
    if isinstance(definition, EnvironmentDefinition):
        return _environment_mistakes(call)
    if not definition.is_class and definition.options_model is not NoOptions:
        return ["options are for a tool that is a class; a function takes only the model's arguments"]
    if definition.is_class and not _takes(call, 1):
        return ["the class must take its options: def __init__(self, options)"]
    return []


def _environment_mistakes(call: Anything) -> list[str]:
    missing = [name for name in ("reset", "step") if not callable(getattr(call, name, None))]
    if missing:
        return [f"the class has no {' and no '.join(missing)}: see EnvironmentDefinition"]
    fits = {"__init__(self, options, row)": _takes(call, 2)}
    for name, count, signature in (("reset", 1, "reset(self)"), ("step", 2, "step(self, message)")):
        method = inspect.getattr_static(call, name)
        fits[signature] = not inspect.isfunction(method) or _takes(method, count)
    return [f"the class must have def {signature}" for signature, fit in fits.items() if not fit]
