"""Rewards as they are given in Python: a config, names, functions and lambdas, or a mix of them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from verl_lite.errors import ConfigError, PluginError
from verl_lite.plugins import (
    Component,
    RewardCatalog,
    RewardDefinition,
    RewardsConfig,
    definition_of,
    find_rewards,
    load_rewards_config,
    validate,
)
from verl_lite.plugins.contract import check_definition
from verl_lite.plugins.execution.spec import spec_of

_PREFIX = "notebook."  # of the names under which functions in memory enter the catalog


@dataclass(frozen=True, slots=True)
class NotebookRewards:
    """A config and the catalog that its `use` names refer to, with the functions given in memory."""

    config: RewardsConfig
    catalog: RewardCatalog


def read_rewards(given: object) -> NotebookRewards:
    """`given` as a config.

    A path to YAML, a RewardsConfig, a dict with `rewards:` as in YAML; or one reward, a list of rewards or a
    dict of name -> reward. A reward is a `use` ("math", "./mine.py:brevity"), a function of the rollout, or a
    dict as in YAML whose `use` may be a function. Raises ConfigError for anything else.
    """
    if isinstance(given, RewardsConfig):
        return NotebookRewards(given, find_rewards())
    if isinstance(given, Path) or (isinstance(given, str) and given.endswith((".yaml", ".yml"))):
        return NotebookRewards(load_rewards_config(given), find_rewards())
    whole = dict(given) if isinstance(given, Mapping) and "rewards" in given else {"rewards": _named(given)}
    functions: dict[str, RewardDefinition] = {}
    nodes = {name: _node(str(name), node, functions) for name, node in dict(whole["rewards"]).items()}
    config = validate(RewardsConfig, {**whole, "rewards": nodes}, source="rewards")
    catalog = find_rewards()
    return NotebookRewards(config, replace(catalog, rewards={**catalog.rewards, **functions}))


def _named(given: object) -> dict[str, object]:
    if isinstance(given, Mapping):
        return dict(given)
    many = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    if not many:
        raise ConfigError("rewards: expected at least one reward, got an empty list")
    names: dict[str, object] = {}
    for item in many:
        name = _name_of(item)
        if name in names:
            raise ConfigError(f"rewards: two are called {name!r}: give them as a dict of name -> reward")
        names[name] = item
    return names


def _name_of(item: object) -> str:
    if isinstance(item, str):
        name = item.rpartition(":")[2].rpartition("/")[2]
    elif callable(item):
        name = getattr(item, "__name__", type(item).__name__)
    else:
        raise ConfigError(
            f"rewards: expected a name, a function or a dict, got {type(item).__name__} ({item!r:.80})"
        )
    return re.sub(r"\W", "_", name.replace("<lambda>", "reward"))


def _node(name: str, given: Any, functions: dict[str, RewardDefinition]) -> dict[str, Any]:
    if isinstance(given, str):
        return {"use": given}
    node = dict(given) if isinstance(given, Mapping) else {"use": given}
    if isinstance(node.get("rewards"), Mapping):
        inside = {key: _node(str(key), value, functions) for key, value in node["rewards"].items()}
        return {**node, "rewards": inside}
    if callable(node.get("use")):
        key = _PREFIX + re.sub(r"\W", "_", name)
        functions[key] = _definition(key, node["use"])
        node["use"] = key
    return node


def _definition(key: str, call: Callable[..., Any]) -> RewardDefinition:
    """The function as it was declared with @reward, or with the defaults.

    One that a worker process cannot import (a lambda, a notebook's cell) runs in this process, where no
    deadline stops it.
    """
    if hasattr(call, "__verl_lite_reward__"):
        definition = definition_of(call)
    else:
        definition = check_definition(RewardDefinition(name=key, call=call, isolate=False))
    definition = replace(definition, name=key, distribution="this notebook", cache=False)
    if definition.isolate and not definition.is_async:
        options = definition.options_model.model_construct()
        probe = Component(name=key, definition=definition, options=options, timeout_s=1.0)
        try:
            spec_of(probe)
        except PluginError:
            return replace(definition, isolate=False)
    return definition
