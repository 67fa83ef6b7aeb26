"""Honest programs that read and write in unusual ways grade right: descriptors 0 and 1 are real."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from verl_lite.sandbox import Sandbox
from verl_lite.verifiers.code import CodeOptions, StdinTest, Submission, verify_programs

ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpora" / "code_honest.jsonl").read_text().splitlines()
]


def _test_of(row: dict[str, Any]) -> StdinTest:
    kind, _, size = row.get("generate", "").partition(":")
    stdin, expected = row["stdin"], row["expected"]
    if kind == "numbers":
        stdin = "\n".join(map(str, range(int(size))))
    elif kind == "line":
        stdin = "x" * int(size) + "\n"
    elif kind == "range":
        expected = "\n".join(map(str, range(int(size))))
    return StdinTest(stdin=stdin, expected=expected, compare="lines")


def test_unusual_ways_to_read_and_write_are_graded_right() -> None:
    assert len(ROWS) >= 30
    right = [Submission(response=row["program"], tests=[_test_of(row)]) for row in ROWS]
    # the same programs against another answer: a grader that passes everything fails here
    other = [
        Submission(response=s.response, tests=[replace(t, expected="0" + t.expected) for t in s.tests])
        for s in right
        if isinstance(s.tests[0], StdinTest)
        for t in [s.tests[0]]
    ]
    with Sandbox() as sandbox:
        verdicts = verify_programs(right, sandbox=sandbox)
        wrong = verify_programs(other, sandbox=sandbox)
    failed = {row["name"]: v.reason for row, v in zip(ROWS, verdicts, strict=True) if not v.is_correct}
    assert not failed
    assert {v.outcome.value for v in wrong} == {"wrong"}
    assert CodeOptions().limits.output_kb == 1024  # large_output is under it, and large_input over a pipe
