"""Losses on preferences: tensors in, one loss per pair or ranking out.

Shapes: P pairs, K completions of one ranking. Natural logarithms.
Departures: DPO's label smoothing is cDPO's (the DPO paper has none); `plackett_luce` takes ties.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

DPOLoss = Literal["sigmoid", "robust", "ipo", "hinge"]


def dpo_loss(
    chosen_P: Tensor, rejected_P: Tensor, *, loss: DPOLoss, beta: float, label_smoothing: float = 0.0
) -> Tensor:
    """The loss of each pair from its log-ratios log pi(y) - log pi_ref(y).

    sigmoid   DPO (arXiv:2305.18290, eq. 7); with label smoothing e, conservative DPO: the labels are
              taken to be wrong with probability e
    robust    the unbiased estimate under such labels (arXiv:2403.00409)
    ipo       (difference - 1 / (2 beta))^2 (arXiv:2310.12036, eq. 17; beta is its tau)
    hinge     max(0, 1 - beta * difference) (SLiC, arXiv:2305.10425)

    >>> two, one = torch.tensor([2.0]), torch.tensor([1.0])
    >>> dpo_loss(two, one, loss="sigmoid", beta=0.5)
    tensor([0.4741])
    >>> dpo_loss(two, one, loss="ipo", beta=0.25)
    tensor([1.])
    """
    difference_P = chosen_P - rejected_P
    if loss == "ipo":
        return (difference_P - 1.0 / (2.0 * beta)).square()
    if loss == "hinge":
        return F.relu(1.0 - beta * difference_P)
    right_P, wrong_P = -F.logsigmoid(beta * difference_P), -F.logsigmoid(-beta * difference_P)
    if loss == "robust":
        return ((1 - label_smoothing) * right_P - label_smoothing * wrong_P) / (1 - 2 * label_smoothing)
    return (1 - label_smoothing) * right_P + label_smoothing * wrong_P


def bradley_terry(chosen_P: Tensor, rejected_P: Tensor, margin_P: Tensor | float = 0.0) -> Tensor:
    """-log sigmoid(chosen - rejected - margin) of each pair (margins as in arXiv:2307.09288, eq. 2).

    >>> bradley_terry(torch.tensor([1.0]), torch.tensor([1.0]))
    tensor([0.6931])
    """
    return -F.logsigmoid(chosen_P - rejected_P - margin_P)


def plackett_luce(scores_K: Tensor, ranks_K: Tensor) -> Tensor:
    """-log p(ranking) per choice: the best is chosen first, then the best of the rest, and so on.

    A completion is compared with all that rank below it, and not with ties. Without ties this is
    Plackett-Luce (1975), and with two completions Bradley-Terry. 0 if all tie.

    >>> plackett_luce(torch.zeros(3), torch.tensor([1, 2, 3])) * 2 - torch.tensor(6.0).log()
    tensor(0.)
    """
    below_KK = ranks_K[:, None] < ranks_K[None, :]
    chooses_K = below_KK.any(1)
    if not bool(chooses_K.any()):
        return scores_K.sum() * 0.0
    among_KK = below_KK | torch.eye(len(ranks_K), dtype=torch.bool, device=ranks_K.device)
    rivals_KK = scores_K[None, :].masked_fill(~among_KK, -torch.inf)
    losses_K = torch.logsumexp(rivals_KK, dim=1) - scores_K
    return losses_K[chooses_K].mean()


def centring(scores_K: Tensor) -> Tensor:
    """(2 * the ranking's mean score)^2: for a pair (r1 + r2)^2, the term of arXiv:2312.09244, eq. 2.

    The loss sees only differences, so a reward model's zero is arbitrary; this centres it.
    """
    return (2.0 * scores_K.mean()).square()
