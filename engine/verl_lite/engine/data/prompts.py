"""Rows to prompts: messages, tools, the chat template, the right answer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from verl_lite.engine.config.data import DatasetConfig, TrainSourceConfig
from verl_lite.engine.data.messages import refuse_media, to_messages, to_tools
from verl_lite.engine.data.rows import iterate_rows, reference_of
from verl_lite.engine.data.store import RowStore
from verl_lite.engine.data.stream import PromptSource
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.types import PromptRow
from verl_lite.errors import DataError
from verl_lite.lab.reading import Row
from verl_lite.plugins import Message, ToolSchema, reference_text
from verl_lite.plugins.paths import dig

SYSTEM_COLUMNS = ("system", "system_prompt")  # ShareGPT's and Orca's; Nemotron's


def row_messages(row: Row, config: DatasetConfig, *, where: str = "the row") -> list[Message]:
    """The row's prompt as a chat. Raises DataError if it is neither text nor a chat, or has images."""
    refuse_media(row, where=where)
    if config.prompt_template:
        text = fill_template(config.prompt_template, row, setting="prompt_template", where=where)
        messages = to_messages(text, where=where)
    else:
        messages = to_messages(dig(row, config.prompt), where=f"{where}, column {config.prompt!r}")
    return with_system(messages, row, config)


def fill_template(template: str, columns: Mapping[str, Any], *, setting: str, where: str) -> str:
    """The text of a setting with its {columns} filled in. Raises DataError where they do not fit the row."""
    try:
        return template.format_map(columns)
    except KeyError as error:
        raise DataError(f"{setting} names {error}; the row has {', '.join(columns)}") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        raise DataError(f"{where}: {setting} does not fit: {error} (a brace is {{{{ or }}}})") from None


def with_system(messages: list[Message], row: Row, config: DatasetConfig) -> list[Message]:
    """The chat with its system message: its own, that of the row's column, or the config's."""
    own = (text for name in SYSTEM_COLUMNS if isinstance(text := row.get(name), str) and text)
    text = next(own, config.system_prompt)
    if not text or messages[0]["role"] == "system":
        return messages
    return [Message(role="system", content=text), *messages]


def row_tools(row: Row, config: DatasetConfig, *, where: str = "the row") -> list[Mapping[str, Any]]:
    """The row's tools for the chat template. Raises DataError if they are none."""
    if not config.tools:
        return []
    return to_tools(row.get(config.tools), where=f"{where}, column {config.tools!r}")


def read_prompts(
    config: DatasetConfig,
    template: ChatTemplate,
    *,
    max_prompt_tokens: int,
    seed: int,
    needed: Iterable[str] = (),
    tools: Sequence[ToolSchema] = (),
) -> RowStore[PromptRow]:
    """The data set's rows as prompts, by the model's chat template; they are not kept in memory.

    `tools` are shown to the model besides those of the rows. Prompts longer than `max_prompt_tokens` are
    dropped with overlong=drop. Raises DataError otherwise, and if no row is left.
    """
    found = _Prompts(config, template, max_prompt_tokens, tools=tools)
    prompts = RowStore(found.read(seed=seed, needed=needed))
    found.check()
    prompts.notes += found.notes()
    return prompts


def read_sources(
    configs: Sequence[TrainSourceConfig],
    template: ChatTemplate,
    *,
    max_prompt_tokens: int,
    seed: int,
    source_column: str,
    tools: Sequence[ToolSchema] = (),
) -> tuple[RowStore[PromptRow], list[PromptSource]]:
    """The prompts of several data sets, one after the other, and which are whose; as `read_prompts`.

    Rows without a column `source_column` get one with the name of their data set.
    """
    sources: list[PromptSource] = []
    notes: list[str] = []

    def prompts() -> Iterator[PromptRow]:
        start = 0
        for config in configs:
            found = _Prompts(
                config, template, max_prompt_tokens, tools=tools, name=(source_column, config.name)
            )
            yield from found.read(seed=seed, needed=())
            found.check()
            notes.extend(found.notes())
            rows = range(start, start + found.num_kept)
            sources.append(PromptSource(name=config.name, weight=config.weight, rows=rows))
            start = rows.stop

    store = RowStore(prompts())
    store.notes += notes
    return store, sources


