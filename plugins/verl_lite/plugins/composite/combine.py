"""Combine every component's score into one reward per rollout, under the policies for missing values.

The arithmetic follows the order of the config, whatever order the scores arrived in: the same rollout
gets the same reward in any batch.

    component    clip the value, scale * value + offset, times the weight at this step
    sum, gdpo    the existing contributions, added
    product      the existing contributions, multiplied, without those of weight 0
    closed gate  adds 0.0 to a sum, is left out of a product; a rollout with closed gates only gets 0
    no value     a rollout without any value has no reward: it is dropped, never 0

A component of weight 0 is a shadow: it is scored and reported, but its failures neither drop nor stop
anything, unless the gate of a component with a weight reads it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from verl_lite.errors import RewardError
from verl_lite.plugins.composite.build import Composite, Condition
from verl_lite.plugins.composite.process_rewards import (
    Decode,
    even_spans,
    last_reply_spans,
    spans_from_pieces,
    steps_as_tokens,
    steps_to_tokens,
    token_pieces,
)
from verl_lite.plugins.composite.tree import Node, leaf_nodes, tree_at
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import ComponentScore, Score, ScoredRollout, ScoreOutcome


class Timed(Protocol):
    """Execution's result for one component and rollout."""

    @property
    def score(self) -> Score: ...
    @property
    def latency_s(self) -> float: ...


@dataclass(slots=True)
class _Row:
    """The state of one rollout while it is combined."""

    rollout: Rollout
    timed: Mapping[str, Timed]
    components: dict[str, ComponentScore] = field(default_factory=dict)
    dropped_because: str = ""
    token_rewards: Sequence[float] = ()
    closed: frozenset[str] = frozenset()  # paths whose gate is closed
    aborting: str = ""

    def drop(self, reason: str) -> None:
        self.dropped_because = f"{self.dropped_because}; {reason}" if self.dropped_because else reason


