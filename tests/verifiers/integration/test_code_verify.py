"""verify_code itself: order, early ends, faults, other languages, a service without a reply channel."""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import Limits, Result, Sandbox, Status
from verl_lite.verifiers import Outcome, verify_code
from verl_lite.verifiers.code import (
    AssertTest,
    CallTest,
    CodeOptions,
    ObjectTest,
    StdinTest,
    Submission,
    verify_programs,
)

ADD = "def add(a, b):\n    print('adding')\n    return a + b\n"
ADDS = [CallTest(function="add", args=(n, 1), expected=n + 1) for n in range(6)]
LANGUAGES = {
    "bash": ("bash", "read a b; echo $((a + b))"),
    "c": ("gcc", '#include <stdio.h>\nint main() { int a, b; scanf("%d %d", &a, &b); printf("%d", a + b); }'),
    "cpp": ("g++", "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }"),
    "javascript": (
        "node",
        "const t = require('fs').readFileSync(0, 'utf8').split(' ').map(Number); console.log(t[0] + t[1])",
    ),
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


def test_without_a_sandbox_one_is_shared() -> None:
    verdict = verify_code("```python\n" + ADD + "```", ADDS)
    assert verdict.is_correct
    assert (verdict.credit, verdict.details["passed"], verdict.details["total"]) == (1.0, 6, 6)
    assert verdict.extracted == ADD
    assert verdict.wall_s > 0


def test_rows_stand_in_the_order_of_the_tests(sandbox: Sandbox) -> None:
    tests = [replace(test, expected=test.expected + (i % 2)) for i, test in enumerate(ADDS)]
    every = CodeOptions(stop_on_first_failure=False)
    verdict = verify_code(ADD, tests, options=every, sandbox=sandbox)
    assert [row["status"] for row in verdict.details["tests"]] == ["passed", "failed"] * 3
    assert [row["index"] for row in verdict.details["tests"]] == list(range(6))
    assert (verdict.outcome, verdict.credit) == (Outcome.WRONG, 0.5)
    assert verdict.reason == "3 of 6 tests passed; test 2: returned 2, expected 3"


def test_the_example_of_the_docs_prints_what_they_show(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[3].joinpath("docs", "code.md").read_text()
    found = re.search(r"````python\n(.*?)````\n```\n(.*?)```", page, re.DOTALL)
    assert found is not None
    exec(compile(found[1], "docs/code.md", "exec"), {})
    assert capsys.readouterr().out == found[2]


@pytest.mark.parametrize("repeat", range(3))
def test_the_first_failure_ends_it_the_same_way_each_time(repeat: int, sandbox: Sandbox) -> None:
    tests = [*ADDS[:2], replace(ADDS[2], expected=0), *ADDS[3:]]
    verdict = verify_code(ADD, tests, sandbox=sandbox)
    assert [row["status"] for row in verdict.details["tests"]] == ["passed"] * 2 + ["failed"] + [
        "not_run"
    ] * 3
    assert verdict.credit == 2 / 6


def test_many_programs_are_graded_together_and_keep_their_order(sandbox: Sandbox) -> None:
    given = [
        Submission(
            response=f"def f(x): return x + {n % 3}", tests=[CallTest(function="f", args=(1,), expected=2)]
        )
        for n in range(60)
    ]
    verdicts = verify_programs(given, sandbox=sandbox)
    assert [verdict.is_correct for verdict in verdicts] == [n % 3 == 1 for n in range(60)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_other_languages_with_stdin_tests(language: str, sandbox: Sandbox) -> None:
    tool, program = LANGUAGES[language]
    if shutil.which(tool) is None or shutil.which("bwrap") is None:
        pytest.skip(f"{tool} or bubblewrap is not installed")
    tests = [StdinTest(stdin="2 3\n", expected="5"), StdinTest(stdin="-1 1\n", expected="1")]
    options = CodeOptions(language=language, stop_on_first_failure=False, limits=Limits(wall_s=10))
    verdict = verify_code(f"```{language}\n{program}\n```", tests, options=options, sandbox=sandbox)
    assert [row["status"] for row in verdict.details["tests"]] == ["passed", "failed"], verdict.reason
    calls = verify_code(program, ADDS, options=options, sandbox=sandbox)
    assert calls.outcome is Outcome.BAD_REFERENCE
    assert verify_code(program, tests, options=replace(options, language="cobol")).outcome == "bad_reference"


class _Service(Sandbox):
    """A service that answers with output alone, as a remote backend does."""

    backend = "remote"

    def submit_python(self, *args: Any, **kwargs: Any) -> Any:
        done: Future[Result] = Future()
        result = super().submit_python(*args, **kwargs).result()
        done.set_result(replace(result, reply=b""))
        return done


def test_a_service_without_a_reply_channel_grades_the_same() -> None:
    hostile = "class Yes(int):\n    def __eq__(self, o): return True\ndef add(a, b): return Yes(0)\n"
    tests = [*ADDS, AssertTest(source="assert abs(add(1, 1) - 2) < 1")]
    given = [Submission(response=program, tests=tests) for program in (ADD, hostile)]
    given.append(Submission(response="print(input())", tests=[StdinTest(stdin="a", expected="a")]))
    with _Service() as service:
        outcomes = [verdict.outcome for verdict in verify_programs(given, sandbox=service)]
    assert outcomes == [Outcome.CORRECT, Outcome.WRONG, Outcome.CORRECT]


class _Flaky(Sandbox):
    """Every run of a program that says `fault` is a fault of the sandbox."""

    def submit_python(self, source: str, **kwargs: Any) -> Any:
        if b"fault" not in kwargs["stdin"]:
            return super().submit_python(source, **kwargs)
        done: Future[Result] = Future()
        done.set_result(Result(status=Status.SANDBOX_ERROR, message="no memory for a run"))
        return done


@pytest.mark.parametrize("test", [ADDS[0], AssertTest(source="assert add(1, 1) > 1")])
def test_a_fault_of_the_sandbox_is_an_error_of_that_program_alone(test: Any) -> None:
    given = [Submission(response=text, tests=[test]) for text in (ADD, ADD + "# fault\n", ADD)]
    with _Flaky() as sandbox:
        verdicts = verify_programs(given, sandbox=sandbox)
    assert [verdict.outcome for verdict in verdicts] == [Outcome.CORRECT, Outcome.ERROR, Outcome.CORRECT]
    assert (verdicts[1].credit, "no memory for a run" in verdicts[1].reason) == (0.0, True)


def test_a_closed_sandbox_says_so() -> None:
    closed = Sandbox()
    closed.close()
    with pytest.raises(SandboxError, match="closed"):
        verify_code(ADD, ADDS, sandbox=closed)


def test_a_checker_that_is_a_function_runs_here(sandbox: Sandbox) -> None:
    test = StdinTest(stdin="x", compare="checker", checker=lambda stdin, output, expected: output == "x\n")
    assert verify_code("print(input())", [test], sandbox=sandbox).is_correct
    assert verify_code("print(1)", [test], sandbox=sandbox).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ([], "no tests"),
        ([StdinTest(stdin="1", expected="  ")], "empty"),
        ([CallTest(function="f")], "None"),
        ([CallTest(function="f(", expected=1)], "expected 'name'"),
        ([CallTest(function="f", args=(object(),), expected=1)], "plain data"),
        ([CallTest(function="f", expected=float("inf"))], "infinite"),
        ([CallTest(function="f", expected=1, result_in=0)], "0 arguments"),
        ([ObjectTest(class_name="A", calls=(("f", ()),), expected=())], "1 calls but 0"),
        ([StdinTest(stdin="1", expected="nan", compare="floats")], "nan"),
        ([StdinTest(stdin="1", expected="1", compare="checker")], "belong together"),
        ([StdinTest(stdin="1", expected="1", tolerance=float("nan"))], "tolerance"),
        (["assert f(1)"], "expected a test"),
        (None, "no tests"),
        ([StdinTest(stdin="1", expected=None)], "must be text"),  # type: ignore[arg-type]
        ([StdinTest(stdin="1", expected="1", tolerance="x")], "malformed StdinTest"),  # type: ignore[arg-type]
        ([CallTest(function=5, expected=1)], "malformed CallTest"),  # type: ignore[arg-type]
        ([CallTest(function="f", args=5, expected=1)], "malformed CallTest"),  # type: ignore[arg-type]
        ([CallTest(function="f", expected=1.0, tolerance=-1)], "tolerance=-1"),
        ([ObjectTest(class_name="A.b", calls=(("f", ()),), expected=(1,))], "name of a class"),
        ([ObjectTest(class_name="A", calls=(("f()", ()),), expected=(1,))], "name of a class"),
    ],
)
def test_tests_that_cannot_be_used_are_found_before_anything_runs(tests: Any, reason: str) -> None:
    verdict = verify_code("def f(): pass", tests)
    assert verdict.outcome is Outcome.BAD_REFERENCE
    assert reason in verdict.reason
    assert verdict.credit == 0.0
