"""From data set rows to conversations: prompt and answer, or a whole chat in one column."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.config.sft import SFTRowsConfig
from verl_lite.engine.data.prompts import row_messages
from verl_lite.engine.sft.chat_template import Conversation
from verl_lite.errors import DataError
from verl_lite.plugins import Message

Row = Mapping[str, Any]


def conversation_of(row: Row, index: int, data: DatasetConfig, rows: SFTRowsConfig) -> Conversation:
    """The chat of row `index`. Raises DataError for columns that are not a chat, an answer or tools."""
    name = str(row.get("id", index))
    if rows.messages:
        messages = _chat(row[rows.messages], name, rows.messages)
        if data.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, Message(role="system", content=data.system_prompt))
    else:
        answer = row[rows.answer]
        if not isinstance(answer, str) or not answer:
            raise DataError(f"row {name}: expected text in column {rows.answer!r}, got {answer!r:.80}")
        messages = [*row_messages(row, data), Message(role="assistant", content=answer)]
    tools = _tools(row[rows.tools], name, rows.tools) if rows.tools else None
    return Conversation(id=name, messages=messages, tools=tools, columns=row)


def _chat(value: Any, name: str, column: str) -> list[Message]:
    is_list = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
    if not is_list or not all(isinstance(m, Mapping) and isinstance(m.get("role"), str) for m in value):
        raise DataError(
            f"row {name}, column {column!r}: expected a list of messages {{role, content}}, got {value!r:.80}"
        )
    # Parquet fills missing keys of a message with None; a tool call may have no content
    return [
        cast(Message, {"content": "", **{key: part for key, part in message.items() if part is not None}})
        for message in value
    ]


def _tools(value: Any, name: str, column: str) -> list[Mapping[str, Any]] | None:
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise DataError(f"row {name}, column {column!r}: not valid JSON: {error}") from None
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(tool, Mapping) for tool in value):
        raise DataError(f"row {name}, column {column!r}: expected a list of tools, got {value!r:.80}")
    return value
