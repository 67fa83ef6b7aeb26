"""A training run's configuration: its settings, and the checks across them, before anything loads."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator

from verl_lite.engine.config.cross_checks import (
    check_address,
    check_best_metric,
    check_models,
    check_turns,
    check_updates,
)
from verl_lite.engine.config.lora_sync import reason_to_merge
from verl_lite.engine.config.peer_names import PEER_NAMES
from verl_lite.engine.config.settings import TrainSettings
from verl_lite.plugins.composite.config import leaves
from verl_lite.plugins.config_file import load_config as load_config


class TrainConfig(TrainSettings):
    """All settings of a training run. Without RL (`steps: 0`) it needs no rewards.

    `deterministic` allows only bitwise repeatable kernels, and one thread on the CPU.
    """

    other_names: ClassVar[Mapping[str, str]] = PEER_NAMES

    @property
    def accuracy_reward(self) -> str:
        """The path of the reward that decides whether a held-out answer is right; "" without rewards."""
        found = leaves(self.rewards)
        return self.evaluation.accuracy or (found[0].path if found else "")

    @property
    def format_reward(self) -> str:
        """The path of the reward whose mean is the format compliance; "" without one."""
        named = self.sft.validation.format if self.sft.validation is not None else ""
        paths = [leaf.path for leaf in leaves(self.rewards)]
        return named or ("format" if "format" in paths else "")

    @property
    def reason_to_merge(self) -> str:
        """The setting that rules out sending vLLM only LoRA adapters; "" if none does."""
        return reason_to_merge(
            self.learner,
            sampler=self.rollout.sampler,
            weight_transfer=self.rollout.weight_transfer,
            model_dtype=self.model.dtype,
            vllm_dtype=self.rollout.vllm.dtype,
        )

    def _check_best(self) -> None:
        best, validation = self.checkpoints.keep_best, self.sft.validation
        check_best_metric(best)
        if best.startswith("evaluation/") and not self.evaluation.every_steps:
            raise ValueError(
                f"checkpoints.keep_best={best!r} is only measured with evaluation.every_steps above 0"
            )
        measured_in_sft = ("sft/validation_loss", "sft/perplexity", "sft/answers/")
        if best.startswith(measured_in_sft) and (validation is None or not validation.every_steps):
            raise ValueError(
                f"checkpoints.keep_best={best!r} is only measured with sft.validation.every_steps above 0"
            )

    @model_validator(mode="after")
    def _check_placement(self) -> "TrainConfig":
        check_address(self.cluster, ranks=self.learner.num_ranks > 1, engines=self.rollout.is_placed_by_ray)
        rollout = self.rollout
        hands_out = rollout.is_placed_by_ray or rollout.sampler == "vllm-server"
        if rollout.sequences_in_flight is not None and not hands_out:
            raise ValueError(
                f"rollout.sequences_in_flight={rollout.sequences_in_flight} is for Ray's engines or a "
                "server; the engine of this run is in the trainer's process and gets all sequences at once: "
                "leave it out, or set rollout.placement to disaggregated"
            )
        return self

    @model_validator(mode="after")
    def _check_across(self) -> "TrainConfig":
        self._check_rewards()
        self._check_replay()
        if self.evaluation.every_steps and self.data.held_out is None:
            raise ValueError(
                f"evaluation.every_steps={self.evaluation.every_steps} needs data.held_out; "
                "name the rows or set it to 0"
            )
        if self.evaluation.weights == "ema":
            self._check_ema()
        self._check_best()
        self.algorithm.check_rollout(
            num_samples=self.rollout.num_samples, top_p=self.rollout.top_p, top_k=self.rollout.top_k
        )
        check_models(self.algorithm, self.learner)
        check_turns(self.rollout, self.environment, self.tools)
        self.distillation.check_rollout(
            temperature=self.rollout.temperature,
            max_lag=self.asynchrony.largest_lag,
            num_ranks=self.learner.num_ranks,
        )
        check_updates(
            self.algorithm,
            num_prompts=self.rollout.num_prompts,
            max_new_tokens=self.rollout.max_new_tokens,
        )
        self.asynchrony.check(
            advantage=self.algorithm.advantage,
            loss=self.algorithm.loss,
            is_corrected=self.algorithm.importance.mode != "off",
            dynamic_sampling=self.algorithm.dynamic_sampling,
            takes_weights_anytime=self.rollout.is_placed_by_ray,
        )
        return self

    def _check_ema(self) -> None:
        why = ""
        if self.algorithm.kl.reference != "ema":
            why = "there is no moving average: set algorithm.kl.reference to ema"
        elif self.learner.num_ranks > 1:
            why = f"learner.num_ranks={self.learner.num_ranks} keep it in shards: use one rank"
        elif self.asynchrony.mode != "sync":
            why = f"asynchrony.mode={self.asynchrony.mode} samples meanwhile: use sync"
        elif self.learner.lora is not None and self.rollout.lora_sync != "merged":
            why = "the sampler takes whole weights then: set rollout.lora_sync to merged"
        if why:
            raise ValueError(f"evaluation.weights=ema, but {why}")

    def _check_replay(self) -> None:
        if self.data.curriculum is None or self.data.curriculum.replay is None:
            return
        where = "data.curriculum.replay"
        if self.algorithm.importance.mode == "off":
            raise ValueError(
                f"{where} trains on samples of older policies, which is only right with importance "
                "weights: set algorithm.importance.mode to truncate or mask"
            )
        if self.asynchrony.mode == "async":
            raise ValueError(
                f"{where} with asynchrony.mode=async: batches are cut from a stream there; use one_ahead"
            )
        if self.algorithm.advantage in ("gae", "reinforce_pp", "raft", "rft"):
            raise ValueError(
                f"{where} replays groups, but advantage={self.algorithm.advantage} does not compare the "
                "samples of a group: use grpo or another estimator of groups"
            )

    def _check_rewards(self) -> None:
        paths = [leaf.path for leaf in leaves(self.rewards)]
        if self.steps and not paths:
            raise ValueError(f"steps={self.steps} of RL need rewards: name at least one, or set steps to 0")
        if self.accuracy_reward and self.accuracy_reward not in paths:
            raise ValueError(
                f"evaluation.accuracy={self.accuracy_reward!r} is not a reward of this config: "
                f"expected one of {', '.join(paths)}"
            )
        if self.format_reward and self.format_reward not in paths:
            raise ValueError(
                f"sft.validation.format={self.format_reward!r} is not a reward of this config: "
                f"expected one of {', '.join(paths) or 'none, there are no rewards'}"
            )
        if self.sft.validation is not None and self.sft.validation.min_format and not self.format_reward:
            raise ValueError(
                "sft.validation.min_format needs a reward that measures it: name it in sft.validation.format"
            )

    @model_validator(mode="after")
    def _check_sampling(self) -> "TrainConfig":
        if self.rollout.lora_sync == "adapters" and self.reason_to_merge:
            raise ValueError(
                f"rollout.lora_sync=adapters is not possible with {self.reason_to_merge}: set it to auto"
            )
        if self.rollout.weight_transfer != "object_store" and self.learner.num_ranks > 1:
            raise ValueError(
                f"rollout.weight_transfer={self.rollout.weight_transfer} sends from one learner process, but "
                f"learner.num_ranks={self.learner.num_ranks}: use object_store"
            )
        if (
            self.rollout.vllm.quantization is not None
            and self.algorithm.importance.mode == "off"
            and self.steps
        ):
            raise ValueError(
                f"rollout.vllm.quantization={self.rollout.vllm.quantization} samples from a coarser policy "
                "than the learner's, but algorithm.importance.mode=off trains as if they were equal: set it "
                "to truncate or mask"
            )
        if self.rollout.placement == "colocated" and self.asynchrony.mode != "sync":
            raise ValueError(
                f"asynchrony.mode={self.asynchrony.mode} with rollout.placement=colocated: engines on the "
                "learner's GPUs sleep during updates: set rollout.placement: disaggregated, or mode sync"
            )
        if (self.scoring.combine == "gdpo") != (self.algorithm.advantage == "gdpo"):
            raise ValueError(
                f"scoring.combine={self.scoring.combine} but algorithm.advantage={self.algorithm.advantage}: "
                "under GDPO it is the advantage that combines the rewards; set both to gdpo or neither"
            )
        tiny = self.model.tiny
        if tiny is not None and self.rollout.context_tokens > tiny.max_context_tokens:
            raise ValueError(
                f"rollout.max_prompt_tokens={self.rollout.max_prompt_tokens} + rollout.max_new_tokens="
                f"{self.rollout.max_new_tokens} is more than model.tiny.max_context_tokens="
                f"{tiny.max_context_tokens}: lower one of the first two"
            )
        return self


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a training config, for editors."""
    return TrainConfig.model_json_schema()
