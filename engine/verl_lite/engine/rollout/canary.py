"""The canary: after each weight sync, a fixed sequence must have the same log-probabilities on both sides.

Without it, weights that never reach the sampler go unnoticed, and training learns from an old policy. Both
sides compute log p of the same tokens, more than the model's window has; they may differ by what the dtype
explains. Smaller updates are not detected, such as a single step at a learning rate of 1e-6 in bfloat16.

What the dtype explains is derived (model/precision.py) from the model's depth and the spread of its logits
on this very sequence: the root mean square may be MARGIN times the expected noise, the largest difference
LARGEST times as much (the largest of 64 tokens is 3 to 4.5 times the root mean square).
"""

import math
from collections.abc import Sequence

from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.model.precision import LEAST_LIMIT, largest_difference, typical_difference
from verl_lite.engine.types import PromptRow, WeightSource
from verl_lite.errors import TrainingError

CANARY_TOKENS = 64
MAX_CANARY_TOKENS = 2048

# KL (nats per token, k3) between sampler and learner that the coarser dtype explains: (MARGIN * noise)**2 / 2
# for 30 layers and logits of spread 3 (noise 0.10 nats in bfloat16, 0.013 in float16), at least LEAST_LIMIT.
# In 8 bits scales follow the values, so the formula says too much: ten times bfloat16's, not measured yet.
MISMATCH_LIMITS = {"float32": 1e-3, "float16": 1e-3, "bfloat16": 0.05, "float8_e4m3fn": 0.5}
MISMATCH_STOP = 10.0  # times the limit


def mismatch_limit(config: TrainConfig, sampler: object) -> float | None:
    """The KL between `sampler` and the learner that their dtypes explain; None where more than that differs.

    That is where samples come from older weights, or from a truncated distribution.
    """
    canary = getattr(sampler, "canary", None)
    rollout = config.rollout
    is_truncated = rollout.top_p < 1.0 or rollout.top_k > 0
    curriculum = config.data.curriculum
    replays = curriculum is not None and curriculum.replay is not None
    if canary is None or is_truncated or replays or config.asynchrony.largest_lag > 0:
        return None
    return max(MISMATCH_LIMITS[name] for name in (canary.dtype, config.learner.dtype, config.model.dtype))


def refuse_mismatch(kl: float, limit: float | None) -> None:
    """Raise TrainingError for a `kl` between sampler and learner far beyond `limit`, or nan."""
    if limit is None or kl <= MISMATCH_STOP * limit:
        return
    raise TrainingError(
        f"sampler and learner disagree on the sampled tokens by a KL of {kl:.3g} nats per token, over "
        f"{MISMATCH_STOP:g} times what their dtypes explain ({limit:g}): one of them computes another model. "
        "See docs/monitors.md#mismatch_kl; a correct run with a known mismatch sets "
        "monitors.kl_sampler_trainer"
    )


def canary_tokens(prompts: Sequence[PromptRow], *, window: int | None, context: int) -> tuple[list[int], str]:
    """(token ids from the prompts, a note): CANARY_TOKENS, or more than `window` if sequences get so long.

    `context` is the longest sequence of the run. The note says that the canary cannot outgrow the window.
    """
    wanted, note = CANARY_TOKENS, ""
    if window is not None and window < context:
        wanted = min(window + CANARY_TOKENS, context)
        if wanted > MAX_CANARY_TOKENS:
            wanted = MAX_CANARY_TOKENS
            note = (
                f"the canary has {wanted:,} tokens and the model a window of {window:,}: a sampler that "
                "ignores the window is seen only as a mismatch of the samples (policy/kl_sampler_trainer)"
            )
    ids: list[int] = []
    for row in prompts:
        ids += row.prompt_ids
        if len(ids) >= wanted:
            break
    if window is not None and len(ids) < wanted:
        ids = (ids * -(-wanted // len(ids)))[:wanted]
    return ids[: min(wanted, max(context - 1, 2))], note  # one more token must fit into the context


class Canary:
    """The fixed sequence, and how much its log-probabilities may differ.

    `tolerance` (nats) replaces the limit that is derived for a sampler that computes in `dtype`.
    """

    def __init__(
        self, token_ids: Sequence[int], *, dtype: str = "float32", tolerance: float | None = None
    ) -> None:
        if len(token_ids) < 2:
            raise ValueError(f"a canary needs at least 2 tokens, got {len(token_ids)}")
        self.token_ids = list(token_ids)
        self.dtype = dtype
        self._tolerance = tolerance
        self._typical = math.inf
        self.limit = LEAST_LIMIT if tolerance is None else tolerance

    def expect(self, source: WeightSource) -> list[float]:
        """The source's log-probabilities; the limits follow from its weights."""
        if self._tolerance is None:
            noise = source.logprob_noise(self.token_ids, self.dtype)
            self._typical, self.limit = typical_difference(noise), largest_difference(noise)
        return source.token_logprobs(self.token_ids)

    def check(self, source: WeightSource, sampled: Sequence[float], *, version: int) -> float:
        """The largest difference between the sampler's log-probabilities and the source's.

        Raises TrainingError if it exceeds the tolerance or is nan.
        """
        return self.compare(self.expect(source), sampled, version=version)

    def compare(self, trained: Sequence[float], sampled: Sequence[float], *, version: int) -> float:
        """Like `check`, with the learner's log-probabilities."""
        differences = [abs(a - b) for a, b in zip(trained, sampled, strict=True)]
        largest = max(differences, key=lambda d: math.inf if math.isnan(d) else d)
        typical = math.sqrt(sum(d * d for d in differences) / len(differences))
        # `not <=` instead of `>`: nan must fail too
        if not (largest <= self.limit and typical <= self._typical):
            position = differences.index(largest)
            raise TrainingError(
                f"the weights of version {version} did not reach the sampler: the canary's log-probabilities "
                f"differ by {largest:.3g} at token {position + 1} (learner {trained[position]:.4f}, sampler "
                f"{sampled[position]:.4f}), allowed {self.limit:.3g}, and by {typical:.3g} as root mean "
                f"square, allowed {self._typical:.3g}. Training on would learn from a stale policy, or from "
                "another model than the sampler's; if only the arithmetic differs: rollout.canary_tolerance"
            )
        return largest
