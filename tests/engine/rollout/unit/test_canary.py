"""The canary sings when the two sides differ, and only then."""

import math
from collections.abc import Iterator, Sequence

import pytest
import torch

from verl_lite.engine.rollout import TOLERANCES, Canary
from verl_lite.errors import TrainingError


class Fixed:
    """A WeightSource whose log-probabilities are given."""

    def __init__(self, logprobs: list[float]) -> None:
        self.logprobs = logprobs

    def named_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(())

    def checkpoint_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        return iter(())

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self.logprobs


def test_the_largest_difference_counts() -> None:
    canary = Canary([1, 2, 3], tolerance=0.01)
    assert canary.check(Fixed([-1.0, -2.0]), [-1.005, -2.001], version=1) == pytest.approx(0.005)
    with pytest.raises(
        TrainingError, match=r"version 4 did not reach .* by 0\.02 at token 2 .*allowed 0\.01"
    ):
        canary.check(Fixed([-1.0, -2.0]), [-1.0, -2.02], version=4)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_what_is_no_number_trips_it(bad: float) -> None:
    with pytest.raises(TrainingError, match="did not reach the sampler"):
        Canary([1, 2, 3], tolerance=0.01).check(Fixed([-1.0, -2.0]), [bad, -2.0], version=1)


def test_coarser_dtypes_get_more_room_and_a_canary_needs_a_prediction() -> None:
    assert TOLERANCES["float32"] < TOLERANCES["float16"] < TOLERANCES["bfloat16"]
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        Canary([5], tolerance=0.1)
