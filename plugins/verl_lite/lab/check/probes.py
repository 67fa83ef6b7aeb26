"""Score on purpose: again, shuffled, with other references, with the reference itself, with nothing.

Each probe scores a sample of whole groups through the same Scorer as training and says what a
trustworthy reward would have done.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from verl_lite.lab.check.findings import Finding, Level
from verl_lite.plugins import Rollout, ScoredRollout, Scorer

__all__ = ["determinism", "empty_answers", "own_references", "swapped_references"]

ACCEPTED = 0.5  # a value from here on counts as "correct"
_MAX_EXAMPLES = 5

# How a right answer may be written; a verifier must take the reference itself in at least one of them.
ANSWER_FORMS = (
    "{}",
    "\\boxed{{{}}}",
    "<think>...</think>\n\\boxed{{{}}}",
    "#### {}",
    "<answer>{}</answer>",
    "The answer is {}.",
    "```python\n{}\n```",
)
EMPTY_ANSWERS = ("", " ", "\\boxed{}", "<answer></answer>", "```python\n```", "```python\npass\n```")

Groups = Sequence[Sequence[Rollout]]


def determinism(groups: Groups, scorer: Scorer, other: Scorer, *, seed: int) -> Finding:
    """The same scores again, in another order of groups, and by `other`, which runs them another way."""
    rollouts = [rollout for group in groups for rollout in group]
    places = iter(range(len(rollouts)))
    blocks = [[next(places) for _ in group] for group in groups]
    shuffled = random.Random(seed).sample(blocks, len(blocks))
    expected = _values(scorer, rollouts, [[*range(len(rollouts))]])
    passes = {
        "again": _values(scorer, rollouts, [[*range(len(rollouts))]]),
        "in another order": _values(scorer, rollouts, [[place for block in shuffled for place in block]]),
        "one group at a time": _values(other, rollouts, blocks),
    }
    changed = [
        {"pass": name, "component": component, "id": rollouts[place].id, "values": [old, values[key]]}
        for name, values in passes.items()
        for key, old in expected.items()
        for component, place in [key]
        if values[key] != old
    ]
    if not changed:
        message = f"{len(rollouts):,} rollouts scored alike again, in another order and one group at a time"
        return Finding(check="determinism", level=Level.OK, message=message)
    first = changed[0]
    return Finding(
        check="determinism",
        level=Level.FAIL,
        message=f"{len(changed):,} scores changed when scored again; first: {first['component']} of "
        f"{first['id']}, {first['pass']}: {first['values']}",
        numbers={"num_changed": len(changed), "examples": changed[:_MAX_EXAMPLES]},
    )


def _values(
    scorer: Scorer, rollouts: Sequence[Rollout], batches: Sequence[Sequence[int]]
) -> dict[tuple[str, int], float | None]:
    """The value of each (component, place in `rollouts`), scored in the given batches of places."""
    return {
        (name, place): part.score.value
        for batch in batches
        for place, row in zip(batch, scorer.score([rollouts[i] for i in batch]).rows, strict=True)
        for name, part in row.components.items()
    }


def swapped_references(groups: Groups, scorer: Scorer, primary: str, *, seed: int) -> Finding:
    """Is an answer that was right for its own reference also accepted against somebody else's?

    Needs no labels. Only answers accepted at home are tried: a wrong answer may well be the right one
    for another row. What is accepted twice is a false positive, unless the two references are the
    same value in different writing.
    """
    rollouts = [rollout for group in groups for rollout in group if rollout.reference is not None]
    rollouts = [row.rollout for row in scorer.score(rollouts).rows if _accepts(row, primary)]
    references = sorted({rollout.reference or "" for rollout in rollouts})
    if len(references) < 2:
        return _not_applicable("swapped references", "fewer than two different references were met")
    rng = random.Random(seed)
    swapped = [_with_reference(r, rng.choice([x for x in references if x != r.reference])) for r in rollouts]
    accepted = [row for row in scorer.score(swapped).rows if _accepts(row, primary)]
    share = len(accepted) / len(swapped)
    return Finding(
        check="swapped references",
        level=Level.WARN if accepted else Level.OK,
        message=f"{primary} accepts {len(accepted):,} of {len(swapped):,} right answers ({share:.2%}) "
        "against another row's reference too: an estimate of its false positives",
        numbers={"accepted": len(accepted), "num_rows": len(swapped), "examples": _examples(accepted)},
    )


def own_references(groups: Groups, scorer: Scorer, primary: str) -> Finding:
    """Every reference, written as an answer, must be accepted by its own verifier."""
    rollouts = [rollout for rollout in _one_a_group(groups) if rollout.reference]
    if not rollouts:
        return _not_applicable("own references", "no row has a reference")
    pending = rollouts
    for form in ANSWER_FORMS:
        answers = [replace(rollout, completion=form.format(rollout.reference)) for rollout in pending]
        rows = scorer.score(answers).rows
        pending = [old for old, row in zip(pending, rows, strict=True) if not _accepts(row, primary)]
        if not pending:
            break
    examples = [{"id": rollout.id, "reference": rollout.reference} for rollout in pending[:_MAX_EXAMPLES]]
    return Finding(
        check="own references",
        level=Level.FAIL if pending else Level.OK,
        message=f"{primary} rejects {len(pending):,} of {len(rollouts):,} references given as the answer"
        + (f"; first: {examples[0]['reference']!r} of {examples[0]['id']}" if examples else ""),
        numbers={"rejected": len(pending), "num_rows": len(rollouts), "examples": examples},
    )


def empty_answers(groups: Groups, scorer: Scorer, primary: str) -> Finding:
    """Nothing at all, or a program that does nothing, must not be accepted."""
    rollouts = [
        replace(rollout, id=f"{rollout.id}/empty-{index}", completion=empty, completion_ids=(), logprobs=())
        for rollout in _one_a_group(groups)
        for index, empty in enumerate(EMPTY_ANSWERS)
    ]
    accepted = [row for row in scorer.score(rollouts).rows if _accepts(row, primary)]
    return Finding(
        check="empty answers",
        level=Level.FAIL if accepted else Level.OK,
        message=f"{primary} accepts {len(accepted):,} of {len(rollouts):,} empty answers",
        numbers={"accepted": len(accepted), "num_rows": len(rollouts), "examples": _examples(accepted)},
    )


def _one_a_group(groups: Groups) -> Iterator[Rollout]:
    return (group[0] for group in groups)


def _with_reference(rollout: Rollout, reference: str) -> Rollout:
    columns = rollout.columns
    if "reference" in columns:
        columns = {**columns, "reference": reference}
    return replace(rollout, reference=reference, columns=columns)


def _accepts(row: ScoredRollout, primary: str) -> bool:
    value = row.components[primary].score.value
    return value is not None and value >= ACCEPTED


def _examples(rows: Sequence[ScoredRollout]) -> list[dict[str, Any]]:
    return [
        {
            "id": row.rollout.id,
            "reference": row.rollout.reference,
            "completion": row.rollout.completion[-500:],
        }
        for row in rows[:_MAX_EXAMPLES]
    ]


def _not_applicable(check: str, why: str) -> Finding:
    return Finding(check=check, level=Level.NOTE, message=f"not checked: {why}")
