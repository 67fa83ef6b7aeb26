"""The canary sings when the two sides differ, and only then."""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.model.precision import logprob_noise
from verl_lite.engine.rollout import Canary, canary_tokens
from verl_lite.engine.rollout.canary import mismatch_limit, refuse_mismatch
from verl_lite.engine.types import PromptRow
from verl_lite.errors import TrainingError


class Fixed:
    """A WeightSource whose log-probabilities are given."""

    def __init__(self, logprobs: list[float], *, noise: float = 0.0) -> None:
        self.logprobs, self.noise = logprobs, noise

    def logprob_noise(self, token_ids: Sequence[int], dtype: str) -> float:
        return self.noise

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


def test_a_canary_needs_a_prediction() -> None:
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        Canary([5], tolerance=0.1)


def test_the_noise_of_a_log_probability_by_hand() -> None:
    """bfloat16 has 8 bits: u = 2**-8. 30 layers: sqrt(2 * (4 * 30 + 2)) roundings of u / sqrt(3)."""
    expected = 2**-8 / math.sqrt(3) * math.sqrt(244) * 3.0
    assert logprob_noise(torch.bfloat16, num_layers=30, spread=3.0) == pytest.approx(expected)
    exact = logprob_noise(torch.float32, num_layers=30, spread=3.0)
    assert exact == pytest.approx(expected * 2**-16)
    assert logprob_noise(torch.float64, num_layers=30, spread=3.0) == exact


def test_the_limits_follow_from_the_noise() -> None:
    """A root mean square of 3 times the noise, a largest difference of 15 times; at least 1e-3."""
    canary = Canary(range(5), dtype="bfloat16")
    learner = Fixed([0.0] * 4, noise=0.1)
    assert canary.check(learner, [0.55, 0.0, 0.0, 0.0], version=1) == pytest.approx(0.55)
    assert canary.limit == pytest.approx(1.5)
    with pytest.raises(
        TrainingError, match=r"allowed 1\.5, and by 0\.31 as root mean square, allowed 0\.3\."
    ):
        canary.check(learner, [0.31] * 4, version=1)
    with pytest.raises(TrainingError, match=r"differ by 1\.51 at token 1 "):
        Canary(range(65), dtype="bfloat16").check(
            Fixed([0.0] * 64, noise=0.1), [1.51, *[0.0] * 63], version=1
        )
    exact = Canary(range(5), dtype="float32")
    exact.check(Fixed([0.0] * 4, noise=1e-7), [9e-4] * 4, version=1)
    with pytest.raises(TrainingError):
        exact.check(Fixed([0.0] * 4, noise=1e-7), [0.0, 1.1e-3, 0.0, 0.0], version=1)


def rows(*lengths: int) -> list[PromptRow]:
    ids = iter(range(10_000))
    return [
        PromptRow(id=str(at), messages=(), prompt_ids=[next(ids) for _ in range(length)])
        for at, length in enumerate(lengths)
    ]


@pytest.mark.parametrize(
    ("lengths", "window", "context", "tokens", "noted"),
    [
        ([100], None, 512, 64, False),
        ([5, 6], None, 512, 11, False),  # short prompts, all of them
        ([20, 30, 40], 512, 512, 64, False),  # no sequence of the run outgrows the window
        ([20, 30, 40], 512, 4096, 576, False),  # repeated until it does
        ([600, 30], 512, 540, 539, False),
        ([600, 30], 4096, 32_768, 2048, True),
        ([600, 30], None, 32, 31, False),
    ],
)
def test_the_canary_outgrows_the_window(
    lengths: list[int], window: int | None, context: int, tokens: int, noted: bool
) -> None:
    ids, note = canary_tokens(rows(*lengths), window=window, context=context)
    assert len(ids) == tokens
    assert ids[: lengths[0]] == list(range(min(lengths[0], tokens)))
    assert ("window of 4,096" in note) is noted


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 1e-3),
        ({"learner": {"dtype": "bfloat16"}}, 0.05),
        ({"model": {"path": "a-model", "dtype": "bfloat16"}}, 0.05),
        ({"rollout": {"top_p": 0.9}}, None),
        ({"rollout": {"top_k": 5}}, None),
        ({"asynchrony": {"mode": "one_ahead"}}, None),
    ],
)
def test_the_mismatch_that_dtypes_explain(changes: dict[str, object], limit: float | None) -> None:
    tree = {"rewards": {"length": {"use": "length"}}, "steps": 1, "data": {"train": {"task": "arithmetic"}}}
    config = TrainConfig.model_validate({"name": "x", "model": {"path": "a-model"}, **tree, **changes})
    sampler = SimpleNamespace(canary=Canary([1, 2], dtype="float32"))
    assert mismatch_limit(config, sampler) == limit
    assert mismatch_limit(config, object()) is None


def test_a_mismatch_far_beyond_the_limit_stops() -> None:
    refuse_mismatch(0.0099, 1e-3)
    refuse_mismatch(5.0, None)
    for kl in (0.011, math.nan, math.inf):
        with pytest.raises(TrainingError, match="sampler and learner disagree on the sampled tokens"):
            refuse_mismatch(kl, 1e-3)
