"""Preferences from rewards: a prompt's completions in the order of their scores."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from verl_lite.lab.preferences.candidates import Candidates
from verl_lite.lab.preferences.rows import PreferenceRow, ranks_of
from verl_lite.plugins import Scorer

_GROUPS_AT_ONCE = 256


def rank_by_rewards(
    candidates: Iterable[Candidates], scorer: Scorer, *, annotator: str, tie_within: float = 0.0
) -> Iterator[PreferenceRow]:
    """Score everything and rank. Leaves out completions without a reward, and groups of ties only."""
    waiting: list[Candidates] = []
    for group in candidates:
        waiting.append(group)
        if len(waiting) == _GROUPS_AT_ONCE:
            yield from _rank(waiting, scorer, annotator, tie_within)
            waiting = []
    yield from _rank(waiting, scorer, annotator, tie_within)


def _rank(
    groups: Sequence[Candidates], scorer: Scorer, annotator: str, tie_within: float
) -> Iterator[PreferenceRow]:
    rows = iter(scorer.score([rollout for group in groups for rollout in group.rollouts]).rows)
    for group in groups:
        scored = [(record, row.reward) for record, row in zip(group.records, rows, strict=False)]
        kept = [(record, reward) for record, reward in scored if reward is not None]
        scores = [reward for _, reward in kept]
        ranks = ranks_of(scores, tie_within=tie_within)
        if len(set(ranks)) > 1:
            part = replace(group, records=[record for record, _ in kept])
            yield part.ranked(ranks, source="rewards", annotator=annotator, scores=scores)
