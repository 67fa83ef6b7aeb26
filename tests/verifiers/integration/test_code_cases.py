"""Rows of every shape and responses of every kind, with the verdict each must get and why."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.sandbox import Limits, Sandbox
from verl_lite.verifiers import Outcome, Verdict
from verl_lite.verifiers.code import BadTests, CodeOptions, Submission, load_tests, verify_programs

ROWS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "corpora" / "code_cases.jsonl").read_text().splitlines()
]


def _submission(row: dict[str, Any]) -> Submission | Verdict:
    columns = dict(row["columns"])
    try:
        loaded = load_tests(columns, reference=columns.pop("reference", None))
    except BadTests as error:
        return Verdict(outcome=Outcome.BAD_REFERENCE, reason=str(error))
    wanted = dict(row.get("options", {}))
    options = CodeOptions(
        prelude=loaded.prelude,
        continues=loaded.continues,
        limits=replace(Limits(), wall_s=wanted.pop("wall_s", 5.0)),
        **wanted,
    )
    return Submission(response=row["response"], tests=loaded.tests, options=options)


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """All rows in one go, as a training step has them: a fault of one must not touch another."""
    prepared = {row["name"]: _submission(row) for row in ROWS}
    ready = {name: given for name, given in prepared.items() if isinstance(given, Submission)}
    with Sandbox() as sandbox:
        graded = verify_programs(list(ready.values()), sandbox=sandbox)
    known = {name: given for name, given in prepared.items() if isinstance(given, Verdict)}
    return known | dict(zip(ready, graded, strict=True))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
def test_case(row: dict[str, Any], verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[row["name"]]
    assert verdict.outcome == row["outcome"], verdict.reason
    if "credit" in row:
        assert verdict.credit == row["credit"]
    assert verdict.credit == 1.0 or not verdict.is_correct
    assert row.get("reason", "") in verdict.reason
    if row.get("options", {}).get("trusting_tests") == "allow":
        assert verdict.details["trusting"] > 0
    elif verdict.details:
        assert verdict.details["trusting"] == 0
