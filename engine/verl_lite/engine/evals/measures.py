"""From scored rollouts to numbers with intervals: pure, no model.

Shares of prompts get Wilson's interval, means over prompts a bootstrap interval. A rollout without a score
(error, timeout) is not right and counts as `unscored`.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from verl_lite.engine.evals.config import EvalConfig
from verl_lite.engine.observe.rollout_metrics import is_right
from verl_lite.lab.statistics import mean_interval, pass_at_k, wilson_interval
from verl_lite.plugins import ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One number over `count` prompts, with its 95% interval if it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    count: int = 0
    is_share: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptResult:
    """One prompt's result, for paired comparisons. `greedy` is None without a greedy answer."""

    greedy: bool | None = None
    num_right: int = 0
    num_samples: int = 0


def measure_greedy(
    rows: Sequence[ScoredRollout], config: EvalConfig
) -> tuple[list[Measure], dict[str, bool]]:
    """The measures of one greedy answer per prompt, and which prompts were right."""
    right = {row.rollout.group: _is_right(row, config) for row in rows}
    measures = [_share("greedy accuracy", list(right.values()))]
    return [*measures, *_form(rows, config, "greedy")], right


def measure_samples(
    groups: Mapping[str, Sequence[ScoredRollout]], config: EvalConfig
) -> tuple[list[Measure], dict[str, int]]:
    """avg@k, pass@1, 2, 4, ... k and maj@k of k samples per prompt, and how many of each were right."""
    k = min(len(rows) for rows in groups.values())
    right = {name: sum(_is_right(row, config) for row in rows) for name, rows in groups.items()}
    counts = [(len(rows), right[name]) for name, rows in groups.items()]
    measures = [_mean(f"avg@{k}", [found / total for total, found in counts])]
    for size in _powers_of_two(k):
        measures.append(_mean(f"pass@{size}", [pass_at_k(total, found, size) for total, found in counts]))
    votes = [majority_share(rows, config) for rows in groups.values()]
    if any(vote is not None for vote in votes):
        measures.append(_mean(f"maj@{k}", [vote or 0.0 for vote in votes]))
    everything = [row for rows in groups.values() for row in rows]
    return [*measures, *_form(everything, config, "sampled")], right


def _is_right(row: ScoredRollout, config: EvalConfig) -> bool:
    return is_right(row, config.accuracy_reward, config.right_at)


def majority_share(rows: Sequence[ScoredRollout], config: EvalConfig) -> float | None:
    """1 if the most frequent answer is right, else 0; in a tie, the share of the tied answers that is right.

    Samples without an answer do not vote. None if the reward names no answers.
    """
    votes: Counter[str] = Counter()
    right: dict[str, bool] = {}
    named = False
    for row in rows:
        details = row.components[config.accuracy_reward].score.details
        named = named or config.answer_key in details
        answer = details.get(config.answer_key)
        if answer is not None and answer != "":
            key = "".join(str(answer).split())
            votes[key] += 1
            right[key] = right.get(key, False) or _is_right(row, config)
    if not votes:
        return 0.0 if named else None
    most = max(votes.values())
    first = [answer for answer, count in votes.items() if count == most]
    return sum(right[answer] for answer in first) / len(first)


def perplexity_measure(logprobs: Sequence[Sequence[float]]) -> Measure:
    """exp of the mean negative log-probability per token, over all answers' tokens."""
    values = [value for one in logprobs for value in one]
    value = math.exp(-sum(values) / len(values))
    return Measure(name="perplexity", value=value, count=len(logprobs), is_share=False)


def _form(rows: Sequence[ScoredRollout], config: EvalConfig, kind: str) -> list[Measure]:
    """Measures of the answers' form, whether they are right or not."""
    found = []
    if config.format:
        values = [row.components[config.format].score.value for row in rows]
        found.append(_share(f"{kind} format", [value is not None and value >= 1.0 for value in values]))
    rewards = [row.reward for row in rows if row.reward is not None]
    if rewards:
        found.append(_mean(f"{kind} reward", rewards, is_share=False))
    lengths = [float(row.rollout.num_sampled) for row in rows]
    found.append(_mean(f"{kind} length (tokens)", lengths, is_share=False))
    found.append(_share(f"{kind} truncated", [row.rollout.is_truncated for row in rows]))
    unscored = [row.components[config.accuracy_reward].score.value is None for row in rows]
    if any(unscored):
        found.append(_share(f"{kind} unscored", unscored))
    return found


def _share(name: str, flags: Sequence[bool]) -> Measure:
    low, high = wilson_interval(sum(flags), len(flags))
    return Measure(name=name, value=sum(flags) / len(flags), low=low, high=high, count=len(flags))


def _mean(name: str, values: Sequence[float], *, is_share: bool = True) -> Measure:
    low, high = mean_interval(values)
    value = sum(values) / len(values)
    return Measure(name=name, value=value, low=low, high=high, count=len(values), is_share=is_share)


def _powers_of_two(largest: int) -> list[int]:
    sizes = [2**power for power in range(largest.bit_length()) if 2**power <= largest]
    return sizes if sizes[-1] == largest else [*sizes, largest]
