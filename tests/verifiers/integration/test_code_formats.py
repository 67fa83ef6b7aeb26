"""Rows of every format of data sets, of our own making: the right program passes, a constant does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from verl_lite.sandbox import Sandbox
from verl_lite.verifiers import Verdict
from verl_lite.verifiers.code import CodeOptions, Submission, load_tests, verify_programs

ROOT = Path(__file__).parents[3]
ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (ROOT / "tests/verifiers/corpora/code_formats.jsonl").read_text().splitlines()
]


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], Verdict]:
    given: dict[tuple[str, str], Submission] = {}
    for row in ROWS:
        loaded = load_tests(row["columns"])
        options = CodeOptions(prelude=loaded.prelude, continues=loaded.continues, trusting_tests="refuse")
        for kind in ("right", "wrong"):
            given[row["name"], kind] = Submission(response=row[kind], tests=loaded.tests, options=options)
    with Sandbox() as sandbox:
        return dict(zip(given, verify_programs(list(given.values()), sandbox=sandbox), strict=True))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_a_format_is_read(row: dict[str, Any], verdicts: dict[tuple[str, str], Verdict]) -> None:
    right, wrong = verdicts[row["name"], "right"], verdicts[row["name"], "wrong"]
    assert right.outcome == "correct", right.reason
    assert wrong.outcome == "wrong", wrong.reason
    assert right.details["trusting"] == 0
