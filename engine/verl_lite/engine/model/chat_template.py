"""The model's chat template: one way to render a conversation, for every stage that shows the model one.

Departures from calling the template plainly: the date it writes is fixed for the run; nothing of a
conversation may be missing from the text; a template that reads content as a list of parts gets parts.
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from verl_lite.engine.types import Tokenizer
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import Message

ROLES = ("system", "developer", "user", "assistant", "tool")
PROBE = "verlprobe"
END_OF_REASONING = "</think>"
OPENED_BLOCK = re.compile(r"(<\w+>)(\s*)$")  # a generation prompt that ends with <think>
SWITCH = re.compile(r"(?<!<)/(no_?)?think\b")  # SmolLM3's template takes these out of the text
ROW_ARGUMENTS = "chat_template_kwargs"
NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})
_WRAPPERS = {
    "__call__": "transformers.tokenization_utils_base",
    "decode": "transformers.tokenization_utils_base",
    "_encode_plus": "transformers.tokenization_utils_tokenizers",
    "_decode": "transformers.tokenization_utils_tokenizers",
}


class ChatTemplate:
    """Renders conversations with one tokenizer.

    `arguments` are variables of the template (`enable_thinking`), `today` is the date that it writes.
    Raises ConfigError for arguments that the template never reads.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, arguments: Mapping[str, Any] = NO_ARGUMENTS, today: date | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self._today = today or date.today()
        self._given = arguments
        self._arguments = {"strftime_now": datetime.combine(self._today, time()).strftime, **arguments}
        self._source = template_source(tokenizer)
        self._check_arguments(arguments)
        self._is_plain = _adds_nothing(tokenizer)
        self._takes_parts: bool | None = None
        self._of_rows: dict[str, ChatTemplate] = {}

    def of_row(self, columns: Mapping[str, Any], *, where: str) -> "ChatTemplate":
        """The template with the variables in the row's column `chat_template_kwargs` too, as TRL has them.

        Raises DataError for what is no mapping, or a variable that the template never reads.
        """
        given = columns.get(ROW_ARGUMENTS)
        if not given:
            return self
        key = json.dumps(given, sort_keys=True, default=str)
        if key not in self._of_rows:
            here = f"{where}, column {ROW_ARGUMENTS!r}"
            try:
                value = json.loads(given) if isinstance(given, str) else given
                own = {name: one for name, one in value.items() if one is not None}  # Arrow fills gaps
                merged = {**self._given, **own}
                self._of_rows[key] = ChatTemplate(self.tokenizer, arguments=merged, today=self._today)
            except ConfigError as error:
                raise DataError(f"{here}: {str(error).partition(': ')[2]}") from None
            except (ValueError, AttributeError):
                raise DataError(
                    f"{here}: expected an object of template variables, got {given!r:.80}"
                ) from None
        return self._of_rows[key]

    def render(
        self,
        messages: Sequence[Message],
        *,
        where: str,
        tools: Sequence[Mapping[str, Any]] | None = None,
        for_inference: bool = False,
        may_lose: bool = False,
    ) -> str:
        """The conversation as text; `for_inference` adds how an assistant turn begins.

        Raises DataError, which begins with `where`, when the template refuses it, or leaves a part of it out
        (unless `may_lose`). Reasoning of assistant turns may always be left out.
        """
        self._check_roles(messages, where)
        text = self._rendered(messages, tools=tools, for_inference=for_inference, where=where)
        if not _is_unicode(text):
            raise DataError(
                f"{where}: the text has half of a surrogate pair (\\ud800 to \\udfff): repair the row"
            )
        missing = "" if may_lose else _missing(messages, tools or (), text)
        if missing:
            raise DataError(f"{where}: the chat template leaves out {missing}: the model would never see it")
        return text

    def prompt_ids(
        self, messages: Sequence[Message], *, where: str, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """The token ids of `render` for inference."""
        return self.encode(self.render(messages, where=where, tools=tools, for_inference=True))

    def encode(self, text: str) -> list[int]:
        """The token ids of rendered text: the template has written the special tokens."""
        tokenizer = self.tokenizer
        if self._is_plain:
            backend = tokenizer.backend_tokenizer
            splits = backend.encode_special_tokens != tokenizer.split_special_tokens
            if not (backend.truncation or backend.padding or splits):
                return list(backend.encode(text, add_special_tokens=False).ids)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        tokenizer = self.tokenizer
        if self._is_plain and not tokenizer.clean_up_tokenization_spaces:
            tokenizer = tokenizer.backend_tokenizer
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    def assistant_mask(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[bool]:
        """Whether each token is inside the template's {% generation %} marks."""
        coded = self.tokenizer.apply_chat_template(
            self._as_read(messages),
            tools=list(tools) if tools else None,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **self._arguments,
        )
        return [bool(bit) for bit in coded["assistant_masks"]]

    def _rendered(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None,
        for_inference: bool,
        where: str,
    ) -> str:
        from jinja2 import TemplateError

        def apply(chat: list[Any]) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    chat,
                    tools=list(tools) if tools else None,
                    add_generation_prompt=for_inference,
                    tokenize=False,
                    **self._arguments,
                )
            )

        chat = self._as_read(messages)
        try:
            try:
                return apply(chat)
            except TypeError:  # some templates join a call's arguments as text, as OpenAI sends them
                if not any(message.get("tool_calls") for message in messages):
                    raise
                return apply([_with_arguments_as_text(message) for message in chat])
        except (TemplateError, TypeError, KeyError, ValueError, AttributeError) as error:
            roles = ", ".join(message["role"] for message in messages)
            raise DataError(
                f"{where}: the chat template refuses a chat of {roles}: {error}{_advice(messages)}"
            ) from None

    def _as_read(self, messages: Sequence[Message]) -> list[Any]:
        """The messages as the template reads content: text, or a list of parts."""
        if self._takes_parts is None:
            self._takes_parts = not self._shows(PROBE) and self._shows([{"type": "text", "text": PROBE}])
        if not self._takes_parts:
            return list(messages)
        return [
            {**message, "content": [{"type": "text", "text": message.get("content") or ""}]}
            for message in messages
        ]

    def _shows(self, content: Any) -> bool:
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, **self._arguments
            )
        except (TemplateError, TypeError, KeyError, ValueError, AttributeError):
            return False
        return PROBE in str(text)

    def _check_roles(self, messages: Sequence[Message], where: str) -> None:
        for message in messages:
            role = message["role"]
            if role not in ROLES and not re.search(rf"['\"]{re.escape(role)}['\"]", self._source):
                raise DataError(
                    f"{where}: the chat template knows no role {role!r}; expected one of {', '.join(ROLES)}"
                )

    def _check_arguments(self, arguments: Mapping[str, Any]) -> None:
        for name in arguments:
            if not re.search(rf"\b{re.escape(name)}\b", self._source):
                raise ConfigError(
                    f"data.template_kwargs: the chat template of this model never reads {name!r}; remove it, "
                    "or set data.chat_template to a template that does"
                )


