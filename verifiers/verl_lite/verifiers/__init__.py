"""Text in, Verdict out: math, code and format. Pure; no plugins, no torch."""

from verl_lite.verifiers.code import CodeOptions, CodeTest, load_tests, verify_code
from verl_lite.verifiers.format import FormatShape, verify_format
from verl_lite.verifiers.math import MathOptions, verify_math, verify_math_batch
from verl_lite.verifiers.verdict import Outcome, Verdict

__all__ = [
    "CodeOptions",
    "CodeTest",
    "FormatShape",
    "MathOptions",
    "Outcome",
    "Verdict",
    "load_tests",
    "verify_code",
    "verify_format",
    "verify_math",
    "verify_math_batch",
]
