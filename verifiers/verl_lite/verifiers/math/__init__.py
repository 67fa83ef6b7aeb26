"""Math verification: `verify_math(response, reference)` and its batch form. See docs/math.md."""

from verl_lite.verifiers.math.options import MathOptions
from verl_lite.verifiers.math.verify import verify_math, verify_math_batch, warm_up

__all__ = ["MathOptions", "verify_math", "verify_math_batch", "warm_up"]
