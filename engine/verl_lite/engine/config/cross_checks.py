"""Combinations of config sections that are refused; each check raises ValueError with the reason."""

import re
from collections.abc import Sequence

from verl_lite.engine.config.algorithm import AlgorithmConfig
from verl_lite.engine.config.cluster import ClusterConfig
from verl_lite.engine.config.learner import LearnerConfig
from verl_lite.engine.config.rollout import RolloutConfig
from verl_lite.errors import ConfigError
from verl_lite.plugins.composite.metrics import METRICS
from verl_lite.plugins.environments import EnvironmentConfig, ToolConfig

EVALUATED = ("evaluation/accuracy", "evaluation/reward_mean", "evaluation/completion_tokens_mean")
SFT = (
    *("sft/loss", "sft/grad_norm", "sft/learning_rate", "sft/tokens", "sft/trained_tokens"),
    *("sft/is_decaying", "sft/validation_loss", "sft/perplexity"),
)
MEASURED_BY_STEP = (
    "policy/", "loss/", "critic/", "learner/", "rollout/", "monitor/", "warning/", "canary/", "data/",
    "time/",
)  # fmt: skip
OF_REWARDS = [re.escape(name).replace("<name>", ".+") for name, _, _ in METRICS]


def check_address(cluster: ClusterConfig, *, ranks: bool, engines: bool) -> None:
    """Refuse an address if Ray places nothing: no learner `ranks`, rollout `engines` or reward workers."""
    if cluster.address is not None and not (ranks or engines or cluster.rewards.count):
        raise ConfigError(
            f"cluster.address={cluster.address} but no part of this run is placed by Ray: set "
            "learner.num_ranks or rollout.num_engines above 1 (torchrun's ranks do not count), "
            "cluster.rewards.count above 0, or rollout.placement to disaggregated"
        )


def check_models(algorithm: AlgorithmConfig, learner: LearnerConfig) -> None:
    """Refuse a reference or critic that cannot be made from the policy's weights."""
    kl, lora = algorithm.kl, learner.lora
    if kl.coefficient > 0 and kl.reference == "adapter_off" and lora is None:
        raise ValueError(
            "algorithm.kl.reference=adapter_off is the model with its LoRA adapters switched off, but there "
            "is no learner.lora: add it, or use copy or offload"
        )
    if algorithm.critic is not None and not algorithm.critic.model and learner.is_quantized:
        raise ValueError(
            "learner.lora.quantize=true with a critic that starts from the policy's weights: a critic is "
            "trained in full, and 4-bit weights cannot be; name a model in algorithm.critic.model"
        )


def check_updates(algorithm: AlgorithmConfig, *, num_prompts: int, max_new_tokens: int) -> None:
    """Refuse settings that exceed the number of prompts or tokens per step."""
    overlong = algorithm.overlong
    if overlong.mode == "shape" and overlong.buffer_tokens > max_new_tokens:
        raise ValueError(
            f"algorithm.overlong.buffer_tokens={overlong.buffer_tokens} is more than rollout.max_new_tokens="
            f"{max_new_tokens}, so every completion would be penalised: lower it"
        )
    if algorithm.mini_batches > num_prompts:
        raise ValueError(
            f"algorithm.mini_batches={algorithm.mini_batches} is more than rollout.num_prompts="
            f"{num_prompts}, but a prompt's samples stay in one mini-batch: lower one or raise the other"
        )


def check_turns(
    rollout: RolloutConfig,
    environment: EnvironmentConfig | None,
    tools: Sequence[ToolConfig],
) -> None:
    """Refuse settings of turns without turns, and a context without room."""
    if environment is None and not tools:
        for name in ("max_context_tokens", "max_turn_tokens"):
            if getattr(rollout, name) is not None:
                raise ValueError(f"rollout.{name} is for several turns: add environment or tools")
        return
    if rollout.context_tokens <= rollout.max_prompt_tokens:
        raise ValueError(
            f"rollout.max_context_tokens={rollout.context_tokens} leaves no room behind a prompt of "
            f"rollout.max_prompt_tokens={rollout.max_prompt_tokens}: raise the first or lower the second"
        )


def check_best_metric(name: str) -> None:
    """`checkpoints.keep_best` of a training run: a metric of RL's steps and evaluations, or of SFT."""
    if not name or name in (*EVALUATED, *SFT) or name.startswith((*MEASURED_BY_STEP, "sft/answers/")):
        return
    if any(re.fullmatch(pattern, name) for pattern in OF_REWARDS):
        return
    raise ValueError(
        f"checkpoints.keep_best={name!r} is not a metric of a training run: expected {', '.join(EVALUATED)}, "
        f"{', '.join(SFT)}, or a metric that metrics.jsonl has for every step, such as reward/mean"
    )
