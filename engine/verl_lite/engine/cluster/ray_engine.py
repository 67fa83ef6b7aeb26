"""The pool's `RemoteEngine` over a Ray actor."""

from collections.abc import Mapping
from typing import Any

from verl_lite.engine.cluster.engine_pool import EngineLost
from verl_lite.errors import RankLost


class RayEngine:
    """Starts an actor of `actor_class` with `arguments`; `resources` are its Ray options.

    `actor` is Ray's handle, for calls that do not go through the pool.
    """

    def __init__(self, actor_class: type, resources: Mapping[str, Any], **arguments: Any) -> None:
        import ray

        self._ray = ray
        self.actor = ray.remote(actor_class).options(**resources).remote(**arguments)

    def call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self.actor, method).remote(*arguments)
        except self._ray.exceptions.RayActorError as error:
            raise EngineLost(f"is gone: {_reason(error)}") from None

    def answer(self, call: Any, *, timeout_s: float) -> Any:
        """See RemoteEngine.answer. Raises RankLost if the rank that put the new weights has died."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(call, timeout=timeout_s)
        except errors.OwnerDiedError:
            # the driver owns the answers, so the lost object is an argument: weights that a rank had put
            raise RankLost("a learner rank died, and the newest weights with it") from None
        except errors.GetTimeoutError:
            raise EngineLost(f"gave no answer for {timeout_s:g} s") from None
        except errors.RayTaskError as error:
            raise EngineLost(f"failed: {_reason(error)}") from None
        except errors.RayError as error:
            raise EngineLost(f"is gone: {_reason(error)}") from None

    def kill(self) -> None:
        self._ray.kill(self.actor, no_restart=True)


def _reason(error: Exception) -> str:
    """The last line of Ray's message: the error itself if it quotes a traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
