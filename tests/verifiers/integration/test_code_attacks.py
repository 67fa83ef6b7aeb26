"""Hostile programs against every kind of test that keeps the answers outside: none earns anything."""

import json
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.sandbox import Limits, Result, Sandbox, Status
from verl_lite.verifiers import Outcome, verify_code
from verl_lite.verifiers.code import (
    AssertTest,
    CallTest,
    CodeOptions,
    CodeTest,
    ObjectTest,
    StdinTest,
    Submission,
    UnitTestFile,
    load_tests,
    verify_programs,
)

CORPORA = Path(__file__).parents[1] / "corpora"
TASKS: dict[str, Any] = json.loads((CORPORA / "code_tasks.json").read_text())
ATTACKS: list[dict[str, Any]] = [
    json.loads(line) for line in (CORPORA / "code_attacks.jsonl").read_text().splitlines()
]
OPTIONS = CodeOptions(
    limits=Limits(wall_s=2.0, memory_mb=256), stop_on_first_failure=False, trusting_tests="refuse"
)


def _function_tests() -> dict[str, list[CodeTest]]:
    task = TASKS["function"]
    pairs = list(zip(task["inputs"], task["outputs"], strict=True))
    loop = "\n".join(["for xs, want in [", *(f"    ({given[0]}, {want})," for given, want in pairs), "]:"])
    plain = "\n".join(f"    assert even_squares({given[0]}) == {want}" for given, want in pairs)
    return {
        "calls": list(load_tests({"input_output": {**task, "fn_name": task["entry_point"]}}).tests),
        "humaneval": list(load_tests({"entry_point": task["entry_point"], "test": task["check"]}).tests),
        "asserts": [AssertTest(source=f"{loop}\n    assert even_squares(list(xs)) == want\n")],
        "closeness": [
            AssertTest(source=f"assert not abs(even_squares({given[0]}) - {want}) > 1e-6")
            for given, want in pairs[:1]
        ],
        "test file": [
            UnitTestFile(source=f"from solution import even_squares\n\ndef test_all():\n{plain}\n")
        ],
    }


def _stdin_tests() -> dict[str, list[CodeTest]]:
    task = TASKS["stdin"]
    pairs = list(zip(task["inputs"], task["outputs"], strict=True))
    return {
        "tokens": [StdinTest(stdin=given, expected=want) for given, want in pairs],
        "floats": [StdinTest(stdin=given, expected=want, compare="floats") for given, want in pairs],
        "lines": [StdinTest(stdin=given, expected=want, compare="lines") for given, want in pairs],
        "checker": [
            StdinTest(
                stdin=given,
                expected=want,
                compare="checker",
                checker="def check(stdin, output, expected):\n    return int(output) == int(expected)\n",
            )
            for given, want in pairs
        ],
    }


def _object_tests() -> dict[str, list[CodeTest]]:
    task = TASKS["object"]
    calls = tuple((name, tuple(args)) for name, args in task["calls"])
    return {
        "object": [ObjectTest(class_name=task["class_name"], calls=calls, expected=tuple(task["expected"]))]
    }


TESTS = {"function": _function_tests(), "stdin": _stdin_tests(), "object": _object_tests()}
FORMS = [(task, form) for task, forms in TESTS.items() for form in forms]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def _grade(task: str, form: str, programs: list[str], sandbox: Sandbox) -> list[Any]:
    tests = TESTS[task][form]
    return verify_programs(
        [Submission(response=program, tests=tests, options=OPTIONS) for program in programs],
        sandbox=sandbox,
    )


def test_the_corpus_is_large_and_explained() -> None:
    assert len(ATTACKS) >= 60
    assert len({attack["name"] for attack in ATTACKS}) == len(ATTACKS)
    assert all(attack["why"] and attack["program"].strip() for attack in ATTACKS)


@pytest.mark.parametrize(("task", "form"), FORMS)
def test_the_honest_program_passes(task: str, form: str, sandbox: Sandbox) -> None:
    (verdict,) = _grade(task, form, [TASKS[task]["correct"]], sandbox)
    assert (verdict.outcome, verdict.credit) == (Outcome.CORRECT, 1.0), verdict.reason
    assert verdict.details["trusting"] == 0


