"""Grade programs: extract, check the tests, run every harness through one sandbox, give verdicts."""

import functools
import math
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from verl_lite.sandbox import Result, Sandbox
from verl_lite.verifiers.code.asserts import NotReadable, read_test_code
from verl_lite.verifiers.code.extract import extract_program
from verl_lite.verifiers.code.harness import (
    Harness,
    Run,
    run_call_test,
    run_object_test,
    run_stdin_test,
    run_test_code,
)
from verl_lite.verifiers.code.types import (
    CallTest,
    CodeOptions,
    CodeTest,
    ObjectTest,
    StdinTest,
    TestResult,
)
from verl_lite.verifiers.code.validation import find_problem, find_suite_problem
from verl_lite.verifiers.verdict import Outcome, Verdict

__all__ = ["Submission", "verify_code", "verify_programs"]

_RUNS_AHEAD_PER_CORE = 4
# A remote service returns output alone: the reply takes stdout, and what is printed goes to stderr.
_REPLY_ON_STDOUT = "import os\nos.dup2(1, 3)\nos.dup2(2, 1)\n"
_KIND_NAMES = {
    "StdinTest": "stdin",
    "CallTest": "call",
    "ObjectTest": "object",
    "AssertTest": "asserts",
    "UnitTestFile": "unit_tests",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One response to be graded by its tests."""

    response: str
    tests: Sequence[CodeTest]
    options: CodeOptions = field(default_factory=CodeOptions)


def verify_code(
    response: str,
    tests: Sequence[CodeTest],
    *,
    options: CodeOptions | None = None,
    sandbox: Sandbox | None = None,
) -> Verdict:
    """Whether the program in `response` passes every one of `tests`.

    Outcomes: correct (all passed), wrong (credit is the part that passed; a program that times out
    or dies is wrong), unparsed (no program in the response), bad_reference (tests that cannot be
    used, an empty list among them), error (the sandbox failed). `details` holds one row a test
    under "tests", and "passed", "total" and "trusting" (passes that a program could have forged).
    Without a `sandbox` one of this process is used and kept.
    """
    submission = Submission(response=response, tests=tests, options=options or CodeOptions())
    return verify_programs([submission], sandbox=sandbox)[0]


def verify_programs(submissions: Sequence[Submission], *, sandbox: Sandbox | None = None) -> list[Verdict]:
    """A verdict for each submission, in order; all tests of all programs share the sandbox."""
    started = time.monotonic()
    verdicts: dict[int, Verdict] = {}
    gradings: dict[int, _Grading] = {}
    for index, submission in enumerate(submissions):
        prepared = _prepare(submission)
        if isinstance(prepared, Verdict):
            verdicts[index] = prepared
        else:
            gradings[index] = prepared
    if gradings:
        _Driver(sandbox or _shared_sandbox(), list(gradings.values())).run()
    for index, grading in gradings.items():
        wall_s = (grading.finished_s or time.monotonic()) - started
        verdicts[index] = grading.verdict(wall_s)
    return [verdicts[index] for index in range(len(submissions))]


_shared_lock = threading.Lock()
_shared: dict[int, Sandbox] = {}


def _shared_sandbox() -> Sandbox:
    """The sandbox of this process (a forked child makes its own), entered once and kept."""
    with _shared_lock:
        pid = os.getpid()
        if pid not in _shared:
            _shared[pid] = Sandbox()
        return _shared[pid]


# -- before anything runs ---------------------------------------------------------------------------


def _prepare(submission: Submission) -> "_Grading | Verdict":
    tests, options = submission.tests, submission.options
    for number, test in enumerate(tests or (), 1):
        problem = find_problem(test, options)
        if problem:
            return Verdict(outcome=Outcome.BAD_REFERENCE, reason=f"test {number}: {problem}")
    problem = find_suite_problem(tests)
    if problem:
        return Verdict(outcome=Outcome.BAD_REFERENCE, reason=problem)
    program = extract_program(submission.response, options.language)
    if program is None:
        return Verdict(outcome=Outcome.UNPARSED, reason=f"no {options.language} program in the response")
    program = _continued(program, tests, options)
    try:
        harnesses = [_harness_for(test, program, options) for test in tests]
    except NotReadable as error:
        return Verdict(outcome=Outcome.BAD_REFERENCE, reason=str(error))
    return _Grading(program=program, tests=tests, options=options, harnesses=harnesses)


def _continued(program: str, tests: Sequence[CodeTest], options: CodeOptions) -> str:
    """`program`, or the text it continues followed by it when it does not define what is called."""
    if not options.continues:
        return program
    wanted = set(re.findall(r"^def (\w+)", options.continues, re.MULTILINE))
    defined = set(re.findall(r"^(?:async )?def (\w+)|^(\w+)\s*=", program, re.MULTILINE))
    names = {name for pair in defined for name in pair}
    target = _called_name(tests) or max(wanted, default="")
    return program if target in names else options.continues + program


def _called_name(tests: Sequence[CodeTest]) -> str:
    for test in tests:
        if isinstance(test, CallTest):
            return test.function
        names = getattr(test, "names", ())
        if names:
            return str(names[0])
    return ""


def _harness_for(test: CodeTest, program: str, options: CodeOptions) -> Callable[[], Harness]:
    if isinstance(test, StdinTest):
        return functools.partial(run_stdin_test, test, program, options)
    if isinstance(test, CallTest):
        return functools.partial(run_call_test, test, program, options)
    if isinstance(test, ObjectTest):
        return functools.partial(run_object_test, test, program, options)
    code = read_test_code(test, options.prelude)
    return functools.partial(run_test_code, code, program, options)


# -- one program --------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Grading:
    """A program on its way through its tests."""

    program: str
    tests: Sequence[CodeTest]
    options: CodeOptions
    harnesses: list[Callable[[], Harness]]
    results: dict[int, TestResult] = field(default_factory=dict)
    started: int = 0
    finished_s: float | None = None

    def next_test(self) -> int | None:
        """The next test to start, or None when none is left or failures have ended it."""
        if self.started >= len(self.harnesses) or self.stopped_at < self.started:
            return None
        self.started += 1
        return self.started - 1

    @property
    def stopped_at(self) -> float:
        """The index of the last test that counts: the first failure, or the last time-out allowed."""
        if self.options.stop_on_first_failure:
            return min((i for i, result in self.results.items() if not result.passed), default=math.inf)
        late = sorted(i for i, result in self.results.items() if result.timed_out)
        return late[self.options.max_timeouts - 1] if len(late) >= self.options.max_timeouts else math.inf

    def record(self, index: int, result: TestResult) -> None:
        self.results[index] = replace(result, kind=_KIND_NAMES[type(self.tests[index]).__name__])
        self.finished_s = time.monotonic()

    def final_results(self) -> list[TestResult]:
        """One result a test; those after the last that counts are not run, even if they were."""
        last = self.stopped_at
        not_run = TestResult(status="not_run", kind="")
        return [
            self.results[i]
            if i <= last and i in self.results
            else replace(not_run, kind=_KIND_NAMES[type(self.tests[i]).__name__])
            for i in range(len(self.harnesses))
        ]

    def verdict(self, wall_s: float) -> Verdict:
        results = self.final_results()
        passed = sum(result.passed for result in results)
        outcome, reason = _decide(results, passed)
        details: dict[str, Any] = {
            "tests": [result.as_dict(index) for index, result in enumerate(results)],
            "passed": passed,
            "total": len(results),
            "trusting": sum(result.trusts_program for result in results),
            "timed_out": sum(result.timed_out for result in results),
        }
        scored = outcome in (Outcome.CORRECT, Outcome.WRONG)
        return Verdict(
            outcome=outcome,
            extracted=self.program,
            matched_by="tests" if outcome is Outcome.CORRECT else "",
            reason=reason,
            credit=passed / len(results) if scored else 0.0,
            wall_s=wall_s,
            details=details,
        )


def _decide(results: Sequence[TestResult], passed: int) -> tuple[Outcome, str]:
    for status, outcome in (("error", Outcome.ERROR), ("bad_reference", Outcome.BAD_REFERENCE)):
        for number, result in enumerate(results, 1):
            if result.status == status:
                return outcome, f"test {number}: {result.reason}"
    if passed == len(results):
        return Outcome.CORRECT, ""
    number, first = next((n, r) for n, r in enumerate(results, 1) if r.status == "failed")
    return Outcome.WRONG, f"{passed} of {len(results)} tests passed; test {number}: {first.reason}"


# -- all programs together ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Step:
    """The runs that one harness waits for."""

    grading: _Grading
    index: int
    harness: Harness
    runs: list[Run]
    results: list[Result | None]
    waiting: int


class _Driver:
    """Keeps a bounded number of runs in the sandbox, fairly over the programs."""

    def __init__(self, sandbox: Sandbox, gradings: Sequence[_Grading]) -> None:
        cores = os.cpu_count() or 1
        self._sandbox = sandbox
        self._remote = sandbox.backend == "remote"
        self._max_runs = max(4, _RUNS_AHEAD_PER_CORE * cores)
        self._in_flight = 0
        self._ended: queue.SimpleQueue[tuple[_Step, int, Future[Result]]] = queue.SimpleQueue()
        self._turns = self._take_turns(gradings)
        self._threads = ThreadPoolExecutor(max_workers=cores)

    def _received(self, run: Run, result: Result) -> Result:
        return replace(result, reply=result.stdout) if run.replies and self._remote else result

    def run(self) -> None:
        try:
            self._start_more()
            while self._in_flight:
                step, position, future = self._ended.get()
                self._in_flight -= 1
                step.results[position] = self._received(step.runs[position], future.result())
                step.waiting -= 1
                if step.waiting == 0:
                    self._advance(step)
                self._start_more()
        finally:
            self._threads.shutdown(wait=False)

    @staticmethod
    def _take_turns(gradings: Sequence[_Grading]) -> Iterator[tuple[_Grading, int]]:
        """(program, test) pairs: the first test of every program, then the second, ..."""
        waiting = deque(gradings)
        while waiting:
            grading = waiting.popleft()
            index = grading.next_test()
            if index is not None:
                waiting.append(grading)
                yield grading, index

    def _start_more(self) -> None:
        while self._in_flight < self._max_runs:
            turn = next(self._turns, None)
            if turn is None:
                return
            grading, index = turn
            self._advance(_Step(grading, index, grading.harnesses[index](), [], [], 0))

    def _advance(self, step: _Step) -> None:
        """Send a harness its results; submit what it asks for next, or record what it returned."""
        try:
            runs = step.harness.send([r for r in step.results if r is not None] if step.results else None)  # type: ignore[arg-type]
        except StopIteration as ended:
            step.grading.record(step.index, ended.value)
            return
        step.runs, step.results, step.waiting = runs, [None] * len(runs), len(runs)
        self._in_flight += len(runs)
        for position, run in enumerate(runs):
            future = self._submit(run)
            future.add_done_callback(lambda done, at=position: self._ended.put((step, at, done)))  # type: ignore[misc]

    def _submit(self, run: Run) -> Future[Result]:
        if run.language == "python":
            source = _REPLY_ON_STDOUT + run.source if run.replies and self._remote else run.source
            return self._sandbox.submit_python(source, stdin=run.stdin, limits=run.limits)
        return self._threads.submit(
            self._sandbox.run, run.language, run.source, stdin=run.stdin, limits=run.limits
        )
