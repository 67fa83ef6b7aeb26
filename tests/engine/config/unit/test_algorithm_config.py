"""Combinations that mean nothing are refused, with the reason; the documented ones are accepted."""

import math
import re
from pathlib import Path

import pytest
import yaml

from verl_lite.engine.config import AlgorithmConfig, LearnerConfig, TrainConfig
from verl_lite.engine.config.curriculum import CurriculumConfig
from verl_lite.engine.config.distillation import DistillationConfig
from verl_lite.engine.config.sft import DemonstrationsConfig
from verl_lite.errors import ConfigError
from verl_lite.plugins import validate

DOCS = Path(__file__).parents[4] / "docs" / "algorithms.md"


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"critic": {}}, "never asks a critic"),
        ({"advantage": "gae"}, "needs values"),
        ({"loss": "gspo"}, "weigh it by the sequence's length"),
        ({"loss": "gspo", "aggregate": "sequence_sum_norm", "norm_tokens": 9}, "weigh it by the sequence's"),
        ({"loss": "policy_gradient", "epochs": 2}, "only right on-policy"),
        ({"loss": "cispo", "dual_clip": 3.0}, "does not use it"),
        ({"aggregate": "sequence_sum_norm"}, "set norm_tokens"),
        ({"advantage": "dr_grpo", "aggregate": "sequence_mean"}, "length bias"),
        ({"kl": {"coefficient": 0.1, "reference": "none"}}, "needs a reference policy"),
        ({"kl": {"target": 6.0}}, "0 stays 0"),
        ({"kl": {"coefficient": 0.1, "estimator": "k1"}}, "expectation is 0"),
        ({"kl": {"coefficient": 0.1, "placement": "reward"}}, "cannot place"),
        ({"kl": {"coefficient": 0.1, "estimator": "k2", "ratio_weighted": True}}, "it no longer is"),
        ({"kl": {"coefficient": 0.1, "placement": "reward", "ratio_weighted": True}}, "no gradient to weigh"),
        ({"entropy_bonus": math.nan}, "entropy_bonus: input should be a finite number"),
        ({"clip_high": math.inf}, "clip_high: input should be a finite number"),
        ({"importance": {"mode": "mask", "low": 3.0}}, "must be below"),
        ({"overlong": {"mode": "shape"}}, "buffer_tokens"),
        ({"advantage": "reinforce_pp", "dynamic_sampling": True}, "has no groups"),
        ({"advantage": "gdpo", "overlong": {"mode": "shape", "buffer_tokens": 4}}, "does not use"),
        ({"dual_clip": 0.5}, "greater than 1"),
        ({"clip_hihg": 0.28}, "did you mean 'clip_high'"),
        ({"advantage": "grop"}, "grpo"),
    ],
)
def test_refused_with_the_reason(section, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        validate(AlgorithmConfig, section, source="config.yaml")


@pytest.mark.parametrize(
    ("section", "rollout", "reason"),
    [
        ({}, {"num_samples": 1}, "a group of one always gives 0"),
        ({"importance": {"mode": "truncate"}}, {"num_samples": 8, "top_p": 0.9}, "truncated distribution"),
        ({"mini_batches": 4}, {"num_samples": 8, "top_k": 20}, "truncated distribution"),
    ],
)
def test_refused_with_the_rollout_section(section, rollout, reason):
    with pytest.raises(ValueError, match=reason):
        AlgorithmConfig(**section).check_rollout(**rollout)


def test_accepted_with_the_rollout_section():
    AlgorithmConfig().check_rollout(num_samples=2, top_p=0.9)
    AlgorithmConfig(advantage="reinforce_pp").check_rollout(num_samples=1)


def whole(**sections):
    """A training config of two steps with four prompts of at most 16 new tokens."""
    config = {
        "steps": 2,
        "model": {"tiny": {}},
        "data": {"train": {"task": "arithmetic"}, "held_out": {"task": "arithmetic", "split": "held_out"}},
        "rewards": {"format": {"use": "format"}},
        "rollout": {"num_prompts": 4, "max_prompt_tokens": 16, "max_new_tokens": 16},
    }
    return validate(TrainConfig, {**config, **sections}, source="config.yaml")


def test_gdpo_is_said_on_both_sides():
    both = {"scoring": {"combine": "gdpo"}, "algorithm": {"advantage": "gdpo"}}
    whole(**both)
    for name in both:
        with pytest.raises(ConfigError, match="set both to gdpo or neither"):
            whole(**{name: both[name]})


ADAPTER_OFF = {"kl": {"coefficient": 0.1, "reference": "adapter_off"}}
REINFORCE = {"loss": "policy_gradient"}
QLORA = {"lora": {"quantize": True}}


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"algorithm": ADAPTER_OFF}, "there is no learner.lora"),
        ({"algorithm": {"advantage": "gae", "critic": {}}, "learner": QLORA}, "4-bit weights cannot be"),
        ({"algorithm": REINFORCE, "asynchrony": {"mode": "one_ahead"}}, "samples of older policies"),
        ({"algorithm": {"mini_batches": 5}}, "mini_batches=5 is more than rollout.num_prompts=4"),
        ({"algorithm": {"overlong": {"mode": "shape", "buffer_tokens": 17}}}, "every completion would be"),
        (
            {"learner": {"optimizer": {"betas": [2, 3]}}},
            "betas=[2.0, 3.0]: expected two numbers of at least 0",
        ),
        ({"learner": {"optimizer": {"learning_rate": math.inf}}}, "learning_rate: input should be a finite"),
        ({"rollout": {"temperature": math.inf}}, "rollout.temperature: input should be a finite number"),
        ({"checkpoints": {"keep_best": "nonsense/metric"}}, "is not a metric of a training run"),
        ({"checkpoints": {"keep_best": "reward/maen"}}, "is not a metric of a training run"),
    ],
)
def test_sections_that_do_not_go_together(sections, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        whole(**sections)


@pytest.mark.parametrize(
    "sections",
    [
        {"algorithm": ADAPTER_OFF, "learner": {"lora": {}}},
        {"algorithm": {"kl": {"reference": "adapter_off"}}},  # at coefficient 0 there is none
        {"algorithm": {"advantage": "gae", "critic": {"model": "small"}}, "learner": QLORA},
        {
            "algorithm": {**REINFORCE, "importance": {"mode": "truncate"}},
            "asynchrony": {"mode": "one_ahead"},
        },
        {"algorithm": {"mini_batches": 4}},
        {"learner": {"optimizer": {"warmup_steps": 1000}}},  # a short trial of a long run's config
        {"algorithm": {"overlong": {"mode": "shape", "buffer_tokens": 16}}},
        {"checkpoints": {"keep_best": "reward/format/mean"}},
        {"checkpoints": {"keep_best": "sft/loss"}},
    ],
)
def test_sections_that_go_together(sections):
    whole(**sections)


def test_cispo_has_no_lower_bound_unless_one_is_set():
    assert AlgorithmConfig(loss="cispo").clip_low == 1.0
    assert AlgorithmConfig(loss="cispo", clip_low=0.3).clip_low == 0.3
    assert AlgorithmConfig().clip_low == 0.2


def test_padded_rows_cannot_share_prompts():
    with pytest.raises(ConfigError, match="backend: packed"):
        validate(LearnerConfig, {"backend": "padded", "share_prompts": "always"}, source="config.yaml")


def test_every_algorithm_of_the_documentation_is_a_valid_config():
    blocks = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    models = {
        "algorithm": AlgorithmConfig,
        "distillation": DistillationConfig,
        "demonstrations": DemonstrationsConfig,
        "data": CurriculumConfig,
    }
    sections = [item for block in blocks for item in yaml.safe_load(block).items() if item[0] in models]
    assert len(sections) >= 18
    assert {name for name, _ in sections} == models.keys()
    for name, section in sections:
        models[name].model_validate(section["curriculum"] if name == "data" else section)