def _adds_nothing(tokenizer: Tokenizer) -> bool:
    """Whether its class encodes and decodes as its backend does: transformers' wrapper costs as much."""
    kind = type(tokenizer)
    return all(
        getattr(getattr(kind, way, None), "__module__", "") == wrapper for way, wrapper in _WRAPPERS.items()
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def template_source(tokenizer: Tokenizer) -> str:
    """The text of all templates of the tokenizer."""
    found = tokenizer.chat_template
    return "\n".join(found.values()) if isinstance(found, dict) else str(found)


def _advice(messages: Sequence[Message]) -> str:
    roles = [message["role"] for message in messages]
    if any(role in ("system", "developer") for role in roles):
        return "; if it takes no system message, put that text into the user's (prompt_template does so)"
    if any(one == other for one, other in pairwise(roles)) or roles[0] != "user":
        return "; if user and assistant must alternate, join turns of the same role"
    return "; data.chat_template names another template"


def _with_arguments_as_text(message: Any) -> Any:
    calls = message.get("tool_calls")
    if not calls:
        return message
    made = []
    for call in calls:
        function = call.get("function", call)
        text = json.dumps(function.get("arguments"), ensure_ascii=False)
        changed = {**function, "arguments": text}
        made.append({**call, "function": changed} if "function" in call else changed)
    return {**message, "tool_calls": made}


def _missing(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], text: str) -> str:
    """What of the conversation is not in its rendering, in words; "" when nothing is missing."""
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            return f"the tool {name!r}"
    for index, message in enumerate(messages):
        content = SWITCH.sub("", str(message.get("content") or ""))
        if message["role"] == "assistant":
            content = content.rpartition(END_OF_REASONING)[2]
        if not is_within(content, text):
            return f"message {index} ({message['role']}: {content.strip()!r:.60})"
        for call in message.get("tool_calls") or ():
            name = str(call.get("function", call).get("name", ""))
            if name not in text:
                return f"the call of {name!r} in message {index}"
    return ""


def opened_block(prompt: str) -> str:
    """The tag that the prompt of inference opens at its end (<think>); "" if it opens none."""
    found = OPENED_BLOCK.search(prompt)
    return found.group(1) if found else ""


def closing_tag(tag: str) -> str:
    """The tag that closes the block of `tag`."""
    return f"</{tag[1:]}"


def behind_prompt(prompt: str, answer: str) -> str:
    """The answer as it follows `prompt`: without the tag that the prompt has already opened."""
    found = OPENED_BLOCK.search(prompt)
    if found is None or not answer.lstrip().startswith(found.group(1)):
        return answer
    return answer.lstrip().removeprefix(found.group(1)).removeprefix(found.group(2))


def is_within(part: str, text: str) -> bool:
    """Whether `text` has `part`, or at least all its words in this order (some templates write JSON)."""
    return part.strip() in text or end_of_words(part, text) >= 0


def end_of_words(part: str, text: str) -> int:
    """Where the last word of `part` ends in `text`, which has its words in order; -1 if it has not."""
    at = 0
    words = re.findall(r"\w+", part)
    for word in words:
        found = text.find(word, at)
        if found < 0:
            return -1
        at = found + len(word)
    return at if words else -1
