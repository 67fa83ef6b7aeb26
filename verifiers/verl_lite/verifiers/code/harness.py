"""Test harnesses: which processes each kind of test runs, in which order, and what their replies mean.

A harness is a generator. It yields the runs it needs next (they go to the sandbox together), receives
their results, and returns the TestResult. It never waits itself, so a scheduler can advance the
harnesses of many programs at once.
"""

import functools
import json
import marshal
import math
import re
import sys
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from verl_lite.sandbox import Limits, Result, Status
from verl_lite.verifiers.code.asserts import TestCode
from verl_lite.verifiers.code.compare import matches_text, matches_value, show, show_data
from verl_lite.verifiers.code.types import CallTest, CodeOptions, ObjectTest, StdinTest, TestResult
from verl_lite.verifiers.code.wire import encode

_MAX_ROUNDS = 100
_MAX_CALLS = 2000
_MAX_STDERR_LINE = 200


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
        text = re.sub(r"^from verl_lite\..*$", "", text, flags=re.MULTILINE)
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
    last = _last_line(result.stderr)
    return TestResult(status="failed", kind="", reason=f"{reason}: {last}" if last else reason)


def _last_line(stderr: bytes) -> str:
    lines = stderr[-4096:].decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:_MAX_STDERR_LINE] if lines else ""


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
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


# -- stdin and stdout -------------------------------------------------------------------------------


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
    if matches_text(output, test.expected, test.compare, test.tolerance):
        return TestResult(status="passed", kind="")
    return _failed(f"printed {show(output)}, expected {show(test.expected)}")


def _check_output(test: StdinTest, output: str, options: CodeOptions) -> Harness:
    if callable(test.checker):
        good = test.checker(test.stdin, output, test.expected)
        return TestResult(status="passed", kind="") if good is True else _failed(f"checker: {show(output)}")
    request = {"checker": test.checker, "stdin": test.stdin, "output": output, "expected": test.expected}
    source = _sandboxed_source("wire", "inside_program", "inside_checker")
    (result,) = yield [Run(source=source, stdin=_request(request), limits=options.limits, replies=True)]
    fault = _fault(result)
    if fault:
        return replace(fault, reason=f"the checker: {fault.reason}")
    reply = _reply(result) or {"status": "not_ready", "message": "no reply"}
    if reply["status"] == "not_ready":
        return _bad(f"the checker does not work: {reply['message']}")
    if reply["status"] == "passed":
        return TestResult(status="passed", kind="")
    return _failed(reply["message"] or f"the checker refused {show(output)}")


# -- calls ------------------------------------------------------------------------------------------


def _call_run(request: dict[str, Any], program: str, options: CodeOptions) -> Run:
    request = {**request, "program": program, "prelude": options.prelude}
    source = _sandboxed_source("wire", "inside_program")
    return Run(source=source, stdin=_request(request), limits=options.limits, replies=True)


def run_call_test(test: CallTest, program: str, options: CodeOptions) -> Harness:
    request = {
        "function": test.function,
        "args": [encode(arg) for arg in test.args],
        "kwargs": {name: encode(value) for name, value in test.kwargs.items()},
    }
    (result,) = yield [_call_run(request, program, options)]
    reply = _reply(result)
    fault = _fault(result) or _raised(reply)
    if fault or reply is None:
        return fault or _failed(_no_reply(result))
    value = reply.get("value")
    if test.result_in is not None:
        changed = reply.get("changed")
        value = changed.get(str(test.result_in)) if type(changed) is dict else None
        value = value or {"data": encode(test.args[test.result_in])}
    return _compare(value, (test.expected, *test.also), test)


def _no_reply(result: Result) -> str:
    return "sent a broken reply" if result.reply else "ended without giving a result"


def _raised(reply: dict[str, Any] | None) -> TestResult | None:
    if reply is None or "raised" not in reply:
        return None
    return _failed(f"raised {str(reply.get('type'))[:80]}: {str(reply.get('message'))[:200]}")


def _compare(value: Any, expected: tuple[Any, ...], test: CallTest | ObjectTest) -> TestResult:
    if type(value) is not dict or "data" not in value:
        what = str(value.get("not_plain"))[:120] if type(value) is dict else "nothing"
        return _failed(f"returned {what}; plain data is expected")
    data = value["data"]
    if any(matches_value(data, want, rules=test.rules, tolerance=test.tolerance) for want in expected):
        return TestResult(status="passed", kind="")
    return _failed(f"returned {show_data(data)}, expected {show(expected[0])}")


def run_object_test(test: ObjectTest, program: str, options: CodeOptions) -> Harness:
    request = {
        "class_name": test.class_name,
        "args": [encode(arg) for arg in test.args],
        "calls": [[method, [encode(arg) for arg in args]] for method, args in test.calls],
    }
    (result,) = yield [_call_run(request, program, options)]
    reply = _reply(result)
    fault = _fault(result) or _raised(reply)
    if fault or reply is None:
        return fault or _failed(_no_reply(result))
    values = reply.get("values")
    if type(values) is not list or len(values) != len(test.expected):
        return _failed(f"gave no result for each of the {len(test.expected)} calls")
    for (method, _), value, expected in zip(test.calls, values, test.expected, strict=True):
        compared = _compare(value, (expected,), test)
        if not compared.passed:
            return replace(compared, reason=f"{method}: {compared.reason}")
    return compared


