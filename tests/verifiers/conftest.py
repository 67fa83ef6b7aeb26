"""Workers of the math verifier that have started before they are measured."""

import pytest

from verl_lite.verifiers import verify_math_batch


@pytest.fixture(scope="session")
def warm_workers() -> None:
    """Wait until the worker processes have started: slow on a busy machine, and not what is tested."""
    hard = [("\\boxed{\\cos 36^\\circ}" + " " * n, "\\frac{1+\\sqrt5}{4}") for n in range(8)]
    for _ in range(20):
        if all(verdict.is_correct for verdict in verify_math_batch(hard)):
            return
    pytest.fail("the workers never answered")
