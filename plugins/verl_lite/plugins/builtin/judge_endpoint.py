"""What every judge shares: which endpoint is asked, and that no question is asked twice."""

import asyncio
import functools
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar, cast
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pydantic import ConfigDict, Field, field_validator

from verl_lite.plugins.builtin.judge_client import BusyError, ChatClient, ReplyError, read_api_key
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import reward

ReadT = TypeVar("ReadT")
ChatMessages = Sequence[Mapping[str, str]]
# `@reward` for a judge: asked over the network, again where the endpoint is busy.
judge_reward = functools.partial(reward, isolate=False, retry_on=(BusyError,), max_retries=4, is_remote=True)


class ModelAddress(ConfigModel):
    """A model behind an OpenAI-compatible endpoint."""

    # A key pasted into the config must not appear in an error message.
    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: str = Field(description="the endpoint up to and without /chat/completions: http://host:8000/v1")
    model: str = Field(min_length=1, description="the model's name at that endpoint")
    api_key_env: str = Field(
        default="", description="the environment variable with the key, never the key itself; empty for none"
    )

    @field_validator("base_url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("expected a URL like http://host:8000/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("expected a URL without user, password, query and fragment; see api_key_env")
        return url

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError("expected the name of an environment variable, such as JUDGE_API_KEY, not a key")
        return name


class EndpointOptions(ModelAddress):
    """An OpenAI-compatible endpoint. Only 429, 5xx and failed connections are retried (up to four times)."""

    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema",
        description="what the endpoint is asked to enforce; the reply is checked anyway",
    )
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of the judge")
    max_tokens: int = Field(default=512, gt=0, description="for the judge's reply, including its reasoning")
    max_completion_chars: int = Field(
        default=100_000, gt=0, description="a longer completion is not sent and gets the lowest value"
    )
    max_concurrent: int = Field(default=16, gt=0, le=64, description="concurrent requests")
    request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="the limit of one request, past which the outcome is error",
    )
    cache_entries: int = Field(
        default=10_000, ge=0, description="replies cached in memory by model and prompt; 0 for none"
    )


class JudgeEndpoint:
    """Asks the endpoint of `options`. Raises ConfigError for a missing key.

    Belongs to no event loop: execution may replace the one it is called on.
    """

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._api_key = read_api_key(options.api_key_env)
        self._known: OrderedDict[bytes, object] = OrderedDict()
        self._client: tuple[asyncio.AbstractEventLoop, ChatClient] | None = None
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def ask(
        self, messages: ChatMessages, read: Callable[[str], ReadT], *, schema: Mapping[str, object]
    ) -> ReadT:
        """What `read` makes of the judge's reply. `schema` is the JSON Schema of the reply.

        Equal questions are asked once: those that arrive together wait for the first one's reply. What
        fails is not kept. Raises BusyError, ReplyError (also past the time limit), and what `read` raises.
        """
        request = self._request(messages, schema)
        key = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).digest()
        client = self._client_of_this_loop()
        lock = self._asking.get(key) or asyncio.Lock()
        self._asking[key] = lock
        async with lock:
            if key in self._known:
                return cast(ReadT, self._known[key])
            answer = self._known[key] = read(await self._reply(client, request))
            while len(self._known) > self._options.cache_entries:
                self._known.popitem(last=False)
            return answer

    async def _reply(self, client: ChatClient, request: Mapping[str, object]) -> str:
        try:
            return await client.ask(request)
        except TimeoutError:
            # The endpoint's silence says nothing about the completion: an error, not the row's time-out.
            limit = f"{self._options.request_timeout_s:g} s"
            raise ReplyError(f"no answer from the judge within {limit}") from None

    def _request(self, messages: ChatMessages, schema: Mapping[str, object]) -> dict[str, object]:
        options = self._options
        request: dict[str, object] = {
            "model": options.model,
            "messages": messages,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
        }
        if options.response_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        elif options.response_format == "json_schema":
            named = {"name": "grade", "schema": schema, "strict": True}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        return request

    def _client_of_this_loop(self) -> ChatClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            options = self._options
            client = ChatClient(
                options.base_url,
                api_key=self._api_key,
                max_concurrent=options.max_concurrent,
                request_timeout_s=options.request_timeout_s,
            )
            self._client = loop, client
            self._asking = WeakValueDictionary()
        return self._client[1]


def object_schema(properties: Mapping[str, object]) -> dict[str, object]:
    """The JSON Schema of an object with exactly these properties."""
    closed = {"required": list(properties), "additionalProperties": False}
    return {"type": "object", "properties": dict(properties), **closed}
