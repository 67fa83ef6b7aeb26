"""The rollout: one sampled completion with everything a reward may read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from verl_lite.plugins.fast_init import fast_init


class Message(TypedDict, total=False):
    """One chat message as chat templates take it; `role` and `content` are always present."""

    role: str
    content: str
    name: str
    tool_calls: list[dict[str, Any]]
    tool_call_id: str


def content_text(content: Any) -> str:
    """The text of a message's content, which is text, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in content or () if isinstance(part, Mapping))


def reference_text(value: Any) -> str:
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


@fast_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """One sampled completion. Frozen and self-contained: it can be scored again from this alone.

    `completion_ids` and `logprobs` have one entry per completion token (natural logarithms under the
    sampling policy, at the sampling temperature); both are empty when only the text is known.
    `finish_reason` is "stop" (ended by itself), "length" (cut at the limit) or "" (unknown).
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
    def is_truncated(self) -> bool:
        return self.finish_reason == "length"
