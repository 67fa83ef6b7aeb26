"""Verify a data set's answers: programs by their tests, other rows with a reference as mathematics.

A row is a program if it has the columns of a known test format (docs/code.md); its answer is run in the
sandbox.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from verl_lite.verifiers import CodeOptions, Outcome, verify_math_batch
from verl_lite.verifiers.code import BadTests, Submission, has_tests, load_tests, verify_programs


def verify_answers(
    answers: Sequence[str],
    references: Sequence[str | None],
    columns: Sequence[Mapping[str, Any]],
    *,
    questions: Sequence[str] = (),
) -> dict[int, Outcome]:
    """The outcome per row index, without rows that lack an answer, or tests and reference.

    `questions` replaces a missing column `prompt`, which a program may continue, as in HumanEval.
    """
    answered = [at for at, answer in enumerate(answers) if answer.strip()]
    programs = [at for at in answered if has_tests(columns[at])]
    maths = [at for at in answered if at not in set(programs) and references[at]]
    verdicts = verify_math_batch([(answers[at], str(references[at])) for at in maths])
    found = {at: verdict.outcome for at, verdict in zip(maths, verdicts, strict=True)}
    prompts = [{"prompt": question} for question in questions] or [{}] * len(columns)
    rows = {at: {**prompts[at], **columns[at]} for at in programs}
    return found | _verify_programs({at: answers[at] for at in programs}, rows)


def _verify_programs(answers: Mapping[int, str], rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    submissions: dict[int, Submission] = {}
    for at, answer in answers.items():
        try:
            loaded = load_tests(rows[at])
        except BadTests:
            found[at] = Outcome.BAD_REFERENCE
            continue
        options = CodeOptions(
            language=loaded.language or "python", prelude=loaded.prelude, continues=loaded.continues
        )
        submissions[at] = Submission(response=answer, tests=loaded.tests, options=options)
    verdicts = verify_programs(list(submissions.values()))
    return found | {at: verdict.outcome for at, verdict in zip(submissions, verdicts, strict=True)}
