"""The rollout: one sampled completion with everything a reward may read."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Required, TypedDict

from verl_lite.errors import DataError
from verl_lite.plugins.fast_init import fast_init

_MEDIA = re.compile("image|audio|video|file|document|blob|media", re.I)
BUDGETS = frozenset({"length", "turns", "tool_seconds", "context"})  # finish reasons that cut a rollout


class FunctionCall(TypedDict):
    """What a tool call calls. `arguments` is the text of a JSON object, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(TypedDict, total=False):
    """One tool call of an assistant message, in OpenAI's form; `function` is always present."""

    id: str
    type: str
    function: Required[FunctionCall]


class Message(TypedDict, total=False):
    """One chat message as chat templates take it; `role` and `content` are always present."""

    role: str
    content: str
    name: str
    tool_calls: Sequence[ToolCall]
    tool_call_id: str


def content_text(content: Any, *, shows_media: bool = False) -> str:
    """The text of a message's content, which is text, a list of parts, or nothing.

    Images, sound and files are shown by their type in brackets, or refused with DataError.
    """
    if isinstance(content, str):
        return content
    parts = [part for part in content or () if isinstance(part, Mapping)]
    if not shows_media:
        refuse_media(parts)
    return "".join(str(part.get("text") or (f"[{kind}]" if (kind := _media(part)) else "")) for part in parts)


def refuse_media(parts: Sequence[Mapping[str, Any]]) -> None:
    """Raise DataError if one of a content's parts is an image, sound or a file, as peers name them."""
    kind = next(filter(None, map(_media, parts)), "")
    if kind:
        raise DataError(
            f"a message's content has a part of type {kind!r}: text alone is read, no images, sound or "
            "files; leave the row out, or take the part out of it"
        )


def _media(part: Mapping[str, Any]) -> str:
    """The type of a part that is no text, tool call or reasoning; "" of others."""
    if "type" not in part and isinstance(part.get("text"), str):
        return ""
    kinds = [str(part["type"])] if "type" in part else [str(key) for key, value in part.items() if value]
    return next((kind for kind in kinds if _MEDIA.search(kind)), "")


def spoken(completion: object) -> dict[str, Any]:
    """`completion` and `turns` of text or messages: the last reply and, of a trajectory, all messages.

    A trajectory is several messages, or one that calls a tool. Raises DataError for what is neither, and
    for messages none of which is the assistant's.
    """
    if isinstance(completion, str):
        return {"completion": completion, "turns": []}
    if not isinstance(completion, Sequence) or not all(isinstance(part, Mapping) for part in completion):
        raise DataError(f"'completion' must be text or messages, got {completion!r:.80}")
    turns = [{key: value for key, value in part.items() if value is not None} for part in completion]
    replies = turns if len(turns) == 1 else [turn for turn in turns if turn.get("role") == "assistant"]
    if turns and not replies:
        roles = ", ".join(sorted({str(turn.get("role")) for turn in turns}))
        raise DataError(f"'completion' has no message of the role assistant; its roles: {roles}")
    text = content_text(replies[-1].get("content")) if replies else ""
    is_trajectory = len(turns) > 1 or any(turn.get("tool_calls") for turn in turns)
    return {"completion": text, "turns": turns if is_trajectory else []}


