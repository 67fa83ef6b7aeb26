"""Ray for the length of a run: one of its own that goes with it, or a cluster that was there before.

This is the only file that starts or joins Ray.
"""

import logging
import os
from types import TracebackType
from typing import Any

from verl_lite.engine.cluster_config import ClusterConfig
from verl_lite.errors import ConfigError

__all__ = ["RaySession"]

# Ray asks for a choice about devices of actors without any; ours keep what their process sees.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


class RaySession:
    """Use as a context manager; inside it `ray` is initialised. Raises ConfigError where that fails.

    `cpus` is what the run's actors ask for together. A Ray of the run's own offers at least that
    many, however few cores there are: placement is not what a laptop lacks. A cluster that exists
    already offers what it has.
    """

    def __init__(self, config: ClusterConfig, *, cpus: float) -> None:
        self._config = config
        self._cpus = cpus
        self.ray: Any = None

    def __enter__(self) -> "RaySession":
        try:
            import ray
        except ImportError:
            raise ConfigError(
                "this config places parts of the run with Ray, which is not installed: "
                "pip install 'verl-lite[ray]'"
            ) from None
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        address = self._config.address
        if address is None:
            options |= {
                "address": "local",
                "num_cpus": max(os.cpu_count() or 1, int(self._cpus + 1)),
                "include_dashboard": False,
            }
        else:
            options |= {"address": address}
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ConfigError(f"cluster.address={address}: {str(error).splitlines()[0]}") from None
        self.ray = ray
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ray.shutdown()
