"""Whether values differ: one rule for advantages, metrics and reports, so that all call a group flat."""

import math
from collections.abc import Sequence

__all__ = ["is_flat"]

REL_TOL, ABS_TOL = 1e-9, 1e-12  # sums of a few rewards in another order differ by 1e-15 or so


def is_flat(values: Sequence[float]) -> bool:
    """Whether all are equal but for rounding, as 0.1 + 0.2 and 0.3 are. Raises ValueError for none.

    >>> is_flat([0.1 + 0.2, 0.3]), is_flat([0.3, 0.3001]), is_flat([1.0])
    (True, False, True)
    """
    return math.isclose(min(values), max(values), rel_tol=REL_TOL, abs_tol=ABS_TOL)
