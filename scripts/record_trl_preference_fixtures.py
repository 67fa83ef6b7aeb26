"""Record what the real TRL computes on preferences, for tests/engine/test_preference_against_trl.py.

Runs in an environment of its own, never in the project's:

    python -m venv /tmp/trl && /tmp/trl/bin/pip install trl torch
    /tmp/trl/bin/python scripts/record_trl_preference_fixtures.py

`DPOTrainer._compute_loss` and `RewardTrainer.compute_loss` are called with a model that gives recorded
log-probabilities and scores, so that both sides start from identical numbers; their losses, the losses'
gradients and DPO's metrics are written to tests/fixtures/trl_preference_losses.json.
"""

import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
)

OUT = Path(__file__).parents[1] / "tests" / "fixtures" / "trl_preference_losses.json"
LENGTHS = [6, 2, 4, 3, 5, 1]  # three chosen, then the three rejected
PROMPT = 2
DPO = {
    "sigmoid": {"loss_type": ["sigmoid"], "beta": 0.3},
    "robust": {"loss_type": ["robust"], "beta": 0.3, "label_smoothing": 0.1},
    "ipo": {"loss_type": ["ipo"], "beta": 0.3},
    "hinge": {"loss_type": ["hinge"], "beta": 0.3},
    # With one pair nothing is sorted, and aot is the smoothed sigmoid loss.
    "smoothed": {"loss_type": ["aot"], "beta": 0.3, "label_smoothing": 0.2},
}
REWARD = {"plain": {}, "centred": {"center_rewards_coefficient": 0.05}, "margin": {}}


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate("<pad> <eos> a b c".split())}, unk_token="a")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def model_config() -> Qwen3Config:
    return Qwen3Config(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, head_dim=8, pad_token_id=0, eos_token_id=1, num_labels=1,
    )  # fmt: skip


def saved(kind: type, folder: str) -> torch.nn.Module:
    """TRL wants a model that came from a folder."""
    path = Path(folder) / kind.__name__
    kind(model_config()).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return kind.from_pretrained(path)


def main() -> None:
    rng = random.Random(0)
    logprobs = [[rng.uniform(-2.5, -0.2) for _ in range(n)] for n in LENGTHS]
    reference = [sum(row) + rng.uniform(-1.5, 1.5) for row in logprobs]
    scores = [rng.uniform(-2, 2) for _ in range(8)]
    margins = [rng.uniform(0, 1) for _ in range(4)]
    inputs = {"logprobs": logprobs, "reference": reference, "scores": scores, "margins": margins}
    with tempfile.TemporaryDirectory() as folder:
        recorded = {
            "trl": trl.__version__,
            "inputs": inputs,
            "dpo": {name: record_dpo(options, inputs, folder) for name, options in DPO.items()},
            "reward": {
                name: record_reward(options, inputs, folder, with_margin=name == "margin")
                for name, options in REWARD.items()
            },
        }
    OUT.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


def record_dpo(options: dict, inputs: dict, folder: str) -> dict:
    data = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}] * 2)
    args = trl.DPOConfig(output_dir=folder, report_to=[], use_cpu=True, **options)
    trainer = trl.DPOTrainer(
        saved(Qwen3ForCausalLM, folder), args=args, train_dataset=data, processing_class=tokenizer()
    )
    pairs = [0] if "aot" in options["loss_type"] else [0, 1, 2]
    rows = [*pairs, *(3 + pair for pair in pairs)]
    width = max(LENGTHS)
    leaf = torch.zeros(len(rows), width, dtype=torch.float64)
    mask = torch.zeros(len(rows), PROMPT + width, dtype=torch.long)
    for at, row in enumerate(rows):
        leaf[at, : LENGTHS[row]] = torch.tensor(inputs["logprobs"][row], dtype=torch.float64)
        mask[at, PROMPT : PROMPT + LENGTHS[row]] = 1
    leaf.requires_grad_()
    filler = torch.zeros(len(rows), PROMPT - 1, dtype=torch.float64)
    log_probs = torch.cat([filler, leaf], dim=1)
    output = SimpleNamespace(
        log_probs=log_probs,
        entropy=torch.zeros_like(log_probs),
        mean_logits=torch.zeros_like(log_probs),
        is_top1=torch.zeros_like(log_probs, dtype=torch.bool),
    )
    trainer.precompute_ref_logps = True
    chosen, rejected = (
        torch.tensor([inputs["reference"][r] for r in part], dtype=torch.float64)
        for part in (pairs, [3 + pair for pair in pairs])
    )
    batch = {
        "input_ids": torch.zeros_like(mask),
        "attention_mask": torch.ones_like(mask),
        "completion_mask": mask,
        "ref_chosen_logps": chosen,
        "ref_rejected_logps": rejected,
    }
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    loss = trainer._compute_loss(lambda **_: output, batch, return_outputs=False)
    loss.backward()
    metrics = trainer._metrics["train"] or trainer._metrics["eval"]
    names = ("chosen", "rejected", "margins", "accuracies")
    return {
        "options": options,
        "pairs": pairs,
        "loss": loss.item(),
        "gradient": [leaf.grad[at, : LENGTHS[row]].tolist() for at, row in enumerate(rows)],
        "rewards": {name: metrics[f"rewards/{name}"][0] for name in names},
    }


def record_reward(options: dict, inputs: dict, folder: str, *, with_margin: bool) -> dict:
    data = Dataset.from_list([{"chosen": "a b", "rejected": "a c"}] * 2)
    args = trl.RewardConfig(output_dir=folder, report_to=[], use_cpu=True, **options)
    trainer = trl.RewardTrainer(
        saved(Qwen3ForSequenceClassification, folder),
        args=args, train_dataset=data, processing_class=tokenizer(),
    )  # fmt: skip
    scores = torch.tensor(inputs["scores"], dtype=torch.float64, requires_grad=True)
    batch = {"attention_mask": torch.ones(8, 1)}
    if with_margin:
        batch["margin"] = torch.tensor(inputs["margins"], dtype=torch.float64)
    trainer._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    loss = trainer.compute_loss(lambda **_: SimpleNamespace(logits=scores[:, None]), batch)
    loss.backward()
    return {"options": options, "loss": loss.item(), "gradient": scores.grad.tolist()}


if __name__ == "__main__":
    main()
