"""Whether torchrun (or `accelerate launch`, which uses it) started this process as one of several."""

import os

from verl_lite.errors import ConfigError


def launched_rank() -> int | None:
    """This process's rank under torchrun; None without torchrun or with a single process."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    if any(name not in os.environ for name in names) or int(os.environ["WORLD_SIZE"]) < 2:
        return None
    return int(os.environ["RANK"])


def check_launch(*, num_ranks: int, sampler_shares_process: bool) -> None:
    """Raise ConfigError if torchrun's processes do not fit the config."""
    if launched_rank() is None:
        return
    started = int(os.environ["WORLD_SIZE"])
    if started != num_ranks:
        raise ConfigError(
            f"torchrun started {started} processes, but learner.num_ranks={num_ranks}: make them equal, or "
            "start without torchrun and let Ray place the ranks"
        )
    if sampler_shares_process:
        raise ConfigError(
            "a vLLM engine in a process that torchrun started would use the other ranks as its own: use "
            "rollout.sampler: transformers, rollout.num_engines above 1 (Ray places them), or start without "
            "torchrun and let Ray place the ranks"
        )
