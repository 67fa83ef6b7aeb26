"""`verl-lite rewards serve`: the rewards of a config over HTTP."""

import os
from functools import partial
from typing import Annotated

import typer

from verl_lite.cli.options import RewardsFile, Workers

rewards_app = typer.Typer(no_args_is_help=True, help="Rewards as a service.")


@rewards_app.callback()
def rewards() -> None:
    """Rewards as a service."""


TokenEnv = Annotated[str, typer.Option(help="Environment variable with the clients' token")]
Dropped = Annotated[
    float | None, typer.Option(help="Reward of a dropped sample for OpenRLHF and verl; default: an error")
]


@rewards_app.command("serve")
def serve(
    config: RewardsFile,
    host: Annotated[str, typer.Option(help="Address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one")] = 8770,
    workers: Workers = None,
    token_env: TokenEnv = "",
    open_: Annotated[bool, typer.Option("--open", help="Let others in without a token")] = False,
    dropped: Dropped = None,
    max_batch: Annotated[int, typer.Option(min=1, help="Rollouts scored together")] = 256,
    max_queued: Annotated[int, typer.Option(min=1, help="Rollouts that may wait; then 503")] = 20_000,
    max_request_mb: Annotated[float, typer.Option(min=0.001, help="Largest request; then 413")] = 32.0,
    timeout_s: Annotated[float, typer.Option(min=0.001, help="Longest request; then 504")] = 300.0,
) -> None:
    """Serve the rewards of a config over HTTP until Ctrl-C or SIGTERM; what was accepted is still answered.

    Example: verl-lite rewards serve -c rewards.yaml --host 0.0.0.0 --token-env REWARD_TOKEN
    """
    from verl_lite.errors import ConfigError
    from verl_lite.plugins import load_rewards_config
    from verl_lite.plugins.serving import ServingOptions, serve_rewards

    token = os.environ.get(token_env, "").strip() if token_env else ""
    if token_env and not token:
        raise ConfigError(f"--token-env {token_env}: that environment variable is not set")
    options = ServingOptions(
        workers=workers,
        max_batch=max_batch,
        max_queued=max_queued,
        max_request_mb=max_request_mb,
        timeout_s=timeout_s,
        token=token,
        dropped=dropped,
    )
    loaded = load_rewards_config(config)
    announce = partial(print, "serving", ", ".join(loaded.rewards), "on", flush=True)
    serve_rewards(loaded, host=host, port=port, options=options, is_open=open_, on_start=announce)
    print("ended; every accepted request was answered", flush=True)
