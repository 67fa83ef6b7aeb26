"""The `rewards:` and `scoring:` sections: what is rewarded, how it is combined, what a failure does.

Whatever can be checked without the installed plugins is checked here, before anything loads: unknown
keys, unknown names in gates, gates that wait for each other, empty schedules.
"""

import difflib
import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, FiniteFloat, PositiveFloat, PositiveInt, Tag, model_validator

from verl_lite.plugins.composite.gate import FUNCTIONS, Gate, parse_gate
from verl_lite.plugins.composite.schedule import Weight
from verl_lite.plugins.config_file import ConfigModel, apply_overrides, read_yaml, validate

FailurePolicy = Literal["drop", "zero", "abort"]
AbstainPolicy = Literal["skip", "drop", "zero"]
Bounds = tuple[FiniteFloat | None, FiniteFloat | None]


class _Weighted(ConfigModel):
    """Common to a single reward and a nested group: how it enters the total.

    A value is clipped to `clip`, then becomes `scale * value + offset`, then is multiplied by `weight`.
    `when` and `sources` restrict it to some rollouts.
    """

    weight: Weight = 1.0
    """Factor of the value in the combined reward, constant or a schedule over steps. 0 only measures the
    reward (a shadow)."""
    when: str = ""
    """A condition on other rewards' values, such as "format > 0": where it is false, this one is not computed
    and contributes nothing."""
    sources: tuple[str, ...] = ()
    """Score only rows whose `scoring.source_column` has one of these values. Empty: all rows."""
    clip: Bounds | None = None
    """Lowest and highest value, applied before scale and offset; null leaves a side open."""
    scale: FiniteFloat = 1.0
    """Factor of the clipped value, before the offset: to bring rewards of other ranges to a common one."""
    offset: FiniteFloat = 0.0
    """Added to the scaled value, before the weight."""

    @model_validator(mode="after")
    def _check_weighted(self) -> "_Weighted":
        if self.clip is not None:
            low, high = self.clip
            if low is not None and high is not None and low > high:
                raise ValueError(f"clip=[{low:g}, {high:g}]: the lower bound is above the upper one")
        if self.when:
            try:
                parse_gate(self.when)
            except ValueError as error:
                raise ValueError(f"when: {error}") from None
        return self


class ComponentConfig(_Weighted):
    """One reward. `use` is a registered name, `./file.py:function` or `package.module:function`.

    `timeout_s` overrides the deadline the reward declares; the `on_*` policies override `scoring`'s.
    """

    use: str = Field(min_length=1)
    """The reward: a registered name (`verl-lite plugins list`), ./file.py:function, package.module:function,
    or http://host:port/name."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The reward's own options; `verl-lite plugins show NAME` explains them."""
    timeout_s: PositiveFloat | None = None
    """Deadline of one call in seconds. Unset: the one that the reward declares."""
    on_error: FailurePolicy | None = None
    """What an error of this reward does. Unset: scoring.on_error."""
    on_timeout: FailurePolicy | None = None
    """What a passed deadline of this reward does. Unset: scoring.on_timeout."""
    on_abstain: AbstainPolicy | None = None
    """What it does when this reward does not judge a row. Unset: scoring.on_abstain."""


class GroupConfig(_Weighted):
    """Several rewards combined into one value, which is then treated like a single reward's."""

    combine: Literal["sum", "product"] = "sum"
    """Add the values of the group's rewards, or multiply them."""
    rewards: dict[str, "RewardNode"] = Field(min_length=1)
    """The rewards of the group by name."""


def _kind(value: object) -> str:
    if isinstance(value, GroupConfig) or (isinstance(value, Mapping) and "rewards" in value):
        return "group"
    return "component"


RewardNode = Annotated[
    Annotated[ComponentConfig, Tag("component")] | Annotated[GroupConfig, Tag("group")], Discriminator(_kind)
]


class ScoringConfig(ConfigModel):
    """How components become one reward, and what a missing value does.

    on_*      drop: the sample leaves the batch and its group's baseline, and is counted; zero: as if
              the reward were 0.0; abort: the run stops; skip (abstain only): the component contributes
              nothing
    """

    combine: Literal["sum", "product", "gdpo"] = "sum"
    """sum adds the contributions, product multiplies those that exist, gdpo normalises advantages per reward
    (needs algorithm.advantage: gdpo)."""
    on_error: FailurePolicy = "drop"
    """What an error of a reward does: drop the sample (it leaves the batch and its group's baseline, and is
    counted), count it as zero, or abort the run."""
    on_timeout: FailurePolicy = "zero"
    """The same for a passed deadline. zero by default, for a slow answer may be the model's fault."""
    on_abstain: AbstainPolicy = "skip"
    """What it does when a reward does not judge a row: skip (it contributes nothing), drop the sample, or
    count zero."""
    max_error_fraction: float = Field(default=0.05, ge=0, le=1)
    """The run stops when a reward fails on a larger fraction of the rollouts it ran on."""
    max_timeout_fraction: float = Field(default=0.5, ge=0, le=1)
    """The run stops when a reward passes its deadline on a larger fraction of the rollouts it ran on."""
    breaker_min_rows: PositiveInt = 20
    """Rollouts before the two fractions are looked at."""
    source_column: str = "data_source"
    """The column that names a row's data set, for `sources` and for metrics by source."""


