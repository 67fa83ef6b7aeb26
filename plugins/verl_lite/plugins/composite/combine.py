"""From every component's score to one reward a rollout, under the policies for missing values.

The order of the arithmetic is the order of the config, whatever order the scores arrived in: the
same rollout gets the same reward in any batch.

    part         clip the value, scale * value + offset, times the weight at this step
    sum, gdpo    the contributions that exist, added
    product      the contributions that exist, multiplied; a part of weight 0 is left out (a shadow)
    closed gate  adds 0.0 to a sum, is left out of a product; a rollout with nothing but closed gates gets 0
    nothing      a rollout no part had a value for has no reward: it is dropped, never 0

A part of weight 0 is a shadow: scored and reported, and its failures neither drop nor stop anything,
unless a gate of a part that counts reads it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from verl_lite.errors import RewardError
from verl_lite.plugins.composite.build import Composite, Condition
from verl_lite.plugins.composite.config import ComponentConfig, GroupConfig
from verl_lite.plugins.composite.schedule import weight_at
from verl_lite.plugins.composite.steps import (
    Decode,
    even_spans,
    spans_from_pieces,
    steps_to_tokens,
    token_pieces,
)
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import ComponentScore, Score, ScoredRollout, ScoreOutcome

__all__ = ["Combiner", "Timed"]


class Timed(Protocol):
    """What execution answers for one component and rollout."""

    @property
    def score(self) -> Score: ...
    @property
    def latency_s(self) -> float: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One node of the tree with everything that is fixed during a step."""

    path: str
    weight: float
    low: float
    high: float
    scale: float
    offset: float
    closed_contribution: float | None  # what is noted for a closed gate: 0.0 in a sum, None in a product
    children: tuple["_Part", ...] = ()
    is_product: bool = False
    takes_steps: bool = True
    has_effect: bool = True  # its failures follow the policies
    on_missing: Mapping[ScoreOutcome, str] = field(default_factory=dict)
    condition: Condition | None = None

    def contribution(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        return self.weight * (self.scale * value + self.offset)


@dataclass(slots=True)
class _Row:
    """One rollout while it is being combined."""

    rollout: Rollout
    timed: Mapping[str, Timed]
    components: dict[str, ComponentScore] = field(default_factory=dict)
    dropped_because: list[str] = field(default_factory=list)
    token_rewards: list[float] = field(default_factory=list)
    closed: set[str] = field(default_factory=set)  # paths whose gate is closed
    aborting: str = ""


class Combiner:
    """Combines rows at one training step. `decode` turns token ids into text, for process rewards."""

    def __init__(self, composite: Composite, *, step: int = 0, decode: Decode | None = None) -> None:
        self._decode = decode
        self._parts = _parts(composite, step)
        self._is_product = composite.config.scoring.combine == "product"
        self._skips = {
            path: {state: _not_run(state, reason) for state, reason in _reasons(condition)}
            for path, condition in composite.conditions.items()
        }

    def combine(self, rollout: Rollout, timed: Mapping[str, Timed]) -> tuple[ScoredRollout, str]:
        """The scored rollout, and the path of the component whose policy is to abort ("" for none)."""
        row = _Row(rollout, timed)
        total = self._total(self._parts, row, self._is_product)
        if total is None and self._is_closed(self._parts, row):
            total = 0.0
        elif total is None and not row.dropped_because:
            row.dropped_because.append("no component had a value")
        elif total is not None and not math.isfinite(total):
            row.dropped_because.append(f"the combined reward is {total}")
        dropped = bool(row.dropped_because)
        scored = ScoredRollout(
            rollout=rollout,
            components=row.components,
            reward=None if dropped else total,
            dropped_because="; ".join(row.dropped_because) if dropped else "",
            token_rewards=row.token_rewards,
        )
        return scored, row.aborting

    def has_effect(self) -> frozenset[str]:
        """The components whose failures can drop a sample or stop the run at this step."""
        return frozenset(part.path for part in _leaf_parts(self._parts) if part.has_effect)

    def _total(self, parts: Sequence[_Part], row: _Row, is_product: bool) -> float | None:
        total: float | None = None
        for part in parts:
            contribution = self._group(part, row) if part.children else self._leaf(part, row)
            if contribution is None or part.weight == 0.0:
                continue
            if total is None:
                total = contribution
            else:
                total = total * contribution if is_product else total + contribution
        return total

    @staticmethod
    def _is_closed(parts: Sequence[_Part], row: _Row) -> bool:
        """Whether a part that counts has a closed gate; asked where no part has a value."""
        return any(part.path in row.closed and part.weight != 0.0 for part in parts)

    def _leaf(self, part: _Part, row: _Row) -> float | None:
        timed = row.timed[part.path]
        score = timed.score
        if score.steps:
            score = self._place_steps(part, score, row)
        contribution: float | None
        if score.value is not None:
            contribution = part.contribution(score.value)
        else:
            score, contribution = self._missing(part, score, row)
        row.components[part.path] = ComponentScore(
            score=score, weight=part.weight, contribution=contribution, latency_s=timed.latency_s
        )
        return None if part.path in row.closed else contribution

    def _group(self, part: _Part, row: _Row) -> float | None:
        value = self._total(part.children, row, part.is_product)
        contribution = None
        if value is not None and math.isfinite(value):
            score, contribution = Score(value), part.contribution(value)
        elif value is not None:
            score = Score.failed(ScoreOutcome.ERROR, f"its rewards combine to {value}")
            row.dropped_because.append(f"error in {part.path}: {score.reason}")
        elif self._is_closed(part.children, row):
            row.closed.add(part.path)
            score = _GROUP_CLOSED
        else:
            score = _GROUP_EMPTY
        noted = part.closed_contribution if part.path in row.closed else contribution
        row.components[part.path] = ComponentScore(score=score, weight=part.weight, contribution=noted)
        return contribution

    def _missing(self, part: _Part, score: Score, row: _Row) -> tuple[Score, float | None]:
        """What a component without a value contributes: skipped rows first, then the policy."""
        if score.outcome is ScoreOutcome.ABSTAIN and part.condition is not None:
            scores = {path: row.timed[path].score for path in part.condition.paths.values()}
            state = part.condition.state(row.rollout, scores)
            if state != "open":
                if state == "closed":
                    row.closed.add(part.path)
                    return self._skips[part.path][state], part.closed_contribution
                return self._skips[part.path][state], None
        if not part.has_effect:
            return score, None
        policy = part.on_missing[score.outcome]
        if policy == "zero":
            return score, part.contribution(0.0)
        if policy in ("drop", "abort"):
            reason = f": {score.reason}" if score.reason else ""
            row.dropped_because.append(f"{score.outcome} in {part.path}{reason}")
        if policy == "abort" and not row.aborting:
            row.aborting = part.path
        return score, None

    def _place_steps(self, part: _Part, score: Score, row: _Row) -> Score:
        """Add the steps to the row's token rewards; steps that do not fit make the score an error."""
        if not part.takes_steps:
            raise RewardError(
                f"{part.path} gives process rewards, which have a meaning only at the top level of a sum: "
                "move it out of its group, or out of `combine: product`"
            )
        rollout, num_tokens = row.rollout, len(row.rollout.completion_ids)
        by_token = all(step.unit == "token" for step in score.steps)
        try:
            if self._decode is not None and num_tokens and not by_token:
                spans = spans_from_pieces(
                    token_pieces(rollout.completion_ids, self._decode), rollout.completion
                )
            else:
                # without token ids the text is one token: the steps are checked, and placed nowhere
                spans = even_spans(num_tokens or 1, len(rollout.completion))
            values = steps_to_tokens([_shaped(part, step) for step in score.steps], spans)
        except ValueError as error:
            return Score(None, ScoreOutcome.ERROR, str(error), score.details)
        if num_tokens:
            before = row.token_rewards or [0.0] * num_tokens
            row.token_rewards = [a + b for a, b in zip(before, values, strict=True)]
        return score


def _not_run(state: str, reason: str) -> Score:
    return Score.failed(ScoreOutcome.ABSTAIN, f"not run: {reason}", not_run=state)


_GROUP_CLOSED = _not_run("closed", "the gates of its rewards are closed")
_GROUP_EMPTY = Score.failed(ScoreOutcome.ABSTAIN, "none of its rewards had a value")


def _shaped(part: _Part, step: Any) -> Any:
    """A step whose value went the way of any value: clip, scale, offset, weight."""
    return type(step)(step.start, step.end, part.contribution(step.value), step.unit)


def _reasons(condition: Condition) -> list[tuple[str, str]]:
    gates = " and ".join(
        f"({gate.text})" if len(condition.gates) > 1 else gate.text for gate in condition.gates
    )
    names = ", ".join(condition.paths)
    sources = ", ".join(sorted(condition.sources or ()))
    return [
        ("closed", f"when: {gates}"),
        ("undecided", f"when: {gates}: no value of {names} to decide by"),
        ("other source", f"{condition.source_column} is none of {sources}"),
    ]


def _parts(composite: Composite, step: int) -> tuple[_Part, ...]:
    """The tree of the config at `step`, with weights, bounds and policies filled in."""
    config = composite.config
    effective = _effective(composite, step)

    def build(
        nodes: Mapping[str, ComponentConfig | GroupConfig], prefix: str, is_product: bool
    ) -> tuple[_Part, ...]:
        return tuple(
            _part(composite, f"{prefix}{name}", node, step, is_product, effective, build)
            for name, node in nodes.items()
        )

    return build(config.rewards, "", config.scoring.combine == "product")


def _part(
    composite: Composite,
    path: str,
    node: ComponentConfig | GroupConfig,
    step: int,
    is_product: bool,
    effective: frozenset[str],
    build: Any,
) -> _Part:
    low, high = node.clip or (None, None)
    children: tuple[_Part, ...] = ()
    if isinstance(node, GroupConfig):
        children = build(node.rewards, f"{path}/", node.combine == "product")
    condition = composite.conditions.get(path)
    return _Part(
        path=path,
        weight=weight_at(node.weight, step),
        low=-math.inf if low is None else low,
        high=math.inf if high is None else high,
        scale=node.scale,
        offset=node.offset,
        closed_contribution=None if is_product else 0.0,
        children=children,
        is_product=isinstance(node, GroupConfig) and node.combine == "product",
        takes_steps="/" not in path and not is_product,
        has_effect=path in effective,
        on_missing={} if isinstance(node, GroupConfig) else _policies(composite, node),
        condition=condition if condition and (condition.gates or condition.sources is not None) else None,
    )


def _policies(composite: Composite, node: ComponentConfig) -> dict[ScoreOutcome, str]:
    scoring = composite.config.scoring
    return {
        ScoreOutcome.ERROR: node.on_error or scoring.on_error,
        ScoreOutcome.TIMEOUT: node.on_timeout or scoring.on_timeout,
        ScoreOutcome.ABSTAIN: node.on_abstain or scoring.on_abstain,
    }


def _effective(composite: Composite, step: int) -> frozenset[str]:
    """The leaves with a weight at this step, and those their gates read, and so on."""
    counted: set[str] = set()

    def visit(nodes: Mapping[str, ComponentConfig | GroupConfig], prefix: str) -> None:
        for name, node in nodes.items():
            if weight_at(node.weight, step) == 0.0:
                continue
            if isinstance(node, GroupConfig):
                visit(node.rewards, f"{prefix}{name}/")
            else:
                counted.add(prefix + name)

    visit(composite.config.rewards, "")
    waiting = list(counted)
    while waiting:
        for path in composite.conditions[waiting.pop()].paths.values():
            if path not in counted:
                counted.add(path)
                waiting.append(path)
    return frozenset(counted)


def _leaf_parts(parts: Sequence[_Part]) -> list[_Part]:
    return [leaf for part in parts for leaf in (_leaf_parts(part.children) if part.children else [part])]
