"""From data set rows to conversations: prompt and answer, or a whole chat in one column."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.config.sft import SFTRowsConfig
from verl_lite.engine.data.messages import refuse_media, to_messages, to_tools
from verl_lite.engine.data.prompts import row_messages, row_tools, with_system
from verl_lite.engine.data.rows import no_column
from verl_lite.engine.sft.responses import Conversation
from verl_lite.errors import DataError
from verl_lite.lab.formats import DATA_SETS
from verl_lite.lab.reading import Row
from verl_lite.plugins import Message, ToolSchema
from verl_lite.plugins.paths import MISSING, dig


def conversation_of(
    row: Row, index: int, data: DatasetConfig, rows: SFTRowsConfig, *, tools: Sequence[ToolSchema] = ()
) -> Conversation:
    """The chat of row `index`, with its own tools or `tools`.

    Raises DataError for columns that are not a chat, an answer or tools.
    """
    name = str(row.get("id", index))
    where = f"row {name}"
    column, answer = _columns(row, data, rows)
    if column:
        refuse_media(row, where=where)
        value = _present(row, column, where)
        messages = with_system(_chat(value, where=f"{where}, column {column!r}"), row, data)
    else:
        asked = row_messages(row, data, where=where)
        messages = [*asked, *_answer(_present(row, answer, where), where, answer)]
    if rows.tools:
        own = to_tools(_present(row, rows.tools, where), where=f"{where}, column {rows.tools!r}")
    else:
        own = row_tools(row, data, where=where)
    shown = own or cast(Sequence[Mapping[str, Any]], tools)
    return Conversation(id=name, messages=messages, tools=shown or None, columns=row)


def _columns(row: Row, data: DatasetConfig, rows: SFTRowsConfig) -> tuple[str, str]:
    """(the column with the whole chat or "", the column with the answer), by config or format."""
    if rows.messages or data.format is None:
        return rows.messages, rows.answer
    if data.has_whole_chats:
        return data.prompt, ""
    fields = DATA_SETS[data.format]
    chat = next((name for name in fields.messages if name in row), "")
    return chat, "" if chat else next(iter(fields.completion), rows.answer)


def _present(row: Row, column: str, where: str) -> Any:
    value = dig(row, column)
    if value is MISSING:
        raise DataError(f"{where}: {no_column(column, row)}")
    return value


def _chat(value: Any, *, where: str) -> list[Message]:
    if isinstance(value, str) and not value.lstrip().startswith("[{"):
        raise DataError(f"{where}: expected a list of messages {{role, content}}, got {value!r:.80}")
    return to_messages(value, where=where)


def _answer(value: Any, where: str, column: str) -> list[Message]:
    """The answer: text, or the messages that follow the prompt (TRL's `completion`)."""
    if isinstance(value, str) and value:
        return [Message(role="assistant", content=value)]
    if isinstance(value, list):
        return to_messages(value, where=f"{where}, column {column!r}")
    raise DataError(f"{where}: expected text in column {column!r}, got {value!r:.80}")
