"""From data set rows to conversations: prompt and answer, or a whole chat in one column."""

from collections.abc import Mapping
from typing import Any

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.config.sft import SFTRowsConfig
from verl_lite.engine.data.messages import refuse_media, to_messages, to_tools
from verl_lite.engine.data.prompts import row_messages, row_tools
from verl_lite.engine.sft.responses import Conversation
from verl_lite.errors import DataError
from verl_lite.plugins import Message

Row = Mapping[str, Any]


def conversation_of(row: Row, index: int, data: DatasetConfig, rows: SFTRowsConfig) -> Conversation:
    """The chat of row `index`. Raises DataError for columns that are not a chat, an answer or tools."""
    name = str(row.get("id", index))
    where = f"row {name}"
    if rows.messages:
        refuse_media(row, where=where)
        messages = _chat(row[rows.messages], where=f"{where}, column {rows.messages!r}")
        if data.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, Message(role="system", content=data.system_prompt))
    else:
        answer = row[rows.answer]
        if not answer:
            raise DataError(f"{where}: expected text in column {rows.answer!r}, got {answer!r:.80}")
        messages = [*row_messages(row, data, where=where), *_answer(answer, where, rows.answer)]
    if rows.tools:
        tools = to_tools(row[rows.tools], where=f"{where}, column {rows.tools!r}")
    else:
        tools = row_tools(row, data, where=where)
    return Conversation(id=name, messages=messages, tools=tools or None, columns=row)


def _chat(value: Any, *, where: str) -> list[Message]:
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        raise DataError(f"{where}: expected a list of messages {{role, content}}, got {value!r:.80}")
    return to_messages(value, where=where)


def _answer(value: Any, where: str, column: str) -> list[Message]:
    """The answer: text, or the messages that follow the prompt (TRL's `completion`)."""
    if isinstance(value, str):
        return [Message(role="assistant", content=value)]
    if isinstance(value, list):
        return to_messages(value, where=f"{where}, column {column!r}")
    raise DataError(f"{where}: expected text in column {column!r}, got {value!r:.80}")
