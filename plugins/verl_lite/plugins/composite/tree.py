"""The config's tree at one training step, with weights, bounds and policies filled in."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from verl_lite.plugins.composite.build import Composite, Condition
from verl_lite.plugins.composite.config import ComponentConfig, GroupConfig
from verl_lite.plugins.composite.schedule import weight_at
from verl_lite.plugins.score import ScoreOutcome

Nodes: TypeAlias = Mapping[str, ComponentConfig | GroupConfig]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of the tree, a single reward or a group, with everything that is fixed during a step.

    closed_contribution  the contribution recorded for a closed gate: 0.0 in a sum, None in a product
    has_effect           whether its failures follow the policies (groups have no policies)
    condition            None if the reward runs for every rollout
    """

    path: str
    weight: float
    low: float
    high: float
    scale: float
    offset: float
    closed_contribution: float | None
    children: tuple["Node", ...] = ()
    is_product: bool = False
    takes_steps: bool = True
    has_effect: bool = True
    on_missing: Mapping[ScoreOutcome, str] = field(default_factory=dict)
    condition: Condition | None = None

    def contribution(self, value: float) -> float:
        if self.low > value:
            value = self.low
        elif self.high < value:
            value = self.high
        return self.weight * (self.scale * value + self.offset)


def tree_at(composite: Composite, step: int) -> tuple[Node, ...]:
    return tuple(_Builder(composite, step).build(composite.config.rewards))


def leaf_nodes(nodes: Sequence[Node]) -> list[Node]:
    """The single rewards below `nodes`, in the order of the config."""
    return [leaf for node in nodes for leaf in (leaf_nodes(node.children) if node.children else [node])]


class _Builder:
    def __init__(self, composite: Composite, step: int) -> None:
        self._composite = composite
        self._scoring = composite.config.scoring
        self._step = step
        self._effective = self._with_effect()

    def build(self, nodes: Nodes, prefix: str = "", in_product: bool | None = None) -> Iterator[Node]:
        if in_product is None:
            in_product = self._scoring.combine == "product"
        for name, node in nodes.items():
            yield self._node(f"{prefix}{name}", node, in_product)

    def _node(self, path: str, node: ComponentConfig | GroupConfig, in_product: bool) -> Node:
        children: tuple[Node, ...] = ()
        is_product = isinstance(node, GroupConfig) and node.combine == "product"
        if isinstance(node, GroupConfig):
            children = tuple(self.build(node.rewards, f"{path}/", is_product))
        low, high = node.clip or (None, None)
        condition = self._composite.conditions.get(path)
        return Node(
            path=path,
            weight=weight_at(node.weight, self._step),
            low=-math.inf if low is None else low,
            high=math.inf if high is None else high,
            scale=node.scale,
            offset=node.offset,
            closed_contribution=None if in_product else 0.0,
            children=children,
            is_product=is_product,
            takes_steps="/" not in path and not in_product,
            has_effect=path in self._effective,
            on_missing={} if isinstance(node, GroupConfig) else self._policies(node),
            condition=condition if condition and not condition.is_always_open else None,
        )

    def _policies(self, node: ComponentConfig) -> dict[ScoreOutcome, str]:
        return {
            ScoreOutcome.ERROR: node.on_error or self._scoring.on_error,
            ScoreOutcome.TIMEOUT: node.on_timeout or self._scoring.on_timeout,
            ScoreOutcome.ABSTAIN: node.on_abstain or self._scoring.on_abstain,
        }

    def _with_effect(self) -> frozenset[str]:
        """The rewards with a weight at this step, and those their gates read, transitively."""
        found = set(self._weighted(self._composite.config.rewards))
        waiting = list(found)
        while waiting:
            read = set(self._composite.conditions[waiting.pop()].paths.values()) - found
            found |= read
            waiting += read
        return frozenset(found)

    def _weighted(self, nodes: Nodes, prefix: str = "") -> Iterator[str]:
        for name, node in nodes.items():
            if weight_at(node.weight, self._step) == 0.0:
                continue
            if isinstance(node, GroupConfig):
                yield from self._weighted(node.rewards, f"{prefix}{name}/")
            else:
                yield prefix + name
