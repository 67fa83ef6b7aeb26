"""Judges that compare: `pairwise` (two answers at a time) and `listwise` (all answers of a group at once)."""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from verl_lite.plugins.builtin.comparing import Comparer, Comparison, ComparisonJudge
from verl_lite.plugins.builtin.judge import any_of
from verl_lite.plugins.builtin.judge_endpoint import (
    EndpointOptions,
    JudgeEndpoint,
    judge_reward,
    object_schema,
)
from verl_lite.plugins.builtin.judge_prompt import (
    GRADER,
    chat,
    fenced,
    read_json_reply,
    read_number,
    read_object,
)
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome

Tally = dict[str, float | int]


class PairwiseOptions(ComparisonJudge):
    """Whom each completion meets. Every pair is judged in both orders; a verdict that follows the order ties.

    The value is the mean of its points: 1.0 for a win, 0.5 for a tie, 0.0 for a defeat. A completion that is
    too long to send loses, and equal completions tie, unasked.
    """

    against: Literal["group", "reference"] = Field(
        default="group",
        description="group: the other samples of the prompt; reference: the row's reference answer (of "
        "several, the one it does best against)",
    )
    max_opponents: int = Field(
        default=0, ge=0, description="of the group, how many each completion meets at least; 0 for all others"
    )
    show_reference: bool = Field(
        default=True, description="group: the judge sees the reference, if the row has one"
    )


@judge_reward("pairwise", options=PairwiseOptions, form="group", timeout_s=600.0)
class Pairwise:
    """The share of comparisons a completion wins before a judge model: against its group or the reference."""

    def __init__(self, options: PairwiseOptions) -> None:
        self._options = options
        self._comparer = Comparer(options)

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Score]:
        if self._options.against == "reference":
            return list(await asyncio.gather(*(self._against_references(rollout) for rollout in rollouts)))
        if len(rollouts) < 2:
            reason = "a group of one: there is nothing to compare with"
            return [Score.failed(ScoreOutcome.ABSTAIN, reason) for _ in rollouts]
        pairs = ring_pairs(len(rollouts), self._options.max_opponents)
        found = await asyncio.gather(*(self._compare(rollouts[i], rollouts[j]) for i, j in pairs))
        results: list[list[Comparison]] = [[] for _ in rollouts]
        for (i, j), one in zip(pairs, found, strict=True):
            results[i].append(one)
            results[j].append(Comparison(1.0 - one.points, one.is_swayed))
        return [_mean(one) for one in results]

    async def _compare(self, first: Rollout, second: Rollout) -> Comparison:
        reference = any_of(first.references) if self._options.show_reference else ""
        return await self._comparer.compare(
            first.prompt_text, first.completion, second.completion, reference=reference
        )

    async def _against_references(self, rollout: Rollout) -> Score:
        if not rollout.references:
            return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
        question, completion = rollout.prompt_text, rollout.completion
        compared = await asyncio.gather(
            *(self._comparer.compare(question, completion, reference) for reference in rollout.references)
        )
        return _mean([max(compared)])


