"""Probes: score again, shuffled, against other references, the reference itself, odd answers.

Each probe scores a sample of whole groups with the same Scorer as training and compares the result
with what a trustworthy reward would give.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from verl_lite.lab.check.findings import Finding, Level
from verl_lite.plugins import Rollout, ScoredRollout, Scorer
from verl_lite.verifiers import MathOptions, verify_math_batch

ACCEPTED = 0.5  # this value and above counts as "correct"
_MAX_EXAMPLES = 5

# Ways to write a right answer: a verifier must accept the reference itself in at least one of them.
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
    """Are scores the same a second time, in another order of groups, and by `other`, set up differently?"""
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
        message = f"{len(rollouts):,} rollouts scored the same again, reordered and one group at a time"
        return Finding("determinism", Level.OK, message)
    first = changed[0]
    return Finding(
        "determinism",
        Level.FAIL,
        f"{len(changed):,} scores changed when scored again; first: {first['component']} of "
        f"{first['id']}, {first['pass']}: {first['values']}",
        {"num_changed": len(changed), "examples": changed[:_MAX_EXAMPLES]},
    )


def _values(
    scorer: Scorer, rollouts: Sequence[Rollout], batches: Sequence[Sequence[int]]
) -> dict[tuple[str, int], float | None]:
    """The value of each (component, index in `rollouts`), scored in the given batches of indices."""
    return {
        (name, place): part.score.value
        for batch in batches
        for place, row in zip(batch, scorer.score([rollouts[i] for i in batch]).rows, strict=True)
        for name, part in row.components.items()
    }


def swapped_references(groups: Groups, scorer: Scorer, primary: str, *, seed: int) -> Finding:
    """Is an answer accepted against its own reference also accepted against another row's?

    Needs no labels. Only answers accepted against their own reference are tried: a wrong answer may be
    right for another row. One accepted twice is a false positive, unless both references mean the same.
    """
    rollouts = [rollout for group in groups for rollout in group if rollout.reference is not None]
    rollouts = [row.rollout for row in scorer.score(rollouts).rows if _accepts(row, primary)]
    references = sorted({rollout.reference or "" for rollout in rollouts})
    if len(references) < 2:
        return _not_applicable("swapped references", "there are fewer than two different references")
    rng = random.Random(seed)
    swapped = [_with_reference(r, rng.choice([x for x in references if x != r.reference])) for r in rollouts]
    accepted = [row for row in scorer.score(swapped).rows if _accepts(row, primary)]
    share = len(accepted) / len(swapped)
    return Finding(
        "swapped references",
        Level.WARN if accepted else Level.OK,
        f"{primary} accepts {len(accepted):,} of {len(swapped):,} right answers ({share:.2%}) "
        "against another row's reference too: an estimate of its false positives",
        {"accepted": len(accepted), "num_rows": len(swapped), "examples": _examples(accepted)},
    )


def own_references(groups: Groups, scorer: Scorer, primary: str) -> Finding:
    """Does the verifier accept every reference when it is given as the answer?"""
    rollouts = [rollout for rollout in _first_samples(groups) if any(rollout.references)]
    if not rollouts:
        return _not_applicable("own references", "no row has a reference")
    pending = rollouts
    for form in ANSWER_FORMS:
        answers = [replace(rollout, completion=form.format(rollout.references[0])) for rollout in pending]
        rows = scorer.score(answers).rows
        pending = [old for old, row in zip(pending, rows, strict=True) if not _accepts(row, primary)]
        if not pending:
            break
    if len(pending) == len(rollouts) and _ignores_reference(rollouts, scorer, primary):
        return _not_applicable("own references", f"{primary} scores the same without a reference")
    examples = [{"id": rollout.id, "reference": rollout.reference} for rollout in pending[:_MAX_EXAMPLES]]
    return Finding(
        "own references",
        Level.FAIL if pending else Level.OK,
        f"{primary} rejects {len(pending):,} of {len(rollouts):,} references given as the answer"
        + (f"; first: {examples[0]['reference']!r} of {examples[0]['id']}" if examples else ""),
        {"rejected": len(pending), "num_rows": len(rollouts), "examples": examples},
    )


def _ignores_reference(rollouts: Sequence[Rollout], scorer: Scorer, primary: str) -> bool:
    """Whether the component's scores of answers stay as they are when the references are taken away."""
    bare = [
        replace(r, reference=None, columns={k: v for k, v in r.columns.items() if k != "reference"})
        for r in rollouts
    ]
    given, without = (
        [(row.components[primary].score.value, row.components[primary].score.outcome) for row in scored]
        for scored in (scorer.score(rollouts).rows, scorer.score(bare).rows)
    )
    return given == without


def empty_answers(groups: Groups, scorer: Scorer, primary: str) -> Finding:
    """Does the reward reject an empty answer and a program that does nothing?"""
    rollouts = [
        replace(rollout, id=f"{rollout.id}/empty-{index}", completion=empty, completion_ids=(), logprobs=())
        for rollout in _first_samples(groups)
        for index, empty in enumerate(EMPTY_ANSWERS)
    ]
    accepted = [row for row in scorer.score(rollouts).rows if _accepts(row, primary)]
    return Finding(
        "empty answers",
        Level.FAIL if accepted else Level.OK,
        f"{primary} accepts {len(accepted):,} of {len(rollouts):,} empty answers",
        {"accepted": len(accepted), "num_rows": len(rollouts), "examples": _examples(accepted)},
    )


def uncomputed_answers(groups: Groups, scorer: Scorer, primary: str) -> Finding:
    r"""Does the reward accept arithmetic that is left to do, as \boxed{70 + 59} for 129?

    Each is equal to its reference, so nothing else here finds them; a model learns to copy the question.
    """
    rollouts = [rollout for group in groups for rollout in group if any(rollout.references)]
    rows = [row for row in scorer.score(rollouts).rows if _accepts(row, primary)]
    if not rows:
        return _not_applicable("uncomputed answers", "no answer with a reference is accepted")
    pairs = [(row.rollout.completion, row.rollout.references[0]) for row in rows]
    equal, computed = (
        verify_math_batch(pairs, options=MathOptions(computed=computed)) for computed in (False, True)
    )
    is_right = [(one.is_correct, other.is_correct) for one, other in zip(equal, computed, strict=True)]
    undone = [row for row, right in zip(rows, is_right, strict=True) if right == (True, False)]
    return Finding(
        "uncomputed answers",
        Level.WARN if undone else Level.OK,
        f"{primary} accepts {len(undone):,} answers, of {len(rows):,}, that leave arithmetic to do"
        + (f"; first: {undone[0].rollout.id}; `math` has computed: true" if undone else ""),
        {"accepted": len(undone), "num_rows": len(rows), "examples": _examples(undone)},
    )


def _first_samples(groups: Groups) -> Iterator[Rollout]:
    return (group[0] for group in groups)


def _with_reference(rollout: Rollout, reference: str) -> Rollout:
    columns = rollout.columns
    if "reference" in columns:
        columns = {**columns, "reference": reference}
    return replace(rollout, reference=reference, columns=columns)


def _accepts(row: ScoredRollout, primary: str) -> bool:
    value = row.components[primary].score.value
    return value is not None and value >= ACCEPTED


def _examples(rows: Sequence[ScoredRollout]) -> list[dict[str, object]]:
    return [
        {
            "id": row.rollout.id,
            "reference": row.rollout.reference,
            "completion": row.rollout.completion[-500:],
        }
        for row in rows[:_MAX_EXAMPLES]
    ]


def _not_applicable(check: str, why: str) -> Finding:
    return Finding(check, Level.NOTE, f"not checked: {why}")
