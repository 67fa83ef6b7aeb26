"""Divergences of the policy from a teacher at each token, on the policy's own rollouts.

On-policy distillation (arXiv:2306.13649 with the reverse KL; arXiv:2306.08543): the student samples, the
teacher says how probable it finds each token. Three estimates of KL(student || teacher):

    sampled   (log p_s - log p_t)^2 / 2 at the sampled token: on the student's own samples its gradient is, in
              expectation, that of the KL (like k2 in kl.py); as a reward, log p_t - log p_s
    top_k     sum over the teacher's k tokens of p_s log(p_s / p_t), and the same for all others as one token:
              a lower bound that misses only what is inside the others
    full      the sum over the vocabulary

On a teacher's saved rollouts (off-policy, arXiv:1606.07947) the divergence is the forward one, KL(teacher ||
student), whose estimate from the teacher's tokens alone is the cross-entropy.

Departures: peers that take the teacher's top k leave out the others, or renormalise; then a student that
moves its mass out of the top k is not pushed back.

Shapes: N tokens, K the teacher's tokens.
"""

from torch import Tensor

TINY = 1e-9


def sampled_divergence(logprobs_N: Tensor, teacher_N: Tensor) -> Tensor:
    """(log p - log p_teacher)^2 / 2 of the sampled tokens."""
    return (logprobs_N - teacher_N).square() / 2


def token_kl(first_NK: Tensor, second_NK: Tensor, *, is_complete: bool) -> Tensor:
    """KL(first || second) over K tokens; unless they are all, with the others as one more token.

    >>> half = torch.tensor([[0.5, 0.5]]).log()
    >>> token_kl(half, torch.tensor([[0.9, 0.1]]).log(), is_complete=True)
    tensor([0.5108])
    >>> token_kl(half[:, :1], torch.tensor([[0.9]]).log(), is_complete=False)
    tensor([0.5108])
    """
    first_NK, second_NK = first_NK.clamp(min=-1e4), second_NK.clamp(min=-1e4)  # 0 x inf would be nan
    kl_N = (first_NK.exp() * (first_NK - second_NK)).sum(-1)
    if is_complete:
        return kl_N
    first_N, second_N = ((1.0 - part.exp().sum(-1)).clamp(min=TINY) for part in (first_NK, second_NK))
    return kl_N + first_N * (first_N / second_N).log()
