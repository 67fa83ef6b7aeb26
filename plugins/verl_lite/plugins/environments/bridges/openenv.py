"""Environments that a server of OpenEnv runs: `use: "openenv:http://host:port"`.

A trajectory is a session on the server's WebSocket `/ws`. `{"type": "reset", "data": {...}}`, and "step"
with an action, are answered by `{"type": "observation", "data": {"observation": ..., "reward": ...,
"done": ...}}`. OpenEnv's `POST /step` makes an environment per request, which knows nothing of the step
before. So only a server without a socket is asked that way, with a header `X-Session-Id` per trajectory.
"""

import json
import random
import uuid
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, JsonValue

from verl_lite.errors import PluginError
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.environments.contract import EnvironmentDefinition, Step
from verl_lite.plugins.rollout import Message

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

MAX_REPLY_BYTES = 4 * 2**20
BUSY_STATUS = (429, 500, 502, 503, 504)
TIMEOUT_S = 3600.0  # the trajectory's own deadline is shorter


class OpenEnvOptions(ConfigModel):
    """How a message of the model becomes an action, and an observation a message."""

    action: str = Field(
        default="message",
        description="the key of the action that the model's text goes into; empty: the text "
        "is the action, as JSON",
    )
    observation: str = Field(
        default="",
        description="the key of the observation with the text for the model; empty: all of it, as "
        "JSON if it is no text",
    )
    reset: dict[str, JsonValue] = Field(
        default_factory=dict, description="further fields of the reset request"
    )
    columns: tuple[str, ...] = Field(
        default=(), description="columns of the row that the reset request has too"
    )


class _Refused(RuntimeError):
    """The action has not the shape that the server expects."""


class OpenEnvEnvironment:
    """An environment behind a server. Its rewards add up in `details["reward"]`."""

    def __init__(self, options: OpenEnvOptions, row: Mapping[str, object], *, url: str) -> None:
        self._options = options
        self._row = row
        self._channel = _channel(url)
        self._reward = 0.0

    def reset(self) -> tuple[Message, ...]:
        prompt = self._row.get("prompt")
        given = {name: self._row[name] for name in self._options.columns}
        seed = {"seed": random.getrandbits(31)}  # of the trajectory's own seed
        step = self._step(self._channel.ask("reset", {**seed, **self._options.reset, **given}))
        before = [dict(message) for message in prompt] if isinstance(prompt, (list, tuple)) else []
        return (*before, *step.messages)  # type: ignore[arg-type]

    def step(self, message: Message) -> Step:
        text = message["content"]
        if key := self._options.action:
            try:
                return self._step(self._channel.ask("step", {key: text}))
            except _Refused as error:
                raise RuntimeError(f"option action: the server refuses {{{key!r}: ...}}: {error}") from None
        try:
            return self._step(self._channel.ask("step", _parsed(text, _Refused)))
        except _Refused as error:  # the model's mistake: it wrote the action
            told = Message(role="user", content=f"This is no action: {error}")
            return Step(messages=(told,), details={"reward": self._reward})

    def close(self) -> None:
        self._channel.close()

    def _step(self, answer: object) -> Step:
        if not isinstance(answer, Mapping) or "observation" not in answer:
            raise RuntimeError(f"the server answered without an observation: {answer!r:.200}")
        self._reward += float(answer.get("reward") or 0.0)
        content, done = self._text(answer["observation"]), bool(answer.get("done"))
        return Step(
            messages=(Message(role="user", content=content),) if content or not done else (),
            done=done,
            details={"reward": self._reward},
        )

    def _text(self, observation: object) -> str:
        key = self._options.observation
        if key:
            if not isinstance(observation, Mapping) or key not in observation:
                shown = f"{observation!r:.200}"
                raise KeyError(f"option observation: the observation has no {key!r}: {shown}")
            observation = observation[key]
        return observation if isinstance(observation, str) else json.dumps(observation, ensure_ascii=False)


def _parsed(text: str | bytes, kind: type[RuntimeError], where: str = "") -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise kind(f"{where}{error}") from None


def _channel(url: str) -> "_Channel":
    """The socket; HTTP only where the server says that it has none, not where it is busy or away."""
    from websockets.exceptions import InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    try:
        return _Socket(url, connect(f"ws{url.removeprefix('http')}/ws", max_size=MAX_REPLY_BYTES))
    except InvalidHandshake as error:
        if isinstance(error, InvalidStatus) and error.response.status_code in BUSY_STATUS:
            raise RuntimeError(f"{url}/ws answered {error.response.status_code}") from None
        return _Http(url)


class _Socket:
    """The synchronous client: its thread answers the server's pings while the model writes."""

    def __init__(self, url: str, connection: "ClientConnection") -> None:
        self._url = url
        self._connection = connection

    def ask(self, kind: str, data: object) -> object:
        self._connection.send(json.dumps({"type": kind, "data": data}))
        text = self._connection.recv(TIMEOUT_S)
        answer = _parsed(text, RuntimeError, f"{self._url} answered no JSON: ")
        found = answer.get("data") if isinstance(answer, Mapping) else None
        if not isinstance(answer, Mapping) or not isinstance(found, Mapping):
            raise RuntimeError(f"{self._url} answered without an observation: {answer!r:.200}")
        if found.get("code") == "VALIDATION_ERROR" and found.get("errors"):
            mistakes = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found["errors"])
            raise _Refused("; ".join(mistakes))
        if answer.get("type") != "observation":
            raise RuntimeError(f"{self._url}: {found.get('message') or found!r:.300}")
        return found

    def close(self) -> None:
        self._connection.close()


class _Http:
    def __init__(self, url: str) -> None:
        import httpx

        headers = {"X-Session-Id": uuid.uuid4().hex}
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_S, headers=headers)

    def ask(self, kind: str, data: object) -> object:
        answer = self._http.post(f"/{kind}", json={"action": data} if kind == "step" else data)
        if answer.status_code != 200:
            why = _Refused if answer.status_code == 422 else RuntimeError
            raise why(f"{answer.request.url} answered {answer.status_code}: {answer.text[:200]!r}")
        if len(answer.content) > MAX_REPLY_BYTES:
            raise RuntimeError(f"{answer.request.url} answered with more than {MAX_REPLY_BYTES} bytes")
        return _parsed(answer.content, RuntimeError, f"{answer.request.url} answered no JSON: ")

    def close(self) -> None:
        self._http.close()


_Channel: TypeAlias = _Socket | _Http


def openenv_environment(url: str) -> EnvironmentDefinition:
    """The environment of the server at `url`. Raises PluginError for what is no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PluginError(f"environment openenv:{url}: expected openenv:http://host:port")
    if find_spec("websockets") is None:
        raise PluginError(f"environment openenv:{url} needs websockets: pip install 'verl-lite[openenv]'")
    return EnvironmentDefinition(
        name=f"openenv:{url}",
        call=partial(OpenEnvEnvironment, url=url.rstrip("/")),
        options_model=OpenEnvOptions,
        timeout_s=60.0,
        distribution=url,
    )
