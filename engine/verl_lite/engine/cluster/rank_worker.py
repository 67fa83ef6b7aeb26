"""One learner rank: its learner, and the calls that the trainer makes on all ranks at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from verl_lite.engine.cluster.rank_group import RankGroup
from verl_lite.engine.cluster.weight_transfer import PackedWeights, pack
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.learner.checkpoint import is_sharded, saved_state, start_saving
from verl_lite.engine.learner.learner import Learner
from verl_lite.engine.learner.sharded_checkpoint import distribute_like, write_sharded
from verl_lite.engine.model.checkpoint_names import in_checkpoint_format
from verl_lite.engine.model.folder import load_policy
from verl_lite.engine.model.weights import base_model
from verl_lite.engine.rundir.environment import make_deterministic
from verl_lite.engine.rundir.folder import RunFolder
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import TokenStatistics, TrainingSample, UpdateStats
from verl_lite.plugins import ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerSpec:
    """What a rank needs to create its learner. Both paths must exist on every node with a rank."""

    config: TrainConfig
    model_path: str
    pad_token_id: int
    run_dir: Path


class RankWorker:
    """Public methods are collectives: the group calls them on every rank, in the same order."""

    def __init__(self, spec: LearnerSpec, device: torch.device) -> None:
        config = spec.config
        if config.deterministic:
            make_deterministic()
        self._ranks = RankGroup(config.learner.parallel, device)
        self._shares_gpu = config.rollout.shares_gpus and device.type == "cuda"
        is_quantized = config.learner.is_quantized
        # full weights stay in host memory until sharded, so the device only ever holds a shard
        start = torch.device("cpu") if self._ranks.is_sharded and not is_quantized else device
        model = load_policy(spec.model_path, dtype=config.model.dtype, device=start, quantize=is_quantized)
        self.learner = Learner(
            model,
            config.learner,
            config.algorithm,
            pad_token_id=spec.pad_token_id,
            total_steps=config.steps,
            temperature=config.rollout.temperature,
            bad_batch_dir=RunFolder(spec.run_dir).bad_batches if self._ranks.rank == 0 else None,
            seed=derive_seed(config.seed, "learner"),
            ranks=self._ranks,
        )
        torch.manual_seed(derive_seed(config.seed, "dropout", self._ranks.rank))

    def token_statistics(self, scored: Sequence[ScoredRollout]) -> list[TokenStatistics]:
        stats = self.learner.token_statistics(scored)
        self._empty_cache()
        return stats

    def update(self, samples: Sequence[TrainingSample]) -> UpdateStats:
        stats = self.learner.update(samples)
        self._empty_cache()
        return stats

    def _empty_cache(self) -> None:
        """Free torch's cached memory for the engine on the same GPU."""
        if self._shares_gpu:
            torch.cuda.empty_cache()

    def scale_learning_rate(self, scale: float) -> None:
        self.learner.scale_learning_rate(scale)

    def logprob_noise(self, token_ids: Sequence[int], dtype: str) -> float:
        return self.learner.logprob_noise(token_ids, dtype)

    def notes(self) -> list[str]:
        return self.learner.notes

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        return self.learner.token_logprobs(token_ids)

    def packed_weights(self, as_checkpoint: bool = True) -> PackedWeights | None:
        """The policy's full weights on rank 0; None on the others, which only take part in the gather.

        In the checkpoint format, or as they are in the model.
        """
        weights = ((name, tensor.cpu()) for name, tensor in self.learner.named_weights())
        if self._ranks.rank == 0:
            return pack(
                in_checkpoint_format(self.learner.policy.model, weights) if as_checkpoint else weights
            )
        for _ in weights:
            pass
        return None

    def save(self, folder: Path) -> None:
        """Write the learner's part of a checkpoint; policy/ gets the weights unless they are sharded."""
        if not self._ranks.is_sharded:
            if self._ranks.rank == 0:
                start_saving(self.learner, folder, None)()
            return
        model = self.learner.policy.model
        write_sharded(
            self.learner.state_dict(), folder, rank=self._ranks.rank, broadcast=self._ranks.broadcast
        )
        if hasattr(model, "disable_adapter"):  # the shards hold only the adapters
            weights = {name: tensor.cpu() for name, tensor in self.learner.named_weights()}
            if self._ranks.rank == 0:
                base_model(model).save_pretrained(folder / "policy", state_dict=weights)
        elif self._ranks.rank == 0:
            base_model(model).config.save_pretrained(folder / "policy")

    def restore(self, folder: Path) -> float:
        """Continue from a checkpoint of any number of ranks. Returns the KL coefficient."""
        if is_sharded(folder) or not self._ranks.is_sharded:
            self.learner.restore(folder)
        else:
            state = saved_state(folder)
            self.learner.load_state_dict(distribute_like(self.learner.template(), state))
        return self.learner.kl_coefficient
