"""One chat request to an OpenAI-compatible endpoint: the reply's text, or an error that says why not."""

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any

from verl_lite.errors import ConfigError, RewardError

BUSY_STATUS = frozenset({429, 500, 502, 503, 504})
MAX_RETRY_AFTER_S = 30.0
MAX_REPLY_BYTES = 4 * 2**20
SHOWN_CHARS = 200


class BusyError(RewardError):
    """The endpoint is unreachable or too busy (429, 5xx): a retry may succeed."""


class ReplyError(RewardError):
    """The endpoint refused the request, or its reply is not a chat completion."""


def read_api_key(variable: str) -> str | None:
    """The key in the environment variable `variable`; None if that is "". Raises ConfigError."""
    if not variable:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"judge: the environment variable {variable} (option api_key_env) is not set")
    if not key.isascii() or not key.isprintable():
        raise ConfigError(f"judge: the key in {variable} has characters that an HTTP header cannot hold")
    return key


class ChatClient:
    """Requests to `base_url`, at most `max_concurrent` at a time. Belongs to one event loop.

    The key goes only into the request's header; it is removed from every error message.
    """

    def __init__(
        self, base_url: str, *, api_key: str | None, max_concurrent: int, request_timeout_s: float
    ) -> None:
        import httpx

        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._key = api_key
        self._timeout_s = request_timeout_s
        self._slots = asyncio.Semaphore(max_concurrent)
        # No connection outlives its request: a reward is not told when its event loop ends.
        limits = httpx.Limits(max_connections=max_concurrent, max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(limits=limits, headers=headers, timeout=None, follow_redirects=False)

    async def ask(self, request: Mapping[str, Any]) -> str:
        """The text of the first choice. Raises BusyError, ReplyError, and TimeoutError past the limit."""
        import httpx

        pause_s = 0.0
        try:
            async with self._slots, asyncio.timeout(self._timeout_s):
                status, pause_s, body = await self._post(request)
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
            raise BusyError(self._clean(f"no answer from {self._url}: {problem}")) from None
        if status in BUSY_STATUS:
            await asyncio.sleep(min(pause_s, MAX_RETRY_AFTER_S))
            raise BusyError(self._clean(f"{self._url} answered {status}: {self._shown(body)}"))
        if status != 200:
            raise ReplyError(self._clean(f"{self._url} answered {status}: {self._shown(body)}"))
        return self._content(body)

    async def _post(self, request: Mapping[str, object]) -> tuple[int, float, bytes]:
        async with self._http.stream("POST", self._url, json=request) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise ReplyError(f"{self._url} answered with more than {MAX_REPLY_BYTES} bytes")
            return response.status_code, _seconds(response.headers.get("retry-after", "")), bytes(body)

    def _content(self, body: bytes) -> str:
        try:
            choice = json.loads(body)["choices"][0]
            content, finish_reason = choice["message"]["content"], choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ReplyError(
                self._clean(f"{self._url} answered with no chat completion: {self._shown(body)}")
            ) from None
        if finish_reason == "length":
            raise ReplyError("the judge's answer was cut off: raise the option max_tokens")
        if not isinstance(content, str):
            raise ReplyError(f"the judge's message has no text, but {type(content).__name__}")
        return content

    def _shown(self, body: bytes) -> str:
        return repr(self._clean(body.decode("utf-8", "replace"))[:SHOWN_CHARS])

    def _clean(self, message: str) -> str:
        return message.replace(self._key, "***") if self._key else message


def _seconds(retry_after: str) -> float:
    """The seconds of a Retry-After header; 0 for its other form, a date."""
    try:
        seconds = float(retry_after)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < float("inf") else 0.0
