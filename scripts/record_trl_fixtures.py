"""Record what the real TRL computes, for tests/engine/test_against_trl.py.

Runs in an environment of its own, never in the project's:

    python -m venv /tmp/trl && /tmp/trl/bin/pip install trl torch
    /tmp/trl/bin/python scripts/record_trl_fixtures.py

For every variant the real `GRPOTrainer._compute_loss` is called on the same per-token log-probabilities,
and its loss and the loss's gradient in them are written to tests/fixtures/trl_losses.json. The model's
forward pass is the one thing replaced, so that both sides start from identical numbers.

Importance ratios, the mask of truncated completions and advantages are made inside
`_generate_and_score_completions`, which cannot run without generating: the statements that make them are
taken out of TRL's own source and run on our numbers.
"""

import ast
import inspect
import json
import random
import tempfile
import textwrap
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

OUT = Path(__file__).parents[1] / "tests" / "fixtures" / "trl_losses.json"
LENGTHS = [7, 3, 5, 1]
WIDTH = max(LENGTHS)
IMPORTANCE_CAP, IMPORTANCE_FLOOR = 1.5, 0.8
SEQUENCE_CAP = 1.1  # of sequence_truncate: one sequence of the inputs weighs more
TRUNCATED = [1]  # the completion that mask_truncated_completions leaves out
REWARDS = [[1.0, 0.0, 0.0, 0.5], [0.25, 0.25, 0.25, 0.25], [1.0, 1.0, 0.0, 1.0]]  # groups of four
SECOND_REWARDS = [[0.2, 0.9, 0.4, 0.1], [0.0, 0.5, 0.5, 1.0], [0.3, 0.5, 0.6, 0.3]]  # of the same samples
SECOND_WEIGHT = 0.5
LOST = [1, 6]  # the samples whose rewards could not be given, counted through

# name -> what GRPOConfig gets. `importance` and `entropy_coef` variants exercise those terms.
VARIANTS = {
    "grpo": {"loss_type": "grpo"},
    "bnpo": {"loss_type": "bnpo"},
    "dr_grpo": {"loss_type": "dr_grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.2},
    "gspo": {
        "loss_type": "grpo",
        "importance_sampling_level": "sequence",
        "epsilon": 3e-2,
        "epsilon_high": 4e-2,
    },
    "dual_clip": {"loss_type": "bnpo", "delta": 1.3},
    "kl": {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": False},
    "kl_ratio_weighted": {"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": True},
    "importance": {"loss_type": "dapo", "importance": "token_truncate"},
    "importance_token_mask": {"loss_type": "dapo", "importance": "token_mask"},
    "importance_sequence_truncate": {"loss_type": "dapo", "importance": "sequence_truncate"},
    "importance_sequence_mask": {"loss_type": "dapo", "importance": "sequence_mask"},
    "mask_truncated": {"loss_type": "dapo", "mask_truncated_completions": True},
    "mask_truncated_by_sequence": {"loss_type": "grpo", "mask_truncated_completions": True},
    "entropy": {"loss_type": "dapo", "entropy_coef": 0.02},
}


def make_inputs() -> dict[str, list]:
    rng = random.Random(0)

    def ragged(center: float, spread: float) -> list[list[float]]:
        return [[center + rng.uniform(-spread, spread) for _ in range(n)] for n in LENGTHS]

    old = ragged(-1.5, 0.8)
    near = lambda spread: [[x + rng.uniform(-spread, spread) for x in row] for row in old]  # noqa: E731
    return {
        "logprobs": near(0.5),
        "old_logprobs": old,
        "ref_logprobs": near(0.4),
        "sampler_logprobs": near(0.6),
        "entropies": ragged(1.0, 0.5),
        "advantages": [1.3, -0.7, -1.1, 0.4],
    }


def pad(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor([row + [0.0] * (WIDTH - len(row)) for row in rows], dtype=torch.float64)


def make_trainer(options: dict, folder: str) -> trl.GRPOTrainer:
    words = {f"w{i}": i for i in range(30)}
    raw = Tokenizer(models.WordLevel(words, unk_token="w1"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="w0", eos_token="w2", unk_token="w1")
    model = Qwen3ForCausalLM(
        Qwen3Config(vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                    num_attention_heads=2, num_key_value_heads=1, head_dim=8)
    )  # fmt: skip
    model.config._name_or_path = folder
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = trl.GRPOConfig(
        output_dir=folder, use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=4,
        num_generations=2, max_completion_length=WIDTH, gradient_accumulation_steps=1, **options,
    )  # fmt: skip
    return trl.GRPOTrainer(
        model=folder if options.get("beta") else model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "w3 w4"}] * 8),
        processing_class=tokenizer,
    )


def run_block(condition: str, makes: str, known: dict) -> object:
    """What TRL's `if condition:` block of _generate_and_score_completions leaves in the variable `makes`."""
    source = textwrap.dedent(inspect.getsource(trl.GRPOTrainer._generate_and_score_completions))
    (block,) = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.If)
        and ast.unparse(node.test) == condition
        and any(
            isinstance(n, ast.Name) and n.id == makes and isinstance(n.ctx, ast.Store) for n in ast.walk(node)
        )
    ]
    variables = {**vars(inspect.getmodule(trl.GRPOTrainer)), **known}
    module = ast.fix_missing_locations(ast.Module(body=[block], type_ignores=[]))
    exec(compile(module, "trl", "exec"), variables)  # noqa: S102 - statements of the installed TRL
    return variables[makes]


