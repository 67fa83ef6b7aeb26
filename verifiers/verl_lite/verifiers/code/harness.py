"""Test harnesses: which processes each kind of test runs, in which order, and what their replies mean.

A harness is a generator. It yields the runs it needs next (they go to the sandbox together), receives
their results, and returns the TestResult. It never waits itself, so a scheduler can advance the
harnesses of many programs at once.
"""

import ast
import functools
import json
import marshal
import math
import re
import secrets
import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from verl_lite.sandbox import Limits, Result, Status
from verl_lite.verifiers.code.asserts import TestCode
from verl_lite.verifiers.code.compare import matches_text, matches_value, show, show_data
from verl_lite.verifiers.code.program_tests import joined
from verl_lite.verifiers.code.trust import runs_text
from verl_lite.verifiers.code.types import (
    CallTest,
    CodeOptions,
    ObjectTest,
    ProgramTest,
    StdinTest,
    TestResult,
)
from verl_lite.verifiers.code.wire import encode

_CALLS_TIMES = 4  # a test file may take this many times the limit of one call
_PROGRAM = ("wire", "inside_link", "inside_remote", "inside_program")
_SESSION = (*_PROGRAM, "inside_numpy", "inside_pytest", "inside_collect", "inside_tests")
_MAX_STDERR_LINE = 200
_PASSED = TestResult(status="passed", kind="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One process to run in the sandbox. `replies`: its reply is read instead of its output."""

    source: str
    stdin: bytes
    limits: Limits
    language: str = "python"
    replies: bool = False


Harness: TypeAlias = Generator[list[Run], list[Result], TestResult]


@functools.cache
def _sandboxed_source(*names: str) -> str:
    """The source of a process: the files `names` concatenated, without their imports of each other.

    Compiled here, since compiling takes longer than the run; as text for another version of Python.
    """
    parts = []
    for name in names:
        text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
        text = re.sub(r"^from verl_lite\.[\w.]+ import (\([^)]*\)|.*)$", "", text, flags=re.MULTILINE)
        parts.append(text if name == names[-1] else text.partition('\nif __name__ == "__main__":')[0])
    source = "\n".join(parts)
    compiled = marshal.dumps(compile(source, "<inside>", "exec"))
    return (
        "import marshal, sys\n"
        f"exec(marshal.loads({compiled!r}) if sys.hexversion == {sys.hexversion} "
        f"else compile({source!r}, '<inside>', 'exec'))"
    )


def _request(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode()


def _fault(result: Result) -> TestResult | None:
    """The test result of a run that failed; None for one that did not.

    Only a fault of the sandbox is an error. A program that was stopped has failed.
    """
    if result.status is Status.OK:
        return None
    if result.status is Status.SANDBOX_ERROR:
        return TestResult(status="error", kind="", reason=f"the sandbox failed: {result.message}")
    if result.status is Status.TIMEOUT:
        return TestResult(status="failed", kind="", reason="timed out", timed_out=True)
    reason = {
        Status.MEMORY: "ran out of memory",
        Status.OUTPUT_LIMIT: "printed too much",
        Status.KILLED: "was killed",
    }.get(result.status, f"exit code {result.exit_code}")
    lines = result.stderr[-4096:].decode("utf-8", "replace").strip().splitlines()
    return _failed(f"{reason}: {lines[-1][:_MAX_STDERR_LINE]}" if lines else reason)


def _failed(reason: str) -> TestResult:
    return TestResult(status="failed", kind="", reason=reason)


def _bad(reason: str) -> TestResult:
    return TestResult(status="bad_reference", kind="", reason=reason)


def _reply(result: Result) -> dict[str, Any] | None:
    """The reply of the process, if it is one JSON object with finite numbers; else None."""
    try:
        reply = json.loads(result.reply, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return reply if type(reply) is dict else None


def _refuse(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    return value if math.isfinite(value := float(text)) else _refuse(text)


def run_stdin_test(test: StdinTest, program: str, options: CodeOptions) -> Harness:
    roomy = max(options.limits.output_kb, len(test.expected) // 256 + 64)
    limits = replace(options.limits, output_kb=roomy)
    stdin = test.stdin.encode("utf-8", "surrogatepass")
    (result,) = yield [Run(source=program, stdin=stdin, limits=limits, language=options.language)]
    fault = _fault(result)
    if fault:
        return fault
    output = result.stdout.decode("utf-8", "replace")
    if test.compare == "checker":
        return (yield from _check_output(test, output, options))
    tolerance = test.tolerance if options.tolerance is None else options.tolerance
    how = options.compare or test.compare
    if matches_text(output, test.expected, how, tolerance):
        return _PASSED
    return _failed(f"printed {show(output)}, expected {show(test.expected)}")


def _check_output(test: StdinTest, output: str, options: CodeOptions) -> Harness:
    if callable(test.checker):
        good = test.checker(test.stdin, output, test.expected)
        return _PASSED if good is True else _failed(f"checker: {show(output)}")
    why = runs_text(ast.parse(test.checker or ""))
    if why and options.trusting_tests == "refuse":
        return _bad(
            f"refused, for the checker trusts the program: {why} (trusting_tests: allow would run it)"
        )
    request = {"checker": test.checker, "stdin": test.stdin, "output": output, "expected": test.expected}
    source = _sandboxed_source(*_PROGRAM, "inside_checker")
    (result,) = yield [Run(source=source, stdin=_request(request), limits=options.limits, replies=True)]
    fault = _fault(result)
    if fault:
        return replace(fault, reason=f"the checker: {fault.reason}")
    reply = _reply(result) or {"status": "failed", "message": "the checker ended without an answer"}
    if reply["status"] == "not_ready":
        return _bad(f"the checker does not work: {reply['message']}")
    if reply["status"] == "passed":
        return TestResult(status="passed", kind="", trusts_program=bool(why), reason=why)
    return _failed(reply["message"] or f"the checker refused {show(output)}")


def _call(
    request: dict[str, Any], program: str, options: CodeOptions
) -> Generator[list[Run], list[Result], TestResult | dict[str, Any]]:
    """Run the program for one request: its reply, or how it failed."""
    request = {**request, "program": program, "prelude": options.prelude}
    source = _sandboxed_source(*_PROGRAM)
    (result,) = yield [Run(source=source, stdin=_request(request), limits=options.limits, replies=True)]
    fault = _fault(result)
    if fault:
        return fault
    reply = _reply(result)
    if reply is None:
        return _failed(_no_reply(result))
    if "raised" in reply:
        return _failed(f"raised {str(reply.get('type'))[:80]}: {str(reply.get('message'))[:200]}")
    return reply


def run_call_test(test: CallTest, program: str, options: CodeOptions) -> Harness:
    request = {
        "function": test.function,
        "args": [encode(arg) for arg in test.args],
        "kwargs": {name: encode(value) for name, value in test.kwargs.items()},
    }
    reply = yield from _call(request, program, options)
    if isinstance(reply, TestResult):
        return reply
    value = reply.get("value")
    if test.result_in is not None:
        changed = reply.get("changed")
        value = changed.get(str(test.result_in)) if type(changed) is dict else None
        value = value or {"data": encode(test.args[test.result_in])}
    return _compare(value, (test.expected, *test.also), test)


def _no_reply(result: Result) -> str:
    return "sent a broken reply" if result.reply else "ended without giving a result"


def _compare(value: Any, expected: tuple[Any, ...], test: CallTest | ObjectTest) -> TestResult:
    if type(value) is not dict or "data" not in value:
        what = str(value.get("not_plain"))[:120] if type(value) is dict else "nothing"
        return _failed(f"returned {what}; plain data is expected")
    data = value["data"]
    if any(matches_value(data, want, rules=test.rules, tolerance=test.tolerance) for want in expected):
        return _PASSED
    return _failed(f"returned {show_data(data)}, expected {show(expected[0])}")


def run_object_test(test: ObjectTest, program: str, options: CodeOptions) -> Harness:
    request = {
        "class_name": test.class_name,
        "args": [encode(arg) for arg in test.args],
        "calls": [[method, [encode(arg) for arg in args]] for method, args in test.calls],
    }
    reply = yield from _call(request, program, options)
    if isinstance(reply, TestResult):
        return reply
    values = reply.get("values")
    if type(values) is not list or len(values) != len(test.expected):
        return _failed(f"gave no result for each of the {len(test.expected)} calls")
    for (method, _), value, expected in zip(test.calls, values, test.expected, strict=True):
        compared = _compare(value, (expected,), test)
        if not compared.passed:
            return replace(compared, reason=f"{method}: {compared.reason}")
    return compared


def run_program_test(test: ProgramTest, program: str, options: CodeOptions) -> Harness:
    """Run the program with test code of its own language behind it; exit code 0 passes."""
    why = "runs inside the program's process: it is part of the program"
    if options.trusting_tests == "refuse":
        return _bad(f"refused, for the test {why} (trusting_tests: allow would run it)")
    source = joined(program, prompt=test.prompt, tests=test.source)
    (result,) = yield [Run(source=source, stdin=b"", limits=options.limits, language=options.language)]
    fault = _fault(result)
    if fault:
        return replace(fault, trusts_program=True)
    return TestResult(status="passed", kind="", reason=why, trusts_program=True)


def run_test_code(code: TestCode, program: str, options: CodeOptions) -> Harness:
    """Run test code in a process beside the program's (inside_tests.py), or in the same one."""
    trusts = code.mode == "together"
    why = f"runs inside the program's process: {code.trusts_because}"
    if trusts and options.trusting_tests == "refuse":
        return _bad(f"refused, for the test {why} (trusting_tests: allow would run it)")
    key = secrets.token_hex(16)
    (result,) = yield [_tests_run(code, key, program, options)]
    fault = _fault(result)
    if fault:
        return replace(fault, trusts_program=trusts)
    reply = _reply(result)
    if reply is None or reply.get("key") != key:
        return replace(_failed(_no_reply(result)), trusts_program=trusts)
    if reply["status"] == "passed":
        verdict = _passed(reply, code)
        return replace(verdict, reason=why, trusts_program=True) if trusts and verdict.passed else verdict
    message = str(reply.get("message"))[:300]
    if reply["status"] == "not_ready":
        return _bad(message)
    if reply["status"] == "error":
        return TestResult(status="error", kind="", reason=message)
    return replace(_failed(message), trusts_program=trusts, timed_out=bool(reply.get("timed_out")))


def _tests_run(code: TestCode, key: str, program: str, options: CodeOptions) -> Run:
    request = {
        **asdict(code),
        "prelude": options.prelude,
        "program": program,
        "timeout_s": options.limits.wall_s,
        "key": key,
    }
    limits = replace(
        options.limits,
        wall_s=_CALLS_TIMES * options.limits.wall_s,
        cpu_s=_CALLS_TIMES * options.limits.cpu_limit_s,
        processes=options.limits.processes + 1,
    )
    return Run(source=_sandboxed_source(*_SESSION), stdin=_request(request), limits=limits, replies=True)


def _passed(reply: dict[str, Any], code: TestCode) -> TestResult:
    if reply["lacks"] and not reply["made"]:
        return _failed(str(reply["lacks"])[:300])
    if code.collect and not reply["ran"]:
        skipped = _failed("every test was skipped, after it called the program")
        own = code.mode == "separate" and reply["made"] and reply["collected"]
        return skipped if own else _bad("the test file holds no test")
    if not reply["made"]:
        return _bad("the tests never call the program")
    return _PASSED
