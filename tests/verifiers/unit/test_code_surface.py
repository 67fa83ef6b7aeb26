"""The public surface of verl_lite.verifiers and its room `code`. A change here is a change for users."""

import dataclasses
import inspect
from collections.abc import Callable

import pytest

from verl_lite import verifiers
from verl_lite.sandbox import Limits
from verl_lite.verifiers import (
    CodeOptions,
    FormatShape,
    MathOptions,
    Outcome,
    Verdict,
    code,
    verify_code,
    verify_format,
    verify_math,
    verify_math_batch,
)


def test_the_public_names_of_the_verifiers() -> None:
    names = [
        "AnswerMark",
        "CodeOptions",
        "CodeTest",
        "FormatPattern",
        "FormatShape",
        "INSTRUCTION_KINDS",
        "InstructionResult",
        "MathOptions",
        "Outcome",
        "Verdict",
        "detect_language",
        "find_boxed",
        "find_tagged",
        "format_problem",
        "is_text_reference",
        "load_tests",
        "verify_code",
        "verify_format",
        "verify_instructions",
        "verify_math",
        "verify_math_batch",
    ]
    assert verifiers.__all__ == names == sorted(names)
    assert all(getattr(verifiers, name) is not None for name in names)


def test_the_public_names_of_the_code_verifier() -> None:
    names = [
        "AssertTest",
        "BadTests",
        "CallTest",
        "CodeOptions",
        "CodeTest",
        "LoadedTests",
        "NotPlainData",
        "NotReadable",
        "ObjectTest",
        "ProgramTest",
        "StdinTest",
        "Submission",
        "TestResult",
        "UnitTestFile",
        "decode",
        "encode",
        "extract_program",
        "has_tests",
        "load_tests",
        "matches_text",
        "matches_value",
        "read_test_code",
        "split_asserts",
        "verify_code",
        "verify_programs",
    ]
    assert code.__all__ == names == sorted(names)
    assert all(getattr(code, name) is not None for name in names)


def parameters(function: Callable[..., object]) -> str:
    """Names, kinds and defaults of the parameters."""
    bare = inspect.signature(function)
    return str(
        bare.replace(
            parameters=[
                parameter.replace(annotation=inspect.Parameter.empty)
                for parameter in bare.parameters.values()
            ],
            return_annotation=inspect.Signature.empty,
        )
    )


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (verify_code, "(response, tests, *, options=None, sandbox=None)"),
        (verify_format, "(response, *, options=None)"),
        (verify_math, f"(response, reference, *, options={MathOptions()!r})"),
        (verify_math_batch, f"(pairs, *, options={MathOptions()!r})"),
        (verifiers.format_problem, "(response, shape)"),
        (verifiers.load_tests, "(columns, *, reference=None)"),
        (code.extract_program, "(response, language='python')"),
        (code.has_tests, "(columns)"),
        (code.verify_programs, "(submissions, *, sandbox=None)"),
    ],
)
def test_the_parameters_of_the_functions(function: Callable[..., object], expected: str) -> None:
    assert parameters(function) == expected


def test_the_options_and_their_defaults() -> None:
    assert dataclasses.asdict(CodeOptions(limits=Limits())) == {
        "language": "python",
        "prelude": "",
        "continues": "",
        "limits": dataclasses.asdict(Limits()),
        "compare": None,
        "tolerance": None,
        "stop_on_first_failure": True,
        "max_timeouts": 3,
        "trusting_tests": "allow",
    }
    assert dataclasses.asdict(FormatShape()) == {
        "pattern": "think_answer",
        "think_tag": "think",
        "answer_tag": "answer",
        "prompt_opens_think": False,
        "language": "",
    }
    assert dataclasses.asdict(MathOptions()) == {
        "mode": "lenient",
        "timeout_s": 5.0,
        "rel_tol": 1e-6,
        "rounding": "reference",
        "units": "convert",
        "partial": False,
        "computed": False,
        "decimal_comma": False,
        "unclosed_thinking": "refuse",
    }


def test_the_verdict() -> None:
    assert dataclasses.asdict(Verdict(outcome=Outcome.CORRECT)) == {
        "outcome": Outcome.CORRECT,
        "extracted": None,
        "matched_by": "",
        "reason": "",
        "credit": 0.0,
        "wall_s": 0.0,
        "details": {},
    }
    assert [outcome.value for outcome in Outcome] == [
        "correct",
        "wrong",
        "unparsed",
        "bad_reference",
        "not_installed",
        "timeout",
        "error",
    ]
