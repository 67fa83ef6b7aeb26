"""Updates of a tiny float64 model, the same on any number of ranks; run as a program, all of the ranks.

python rank_scenarios.py SIZE FOLDER SCENARIO...   rank 0 leaves FOLDER/results.pt
"""

import math
import os
import random
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from verl_lite.engine import TrainingSample
from verl_lite.engine.config import AlgorithmConfig, LearnerConfig
from verl_lite.engine.learner import Learner, Ranks
from verl_lite.engine.types import OF_TEACHERS, TeacherTokens
from verl_lite.plugins import Rollout, ScoredRollout

VOCAB = 61
STEPS = 2
RESUMED = "critic"


def build_model(seed: int = 0) -> torch.nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, vocab_size=VOCAB, pad_token_id=0,
        tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).double()


def make_samples(
    num_groups: int, group_size: int, *, seed: int, completion: tuple[int, int] = (1, 24)
) -> list[TrainingSample]:
    rng = random.Random(seed)
    samples = []
    for group in range(num_groups):
        prompt = [rng.randrange(1, VOCAB) for _ in range(rng.randint(5, 20))]
        for _ in range(group_size):
            ids = [rng.randrange(1, VOCAB) for _ in range(rng.randint(*completion))]
            samples.append(
                TrainingSample(
                    prompt_ids=prompt,
                    completion_ids=ids,
                    sampler_logprobs_T=[-4.0 + rng.uniform(-0.3, 0.3) for _ in ids],
                    advantages_T=[rng.uniform(-2, 2)] * len(ids),
                    loss_mask_T=[1] * len(ids),
                    group=f"g{group}",
                )
            )
    return samples


def as_scored(sample: TrainingSample) -> ScoredRollout:
    rollout = Rollout(completion="", prompt_ids=sample.prompt_ids, completion_ids=sample.completion_ids)
    return ScoredRollout(rollout=rollout, components={}, reward=1.0)


SCENARIOS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "padded": {"learner": {"backend": "padded"}},
    "checkpointing": {"learner": {"gradient_checkpointing": True}},
    "long tail": {"completion": (1, 120), "learner": {"max_tokens_per_micro_batch": 150}},
    "one sample": {"groups": 1, "size": 1},
    "reference": {"algorithm": {"kl": {"coefficient": 0.1, "target": 5.0}, "epochs": 2, "mini_batches": 2}},
    "kl in the reward": {
        "algorithm": {"advantage": "reinforce_pp", "kl": {"coefficient": 0.1, "placement": "reward"}}
    },
    "critic": {"algorithm": {"advantage": "gae", "critic": {"epochs": 2, "learning_rate": 1e-3}}},
    "adapters": {
        "algorithm": {"kl": {"coefficient": 0.1, "reference": "adapter_off"}},
        "learner": {"lora": {"rank": 4, "alpha": 8}},
    },
    "not finite": {"infinite": True},
    "components": {
        "beside": ("cross_entropy", "distillation"),
        "algorithm": {
            "entropy_bonus": 0.01,
            "kl": {"coefficient": 0.1, "reference": "ema", "ema_decay": 0.5},
        },
    },
    "saved rollouts, KL-Cov": {
        "beside": ("forward_kl", "kl_cov"),
        "algorithm": {"mini_batches": 2, "entropy": {"covariance": "kl"}},
    },
}
NUM_CHOSEN = 5  # of a teacher's tokens


def make_learner(name: str, ranks: Ranks, folder: Path | None = None) -> Learner:
    scenario = SCENARIOS[name]
    learner = {"optimizer": {"learning_rate": 1e-3, "weight_decay": 0.1, "max_grad_norm": 0.5}}
    torch.manual_seed(1)  # LoRA's adapters are drawn
    return Learner(
        build_model(),
        LearnerConfig.model_validate(
            {"max_tokens_per_micro_batch": 120, **learner, **scenario.get("learner", {})}
        ),
        AlgorithmConfig.model_validate(scenario.get("algorithm", {})),
        pad_token_id=0,
        total_steps=10,
        bad_batch_dir=folder,
        ranks=ranks,
    )


def run(name: str, ranks: Ranks, folder: Path | None = None) -> dict[str, Any]:
    """The metrics of every update and the weights, log-probabilities and statistics after them."""
    scenario, learner = SCENARIOS[name], make_learner(name, ranks, folder)
    metrics = []
    for step in range(STEPS):
        samples = steps_samples(scenario, step, learner)
        metrics.append(without_times(learner.update(samples).metrics))
    return {
        "metrics": metrics,
        "weights": dict(learner.named_weights()),
        "logprobs": learner.token_logprobs([3, 1, 4, 1, 5, 9, 2, 6]),
        "coefficient": learner.kl_coefficient,
    }


