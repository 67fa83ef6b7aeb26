"""`verify_code`: extract the program, check the tests, run them in a sandbox, give a verdict."""

import functools
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from verl_lite.sandbox import Sandbox
from verl_lite.verifiers.code.asserts import NotReadable, read_test_code
from verl_lite.verifiers.code.extract import extract_program
from verl_lite.verifiers.code.harness import (
    Harness,
    run_call_test,
    run_object_test,
    run_program_test,
    run_stdin_test,
    run_test_code,
)
from verl_lite.verifiers.code.scheduler import Grading, Scheduler
from verl_lite.verifiers.code.types import (
    AssertTest,
    CallTest,
    CodeOptions,
    CodeTest,
    ObjectTest,
    ProgramTest,
    StdinTest,
    UnitTestFile,
)
from verl_lite.verifiers.code.validation import find_problem, find_suite_problem
from verl_lite.verifiers.verdict import Outcome, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
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
    """Whether the program in `response` passes all `tests`.

    Outcomes: correct (all passed), wrong (credit is the fraction that passed; a program that times
    out or crashes is wrong), not_installed (it failed for want of a library; no
    credit), unparsed (no program in the response), bad_reference (unusable tests,
    including an empty list), error (the sandbox failed). `details` holds one row per test under
    "tests", and the counts "passed", "total", "timed_out" and "trusting" (passes that a program could
    have forged); where isolation was weak, "isolation" is "landlock" or "unsafe". Without `sandbox`, one per
    process is created and kept. Raises SandboxError where programs cannot be isolated.
    """
    submission = Submission(response=response, tests=tests, options=options or CodeOptions())
    return verify_programs([submission], sandbox=sandbox)[0]


def verify_programs(submissions: Sequence[Submission], *, sandbox: Sandbox | None = None) -> list[Verdict]:
    """One verdict per submission, in order; all tests of all programs share the sandbox."""
    started = time.monotonic()
    verdicts: dict[int, Verdict] = {}
    gradings: dict[int, Grading] = {}
    for index, submission in enumerate(submissions):
        prepared = _prepare(submission)
        if isinstance(prepared, Verdict):
            verdicts[index] = prepared
        else:
            gradings[index] = prepared
    if gradings:
        sandbox = sandbox or _shared_sandbox()
        Scheduler(sandbox, list(gradings.values())).run()
    for index, grading in gradings.items():
        wall_s = (grading.finished_s or time.monotonic()) - started
        verdict = grading.verdict(wall_s)
        python = grading.options.language == "python"
        if sandbox is not None and python:
            verdict = _naming_missing_modules(verdict, grading.program, sandbox)
        if sandbox is not None and sandbox.backend in ("unsafe", *(["landlock"] if python else [])):
            verdict = replace(verdict, details={**verdict.details, "isolation": sandbox.backend})
        verdicts[index] = verdict
    return [verdicts[index] for index in range(len(submissions))]


def _naming_missing_modules(verdict: Verdict, program: str, sandbox: Sandbox) -> Verdict:
    """A program that failed because the sandbox has no such library: no credit either, but another outcome.

    What counts is what its text imports, for it could claim any error.
    """
    if verdict.outcome is not Outcome.WRONG or _NO_MODULE not in repr(verdict.details.get("tests")):
        return verdict
    modules = sandbox.missing_modules(program)
    if not modules:
        return verdict
    reason = f"not installed in the sandbox: {', '.join(modules)} (the option `libraries`); {verdict.reason}"
    details = {**verdict.details, "not_installed": modules}
    return replace(verdict, outcome=Outcome.NOT_INSTALLED, reason=reason, details=details)


_NO_MODULE = "No module named"
_shared_lock = threading.Lock()
_shared: dict[int, Sandbox] = {}


def _shared_sandbox() -> Sandbox:
    """The sandbox of this process; a forked child creates its own."""
    with _shared_lock:
        pid = os.getpid()
        if pid not in _shared:
            _shared[pid] = Sandbox()
        return _shared[pid]


def _prepare(submission: Submission) -> Grading | Verdict:
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
    return Grading(program=program, tests=tests, options=options, harnesses=harnesses)


def _continued(program: str, tests: Sequence[CodeTest], options: CodeOptions) -> str:
    """`program`, after the text it continues if it does not itself define what the tests call."""
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
    if isinstance(test, (AssertTest, UnitTestFile)):
        return functools.partial(run_test_code, read_test_code(test, options.prelude), program, options)
    return functools.partial(_HARNESSES[type(test)], test, program, options)


_HARNESSES: dict[type, Callable[..., Harness]] = {
    StdinTest: run_stdin_test,
    CallTest: run_call_test,
    ObjectTest: run_object_test,
    ProgramTest: run_program_test,
}
