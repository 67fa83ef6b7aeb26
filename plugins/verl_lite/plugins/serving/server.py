"""Start a reward server and end it gracefully: on SIGTERM or Ctrl-C, what was accepted is still answered."""

import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any

from verl_lite.errors import ConfigError
from verl_lite.plugins.composite import RewardsConfig
from verl_lite.plugins.serving.app import make_app
from verl_lite.plugins.serving.service import ServingOptions

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BACKLOG = 2048


def serve_rewards(
    config: RewardsConfig,
    *,
    host: str = "127.0.0.1",
    port: int = 8770,
    options: ServingOptions | None = None,
    is_open: bool = False,
    on_start: Callable[[str], None] = print,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what was accepted and return.

    `on_start` gets the server's URL; `port` 0 takes a free one. Raises ConfigError for a port that is taken,
    and for a host that others reach without a token, unless `is_open`; and what the rewards raise that cannot
    start.
    """
    options = options or ServingOptions()
    if host not in _LOOPBACK and not (options.token or is_open):
        raise ConfigError(
            f"--host {host} without a token: whoever reaches it may run programs in your sandbox; give "
            "--token-env NAME, or --open if the network is closed"
        )
    app = make_app(config, options)
    import uvicorn

    settings = uvicorn.Config(
        app,
        log_level="critical",
        timeout_graceful_shutdown=int(options.end_s),
        backlog=_BACKLOG,
        lifespan="on",
    )
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    server = _make_server(settings, lambda: on_start(f"http://{shown}:{listening.getsockname()[1]}"))
    with _ending_quietly(), listening, contextlib.suppress(SystemExit):  # uvicorn's for a failed start
        server.run(sockets=[listening])
    if not server.has_started:
        raise getattr(app.state, "failure", None) or ConfigError("the server did not start")


def _make_server(settings: Any, on_start: Callable[[], None]) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        has_started = False

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            if not self.should_exit:
                self.has_started = True
                on_start()

    return Server(settings)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror or error}") from None


@contextlib.contextmanager
def _ending_quietly() -> Any:
    """uvicorn raises the signal again once it has ended; by then there is nothing left to interrupt."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
