"""Losses on preferences against numbers worked out by hand."""

from math import exp, log

import pytest
import torch

from verl_lite.engine.preference import bradley_terry, centring, dpo_loss, plackett_luce


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize(
    ("loss", "smoothing", "expected"),
    [
        # log-ratios 1.5 and -0.5, beta 0.5: the difference is 2, times beta 1
        ("sigmoid", 0.0, -log(sigmoid(1.0))),
        ("sigmoid", 0.2, -0.8 * log(sigmoid(1.0)) - 0.2 * log(sigmoid(-1.0))),
        ("robust", 0.2, (-0.8 * log(sigmoid(1.0)) + 0.2 * log(sigmoid(-1.0))) / 0.6),
        ("ipo", 0.0, 1.0),  # (2 - 1 / (2 * 0.5))^2
        ("hinge", 0.0, 0.0),
    ],
)
def test_dpo(loss: str, smoothing: float, expected: float) -> None:
    found = dpo_loss(one(1.5), one(-0.5), loss=loss, beta=0.5, label_smoothing=smoothing)  # type: ignore[arg-type]
    assert found.item() == pytest.approx(expected)


def test_hinge_pays_below_its_margin() -> None:
    assert dpo_loss(one(-0.5), one(1.5), loss="hinge", beta=0.5).item() == pytest.approx(2.0)


def test_the_gradient_of_dpo_is_the_paper_s() -> None:
    """-beta * sigmoid(r_rejected - r_chosen), eq. after 7 of arXiv:2305.18290."""
    chosen = one(0.4).requires_grad_()
    dpo_loss(chosen, one(1.0), loss="sigmoid", beta=0.5).backward()
    assert chosen.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.5 * sigmoid(0.5 * 0.6))


def test_bradley_terry_with_a_margin() -> None:
    assert bradley_terry(one(2.0), one(1.0)).item() == pytest.approx(log(1 + exp(-1.0)))
    assert bradley_terry(one(2.0), one(1.0), 1.0).item() == pytest.approx(log(2))


def test_plackett_luce_is_the_product_of_choices() -> None:
    """p(b > a > c) = e^1/(e^1 + e^0 + e^-1) * e^0/(e^0 + e^-1), two choices."""
    scores, ranks = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64), torch.tensor([2, 1, 3])
    probability = exp(1) / (exp(1) + 1 + exp(-1)) * 1 / (1 + exp(-1))
    assert plackett_luce(scores, ranks).item() == pytest.approx(-log(probability) / 2)


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    scores = torch.tensor([0.3, 1.1], dtype=torch.float64)
    expected = bradley_terry(scores[1:], scores[:1]).item()
    assert plackett_luce(scores, torch.tensor([2, 1])).item() == pytest.approx(expected)


def test_ties_do_not_compete() -> None:
    """Two share the first place: each is chosen against the last alone."""
    scores = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    expected = (log(1 + exp(-2.0)) + log(1 + exp(-1.0))) / 2
    assert plackett_luce(scores, torch.tensor([1, 1, 2])).item() == pytest.approx(expected)
    assert plackett_luce(scores, torch.tensor([1, 1, 1])).item() == 0.0


def test_centring_of_a_pair_is_the_squared_sum() -> None:
    assert centring(torch.tensor([2.0, -0.5])).item() == pytest.approx(1.5**2)