# -- test code --------------------------------------------------------------------------------------


def run_test_code(code: TestCode, program: str, options: CodeOptions) -> Harness:
    """Run test code apart from the program; each round makes the calls it asks for (inside_tests.py)."""
    if code.mode == "together":
        return (yield from _run_together(code, program, options))
    answers: dict[str, Any] = {}
    for _ in range(_MAX_ROUNDS):
        (result,) = yield [_tests_run(code, answers, "", options)]
        fault = _fault(result)
        if fault:
            return _tests_fault(fault, answers)
        reply = _reply(result) or {"status": "failed", "message": "the tests ended without a reply"}
        if reply["status"] == "unsupported" and not answers:
            together = replace(code, mode="together", trusts_because=reply["message"])
            return (yield from _run_together(together, program, options))
        if reply["status"] != "calls":
            return _tests_verdict(reply, code, answers)
        results = yield [_call_run(call, program, options) for call in reply["calls"]]
        for call, called in zip(reply["calls"], results, strict=True):
            answer = _answer(called, call["function"])
            if isinstance(answer, TestResult):
                return answer
            answers[json.dumps(call, sort_keys=True)] = answer
    return _failed(f"the tests needed more than {_MAX_ROUNDS} rounds of calls")


def _tests_run(code: TestCode, answers: dict[str, Any], program: str, options: CodeOptions) -> Run:
    request = {
        "mode": code.mode,
        "source": code.source,
        "setup": code.setup,
        "names": list(code.names),
        "classes": list(code.classes),
        "module": code.module,
        "collect": code.collect,
        "prelude": options.prelude,
        "program": program,
        "answers": answers,
        "max_calls": _MAX_CALLS,
    }
    source = _sandboxed_source("wire", "inside_program", "inside_pytest", "inside_tests")
    return Run(source=source, stdin=_request(request), limits=options.limits, replies=True)


def _tests_fault(fault: TestResult, answers: dict[str, Any]) -> TestResult:
    """Tests that fail before the program was called are the data set's fault."""
    if fault.status == "error" or answers:
        return replace(fault, reason=f"the tests, given the program's results: {fault.reason}")
    return _bad(f"the tests fail by themselves: {fault.reason}")


def _tests_verdict(reply: dict[str, Any], code: TestCode, answers: dict[str, Any]) -> TestResult:
    status, message = reply["status"], str(reply.get("message", ""))[:300]
    if status == "passed":
        if code.collect and not reply["ran"]:
            return _bad("the test file holds no test")
        if not reply["made"]:
            return _bad("the tests never call the program")
        return TestResult(status="passed", kind="")
    if status == "not_ready":
        return _bad(message)
    if not answers:
        return _bad(f"the tests fail before they call the program: {message}")
    return _failed(message)


def _answer(result: Result, function: str) -> dict[str, Any] | TestResult:
    """The result of a call in the form that inside_tests.py reads; a TestResult if it is unusable."""
    reply = _reply(result)
    fault = _fault(result)
    if fault:
        return replace(fault, reason=f"{function}: {fault.reason}")
    if reply is None:
        return _failed(f"{function}: {_no_reply(result)}")
    if "raised" in reply:
        return {"raised": str(reply["raised"]), "message": str(reply.get("message"))[:500]}
    value = reply.get("value")
    if type(value) is not dict or "data" not in value:
        what = value.get("not_plain") if type(value) is dict else "nothing"
        return _failed(f"{function} returned {str(what)[:120]}; plain data is expected")
    changed = reply.get("changed")
    changes = changed if type(changed) is dict else {}
    kept = {k: v["data"] for k, v in changes.items() if type(v) is dict and "data" in v}
    return {"value": value["data"], "changed": kept}


def _run_together(code: TestCode, program: str, options: CodeOptions) -> Harness:
    why = f"runs inside the program's process: {code.trusts_because}"
    if options.trusting_tests == "refuse":
        return _bad(f"refused, for the test {why} (trusting_tests: allow would run it)")
    code = replace(code, mode="together")
    (result,) = yield [_tests_run(code, {}, program, options)]
    fault = _fault(result)
    if fault:
        return replace(fault, trusts_program=True)
    reply = _reply(result)
    if reply is None:
        return replace(_failed(_no_reply(result)), trusts_program=True)
    passed = reply.get("status") == "passed"
    if passed and code.collect and not reply.get("ran"):
        return _bad("the test file holds no test")
    if passed:
        return TestResult(status="passed", kind="", reason=why, trusts_program=True)
    return replace(_failed(str(reply.get("message"))[:300]), trusts_program=True)
