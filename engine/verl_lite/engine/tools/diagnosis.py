"""Is a warm-up needed? Samples the base model on the RL prompts and scores it with the RL rewards."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from verl_lite.engine.algorithm.trajectories import sampled
from verl_lite.engine.config.sft import SFTConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.observe.rollout_metrics import is_right, why_unjudged
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.tools.sampling import sample_and_score
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.statistics import pass_at_k
from verl_lite.plugins import ScoredRollout
from verl_lite.plugins.records import RecordWriter

FORMAT_FLOOR = 0.5
HARD_PASS_AT_K = 0.05
EASY_PASS_AT_1 = 0.9
TRUNCATED = 0.2
GATED = 0.5  # the fraction of groups without gradient from which gates are worth it
REST_STEPS = 20
# the quickstart's tiny model writes its format after 1,920 rows (30 steps of 64), from random weights
ROWS_FOR_A_FORMAT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Rates are fractions of 1. `format_rate` is None when no reward measures the format.

    pass_at               {k: unbiased pass@k} over the prompts, for 1, 2, 4, ... and all samples
    no_variance           fraction of groups whose rewards are all equal: they give GRPO no gradient
    all_right, all_wrong  fractions of groups, by the accuracy reward
    entropy               nats per token: the mean of -log p of the sampled tokens
    """

    num_prompts: int
    num_samples: int
    format_rate: float | None
    pass_at: Mapping[int, float]
    no_variance: float
    all_right: float
    all_wrong: float
    entropy: float
    truncated: float
    completion_tokens_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """`verdict` is "warm up", "too hard", "too easy" or "skip the warm-up"; `rule` says why, with numbers."""

    verdict: str
    rule: str
    sft_steps: int = 0
    also: Sequence[str] = ()


def diagnose(
    config: TrainConfig,
    *,
    num_prompts: int,
    num_samples: int,
    records_path: Path | None = None,
    debug_inline: bool = False,
) -> tuple[Diagnosis, Advice]:
    """Sample `num_prompts` x `num_samples` and advise. Raises ConfigError for a config without rewards."""
    if not config.rewards:
        raise ConfigError("diagnose scores with the rewards of RL, but the config has none")
    rows = sample_and_score(
        config,
        num_prompts=num_prompts,
        num_samples=num_samples,
        seed=derive_seed(config.seed, "diagnose"),
        debug_inline=debug_inline,
    )
    if why := why_unjudged(rows):
        raise DataError(why)
    if records_path is not None:
        with RecordWriter(records_path) as writer:
            writer.write(rows, step=0)
    diagnosis = summarise(
        rows,
        accuracy_reward=config.accuracy_reward,
        right_at=config.evaluation.right_at,
        format_reward=config.format_reward,
    )
    return diagnosis, recommend(diagnosis, config.sft)


def summarise(
    rows: Sequence[ScoredRollout], *, accuracy_reward: str, right_at: float, format_reward: str = ""
) -> Diagnosis:
    """Measure the rows, in any order. Raises ValueError for groups of unequal size."""
    groups: dict[str, list[ScoredRollout]] = {}
    for row in rows:
        groups.setdefault(row.rollout.group, []).append(row)
    sizes = {len(group) for group in groups.values()}
    if len(sizes) != 1:
        raise ValueError(f"groups of different sizes: {sorted(sizes)}")
    (size,) = sizes

    right = [sum(is_right(row, accuracy_reward, right_at) for row in group) for group in groups.values()]
    ks = sorted({*(2**power for power in range(size.bit_length()) if 2**power <= size), size})
    logprobs = [value for row in rows for value in sampled(row.rollout.logprobs, row.rollout.sampled_mask)]
    formats = [row.components[format_reward].score.value for row in rows] if format_reward else []
    zero_variance = [group for group in groups.values() if len({row.reward for row in group}) == 1]
    return Diagnosis(
        num_prompts=len(groups),
        num_samples=size,
        format_rate=sum(one or 0.0 for one in formats) / len(rows) if formats else None,
        pass_at={k: sum(pass_at_k(size, count, k) for count in right) / len(right) for k in ks},
        no_variance=len(zero_variance) / len(groups),
        all_right=sum(count == size for count in right) / len(right),
        all_wrong=sum(count == 0 for count in right) / len(right),
        entropy=-sum(logprobs) / len(logprobs) if logprobs else float("nan"),
        truncated=sum(row.rollout.is_truncated for row in rows) / len(rows),
        completion_tokens_mean=sum(row.rollout.num_sampled for row in rows) / len(rows),
    )


def recommend(diagnosis: Diagnosis, sft: SFTConfig) -> Advice:
    """Apply the first rule that matches: format, too hard, too easy; else no warm-up is needed."""
    best = diagnosis.pass_at[diagnosis.num_samples]
    first = diagnosis.pass_at[1]
    also = _remarks(diagnosis)
    rate = diagnosis.format_rate
    if rate is not None and rate < FORMAT_FLOOR:
        rows = (0.95 - rate) / 0.95 * ROWS_FOR_A_FORMAT
        return Advice(
            verdict="warm up",
            rule=f"the format rate is {rate:.1%}, below {FORMAT_FLOOR:.0%}: RL would spend its steps on the "
            f"format. About {ROWS_FOR_A_FORMAT:,} rows teach one from nothing; {rows:,.0f} are left, in "
            f"batches of sft.batch_rows={sft.batch_rows}",
            sft_steps=math.ceil(rows / sft.batch_rows),
            also=also,
        )
    name = f"pass@{diagnosis.num_samples}"
    if best < HARD_PASS_AT_K:
        return Advice(
            verdict="too hard",
            rule=f"{name} is {best:.1%}, below {HARD_PASS_AT_K:.0%}: {diagnosis.all_wrong:.0%} of the groups "
            "have no right answer to learn from. Easier prompts, more samples, or SFT on worked solutions",
            also=also,
        )
    if first > EASY_PASS_AT_1:
        return Advice(
            verdict="too easy",
            rule=f"pass@1 is {first:.1%}, above {EASY_PASS_AT_1:.0%}: {diagnosis.all_right:.0%} of the "
            "groups are all right and give no gradient. Harder prompts",
            also=also,
        )
    return Advice(
        verdict="skip the warm-up",
        rule=f"pass@1 {first:.1%} and {name} {best:.1%}: between {HARD_PASS_AT_K:.0%} and "
        f"{EASY_PASS_AT_1:.0%}, so RL has something to choose from"
        + ("" if rate is None else f", and the format rate is {rate:.1%}"),
        also=also,
    )


def _remarks(diagnosis: Diagnosis) -> list[str]:
    also = []
    if diagnosis.truncated > TRUNCATED:
        also.append(
            f"{diagnosis.truncated:.0%} of the completions were cut at rollout.max_new_tokens (more than "
            f"{TRUNCATED:.0%}): raise it, or the reward punishes length"
        )
    if diagnosis.entropy < 0.05:
        also.append(f"an entropy of {diagnosis.entropy:.3f} nats per token leaves little to explore")
    if diagnosis.all_right + diagnosis.all_wrong > GATED:
        also.append(
            f"{diagnosis.all_right:.0%} of the groups are all right and {diagnosis.all_wrong:.0%} all wrong, "
            "and give no gradient: let such prompts rest with data.curriculum: {gate: {rest_steps: "
            f"{REST_STEPS}}}}}"
        )
    return also


def as_json(diagnosis: Diagnosis, advice: Advice) -> dict[str, Any]:
    return {**asdict(diagnosis), "advice": asdict(advice)}