@pytest.mark.parametrize(("task", "form"), FORMS)
def test_no_hostile_program_earns_anything(task: str, form: str, sandbox: Sandbox) -> None:
    """Not the full mark and, but for tests whose answer is None, no part of it."""
    quick = [a for a in ATTACKS if a["task"] == task and not a.get("slow")]
    verdicts = _grade(task, form, [attack["program"] for attack in quick], sandbox)
    found = {a["name"]: (v.outcome, v.credit, v.reason) for a, v in zip(quick, verdicts, strict=True)}
    unearned = {name: row for name, row in found.items() if row[:2] != (Outcome.WRONG, 0.0)}
    assert not unearned


@pytest.mark.parametrize("attack", [a for a in ATTACKS if a.get("slow")], ids=lambda a: a["name"])
def test_hostile_programs_that_take_their_time(attack: dict[str, Any], sandbox: Sandbox) -> None:
    form = {"function": "calls", "stdin": "tokens"}[attack["task"]]
    options = replace(OPTIONS, stop_on_first_failure=True, limits=Limits(wall_s=0.7, memory_mb=256))
    tests = TESTS[attack["task"]][form][:1]
    submission = Submission(response=attack["program"], tests=tests, options=options)
    (verdict,) = verify_programs([submission], sandbox=sandbox)
    assert (verdict.outcome, verdict.credit) == (Outcome.WRONG, 0.0), verdict.reason


def test_a_test_in_the_programs_process_is_always_marked(sandbox: Sandbox) -> None:
    """What trusts the program says so, and is refused where the caller asked for that."""
    forged = "class Box:\n    def __eq__(self, other): return True\n"
    test = AssertTest(source="box = Box()\nassert box == 3")
    allowed = replace(OPTIONS, trusting_tests="allow")
    given = [Submission(response=forged, tests=[test], options=options) for options in (allowed, OPTIONS)]
    trusting, refused = verify_programs(given, sandbox=sandbox)
    assert trusting.details["trusting"] == 1
    assert trusting.details["tests"][0]["trusts_program"] is True
    assert refused.outcome is Outcome.BAD_REFERENCE
    assert "trusting_tests" in refused.reason


def test_a_call_test_has_no_expected_value_in_the_sandbox() -> None:
    """What is handed to the sandbox, byte for byte, does not hold the answer."""
    recorder: Any = _Recorder()
    test = CallTest(function="f", args=(1,), expected="the secret answer")
    verdict = verify_code("def f(x): return x", [test], sandbox=recorder)
    assert verdict.outcome is Outcome.WRONG
    assert b"def f(x)" in recorder.stdin
    assert b"secret" not in recorder.stdin
    assert "secret" not in recorder.source


class _Recorder:
    """Stands in for a Sandbox: keeps what one run is given, and gives no reply."""

    backend = "native"

    def submit_python(self, source: str, *, stdin: bytes, limits: Limits) -> Future[Result]:
        self.source, self.stdin = source, stdin
        future: Future[Result] = Future()
        future.set_result(Result(status=Status.OK))
        return future


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("import no_such_library_x\nprint(int(input()))", Outcome.NOT_INSTALLED),
        ("raise ImportError(\"No module named 'numpy'\")", Outcome.WRONG),  # a claim, without an import
        (
            "try:\n    import no_such_library_x\nexcept ImportError:\n    pass\nprint(int(input()))",
            Outcome.CORRECT,
        ),
    ],
)
def test_a_library_that_is_not_there_is_named(program: str, outcome: Outcome, sandbox: Sandbox) -> None:
    verdict = verify_code(program, [StdinTest(stdin="3", expected="3")], options=OPTIONS, sandbox=sandbox)
    assert verdict.outcome is outcome, verdict.reason
    assert verdict.credit == (outcome is Outcome.CORRECT)
    assert (verdict.details.get("not_installed") == ["no_such_library_x"]) == (
        outcome is Outcome.NOT_INSTALLED
    )