class Combiner:
    """Combines rows at one training step. `decode` turns token ids into text for process rewards."""

    def __init__(self, composite: Composite, *, step: int = 0, decode: Decode | None = None) -> None:
        self._decode = decode
        self._nodes = tree_at(composite, step)
        self._is_product = composite.config.scoring.combine == "product"
        self._skips = {
            path: {state: _not_run(state, reason) for state, reason in _reasons(condition)}
            for path, condition in composite.conditions.items()
        }

    def combine(self, rollout: Rollout, timed: Mapping[str, Timed]) -> tuple[ScoredRollout, str]:
        """The scored rollout, and the path of the component whose policy demands an abort ("" for none)."""
        row = _Row(rollout, timed)
        total = self._total(self._nodes, row, self._is_product)
        if total is None and self._is_closed(self._nodes, row):
            total = 0.0
        elif total is None and not row.dropped_because:
            row.drop("no component had a value")
        elif total is not None and not math.isfinite(total):
            row.drop(f"the combined reward is {total}")
        if rollout.has_failed:
            row.drop("the environment failed")
        scored = ScoredRollout(
            rollout=rollout,
            components=row.components,
            reward=None if row.dropped_because else total,
            dropped_because=row.dropped_because,
            token_rewards=row.token_rewards,
        )
        return scored, row.aborting

    def has_effect(self) -> frozenset[str]:
        """The components whose failures can drop a sample or stop the run at this step."""
        return frozenset(node.path for node in leaf_nodes(self._nodes) if node.has_effect)

    def _total(self, nodes: Sequence[Node], row: _Row, is_product: bool) -> float | None:
        total: float | None = None
        for node in nodes:
            contribution = self._group(node, row) if node.children else self._leaf(node, row)
            if contribution is None or node.weight == 0.0:
                continue
            if total is None:
                total = contribution
            else:
                total = total * contribution if is_product else total + contribution
        return total

    @staticmethod
    def _is_closed(nodes: Sequence[Node], row: _Row) -> bool:
        """Whether a node with a weight has a closed gate; asked when no node has a value."""
        return any(node.path in row.closed and node.weight != 0.0 for node in nodes)

    def _leaf(self, node: Node, row: _Row) -> float | None:
        timed = row.timed[node.path]
        score = timed.score
        if score.steps:
            score = self._place_steps(node, score, row)
        contribution: float | None
        if score.value is not None:
            contribution = node.contribution(score.value)
        else:
            score, contribution = self._missing(node, score, row)
        row.components[node.path] = ComponentScore(
            score=score, weight=node.weight, contribution=contribution, latency_s=timed.latency_s
        )
        return None if node.path in row.closed else contribution

    def _group(self, node: Node, row: _Row) -> float | None:
        value = self._total(node.children, row, node.is_product)
        contribution = None
        if value is not None and math.isfinite(value):
            score, contribution = Score(value), node.contribution(value)
        elif value is not None:
            score = Score.failed(ScoreOutcome.ERROR, f"its rewards combine to {value}")
            row.drop(f"error in {node.path}: {score.reason}")
        elif self._is_closed(node.children, row):
            row.closed |= {node.path}
            score = _GROUP_CLOSED
        else:
            score = _GROUP_EMPTY
        noted = node.closed_contribution if node.path in row.closed else contribution
        row.components[node.path] = ComponentScore(score=score, weight=node.weight, contribution=noted)
        return contribution

    def _missing(self, node: Node, score: Score, row: _Row) -> tuple[Score, float | None]:
        """Score and contribution of a component without a value: by gates and routing, else by the policy."""
        if score.outcome is ScoreOutcome.ABSTAIN and node.condition is not None:
            scores = {path: row.timed[path].score for path in node.condition.paths.values()}
            state = node.condition.state(row.rollout, scores)
            if state != "open":
                if state == "closed":
                    row.closed |= {node.path}
                    return self._skips[node.path][state], node.closed_contribution
                return self._skips[node.path][state], None
        if not node.has_effect:
            return score, None
        policy = node.on_missing[score.outcome]
        if policy == "zero":
            return score, node.contribution(0.0)
        if policy in ("drop", "abort"):
            reason = f": {score.reason}" if score.reason else ""
            row.drop(f"{score.outcome} in {node.path}{reason}")
        if policy == "abort" and not row.aborting:
            row.aborting = node.path
        return score, None

    def _place_steps(self, node: Node, score: Score, row: _Row) -> Score:
        """Add the steps to the row's token rewards; steps outside the completion make the score an error."""
        if not node.takes_steps:
            raise RewardError(
                f"{node.path} gives process rewards, which are defined only at the top level of a sum: "
                "move it out of its group, or out of `combine: product`"
            )
        rollout, num_tokens = row.rollout, len(row.rollout.completion_ids)
        try:
            steps = steps_as_tokens(score.steps, rollout.turns)
            spans = self._spans(rollout, by_token=all(step.unit == "token" for step in steps))
            values = steps_to_tokens(
                [replace(step, value=node.contribution(step.value)) for step in steps], spans
            )
        except ValueError as error:
            return Score(None, ScoreOutcome.ERROR, str(error), score.details)
        if num_tokens and node.weight != 0.0:
            before = row.token_rewards or [0.0] * num_tokens
            row.token_rewards = [a + b for a, b in zip(before, values, strict=True)]
        return score

    def _spans(self, rollout: Rollout, *, by_token: bool) -> list[tuple[int, int]]:
        """The characters of each token; of a trajectory, those of its last reply."""
        num_tokens = len(rollout.completion_ids)
        if not num_tokens:  # the text counts as one token: the steps are checked but placed nowhere
            return even_spans(1, len(rollout.completion))
        said = [turn for turn in rollout.turns if turn.role == "assistant"]
        ids = rollout.completion_ids[said[-1].start : said[-1].end] if said else rollout.completion_ids
        if self._decode is not None and not by_token:
            spans = spans_from_pieces(token_pieces(ids, self._decode), rollout.completion)
        else:
            spans = even_spans(len(ids) or 1, len(rollout.completion))
        return last_reply_spans(rollout.turns, num_tokens, spans) if said else spans


def _not_run(state: str, reason: str) -> Score:
    return Score.failed(ScoreOutcome.ABSTAIN, f"not run: {reason}", not_run=state)


_GROUP_CLOSED = _not_run("closed", "the gates of its rewards are closed")
_GROUP_EMPTY = Score.failed(ScoreOutcome.ABSTAIN, "none of its rewards had a value", not_run="empty")


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
