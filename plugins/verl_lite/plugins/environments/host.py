"""The environments and tools of a config, and one session per trajectory."""

import threading
from collections.abc import Mapping, Sequence

from verl_lite.plugins.discovery import RewardCatalog, find_rewards
from verl_lite.plugins.environments.binding import Binding, bind
from verl_lite.plugins.environments.config import EnvironmentConfig, ToolConfig
from verl_lite.plugins.environments.processes import Processes
from verl_lite.plugins.environments.session import Session


class Environments:
    """The EnvironmentHost of a config.

    `binding` is what the config names, where that is known already. `debug_inline` runs everything in this
    process, without deadlines, so that breakpoints hit. Raises PluginError and ConfigError for what cannot
    be found, built or sent to a worker process.
    """

    def __init__(
        self,
        config: EnvironmentConfig | None = None,
        tools: Sequence[ToolConfig] = (),
        *,
        catalog: RewardCatalog | None = None,
        debug_inline: bool = False,
        binding: Binding | None = None,
    ) -> None:
        config = config or EnvironmentConfig()
        self.binding = binding or bind(config, tools, catalog or find_rewards())
        self._processes = Processes(self.binding, workers=config.workers, debug_inline=debug_inline)
        self.schemas = self._processes.schemas
        self._sessions: set[Session] = set()
        self._lock = threading.Lock()

    def open(self, row: Mapping[str, object], *, seed: int) -> Session:
        session = Session(self._processes, row, seed, on_close=self._forget)
        with self._lock:
            self._sessions.add(session)
        return session

    def _forget(self, session: Session) -> None:
        with self._lock:
            self._sessions.discard(session)

    def close(self) -> None:
        with self._lock:
            sessions, self._sessions = self._sessions, set()
        for session in sessions:
            session.kill()
        self._processes.close()

    def __enter__(self) -> "Environments":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
