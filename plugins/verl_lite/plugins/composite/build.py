"""Build the components to run, with options and conditions, from a config and the installed plugins."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from verl_lite.errors import DataError, PluginError
from verl_lite.plugins.composite.config import Leaf, RewardsConfig, leaves
from verl_lite.plugins.composite.gate import Gate
from verl_lite.plugins.config_file import validate_options
from verl_lite.plugins.contract import Component, applies_always
from verl_lite.plugins.discovery import RewardCatalog
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score


@dataclass(frozen=True, slots=True)
class Condition:
    """Whether a component runs for a rollout: its data sources and its gates.

    sources  the values of `source_column` it takes; None for every rollout
    gates    its own `when:` and those of its groups; all must be open
    paths    the component behind each name in the gates
    """

    sources: frozenset[str] | None
    source_column: str
    gates: tuple[Gate, ...]
    paths: Mapping[str, str]

    def __call__(self, rollout: Rollout, scores: Mapping[str, Score]) -> bool:
        return self.state(rollout, scores) == "open"

    @property
    def is_always_open(self) -> bool:
        return self.sources is None and not self.gates

    def takes(self, rollout: Rollout) -> bool:
        return self.sources is None or str(rollout.columns.get(self.source_column)) in self.sources

    def state(
        self, rollout: Rollout, scores: Mapping[str, Score]
    ) -> Literal["open", "other source", "closed", "undecided"]:
        """ "undecided" if a component that a gate reads has no value."""
        if not self.takes(rollout):
            return "other source"
        if not self.gates:
            return "open"
        read = [(name, scores[path].value) for name, path in self.paths.items() if path in scores]
        known = {name: value for name, value in read if value is not None}
        answers = [gate.is_open(known) for gate in self.gates]
        if any(answer is False for answer in answers):
            return "closed"
        return "undecided" if None in answers else "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Composite:
    """The whole reward, ready to run: one component per leaf of the config, in its order."""

    config: RewardsConfig
    components: tuple[Component, ...]
    conditions: Mapping[str, Condition]

    def check_sources(self, rollouts: Iterable[Rollout]) -> None:
        """Raise DataError for a rollout whose data source no component takes."""
        conditions = list(self.conditions.values())
        if any(condition.sources is None for condition in conditions):
            return
        column = self.config.scoring.source_column
        taken = frozenset[str]().union(*(condition.sources or () for condition in conditions))
        for rollout in rollouts:
            if str(rollout.columns.get(column)) in taken:
                continue
            if column not in rollout.columns:
                raise DataError(
                    f"rollout {rollout.id!r} has no column {column!r}, which scoring.source_column names; "
                    f"its columns are: {', '.join(rollout.columns) or 'none'}"
                )
            raise DataError(
                f"rollout {rollout.id!r}: no reward takes {column}={rollout.columns[column]!r}; "
                f"the rewards' `sources` name: {', '.join(sorted(taken))}"
            )


def build_composite(config: RewardsConfig, catalog: RewardCatalog) -> Composite:
    """Resolve every `use` and validate every `options`.

    Raises PluginError for a missing or unusable reward, ConfigError for options that do not fit the
    reward's model.
    """
    found = leaves(config.rewards)
    paths = {leaf.name: leaf.path for leaf in found}
    conditions = {leaf.path: _condition(leaf, paths, config.scoring.source_column) for leaf in found}
    return Composite(
        config=config,
        components=tuple(_component(leaf, conditions[leaf.path], catalog) for leaf in found),
        conditions=conditions,
    )


def _component(leaf: Leaf, condition: Condition, catalog: RewardCatalog) -> Component:
    where = f"rewards.{leaf.path.replace('/', '.rewards.')}"
    try:
        definition = catalog.get(leaf.config.use)
    except PluginError as error:
        raise PluginError(f"{where}.use: {error}") from error
    return Component(
        name=leaf.path,
        definition=definition,
        options=validate_options(
            definition.options_model,
            leaf.config.options,
            source=f"{where}.options of reward {definition.name!r}",
        ),
        timeout_s=leaf.config.timeout_s or definition.timeout_s,
        needs=frozenset(condition.paths.values()),
        # execution knows this function and does not call it for every rollout
        applies=applies_always if condition.is_always_open else condition,
    )


def _condition(leaf: Leaf, paths: Mapping[str, str], source_column: str) -> Condition:
    given = [frozenset(part.sources) for part in (*leaf.parents, leaf.config) if part.sources]
    names = {name for gate in leaf.gates for name in gate.names}
    return Condition(
        sources=frozenset.intersection(*given) if given else None,
        source_column=source_column,
        gates=leaf.gates,
        paths={name: paths[name] for name in sorted(names)},
    )
