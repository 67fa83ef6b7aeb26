"""Everything that can be wrong with a run, checked before a model is loaded or a file written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_lite.engine.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint
from verl_lite.engine.config import DatasetConfig, TrainConfig
from verl_lite.engine.data import read_prompts
from verl_lite.engine.metrics_log import check_trackers
from verl_lite.engine.model_folder import check_context, load_tokenizer
from verl_lite.engine.quantization import check_bitsandbytes
from verl_lite.engine.run_folder import RunFolder, choose_run_dir
from verl_lite.engine.sft import SFTExample, sft_examples
from verl_lite.engine.stages import PromptRow
from verl_lite.errors import ConfigError
from verl_lite.plugins.composite import build_composite
from verl_lite.plugins.discovery import RewardCatalog, find_rewards

__all__ = ["PreparedRun", "prepare_run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A run whose inputs are all there and fit together. `checkpoint` is what to continue from."""

    config: TrainConfig
    folder: RunFolder
    catalog: RewardCatalog
    tokenizer: Any
    train_prompts: Sequence[PromptRow]
    held_out_prompts: Sequence[PromptRow]
    sft_examples: Sequence[SFTExample]
    checkpoint: Checkpoint | None
    checkpoint_path: Path | None

    @property
    def plugins(self) -> list[Mapping[str, str]]:
        """The plugins as environment.json keeps them."""
        return [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "sha256": plugin.content_hash(),
            }
            for plugin in self.catalog.plugins
        ]


def prepare_run(config: TrainConfig, *, run_dir: Path | None = None, resume: bool = False) -> PreparedRun:
    """Check everything and read the data. Raises ConfigError, DataError or PluginError; writes nothing."""
    folder = RunFolder(choose_run_dir(config, run_dir, resume=resume))
    if resume:
        folder.check_same_run(config)
    catalog = find_rewards()
    build_composite(config, catalog)
    check_trackers(config.logging.trackers)
    check_bitsandbytes(config.learner)
    tokenizer = load_tokenizer(config.model)
    check_context(config.model, needed_tokens=config.rollout.context_tokens)
    train, held_out, examples = _read_data(config, tokenizer)
    path = latest_checkpoint(folder.checkpoints) if resume else None
    if resume and path is None:
        raise ConfigError(f"--resume: {folder.path} has no checkpoint yet; delete it and start the run anew")
    return PreparedRun(
        config=config,
        folder=folder,
        catalog=catalog,
        tokenizer=tokenizer,
        train_prompts=train,
        held_out_prompts=held_out,
        sft_examples=examples,
        checkpoint=load_checkpoint(path) if path else None,
        checkpoint_path=path,
    )


def _read_data(
    config: TrainConfig, tokenizer: Any
) -> tuple[list[PromptRow], list[PromptRow], list[SFTExample]]:
    def prompts(data: DatasetConfig, needed: Sequence[str] = ()) -> list[PromptRow]:
        limit = config.rollout.max_prompt_tokens
        return read_prompts(data, tokenizer, max_prompt_tokens=limit, seed=config.seed, needed=needed)

    wants_answers = config.sft.steps > 0 and config.sft.data is None
    train = prompts(config.data.train, [config.sft.answer] if wants_answers else [])
    if config.rollout.num_prompts > len(train):
        raise ConfigError(
            f"rollout.num_prompts={config.rollout.num_prompts} is more than the {len(train)} training rows: "
            "a step would sample a prompt twice; lower it"
        )
    held_out = prompts(config.data.held_out) if config.data.held_out is not None else []
    if config.sft.steps == 0:
        return train, held_out, []
    taught = prompts(config.sft.data, [config.sft.answer]) if config.sft.data is not None else train
    limit = config.rollout.context_tokens
    examples = sft_examples(taught, tokenizer, answer=config.sft.answer, max_tokens=limit)
    return train, held_out, examples
