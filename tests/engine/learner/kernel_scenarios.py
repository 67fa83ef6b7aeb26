"""The Triton kernels of the log-probabilities against torch, in Triton's interpreter; prints JSON.

The interpreter must be chosen before triton is imported: TRITON_INTERPRET=1 python kernel_scenarios.py.
"""

import json

import torch

from verl_lite.engine.learner import LogitRule, logprobs as module
from verl_lite.engine.learner.logprob_kernels import KERNELS

RULES = {
    "plain": (LogitRule(), False, 1.0),
    "bias and temperature": (LogitRule(), True, 0.7),
    "scale": (LogitRule(scale=0.125), False, 1.3),
    "all": (LogitRule(scale=2.5, cap=3.0), True, 0.7),
}


def compare(rule, biased, temperature, with_entropy):
    """The largest difference of values and gradients; V=2500 in tiles of 600: a cut tile, a cut block."""
    generator = torch.Generator().manual_seed(0)
    hidden = (2 * torch.randn(5, 8, generator=generator)).requires_grad_()
    weight = torch.randn(2500, 8, generator=generator).requires_grad_()
    bias = torch.linspace(-2, 3, 2500).requires_grad_() if biased else None
    targets = torch.tensor([0, 599, 600, 2499, 1234])
    inner = [hidden, weight, *([bias] if biased else [])]
    options = module.TileOptions(
        rule=rule, temperature=temperature, tile=600, dtype=torch.float32, entropy=with_entropy
    )

    def run():
        logp, entropy = module._apply(hidden, weight, bias, targets, options)
        loss = (logp * torch.linspace(-1, 1, 5)).sum() - (0.2 * entropy.sum() if with_entropy else 0.0)
        return logp, *([entropy] if with_entropy else []), *torch.autograd.grad(loss, inner)

    module._tile_math = lambda hidden, wide: KERNELS
    mine = run()
    module._tile_math = lambda hidden, wide: module._TORCH
    return max(float((left - right).abs().max()) for left, right in zip(mine, run(), strict=True))


def extremes():
    """Logits of several thousand in bfloat16: whether all is finite, and the gradient of rows without one."""
    generator = torch.Generator().manual_seed(0)
    hidden = (2000 * torch.randn(4, 8, generator=generator)).requires_grad_()
    weight = torch.randn(700, 8, generator=generator)
    module._tile_math = lambda hidden, wide: KERNELS
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logp, entropy = module.token_logprobs_and_entropy(hidden, weight, torch.tensor([0, 1, 2, 699]))
    (grad,) = torch.autograd.grad((logp * torch.tensor([1.0, 0.0, 1.0, 0.0])).sum(), hidden)
    finite = all(bool(x.isfinite().all()) for x in (logp, entropy, grad))
    return {"finite": finite, "unused": float(grad[1::2].abs().max()), "used": float(grad[::2].abs().max())}


if __name__ == "__main__":
    differences = {
        f"{name}{', entropy' if entropy else ''}": compare(*case, entropy)
        for name, case in RULES.items()
        for entropy in (False, True)
    }
    print(json.dumps({"differences": differences, "extremes": extremes()}))