class RewardsConfig(ConfigModel):
    """The whole reward: its components and how they are scored.

    `map` gives columns other names before rewards see them, as `--map` does: new name -> path, such as
    {reference: reward_model.ground_truth}. In training, paths start at the data set's columns.
    """

    rewards: dict[str, RewardNode] = Field(min_length=1)
    """The rewards by name, each with a weight."""
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)
    """How the rewards are combined, and what a failing or abstaining reward does."""
    map: dict[str, str] = Field(default_factory=dict)
    """Other names for columns before rewards see them: new name to path, such as {reference:
    reward_model.ground_truth}. In training, paths start at the data set's columns."""

    @model_validator(mode="after")
    def _check_tree(self) -> "RewardsConfig":
        _check_names(self.rewards)
        _check_gates(leaves(self.rewards))
        return self


GroupConfig.model_rebuild()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One reward of the tree. `path` is its name with its groups' ("style/brevity"), as metrics use it.

    `parents` are its groups, outermost first; `gates` are their conditions and its own.
    """

    name: str
    path: str
    config: ComponentConfig
    parents: tuple[GroupConfig, ...]
    gates: tuple[Gate, ...]


def load_rewards_config(path: str | Path, overrides: Sequence[str] = ()) -> RewardsConfig:
    """The rewards in the YAML file `path`: of rewards alone, or of a run, whose other sections are left out.

    Raises ConfigError; see config_file.load_config.
    """
    data = apply_overrides(read_yaml(path), overrides)
    if "data" in data:  # the config of a run
        data = {name: part for name, part in data.items() if name in RewardsConfig.model_fields}
    return validate(RewardsConfig, data, source=str(path))


def leaves(
    rewards: Mapping[str, ComponentConfig | GroupConfig],
    parents: tuple[GroupConfig, ...] = (),
    prefix: str = "",
) -> list[Leaf]:
    """Every single reward of the tree, in the order of the config."""
    found = []
    for name, node in rewards.items():
        if isinstance(node, GroupConfig):
            found += leaves(node.rewards, (*parents, node), f"{prefix}{name}/")
            continue
        gates = tuple(parse_gate(part.when) for part in (*parents, node) if part.when)
        found.append(Leaf(name=name, path=prefix + name, config=node, parents=parents, gates=gates))
    return found


def _names(
    rewards: Mapping[str, ComponentConfig | GroupConfig], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    for name, node in rewards.items():
        yield name, prefix + name
        if isinstance(node, GroupConfig):
            yield from _names(node.rewards, f"{prefix}{name}/")


def _check_names(rewards: Mapping[str, ComponentConfig | GroupConfig]) -> None:
    seen: dict[str, str] = {}
    for name, path in _names(rewards):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or keyword.iskeyword(name) or name in FUNCTIONS:
            raise ValueError(
                f"rewards: the name {name!r} cannot be used in a condition: use letters, digits and _, "
                f"not starting with a digit, and none of {', '.join(FUNCTIONS)} or Python's keywords"
            )
        if name in seen:
            raise ValueError(
                f"rewards: {name!r} names two rewards ({seen[name]} and {path}): give each its own name"
            )
        seen[name] = path


def _check_gates(found: Sequence[Leaf]) -> None:
    names = {leaf.name for leaf in found}
    waits = {leaf.name: {name for gate in leaf.gates for name in gate.names} for leaf in found}
    for leaf in found:
        for unknown in sorted(waits[leaf.name] - names):
            near = difflib.get_close_matches(unknown, sorted(names), n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"the rewards are: {', '.join(sorted(names))}"
            raise ValueError(
                f"rewards.{leaf.path.replace('/', '.')}.when: unknown reward '{unknown}': {hint}"
            )
    try:
        TopologicalSorter({name: sorted(others) for name, others in waits.items()}).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        raise ValueError(f"rewards: these gates wait for each other: {cycle}") from None