def importance_ratio(trainer: trl.GRPOTrainer, mode: str, mask: torch.Tensor, inputs: dict) -> torch.Tensor:
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    trainer.vllm_importance_sampling_mode = mode
    trainer.vllm_importance_sampling_clip_max = (
        SEQUENCE_CAP if mode == "sequence_truncate" else IMPORTANCE_CAP
    )
    trainer.vllm_importance_sampling_clip_min = IMPORTANCE_FLOOR if mode.endswith("mask") else None
    return run_block(
        "self.use_vllm and self.vllm_importance_sampling_correction",
        "vllm_importance_sampling_ratio",
        {
            "self": trainer,
            "completion_mask": mask,
            "tool_mask": None,
            "old_per_token_logps": pad(inputs["old_logprobs"]),
            "sampling_per_token_logps": pad(inputs["sampler_logprobs"]),
        },
    )


def without_truncated(trainer: trl.GRPOTrainer, mask: torch.Tensor) -> torch.Tensor:
    (end,) = trainer.eos_token_ids
    ids = [[3] * n if i in TRUNCATED else [3] * (n - 1) + [end] for i, n in enumerate(LENGTHS)]
    known = {
        "self": trainer,
        "completion_ids_list": ids,
        "completion_mask": mask,
        "tool_mask": None,
        "device": "cpu",
    }
    return run_block("self.mask_truncated_completions", "completion_mask", known)


def advantages(*, scale: str = "group", second: bool = False, lost: bool = False) -> list[list[float]]:
    """TRL's, of the first rewards; with `second`, of both by GDPO; with `lost`, without those of LOST."""
    first = torch.tensor(REWARDS, dtype=torch.float64)
    columns = [first, torch.tensor(SECOND_REWARDS, dtype=torch.float64)] if second else [first]
    rewards = torch.stack(columns, dim=-1).flatten(0, 1)
    unscorable = torch.zeros(len(rewards), dtype=torch.bool)
    unscorable[LOST if lost else []] = True
    rewards[unscorable] = torch.nan
    aggregation = "normalize_then_sum" if second else "sum_then_normalize"
    settings = SimpleNamespace(
        multi_objective_aggregation=aggregation,
        scale_rewards=scale,
        reward_funcs=columns,
        reward_weights=torch.tensor([1.0, SECOND_WEIGHT][: len(columns)], dtype=torch.float64),
    )
    known = {
        "self": settings,
        "rewards_per_func": rewards,
        "unscorable_mask": unscorable,
        "num_generations": first.shape[1],
        "device": "cpu",
    }
    found = run_block(f"self.multi_objective_aggregation == '{aggregation}'", "advantages", known)
    return torch.nan_to_num(found, nan=0.0).reshape(first.shape).tolist()  # as TRL does next


def record(name: str, inputs: dict) -> dict:
    options = dict(VARIANTS[name])
    importance = options.pop("importance", "")
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(options, folder)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    logprobs = pad(inputs["logprobs"]).requires_grad_()
    entropies = pad(inputs["entropies"])
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, entropies, None)
    mask = pad([[1.0] * n for n in LENGTHS]).long()
    if trainer.mask_truncated_completions:
        mask = without_truncated(trainer, mask)
    batch = {
        "prompt_ids": torch.ones(4, 2, dtype=torch.long),
        "prompt_mask": torch.ones(4, 2, dtype=torch.long),
        "completion_ids": torch.ones(4, WIDTH, dtype=torch.long),
        "completion_mask": mask,
        "advantages": torch.tensor(inputs["advantages"], dtype=torch.float64),
        "old_per_token_logps": pad(inputs["old_logprobs"]),
        "ref_per_token_logps": pad(inputs["ref_logprobs"]),
        "num_items_in_batch": mask.sum(),
    }
    if importance:
        batch["importance_sampling_ratio"] = importance_ratio(trainer, importance, mask, inputs)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    gradient = [row[:n] for row, n in zip(logprobs.grad.tolist(), LENGTHS, strict=True)]
    return {"options": VARIANTS[name], "loss": loss.item(), "gradient": gradient}


def main() -> None:
    inputs = make_inputs()
    recorded = {
        "trl": trl.__version__,
        "max_completion_length": WIDTH,
        "importance_cap": IMPORTANCE_CAP,
        "importance_floor": IMPORTANCE_FLOOR,
        "truncated": TRUNCATED,
        "rewards": REWARDS,
        "second_rewards": SECOND_REWARDS,
        "second_weight": SECOND_WEIGHT,
        "lost": LOST,
        "sequence_cap": SEQUENCE_CAP,
        "advantages": {
            **{scale: advantages(scale=scale) for scale in ("none", "group")},
            "lost": advantages(scale="none", lost=True),
            "gdpo": advantages(second=True),
        },
        "inputs": inputs,
        "variants": {name: record(name, inputs) for name in VARIANTS},
    }
    OUT.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(VARIANTS)} variants of trl {trl.__version__}")


if __name__ == "__main__":
    main()
