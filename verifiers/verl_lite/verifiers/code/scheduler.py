"""Runs the tests of many programs in one sandbox, fairly, and turns their results into verdicts."""

import math
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from verl_lite.sandbox import Result, Sandbox
from verl_lite.verifiers.code.harness import Harness, Run
from verl_lite.verifiers.code.types import CodeOptions, CodeTest, TestResult
from verl_lite.verifiers.verdict import Outcome, Verdict

_RUNS_AHEAD_PER_CORE = 4
# A remote service returns only output: the reply goes to stdout, and what is printed to stderr.
_REPLY_ON_STDOUT = "import os\nos.dup2(1, 3)\nos.dup2(2, 1)\n"
_KIND_NAMES = {
    "StdinTest": "stdin",
    "CallTest": "call",
    "ObjectTest": "object",
    "AssertTest": "asserts",
    "UnitTestFile": "unit_tests",
    "ProgramTest": "program",
}


@dataclass(slots=True, kw_only=True)
class Grading:
    """One program and the results of its tests so far."""

    program: str
    tests: Sequence[CodeTest]
    options: CodeOptions
    harnesses: list[Callable[[], Harness]]
    results: dict[int, TestResult] = field(default_factory=dict)
    started: int = 0
    finished_s: float | None = None

    def next_test(self) -> int | None:
        """The index of the next test to start; None when none is left or failures ended the grading."""
        if self.started >= len(self.harnesses) or self.stopped_at < self.started:
            return None
        self.started += 1
        return self.started - 1

    @property
    def stopped_at(self) -> float:
        """The index of the last test that counts: the first failure, or the last allowed time-out."""
        if self.options.stop_on_first_failure:
            return min((i for i, result in self.results.items() if not result.passed), default=math.inf)
        late = sorted(i for i, result in self.results.items() if result.timed_out)
        return late[self.options.max_timeouts - 1] if len(late) >= self.options.max_timeouts else math.inf

    def record(self, index: int, result: TestResult) -> None:
        self.results[index] = result
        self.finished_s = time.monotonic()

    def final_results(self) -> list[TestResult]:
        """One result per test; tests after the last that counts are "not_run", even if they were run."""
        last = self.stopped_at
        not_run = TestResult(status="not_run", kind="")
        counted = (self.results.get(i, not_run) if i <= last else not_run for i in range(len(self.harnesses)))
        kinds = (_KIND_NAMES[type(test).__name__] for test in self.tests)
        return [replace(result, kind=kind) for result, kind in zip(counted, kinds, strict=True)]

    def verdict(self, wall_s: float) -> Verdict:
        results = self.final_results()
        passed = sum(result.passed for result in results)
        outcome, reason = _decide(results, passed)
        details: dict[str, object] = {
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


@dataclass(slots=True)
class _Step:
    """The runs that one harness waits for."""

    grading: Grading
    index: int
    harness: Harness
    runs: list[Run]
    results: list[Result | None]
    waiting: int


class Scheduler:
    """Keeps a bounded number of runs in the sandbox, shared fairly between the programs."""

    def __init__(self, sandbox: Sandbox, gradings: Sequence[Grading]) -> None:
        cores = os.cpu_count() or 1
        self._sandbox = sandbox
        self._remote = sandbox.backend == "remote"
        self._max_runs = max(4, _RUNS_AHEAD_PER_CORE * cores)
        self._in_flight = 0
        self._ended: queue.SimpleQueue[tuple[_Step, int, Future[Result]]] = queue.SimpleQueue()
        self._turns = self._take_turns(gradings)
        self._threads = ThreadPoolExecutor(max_workers=cores)

    def run(self) -> None:
        try:
            self._start_more()
            while self._in_flight:
                step, position, future = self._ended.get()
                self._in_flight -= 1
                result = future.result()
                if self._remote and step.runs[position].replies:
                    result = replace(result, reply=result.stdout)
                step.results[position] = result
                step.waiting -= 1
                if step.waiting == 0:
                    self._advance(step)
                self._start_more()
        finally:
            self._threads.shutdown(wait=False)

    @staticmethod
    def _take_turns(gradings: Sequence[Grading]) -> Iterator[tuple[Grading, int]]:
        """(program, test index) pairs: the first test of every program, then the second, ..."""
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
        """Send a harness its results; submit the runs it yields next, or record what it returns."""
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
