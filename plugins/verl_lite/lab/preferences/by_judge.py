"""Preferences from a judge model: every two completions are compared, in both orders.

A judge that prefers a position, not a completion, has no opinion: unless both orders favour the same
completion, the pair is a tie. A completion's score is its wins plus half its ties.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from verl_lite.errors import RewardError
from verl_lite.lab.preferences.candidates import Candidates
from verl_lite.lab.preferences.rows import PreferenceRow, ranks_of
from verl_lite.plugins.builtin import BusyError, Comparer, Comparison, ComparisonJudge

TRIES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """`num_swayed` of `num_pairs` are the pairs whose verdict followed the order of the completions."""

    rows: Sequence[PreferenceRow]
    num_pairs: int
    num_swayed: int


def rank_by_judge(candidates: Iterable[Candidates], judge: ComparisonJudge) -> JudgeReport:
    """Compare and rank. Raises RewardError if the endpoint stays busy or its answers hold no verdict."""
    return asyncio.run(_rank_all(list(candidates), judge))


async def _rank_all(candidates: Sequence[Candidates], judge: ComparisonJudge) -> JudgeReport:
    comparer = Comparer(judge)
    groups = await asyncio.gather(*(_rank(group, judge.model, comparer) for group in candidates))
    return JudgeReport(
        rows=[row for row, _, _ in groups],
        num_pairs=sum(pairs for _, pairs, _ in groups),
        num_swayed=sum(swayed for _, _, swayed in groups),
    )


async def _rank(group: Candidates, annotator: str, comparer: Comparer) -> tuple[PreferenceRow, int, int]:
    texts = group.completions
    pairs = list(combinations(range(len(texts)), 2))
    found = await asyncio.gather(*(_compare(comparer, group.question, texts[i], texts[j]) for i, j in pairs))
    scores = [0.0] * len(texts)
    for (i, j), one in zip(pairs, found, strict=True):
        scores[i] += one.points
        scores[j] += 1.0 - one.points
    row = group.ranked(ranks_of(scores), source="judge", annotator=annotator, scores=scores)
    return row, len(pairs), sum(one.is_swayed for one in found)


async def _compare(comparer: Comparer, question: str, first: str, second: str) -> Comparison:
    """With retries, for there is no execution around it. What was answered is not asked again."""
    for attempt in range(TRIES - 1):
        try:
            return await comparer.compare(question, first, second)
        except (BusyError, ValueError):  # busy, or a reply without a verdict
            await asyncio.sleep(0.2 * 2**attempt)
    try:
        return await comparer.compare(question, first, second)
    except ValueError as error:
        raise RewardError(f"the judge's answer cannot be read: {error}") from None
