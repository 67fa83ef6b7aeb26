"""A language model as the judge: `judge`, over any OpenAI-compatible endpoint."""

import asyncio
import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pydantic import ConfigDict, Field, field_validator, model_validator

from verl_lite.plugins.builtin.judge_client import BusyError, ChatClient, read_api_key
from verl_lite.plugins.builtin.judge_prompt import DEFAULT_RUBRIC, make_messages, read_reply, template_problem
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.contract import Register, hookimpl, reward
from verl_lite.plugins.rollout import Rollout
from verl_lite.plugins.score import Score, ScoreOutcome


class JudgeOptions(ConfigModel):
    """Which model to ask, what to ask it, and how to read its score.

    The judge must reply with `{"score": NUMBER, "reason": "..."}`; anything else is the outcome error,
    never a 0. Only 429, 5xx and failed connections are retried (up to four times).
    """

    # A key pasted into the config must not appear in an error message.
    model_config = ConfigDict(hide_input_in_errors=True)

    base_url: str = Field(description="the endpoint up to and without /chat/completions: http://host:8000/v1")
    model: str = Field(min_length=1, description="the model's name at that endpoint")
    rubric: str = Field(
        default=DEFAULT_RUBRIC,
        description="the request: a template with $question, $reference and $completion (required); "
        "'$$' is a dollar sign",
    )
    api_key_env: str = Field(
        default="", description="the environment variable with the key, never the key itself; empty for none"
    )
    min_score: float = Field(
        default=0.0, allow_inf_nan=False, description="the lowest score the judge may give"
    )
    max_score: float = Field(default=10.0, allow_inf_nan=False, description="the highest")
    normalise: bool = Field(
        default=True, description="map min_score..max_score to 0..1; else the value is the judge's own number"
    )
    needs_reference: bool = Field(
        default=False, description="abstain if the rollout has no reference, instead of asking without one"
    )
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema",
        description="what the endpoint is asked to enforce; the reply is checked anyway",
    )
    temperature: float = Field(default=0.0, ge=0, allow_inf_nan=False, description="of the judge")
    max_tokens: int = Field(default=512, gt=0, description="for the judge's reply, including its reasoning")
    max_completion_chars: int = Field(
        default=100_000, gt=0, description="a longer completion is not sent and gets the lowest value"
    )
    max_concurrent: int = Field(default=16, gt=0, le=32, description="concurrent requests")
    request_timeout_s: float = Field(
        default=60.0,
        gt=0,
        allow_inf_nan=False,
        description="the limit of one request, past which the outcome is timeout",
    )
    cache_entries: int = Field(
        default=10_000, ge=0, description="replies cached in memory by model and prompt; 0 for none"
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

    @field_validator("rubric")
    @classmethod
    def _is_template(cls, rubric: str) -> str:
        problem = template_problem(rubric)
        if problem:
            raise ValueError(problem)
        return rubric

    @model_validator(mode="after")
    def _has_a_range(self) -> "JudgeOptions":
        if self.min_score >= self.max_score:
            raise ValueError(f"min_score={self.min_score:g} must be below max_score={self.max_score:g}")
        return self


@reward(
    "judge",
    options=JudgeOptions,
    isolate=False,
    timeout_s=300.0,
    max_concurrency=32,
    retry_on=(BusyError,),
    max_retries=4,
    version="1",
)
class Judge:
    """A judge model's score for the completion, from an OpenAI-compatible endpoint."""

    def __init__(self, options: JudgeOptions) -> None:
        self._options = options
        self._api_key = read_api_key(options.api_key_env)
        self._cache: OrderedDict[bytes, Score] = OrderedDict()
        self._client: tuple[asyncio.AbstractEventLoop, ChatClient] | None = None
        self._asking: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, rollout: Rollout) -> Score:
        options = self._options
        if options.needs_reference and not rollout.references:
            return Score.failed(ScoreOutcome.ABSTAIN, "the rollout has no reference")
        size = len(rollout.completion)
        if size > options.max_completion_chars:
            reason = (
                f"not sent: {size} characters, more than max_completion_chars={options.max_completion_chars}"
            )
            return Score(self._value(options.min_score), reason=reason)
        request = self._request(rollout)
        key = _digest(request)
        client = self._client_of_this_loop()
        # Equal samples of a group arrive together: the first asks, the others use its reply.
        lock = self._asking.get(key) or asyncio.Lock()
        self._asking[key] = lock
        async with lock:
            score = self._cache.get(key)
            if score is None:
                try:
                    score = self._score(await client.ask(request))
                except TimeoutError:
                    reason = f"no answer from the judge within {options.request_timeout_s:g} s"
                    return Score.failed(ScoreOutcome.TIMEOUT, reason)
                self._remember(key, score)
        return score

    def _score(self, content: str) -> Score:
        options = self._options
        score, reason = read_reply(content, low=options.min_score, high=options.max_score)
        return Score(self._value(score), reason=reason[:1000], details={"judge_score": score})

    def _value(self, score: float) -> float:
        low, high = self._options.min_score, self._options.max_score
        return (score - low) / (high - low) if self._options.normalise else score

    def _request(self, rollout: Rollout) -> dict[str, Any]:
        options = self._options
        texts = {
            "question": rollout.prompt_text,
            "completion": rollout.completion,
            "reference": _any_of(rollout.references),
        }
        request: dict[str, Any] = {
            "model": options.model,
            "messages": make_messages(options.rubric, texts, low=options.min_score, high=options.max_score),
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
        }
        if options.response_format == "json_object":
            request["response_format"] = {"type": "json_object"}
        elif options.response_format == "json_schema":
            schema = _reply_schema(options)
            request["response_format"] = {"type": "json_schema", "json_schema": schema}
        return request

    def _remember(self, key: bytes, score: Score) -> None:
        self._cache[key] = score
        while len(self._cache) > self._options.cache_entries:
            self._cache.popitem(last=False)

    def _client_of_this_loop(self) -> ChatClient:
        """The running loop's client: connections and locks belong to a loop, and execution may replace it."""
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


def _digest(request: Mapping[str, Any]) -> bytes:
    return hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).digest()


def _reply_schema(options: JudgeOptions) -> dict[str, Any]:
    number = {"type": "number", "minimum": options.min_score, "maximum": options.max_score}
    properties = {"reason": {"type": "string"}, "score": number}
    required = ["reason", "score"]
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"name": "grade", "schema": schema, "strict": True}


def _any_of(references: Sequence[str]) -> str:
    if len(references) < 2:
        return "".join(references)
    return "any of these:\n" + "\n".join(f"- {reference}" for reference in references)


@hookimpl
def register_rewards(register: Register) -> None:
    register(Judge)
