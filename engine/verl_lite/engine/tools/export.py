"""A checkpoint's policy as one Hugging Face folder, however many ranks wrote the checkpoint."""

import shutil
from pathlib import Path

import torch

from verl_lite.engine.rundir.checkpoint_files import clear_write_errors, damaged, why_not_whole
from verl_lite.errors import CheckpointError, ConfigError
from verl_lite.plugins.tokenizer_file import load_auto_tokenizer


def export_policy(checkpoint: Path, folder: Path) -> None:
    """Write the policy in `checkpoint` to `folder`: safetensors, configuration and tokenizer.

    Needs memory for one copy of the model, and no GPU. Raises CheckpointError for a damaged checkpoint,
    ConfigError if `checkpoint` is not one or `folder` exists.
    """
    if not (checkpoint / "policy").is_dir():
        raise ConfigError(
            f"{checkpoint} is not a checkpoint: expected a folder such as runs/NAME/checkpoints/step_000040"
        )
    if reason := why_not_whole(checkpoint):
        raise CheckpointError(f"{checkpoint} is damaged: {reason}")
    if folder.exists():
        raise ConfigError(f"{folder} exists: name a folder that does not, or delete it")
    policy = checkpoint / "policy"
    with clear_write_errors(str(folder)):
        if any(policy.glob("*.safetensors")):
            shutil.copytree(policy, folder)
        else:
            _join_shards(checkpoint, folder)


def _join_shards(checkpoint: Path, folder: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    from verl_lite.engine.learner.sharded_checkpoint import read_policy

    logging.disable_progress_bar()
    weights = read_policy(checkpoint)
    try:
        config = AutoConfig.from_pretrained(checkpoint / "policy")
        tokenizer = load_auto_tokenizer(str(checkpoint / "policy"))
    except (OSError, ValueError) as error:
        raise damaged(checkpoint, error) from error
    with torch.device("meta"):  # the shape alone: the weights are loaded already
        model = AutoModelForCausalLM.from_config(config)
    config.dtype = next(iter(weights.values())).dtype
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
