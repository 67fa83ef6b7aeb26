"""The environment `simulated_user`: another model plays the user, behind an OpenAI-compatible endpoint."""

import asyncio
from collections.abc import Mapping, Sequence
from string import Template
from typing import cast

from pydantic import Field, field_validator

from verl_lite.plugins.builtin.judge_client import BusyError, ChatClient, read_api_key
from verl_lite.plugins.builtin.judge_endpoint import ModelAddress
from verl_lite.plugins.environments.contract import Step, environment
from verl_lite.plugins.rollout import Message

MAX_TRIES = 4

DEFAULT_INSTRUCTIONS = """You play the user in a conversation with an assistant. Your goal: $goal
Write only what the user says next, in one short message. Do not solve the task yourself.
When the goal is reached, or cannot be reached, write $stop and nothing else."""


class SimulatedUserOptions(ModelAddress):
    """Which model plays the user, and what it is told."""

    instructions: str = Field(
        default=DEFAULT_INSTRUCTIONS,
        description="the user's system prompt: a template with the columns of the row ($goal) and $stop",
    )
    stop: str = Field(default="[END]", min_length=1, description="what ends the conversation, in a reply")
    max_tokens: int = Field(default=512, gt=0, description="of one reply")
    temperature: float = Field(default=0.7, ge=0, allow_inf_nan=False, description="of the user")
    request_timeout_s: float = Field(default=60.0, gt=0, allow_inf_nan=False, description="of one request")

    @field_validator("instructions")
    @classmethod
    def _is_template(cls, text: str) -> str:
        if not Template(text).is_valid():
            raise ValueError("a '$' that starts no name; write '$$' for a dollar sign")
        return text


@environment("simulated_user", options=SimulatedUserOptions, timeout_s=300.0)
class SimulatedUser:
    """A model plays the user. It opens the conversation unless the row's prompt ends with a user's message.

    `details["ended_by_user"]` says whether the user ended it.
    """

    def __init__(self, options: SimulatedUserOptions, row: Mapping[str, object]) -> None:
        self._options = options
        texts = {name: str(value) for name, value in row.items()} | {"stop": options.stop}
        missing = sorted(set(Template(options.instructions).get_identifiers()) - set(texts))
        if missing:
            raise KeyError(f"option instructions: the row has no column {missing[0]!r}")
        self._instructions = Template(options.instructions).substitute(texts)
        prompt = row.get("prompt")
        if isinstance(prompt, str):
            prompt = [Message(role="user", content=prompt)]
        self._messages = list(cast(Sequence[Message], prompt or ()))
        self._client = ChatClient(
            options.base_url,
            api_key=read_api_key(options.api_key_env),
            max_concurrent=1,
            request_timeout_s=options.request_timeout_s,
        )

    async def reset(self) -> Sequence[Message]:
        if not self._messages or self._messages[-1]["role"] != "user":
            self._messages.append(Message(role="user", content=await self._says()))
        return tuple(self._messages)

    async def step(self, message: Message) -> Step:
        self._messages.append(Message(role="assistant", content=message["content"]))
        text = await self._says()
        is_over = self._options.stop in text
        said = text.replace(self._options.stop, "").strip()
        reply = Message(role="user", content=said)
        self._messages.append(reply)
        return Step(
            messages=(reply,) if said or not is_over else (), done=is_over, details={"ended_by_user": is_over}
        )

    async def _says(self) -> str:
        """The user's next message. Busy endpoints are asked again."""
        swapped = {"user": "assistant", "assistant": "user"}
        spoken = [item for item in self._messages if item["role"] in swapped]
        history = [{"role": swapped[item["role"]], "content": item["content"]} for item in spoken]
        request = {
            "model": self._options.model,
            "messages": [{"role": "system", "content": self._instructions}, *history],
            "temperature": self._options.temperature,
            "max_tokens": self._options.max_tokens,
        }
        for attempt in range(1, MAX_TRIES + 1):
            try:
                return await self._client.ask(request)
            except BusyError:
                if attempt == MAX_TRIES:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
        raise AssertionError("unreachable")
