"""Another trainer's name for a setting, typed into a config, is answered by ours."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.config import TrainConfig
from verl_lite.engine.config.peer_names import PEER_NAMES
from verl_lite.errors import ConfigError
from verl_lite.plugins import validate
from verl_lite.plugins.config_file import apply_overrides
from verl_lite.plugins.settings import models_in

MIGRATE = Path(__file__).parents[4] / "docs" / "migrate.md"
BASE: dict[str, Any] = {
    "steps": 1, "model": {"tiny": {}}, "data": {"train": {"task": "arithmetic"}},
    "rewards": {"format": {"use": "format"}},
}  # fmt: skip


def refused(*overrides: str) -> str:
    with pytest.raises(ConfigError) as told:
        validate(TrainConfig, apply_overrides(BASE, overrides), source="c.yaml")
    return str(told.value)


def test_every_setting_in_the_table_exists_and_no_name_is_one_already() -> None:
    for ours in set(PEER_NAMES.values()):
        models: set[Any] = {TrainConfig}
        for part in ours.split("."):
            fields = [each.model_fields[part] for each in models if part in each.model_fields]
            assert fields, ours
            models = {found for info in fields for found in models_in(info.annotation)}
    assert not set(PEER_NAMES) & set(TrainConfig.model_fields)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("num_generations=8", "rollout.num_samples"),  # TRL
        ("rollout.n=8", "rollout.num_samples"),  # verl
        ("rollout.n_samples_per_prompt=8", "rollout.num_samples"),  # OpenRLHF, SkyRL
        ("rollouts_per_example=8", "rollout.num_samples"),  # prime-rl
        ("algorithm.kl_coef=0.1", "algorithm.kl.coefficient"),
        ("algorithm.kl.kl_loss_coef=0.1", "algorithm.kl.coefficient"),
        ("algorithm.clip_ratio_high=0.28", "algorithm.clip_high"),
        ("algorithm.epsilon=0.2", "algorithm.clip_low"),
        ("learner.ppo_mini_batch_size=64", "algorithm.mini_batches"),
        ("rollout.gpu_memory_utilization=0.6", "rollout.vllm.gpu_memory_utilization"),
        ("algorithm.adv_estimator=grpo", "algorithm.advantage"),
        ("learner.lora_rank=16", "learner.lora.rank"),
        ("learner.lora.lora_alpha=16", "learner.lora.alpha"),
        ("learner.lr=1e-6", "learner.optimizer.learning_rate"),
        ("max_completion_length=256", "rollout.max_new_tokens"),
        ("Max-Prompt-Length=256", "rollout.max_prompt_tokens"),
        ("sft.batch_size=16", "sft.batch_rows"),  # in SFT the same name is another setting
        ("sft.max_length=2048", "sft.max_tokens"),
        ("sft.learning_rate=2e-5", "sft.optimizer.learning_rate"),
        ("temperature=0.7", "rollout.temperature"),  # ours, in another place
        ("weight_decay=0.1", "sft.optimizer.weight_decay' or 'learner.optimizer.weight_decay"),
        ("algorithm.kl.coeficient=0.1", "coefficient"),  # a slip of the pen is one first
        ("learner.optimizer.beta=0.9", "betas"),
    ],
)
def test_a_peers_name_is_answered_by_ours(override: str, meant: str) -> None:
    key = override.partition("=")[0]
    assert refused(override).startswith(f"c.yaml: unknown key '{key}': did you mean '{meant}'")


def test_a_section_of_a_peer_is_answered_by_what_its_settings_are_here() -> None:
    """A piece of verl's tree, pasted."""
    told = refused(
        "actor_rollout_ref.rollout.n=8",
        "actor_rollout_ref.actor.use_kl_loss=true",
        "trainer.total_epochs=15",
    )
    assert (
        "unknown key 'actor_rollout_ref': a section of another trainer? "
        "n is 'rollout.num_samples' here, use_kl_loss is 'algorithm.kl.placement' here" in told
    )
    assert "unknown key 'trainer': a section of another trainer? total_epochs is 'steps' here" in told


def of_the_page() -> Iterator[tuple[str, str]]:
    """(a peer's name, what docs/migrate.md says it is here)."""
    for line in MIGRATE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            _, theirs, ours, _ = re.split(r"(?<!\\)\|", line)
            for name in re.findall(r"`([\w.]+)`", theirs):
                yield name.rpartition(".")[2], ours


def test_the_page_and_the_table_say_the_same() -> None:
    pairs = list(of_the_page())
    assert len(pairs) > 40
    for name, ours in pairs:
        if name in PEER_NAMES:
            section, _, setting = PEER_NAMES[name].rpartition(".")
            assert setting in ours or f"the same under `{section}`" in ours, (name, ours)
