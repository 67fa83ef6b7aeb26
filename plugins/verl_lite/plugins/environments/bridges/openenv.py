"""Environments that a server runs behind HTTP, as OpenEnv's do: `POST /reset` and `POST /step`.

Both answer `{"observation": ..., "reward": number or null, "done": bool}`; `step` takes
`{"action": {...}}`. Such a server holds the state of one trajectory at a time unless it tells sessions
apart, so we send a header `X-Session-Id` of the trajectory's own.
"""

import json
import uuid
from collections.abc import Mapping
from functools import partial
from urllib.parse import urlsplit

from pydantic import Field, JsonValue

from verl_lite.errors import PluginError
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.environments.contract import EnvironmentDefinition, Step
from verl_lite.plugins.rollout import Message

MAX_REPLY_BYTES = 4 * 2**20


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


class OpenEnvEnvironment:
    """An environment behind HTTP. Its rewards add up in `details["reward"]`."""

    def __init__(self, options: OpenEnvOptions, row: Mapping[str, object], *, url: str) -> None:
        import httpx

        self._options = options
        self._row = row
        self._http = httpx.AsyncClient(base_url=url, timeout=None, headers={"X-Session-Id": uuid.uuid4().hex})
        self._reward = 0.0

    async def reset(self) -> tuple[Message, ...]:
        prompt = self._row.get("prompt")
        given = {name: self._row[name] for name in self._options.columns}
        step = await self._post("/reset", {**self._options.reset, **given})
        before = [dict(message) for message in prompt] if isinstance(prompt, (list, tuple)) else []
        return (*before, *step.messages)  # type: ignore[arg-type]

    async def step(self, message: Message) -> Step:
        return await self._post("/step", {"action": self._action(message["content"])})

    async def close(self) -> None:
        await self._http.aclose()

    def _action(self, text: str) -> JsonValue:
        if self._options.action:
            return {self._options.action: text}
        try:
            action: JsonValue = json.loads(text)
        except ValueError:
            return {"invalid": text}
        return action

    async def _post(self, path: str, body: Mapping[str, object]) -> Step:
        answer = await self._http.post(path, json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.request.url} answered {answer.status_code}: {answer.text[:200]!r}")
        if len(answer.content) > MAX_REPLY_BYTES:
            raise RuntimeError(f"{answer.request.url} answered with more than {MAX_REPLY_BYTES} bytes")
        try:
            found = answer.json()
            observation, reward, done = found["observation"], found.get("reward"), bool(found.get("done"))
        except (ValueError, LookupError, TypeError, AttributeError):
            raise RuntimeError(
                f"{answer.request.url} answered without an observation: {answer.text[:200]!r}"
            ) from None
        self._reward += float(reward or 0.0)
        content = self._text(observation)
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


def openenv_environment(url: str) -> EnvironmentDefinition:
    """The environment of the server at `url`. Raises PluginError for what is no URL."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PluginError(f"environment openenv:{url}: expected openenv:http://host:port")
    return EnvironmentDefinition(
        name=f"openenv:{url}",
        call=partial(OpenEnvEnvironment, url=url),
        options_model=OpenEnvOptions,
        timeout_s=60.0,
        distribution=url,
    )
