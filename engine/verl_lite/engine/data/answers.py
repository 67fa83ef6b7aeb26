"""Are a data set's answers right? Our own verifiers judge: programs by their tests, the rest as mathematics.

A row with the columns of a known test shape (docs/code.md) is a program, and its answer is run in the
sandbox; any other row with a reference is mathematics.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from verl_lite.verifiers import CodeOptions, Outcome, verify_math_batch
from verl_lite.verifiers.code import BadTests, Submission, has_tests, load_tests, verify_programs

__all__ = ["verify_answers"]


def verify_answers(
    answers: Sequence[str],
    references: Sequence[str | None],
    columns: Sequence[Mapping[str, Any]],
    *,
    questions: Sequence[str] = (),
) -> dict[int, Outcome]:
    """The outcome of each row that can be judged, by its place; rows without an answer are left out.

    `questions` stand in for a missing column `prompt`: an answer may be only the body that continues it,
    as HumanEval's are.
    """
    answered = [at for at, answer in enumerate(answers) if answer.strip()]
    programs = [at for at in answered if has_tests(columns[at])]
    sums = [at for at in answered if at not in set(programs) and references[at]]
    verdicts = verify_math_batch([(answers[at], str(references[at])) for at in sums])
    found = {at: verdict.outcome for at, verdict in zip(sums, verdicts, strict=True)}
    asked = [{"prompt": question} for question in questions] or [{}] * len(columns)
    rows = {at: {**asked[at], **columns[at]} for at in programs}
    return found | _judge_programs({at: answers[at] for at in programs}, rows)


def _judge_programs(answers: Mapping[int, str], rows: Mapping[int, Mapping[str, Any]]) -> dict[int, Outcome]:
    found: dict[int, Outcome] = {}
    submissions: dict[int, Submission] = {}
    for at, answer in answers.items():
        try:
            loaded = load_tests(rows[at])
        except BadTests:
            found[at] = Outcome.BAD_REFERENCE
            continue
        options = CodeOptions(prelude=loaded.prelude, continues=loaded.continues)
        submissions[at] = Submission(response=answer, tests=loaded.tests, options=options)
    verdicts = verify_programs(list(submissions.values()))
    return found | {at: verdict.outcome for at, verdict in zip(submissions, verdicts, strict=True)}