def clean_text(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD: they cannot be encoded, hashed or stored."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
    return text


def reference_text(value: object) -> str:
    """A reference as text: a text as it is, anything else as JSON.

    >>> reference_text("4"), reference_text(["four", 4])
    ('4', '["four", 4]')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerSettings:
    """How the completion was sampled. `seed` is the request's own seed."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 0
    seed: int | None = None


TurnOutcome = Literal["ok", "error", "timeout", "malformed", "unknown_tool", "truncated"]


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One message after the prompt.

    `start` and `end` are its tokens in `Rollout.completion_ids`, half open; both 0 without token ids. Those
    of an assistant's turn are exactly the sampled ones. `seconds` is the time that it took to sample the
    message, or to run the tool or the environment that wrote it. `outcome` says how that went: an error,
    a passed deadline, a tool call that cannot be read or does not fit the schema ("malformed"), a tool that
    does not exist, or a result that was cut ("truncated").
    """

    role: str
    content: str
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str = ""
    name: str = ""
    start: int = 0
    end: int = 0
    seconds: float = 0.0
    outcome: TurnOutcome = "ok"

    @property
    def message(self) -> Message:
        """The turn as a chat message."""
        message = Message(role=self.role, content=self.content)
        if self.name:
            message["name"] = self.name
        if self.tool_calls:
            message["tool_calls"] = self.tool_calls
        if self.tool_call_id:
            message["tool_call_id"] = self.tool_call_id
        return message


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One training sample of a trajectory whose chat template rewrites earlier turns.

    `sampled_mask` and `logprobs` have one entry per token of `completion_ids`; `turns` are the indices of
    the assistant turns that were sampled in it.
    """

    prompt_ids: Sequence[int]
    completion_ids: Sequence[int]
    logprobs: Sequence[float]
    sampled_mask: Sequence[int]
    turns: Sequence[int] = ()


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled completion. Frozen and self-contained: it can be scored again from this alone.

    `completion_ids` and `logprobs` have one entry per completion token (natural logarithms under the
    sampling policy, at the sampling temperature); both are empty when only the text is known.
    `finish_reason` is "stop" (ended by itself), "length" (cut at the limit of tokens) or "" (unknown); of a
    trajectory of several turns also "turns", "tool_seconds" or "context" (the budget that ended it), or
    "error" (its environment failed).
    `turns` are the messages after the prompt, empty for a single completion. `completion` is then the last
    assistant message, and `completion_ids` everything after the first prompt as the sampler saw it, with
    0.0 as the log-probability of tokens that were not sampled (`sampled_mask`). `segments` is empty unless
    the chat template rewrites earlier turns: then they are what is trained instead of `completion_ids`.
    `columns` holds every column of the data set row, including its `reference`. Where that is a list,
    each element is accepted (`references`), and `reference` is the list as JSON.
    Rollouts of one prompt share `group`; `sample_index` counts within it. `policy_version` is the
    number of updates of the weights that sampled it. If new weights arrived midway, it is that of the
    first token, and `token_versions` has one entry per completion token (else it is empty).
    """

    completion: str
    prompt: Sequence[Message] = ()
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    group: str = ""
    sample_index: int = 0
    finish_reason: str = ""
    prompt_ids: Sequence[int] = ()
    completion_ids: Sequence[int] = ()
    logprobs: Sequence[float] = ()
    policy_version: int = 0
    token_versions: Sequence[int] = ()
    sampling: SamplerSettings = field(default_factory=SamplerSettings)
    turns: Sequence[Turn] = ()
    segments: Sequence[Segment] = ()

    @property
    def sampled_mask(self) -> list[int]:
        """1 at each token of `completion_ids` that the model sampled, 0 at those between its turns.

        >>> turns = (Turn(role="assistant", content="a", end=2), Turn(role="tool", content="b", start=3))
        >>> Rollout(completion="a", completion_ids=(5, 6, 7, 8), turns=turns).sampled_mask
        [1, 1, 0, 0]
        """
        if not self.turns:
            return [1] * len(self.completion_ids)
        mask = [0] * len(self.completion_ids)
        for turn in self.turns:
            if turn.role == "assistant":
                mask[turn.start : turn.end] = [1] * (turn.end - turn.start)
        return mask

    @property
    def num_sampled(self) -> int:
        """The number of sampled tokens; that of all tokens where the turns do not say which are theirs."""
        return sum(self.sampled_mask) or len(self.completion_ids)

    @property
    def prompt_text(self) -> str:
        """The contents of the prompt's messages, separated by blank lines."""
        return "\n\n".join(str(message.get("content", "")) for message in self.prompt)

    @property
    def references(self) -> tuple[str, ...]:
        """The accepted references, any of which counts; empty without one.

        >>> Rollout(completion="", reference='["4", 5]', columns={"reference": ["4", 5]}).references
        ('4', '5')
        >>> Rollout(completion="", reference="4").references
        ('4',)
        """
        given = self.columns.get("reference")
        if isinstance(given, (list, tuple)):
            return tuple(reference_text(item) for item in given if item is not None)
        return () if self.reference is None else (self.reference,)

    @property
    def has_failed(self) -> bool:
        """Whether its environment failed: then no reward counts."""
        return self.finish_reason == "error"

    @property
    def is_truncated(self) -> bool:
        """Whether a budget ended it: tokens, or of a trajectory turns, tool seconds or context."""
        return self.finish_reason in BUDGETS
