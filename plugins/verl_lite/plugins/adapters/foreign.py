"""Reward functions written for TRL, verl, OpenRLHF or verifiers, as our rewards.

    use: trl:my_package.my_module.my_reward      or  trl:./my_rewards.py:my_reward
    use: verl:./reward.py:compute_score
    use: openrlhf:my_module.reward_func
    use: verifiers:my_module.my_reward

The function is called as its trainer calls it, in a worker process with a deadline. An exception, or a
result that is not a number, is the outcome "error"; None is "abstain"; nothing silently becomes 0. The
keys of `options:` are passed as further keyword arguments.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from verl_lite.errors import PluginError
from verl_lite.plugins.adapters.foreign_calls import OpenRlhfCall, Prepared, TrlCall, TrlOptions, VerlCall
from verl_lite.plugins.adapters.foreign_verifiers import RubricCall, RubricGroupCall, TaskRewardCall
from verl_lite.plugins.contract import Form, RewardDefinition
from verl_lite.plugins.rollout import Rollout

_CALLINGS: Mapping[str, Callable[[], "Calling"]] = {
    "openrlhf": OpenRlhfCall,
    "trl": TrlCall,
    "verl": VerlCall,
}
PEERS = (*_CALLINGS, "verifiers")


class ForeignOptions(BaseModel):
    """Options of a wrapped function: any, passed as keyword arguments."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Calling(Protocol):
    """How one trainer calls a reward function and reads its result. Stateless; pickled by class."""

    @property
    def form(self) -> Form: ...

    def prepare(self, rollouts: Sequence[Rollout], options: Mapping[str, Any]) -> Prepared:
        """The keyword arguments of the call, and a function from its result to one answer per rollout."""
        ...


class ForeignReward:
    """Another trainer's function, callable like one of our rewards."""

    def __init__(self, function: Callable[..., Any], calling: Calling) -> None:
        self.function = function
        self.calling = calling
        self.__module__ = function.__module__  # its code is hashed for the score cache
        self.__doc__ = inspect.getdoc(function)

    def __call__(self, rollouts: Any, options: BaseModel) -> Any:
        arguments, read = self._prepare(rollouts, options)
        return self._one_or_many(read(self.function(**arguments)))

    def _prepare(self, rollouts: Any, options: BaseModel) -> Prepared:
        many = [rollouts] if self.calling.form == "rollout" else rollouts
        return self.calling.prepare(many, options.model_dump())

    def _one_or_many(self, answers: Sequence[object]) -> Any:
        return answers[0] if self.calling.form == "rollout" else answers


class AsyncForeignReward(ForeignReward):
    """The same for an async function: concurrent calls on the event loop."""

    async def __call__(self, rollouts: Any, options: BaseModel) -> Any:
        arguments, read = self._prepare(rollouts, options)
        return self._one_or_many(read(await self.function(**arguments)))


def foreign_reward(peer: str, function: Callable[..., Any], *, name: str, source: str) -> RewardDefinition:
    """`function`, written for `peer` (one of PEERS), as a reward. Raises PluginError if it cannot be."""
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise PluginError(
            f"use: {peer}:{source}: {name} is {function!r:.80}; expected a function written for {peer}"
        )
    calling = _calling(peer, function, name)
    kind = AsyncForeignReward if inspect.iscoroutinefunction(function) else ForeignReward
    return RewardDefinition(
        name=name,
        call=kind(function, calling),
        options_model=TrlOptions if peer == "trl" else ForeignOptions,
        form=calling.form,
        distribution=source,
    )


def _calling(peer: str, function: Callable[..., Any], name: str) -> Calling:
    if peer in _CALLINGS:
        return _CALLINGS[peer]()
    parameters = inspect.signature(function).parameters
    if "runtime" in parameters and parameters["runtime"].default is inspect.Parameter.empty:
        raise PluginError(
            f"use: verifiers:...{name}: it needs verifiers' runtime (a live sandbox of the rollout), which a "
            "saved rollout does not have"
        )
    if "trace" in parameters:
        return TaskRewardCall(tuple(parameters))
    names = tuple(parameters)
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    kind = RubricGroupCall if RubricGroupCall.plurals & set(names) else RubricCall
    return kind(names, takes_all)