def ring_pairs(size: int, opponents: int) -> list[tuple[int, int]]:
    """Pairs so that each of `size` members meets at least `opponents` others (0: all), evenly around a ring.

    >>> ring_pairs(4, 2)
    [(0, 1), (0, 3), (1, 2), (2, 3)]
    """
    steps = size - 1 if not opponents else min(size - 1, (opponents + 1) // 2)
    pairs = {tuple(sorted((i, (i + step) % size))) for i in range(size) for step in range(1, steps + 1)}
    return sorted((pair[0], pair[1]) for pair in pairs)


def _mean(results: Sequence[Comparison]) -> Score:
    value = sum(one.points for one in results) / len(results)
    details: Tally = {
        "wins": sum(one.points == 1.0 for one in results),
        "ties": sum(one.points == 0.5 for one in results),
        "swayed": sum(one.is_swayed for one in results),
        "comparisons": len(results),
    }
    return Score(value, details=details)


# A change here may change scores: raise the version of `listwise` too.
_SYSTEM = (
    GRADER
    + """\
There are several answers to one question, ANSWER 1, ANSWER 2, and so on, by different ones. {criteria}
Grade them relative to each other: the same grade only for answers that are equally good. Reply with one \
JSON object and nothing else: {{"reason": "one sentence", "scores": {{"1": NUMBER, "2": NUMBER, ...}}}}, \
with every answer. NUMBER is from 0 (worst) to {high:g} (best).
"""
)


class ListwiseOptions(EndpointOptions):
    """What the judge goes by. It sees the group twice, the second time in the opposite order.

    Equal completions are shown once. The value is the mean of both grades, divided by `max_score`.
    """

    criteria: str = Field(
        default="Prefer answers that are correct; of correct ones, the clearer.",
        description="what makes an answer the better one",
    )
    max_score: float = Field(default=10.0, gt=0, allow_inf_nan=False, description="the highest grade")
    show_reference: bool = Field(default=True, description="the judge sees the reference, if the row has one")
    max_answers: int = Field(
        default=16, ge=2, description="the most different completions of a group; more are an error"
    )


@judge_reward("listwise", options=ListwiseOptions, form="group", timeout_s=300.0)
class Listwise:
    """A judge model's grade of each completion among all of its group, the mean of two opposite orders."""

    def __init__(self, options: ListwiseOptions) -> None:
        self._options = options
        self._endpoint = JudgeEndpoint(options)

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Score]:
        options = self._options
        # An order that does not depend on the samples' numbers: equal groups are asked once.
        texts = sorted({rollout.completion for rollout in rollouts}, key=_digest)
        shown = [text for text in texts if len(text) <= options.max_completion_chars]
        if len(texts) < 2:
            reason = "all completions are equal: there is nothing to compare"
            return [Score.failed(ScoreOutcome.ABSTAIN, reason) for _ in rollouts]
        if len(shown) > options.max_answers:
            raise ValueError(
                f"{len(shown)} different completions, more than max_answers={options.max_answers}"
            )
        if not shown:
            return [Score(0.0, reason="not sent: too long") for _ in rollouts]
        there, back = await asyncio.gather(
            self._grades(rollouts[0], shown), self._grades(rollouts[0], shown[::-1])
        )
        pairs = {text: (one, other) for text, one, other in zip(shown, there, back[::-1], strict=True)}
        return [self._score(pairs.get(rollout.completion)) for rollout in rollouts]

    def _score(self, grades: tuple[float, float] | None) -> Score:
        if grades is None:
            return Score(0.0, reason="not sent: too long")
        return Score(sum(grades) / 2 / self._options.max_score, details={"judge_scores": list(grades)})

    async def _grades(self, rollout: Rollout, texts: Sequence[str]) -> list[float]:
        options = self._options
        numbers = [str(number) for number in range(1, len(texts) + 1)]
        blocks = [fenced("QUESTION", rollout.prompt_text)]
        if options.show_reference and rollout.references:
            blocks.append(fenced("REFERENCE", any_of(rollout.references)))
        blocks += [fenced(f"ANSWER {number}", text) for number, text in zip(numbers, texts, strict=True)]
        messages = chat(_SYSTEM.format(criteria=options.criteria, high=options.max_score), *blocks)
        grade = {"type": "number", "minimum": 0, "maximum": options.max_score}
        scores = object_schema(dict.fromkeys(numbers, grade))

        def read(content: str) -> list[float]:
            reply = read_json_reply(content, {"reason": False, "scores": True})
            given = read_object(reply["scores"], dict.fromkeys(numbers, True))
            return [read_number(given[number], low=0, high=options.max_score) for number in numbers]

        schema = object_schema({"reason": {"type": "string"}, "scores": scores})
        return await self._endpoint.ask(messages, read, schema=schema)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