def steps_samples(scenario: Mapping[str, Any], step: int, learner: Learner) -> list[TrainingSample]:
    samples = make_samples(
        scenario.get("groups", 4),
        scenario.get("size", 4),
        seed=step,
        completion=scenario.get("completion", (1, 24)),
    )
    stats = learner.token_statistics([as_scored(sample) for sample in samples])
    samples = [
        replace(
            sample,
            values_T=one.values_T,
            returns_T=[value + 0.1 * (at + 1) for at, value in enumerate(one.values_T)],
            old_logprobs_T=one.old_logprobs_T,
            ref_logprobs_T=one.ref_logprobs_T,
        )
        for sample, one in zip(samples, stats, strict=True)
    ]
    if beside := scenario.get("beside"):
        samples = [with_components(s, beside, at) for at, s in enumerate(samples)]
    if scenario.get("infinite") and step == 0:
        samples[-1] = replace(samples[-1], advantages_T=[math.inf] * len(samples[-1].completion_ids))
    return samples


def with_components(sample: TrainingSample, names: Sequence[str], at: int) -> TrainingSample:
    """Every other sample also in the first component, every third in the second; most have a teacher."""
    T = len(sample.completion_ids)
    generator = torch.Generator().manual_seed(at)
    logits_TV = torch.randn(T, VOCAB, generator=generator, dtype=torch.float64)
    top = logits_TV.log_softmax(-1).topk(NUM_CHOSEN)
    found = {
        name: [0.5 + 0.1 * (at % 3)] * T for name, every in zip(names, (2, 3), strict=True) if not at % every
    }
    judged = any(name in OF_TEACHERS for name in found)
    teacher = TeacherTokens(ids_TK=top.indices, logprobs_TK=top.values) if judged else None
    return replace(sample, components=found, teacher=teacher)  # type: ignore[arg-type]


def without_times(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name != "learner/tokens_per_s"}


def continued(ranks: Ranks, checkpoint: Path) -> dict[str, Any]:
    """One more update of the critic's scenario from a checkpoint after the first two."""
    learner = make_learner(RESUMED, ranks)
    learner.restore(checkpoint)
    samples = steps_samples(SCENARIOS[RESUMED], STEPS, learner)
    return {
        "metrics": [without_times(learner.update(samples).metrics)],
        "weights": dict(learner.named_weights()),
    }


def as_rank(rank: int, size: int, folder: Path, names: Sequence[str]) -> None:
    """What each process does: every scenario both ways; checkpoints in shards, written and read."""
    import torch.distributed as dist

    from verl_lite.engine.cluster import RankGroup
    from verl_lite.engine.learner import distribute_like, saved_state, write_sharded

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=size)
    results: dict[str, Any] = {}
    for parallel in ("fsdp", "replicated"):
        ranks = RankGroup(parallel, torch.device("cpu"))
        for name in names:
            bad = folder / f"bad-{parallel}" if rank == 0 else None
            results[f"{parallel}/{name}"] = run(name, ranks, bad)
    ranks = RankGroup("fsdp", torch.device("cpu"))
    learner = make_learner(RESUMED, ranks)
    for step in range(STEPS):
        learner.update(steps_samples(SCENARIOS[RESUMED], step, learner))
    write_sharded(learner.state_dict(), folder / "sharded", rank=rank, broadcast=ranks.broadcast)
    results["from shards"] = continued(ranks, folder / "sharded")
    alone = make_learner(RESUMED, ranks)
    alone.load_state_dict(
        distribute_like(alone.template(), saved_state(folder / "whole", dtype=torch.float64))
    )
    samples = steps_samples(SCENARIOS[RESUMED], STEPS, alone)
    results["from one file"] = {
        "metrics": [without_times(alone.update(samples).metrics)],
        "weights": dict(alone.named_weights()),
    }
    if rank == 0:
        torch.save(results, folder / "results.pt")
    dist.barrier()
    dist.destroy_process_group()


def start_ranks(size: int, folder: Path, names: Sequence[str]) -> int:
    """Fork the ranks from this process, which imports for all and computes nothing; the exit code."""
    from transformers import Qwen3ForCausalLM  # noqa: F401

    ranks = set()
    for rank in range(size):
        pid = os.fork()
        if pid == 0:
            try:
                as_rank(rank, size, folder, names)
            except BaseException:  # noqa: BLE001 - the end of a process of its own
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        ranks.add(pid)
    while ranks:
        pid, status = os.wait()
        ranks.discard(pid)
        if status:  # the others wait for it
            for other in ranks:
                os.kill(other, signal.SIGKILL)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(start_ranks(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
