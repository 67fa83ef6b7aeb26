"""Verifiers for math, code and format: text in, Verdict out. No plugins, no torch."""

from verl_lite.verifiers.answer_marks import AnswerMark, find_boxed, find_tagged
from verl_lite.verifiers.code import CodeOptions, CodeTest, load_tests, verify_code
from verl_lite.verifiers.format import FormatPattern, FormatShape, format_problem, verify_format
from verl_lite.verifiers.math import MathOptions, verify_math, verify_math_batch
from verl_lite.verifiers.verdict import Outcome, Verdict

__all__ = [
    "AnswerMark",
    "CodeOptions",
    "CodeTest",
    "FormatPattern",
    "FormatShape",
    "MathOptions",
    "Outcome",
    "Verdict",
    "find_boxed",
    "find_tagged",
    "format_problem",
    "load_tests",
    "verify_code",
    "verify_format",
    "verify_math",
    "verify_math_batch",
]