class _Prompts:
    """Reads the prompts of one data set, and counts what is left out."""

    def __init__(
        self,
        config: DatasetConfig,
        template: ChatTemplate,
        max_tokens: int,
        *,
        tools: Sequence[ToolSchema],
        name: tuple[str, str] | None = None,
    ) -> None:
        self._config, self._template, self._max_tokens = config, template, max_tokens
        self._name = name
        self._tools = cast(Sequence[Mapping[str, Any]], tools)
        self._ids: set[str] = set()
        self._num_rows = self._num_long = self._num_without_reference = 0
        self._first_long = ""

    @property
    def num_kept(self) -> int:
        return self._num_rows - self._num_long

    def read(self, *, seed: int, needed: Iterable[str]) -> Iterator[PromptRow]:
        config = self._config
        for where, row in iterate_rows(config, seed=seed, needed=needed):
            messages = _asked(row_messages(row, config, where=where), config, where)
            tools = row_tools(row, config, where=where)
            if tools and self._tools:
                raise DataError(
                    f"{where} has tools in column {config.tools!r}, which are only shown to the model, and "
                    "the config has `tools` that answer it: leave one of them out (for the data: tools: '')"
                )
            tools = tools or list(self._tools)
            template = self._template.of_row(row, where=where)
            ids = template.prompt_ids(messages, where=where, tools=tools)
            if not ids:
                raise DataError(
                    f"{where}: the prompt has no tokens: the tokenizer or the chat template loses its text"
                )
            if len(ids) <= self._max_tokens:
                yield self._prompt(row, messages, ids, where=where)
            else:
                self._num_long += 1
                self._first_long = self._first_long or f"{where}: the prompt has {len(ids)} tokens"
            self._num_rows += 1

    def _prompt(self, row: Row, messages: Sequence[Message], ids: Sequence[int], *, where: str) -> PromptRow:
        config = self._config
        reference = reference_of(row, config, where=where)
        self._num_without_reference += bool(config.reference) and reference is None
        columns = {name: value for name, value in row.items() if name != "reference" or not config.reference}
        if self._name is not None:
            columns.setdefault(*self._name)
        name = str(row.get("id", self._num_rows))
        if name in self._ids:
            raise DataError(f"{where}: two rows have id={name!r}; ids group samples, so they must differ")
        self._ids.add(name)
        return PromptRow(
            id=name if self._name is None else f"{self._name[1]}:{name}",
            messages=messages,
            prompt_ids=ids,
            reference=None if reference is None else reference_text(reference),
            columns=columns if reference is None else {**columns, "reference": reference},
        )

    def check(self) -> None:
        """Raise DataError for prompts that are too long, unless they are dropped and others are left."""
        limit = f"rollout.max_prompt_tokens={self._max_tokens}"
        if self._num_long and self._config.overlong == "error":
            raise DataError(
                f"{self._first_long}, more than {limit}, and so have {self._num_long:,} of "
                f"{self._num_rows:,} rows; raise it, or set overlong: drop"
            )
        if self._num_long == self._num_rows:
            raise DataError(
                f"{self._config.source}: all {self._num_rows} prompts are longer than {limit}, so no row is "
                "left; raise it"
            )

    def notes(self) -> list[str]:
        of = f"of {self._num_rows:,} rows of {self._config.source}"
        counts = {
            f"{of} have prompts of more than {self._max_tokens} tokens and are left out": self._num_long,
            f"{of} have no reference: rewards that need one abstain on them": self._num_without_reference,
        }
        return [f"{count:,} {what}" for what, count in counts.items() if count]


def _asked(messages: list[Message], config: DatasetConfig, where: str) -> list[Message]:
    """The chat up to what the model is to answer: whole chats (OpenAI, ShareGPT) end with the answer."""
    asked = list(messages)
    while config.has_whole_chats and asked and asked[-1]["role"] == "assistant":
        asked.pop()
    if not asked or asked[-1]["role"] == "assistant":
        raise DataError(
            f"{where}: the prompt ends with an assistant turn, so there is nothing to answer; "
            "format: openai leaves that turn out"
        )
    return asked
