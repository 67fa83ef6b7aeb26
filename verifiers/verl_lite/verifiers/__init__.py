"""Text in, Verdict out: math, code and format. Pure; no plugins, no torch."""

from verl_lite.verifiers.math import MathOptions, verify_math, verify_math_batch
from verl_lite.verifiers.verdict import Outcome, Verdict

__all__ = ["MathOptions", "Outcome", "Verdict", "verify_math", "verify_math_batch"]
