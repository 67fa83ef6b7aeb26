"""`verl-lite dpo`, `reward-model` and `preferences`: thin fronts of the engine and the lab."""

import typer

from verl_lite.cli.train import INTERRUPTED, ConfigFile, Overrides, RunDir, calm_threads

__all__ = ["dpo", "preferences_app", "reward_model"]

preferences_app = typer.Typer(no_args_is_help=True, help="Collect preferences and look at them.")


def dpo(config: ConfigFile, overrides: Overrides = None, run_dir: RunDir = None) -> None:
    """Train a policy on preferences directly (DPO); the model lands in <run>/model.

    Example: verl-lite dpo examples/dpo.yaml beta=0.2
    """
    calm_threads()
    from verl_lite.engine.preference.config import DPOConfig
    from verl_lite.engine.preference.run import train_dpo
    from verl_lite.plugins.config_file import load_config

    result = train_dpo(load_config(DPOConfig, config, overrides or []), run_dir=run_dir)
    if result.model_dir is None:
        raise typer.Exit(INTERRUPTED)


def reward_model(config: ConfigFile, overrides: Overrides = None, run_dir: RunDir = None) -> None:
    """Train a reward model on preferences; the reward `reward_model` and transformers load the folder.

    Example: verl-lite reward-model examples/reward_model.yaml loss=plackett_luce
    """
    calm_threads()
    from verl_lite.engine.preference.config import RewardModelConfig
    from verl_lite.engine.preference.run import train_reward_model
    from verl_lite.plugins.config_file import load_config

    result = train_reward_model(load_config(RewardModelConfig, config, overrides or []), run_dir=run_dir)
    if result.model_dir is None:
        raise typer.Exit(INTERRUPTED)
