"""The contract plugin authors write against: `@reward`, `@hookimpl`, `register_rewards`.

A plugin module's own rewards are found; one with a hook registers what the hook names instead.

A plugin module may state the version of the contract it was written for with
`VERL_LITE_API_VERSION = 1`; the default is the current one.
"""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import pluggy
from pydantic import BaseModel, ConfigDict

from verl_lite.errors import PluginError
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score

API_VERSION = 1
PROJECT = "verl_lite"  # the pluggy project and the entry-point group
BUILTIN_DISTRIBUTION = "verl-lite"  # the distribution of the built-in rewards

Form = Literal["rollout", "batch", "group"]
CallableT = TypeVar("CallableT", bound=Callable[..., Any])

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Register(Protocol):
    """What the hooks are given: call it with each reward, environment or tool of the plugin."""

    def __call__(self, call: Callable[..., object], /) -> None: ...


@hookspec
def register_rewards(register: Register) -> None:
    """Hook, called once at start-up: call `register(fn)` for each reward of this plugin."""


class NoOptions(BaseModel):
    """The options of a reward that takes none."""

    # built when first used: pydantic's model building is a tenth of our import time
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What rewards, environments and tools have in common: a name, a function or class, its options."""

    kind: ClassVar[str]

    name: str
    call: Callable[..., Any]
    options_model: type[BaseModel] = NoOptions
    timeout_s: float = 10.0
    distribution: str = ""  # filled in by discovery

    @property
    def is_class(self) -> bool:
        """Whether `call` is a class, built once per worker with its options."""
        return inspect.isclass(self.call)

    @property
    def summary(self) -> str:
        """The first paragraph of its docstring."""
        return (inspect.getdoc(self.call) or "").split("\n\n")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardDefinition(Declared):
    """A reward as its author declared it. `call` is the function, or the class of a stateful reward.

    form        "rollout": call(rollout, options) -> Score | float | bool | None
                "batch":   call(rollouts, options) -> one answer per rollout, for any rollouts together
                "group":   call(rollouts, options) -> one answer per rollout, for all samples of one prompt
    isolate     run in a worker process that is killed at the deadline (for anything that may hang)
    timeout_s   the deadline of one call
    max_batch   maximum number of rollouts per call of form "batch"
    max_concurrency  maximum number of concurrent calls of an async reward
    retry_on    exception types to retry (a busy server), at most `max_retries` times
    version     raise it when the same input may score differently: cached scores are keyed by it
    cache       whether offline scoring caches the scores; False if scoring is faster than a look-up
    is_remote   a server computes it: a passed deadline is the outcome "error", for its silence says nothing
                about the row. With `cache=False` too, nothing is kept: its code may change unseen
    A class is built once per worker with its options and then called with only the rollout(s).
    """

    kind: ClassVar[Literal["reward"]] = "reward"

    form: Form = "rollout"
    isolate: bool = True
    max_batch: int = 64
    max_concurrency: int = 32
    retry_on: tuple[type[Exception], ...] = ()
    max_retries: int = 2
    version: str = "1"
    cache: bool = True
    is_remote: bool = False

    @property
    def is_async(self) -> bool:
        """Whether `call` is a coroutine function, or its instances are."""
        by_call = getattr(self.call, "__call__", None)  # noqa: B004
        return inspect.iscoroutinefunction(self.call) or inspect.iscoroutinefunction(by_call)

    @property
    def takes_options(self) -> bool:
        """Whether `call` has a second parameter for the options (a class always gets them)."""
        return self.is_class or len(inspect.signature(self.call).parameters) > 1


def reward(
    name: str,
    *,
    options: type[BaseModel] | None = None,
    form: Form = "rollout",
    isolate: bool = True,
    timeout_s: float = 10.0,
    max_batch: int = 64,
    max_concurrency: int = 32,
    retry_on: tuple[type[Exception], ...] = (),
    max_retries: int = 2,
    version: str = "1",
    cache: bool = True,
    is_remote: bool = False,
) -> Callable[[CallableT], CallableT]:
    """Declare a function or class as the reward `name`; the function stays callable as before.

    RewardDefinition explains the arguments. Raises PluginError for a declaration that cannot work: an
    unknown form, options that are not a pydantic model, a signature that does not fit.
    """

    def declare(call: CallableT) -> CallableT:
        definition = RewardDefinition(
            name=name,
            call=call,
            options_model=options or NoOptions,
            form=form,
            isolate=isolate,
            timeout_s=timeout_s,
            max_batch=max_batch,
            max_concurrency=max_concurrency,
            retry_on=retry_on,
            max_retries=max_retries,
            version=version,
            cache=cache,
            is_remote=is_remote,
        )
        call.__verl_lite_reward__ = check_definition(definition)  # type: ignore[attr-defined]
        return call

    return declare


def definition_of(call: Callable[..., object]) -> RewardDefinition:
    """The declaration that `@reward` attached to `call`. Raises PluginError if there is none."""
    found = getattr(call, "__verl_lite_reward__", None)
    if not isinstance(found, RewardDefinition):
        raise PluginError(f"{call!r} is not a reward: decorate it with @reward('name')")
    return found


def check_definition(definition: RewardDefinition) -> RewardDefinition:
    """`definition`. Raises PluginError listing every mistake of the declaration, if there is one."""
    refuse_mistakes(definition, [*_wrong_settings(definition), *_wrong_signature(definition)])
    return definition


def refuse_mistakes(definition: Declared, found: Sequence[str]) -> None:
    """Raise PluginError listing `found`, and what is wrong of a declaration of any kind, if anything is."""
    model = definition.options_model
    checks = {
        "a name is letters, digits, '_', '-' and '.', starting with a letter": not re.fullmatch(
            r"[A-Za-z][A-Za-z0-9_.-]*", definition.name
        ),
        f"options must be a pydantic model class, got {model!r}": not (
            isinstance(model, type) and issubclass(model, BaseModel)
        ),
        f"timeout_s={definition.timeout_s!r}; expected seconds above 0": not definition.timeout_s > 0,
    }
    mistakes = [*(message for message, is_wrong in checks.items() if is_wrong), *found]
    if mistakes:
        raise PluginError(f"{definition.kind} {definition.name!r}: {'; '.join(mistakes)}")


def _wrong_settings(definition: RewardDefinition) -> list[str]:
    retry_on = definition.retry_on
    checks = {
        f"form={definition.form!r}; expected 'rollout', 'batch' or 'group'": definition.form
        not in ("rollout", "batch", "group"),
        f"max_batch={definition.max_batch!r}; expected 1 or more": definition.max_batch < 1,
        f"max_retries={definition.max_retries!r}; expected 0 or more": definition.max_retries < 0,
        f"retry_on={retry_on!r}; expected a tuple of exception classes": not all(
            isinstance(kind, type) and issubclass(kind, Exception) for kind in retry_on
        ),
    }
    return [message for message, is_wrong in checks.items() if is_wrong]


def _wrong_signature(definition: RewardDefinition) -> list[str]:
    """Why `call` cannot be called as the contract says; empty if it can."""
    call = definition.call
    if inspect.isclass(call):
        if "__call__" not in dir(call):
            return ["the class has no __call__(self, rollout): there is nothing to score with"]
        return _not_callable_with(call, 1, "the constructor takes the options alone: __init__(self, options)")
    plural = "" if definition.form == "rollout" else "s"
    usage = f"expected (rollout{plural}) or (rollout{plural}, options)"
    one, two = _not_callable_with(call, 1, usage), _not_callable_with(call, 2, usage)
    return one and two


def _not_callable_with(call: Callable[..., object], count: int, usage: str) -> list[str]:
    try:
        signature = inspect.signature(call)
    except (TypeError, ValueError):  # a builtin without a signature: checked by its first call
        return []
    try:
        signature.bind(*range(count))
    except TypeError:
        return [f"the signature is {signature}, {usage}"]
    return []


def applies_always(rollout: Rollout, scores: Mapping[str, Score]) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One reward bound to its options under a name of the config: what execution runs.

    `applies(rollout, scores)` decides whether the component runs for a rollout, given the scores of the
    components in `needs` (gates and routing). Where it does not run, its score is "abstain".
    """

    name: str
    definition: RewardDefinition
    options: BaseModel
    timeout_s: float
    needs: frozenset[str] = frozenset()
    applies: Callable[[Rollout, Mapping[str, Score]], bool] = field(default=applies_always)
