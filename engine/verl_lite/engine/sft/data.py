"""The rows of SFT, for training and validation: read, rendered, masked and checked."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.config.sft import SFTRowsConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.rows import iterate_rows
from verl_lite.engine.data.store import RowStore
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.rundir.fingerprints import data_digest
from verl_lite.engine.sft.examples import ExampleBuilder, SFTExample, describe_example
from verl_lite.engine.sft.faults import raise_faults
from verl_lite.engine.sft.responses import Conversation, ResponseFinder
from verl_lite.engine.sft.rows import conversation_of
from verl_lite.engine.types import PromptRow
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import ToolSchema
from verl_lite.plugins.paths import dig


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTSource:
    """The examples of one source, and its weight before and in the decay phase."""

    name: str
    examples: Sequence[SFTExample]
    weight: float = 1.0
    decay_weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTData:
    """`validation` is never trained on; `prompts` are its questions. `digest` is of the training examples."""

    sources: Sequence[SFTSource]
    validation: Sequence[SFTExample] = ()
    prompts: Sequence[PromptRow] = ()
    notes: Sequence[str] = ()
    digest: str = ""

    @property
    def num_examples(self) -> int:
        return sum(len(source.examples) for source in self.sources)


@dataclass(frozen=True, slots=True)
class _Unit:
    """The examples of one row, and its conversation if any."""

    examples: Sequence[SFTExample]
    conversation: Conversation | None = None


def read_sft(
    config: TrainConfig,
    template: ChatTemplate,
    *,
    end_ids: Sequence[int] = (),
    tools: Sequence[ToolSchema] = (),
) -> SFTData:
    """Read every source of `config.sft`; a turn ends with eos or one of `end_ids`.

    Rows without tools of their own show `tools`, as the prompts of RL do.
    Raises DataError for faulty rows and masks.
    """
    sft = config.sft
    finder = ResponseFinder(
        template,
        end_ids=end_ids,
        named=sft.end_of_turn,
        closes_reasoning=sft.without_reasoning == "close",
    )
    reader = _Reader(config, finder, tools)
    sources, validation = _read_sources(config, reader)
    if sft.validation is not None and sft.validation.data is not None:
        validation = reader.units(sft.validation.data, sft)
    asked = [unit.conversation for unit in validation if unit.conversation is not None]
    return SFTData(
        sources=sources,
        validation=[example for unit in validation for example in unit.examples],
        prompts=[_prompt(finder, chat) for chat in asked[: sft.validation.samples if sft.validation else 0]],
        notes=reader.notes(sources[0].examples[0]),
        digest=data_digest(
            [source.name, list(example.input_ids), list(example.weights_T)]
            for source in sources
            for example in source.examples
        ),
    )


def _read_sources(config: TrainConfig, reader: "_Reader") -> tuple[list[SFTSource], Sequence[_Unit]]:
    """Each source's examples to train on, and the units held out of all."""
    sources: list[SFTSource] = []
    validation: list[_Unit] = []
    parts: dict[str, tuple[DatasetConfig, SFTRowsConfig, float, float]] = {
        name: (part.data, part, part.weight, part.weight_in("decay_weight"))
        for name, part in config.sft.mixture.items()
    } or {"sft": (config.sft.data or _only_data(config), config.sft, 1.0, 1.0)}
    for name, (data, rows, weight, decay_weight) in parts.items():
        kept, held_out = _split(reader.units(data, rows), config, name)
        validation += held_out
        examples = RowStore(example for unit in kept for example in unit.examples)
        sources.append(SFTSource(name=name, examples=examples, weight=weight, decay_weight=decay_weight))
    return sources, validation


def _only_data(config: TrainConfig) -> DatasetConfig:
    """data.train, if it is one data set."""
    if isinstance(config.data.train, DatasetConfig):
        return config.data.train
    raise ConfigError("data.train has several data sets: name those of SFT in sft.data or sft.mixture")


class _Reader:
    def __init__(self, config: TrainConfig, finder: ResponseFinder, tools: Sequence[ToolSchema]) -> None:
        self._config = config
        self._tools = tools
        self._finder = finder
        limit = config.sft.max_tokens or config.rollout.context_tokens
        self._builder = ExampleBuilder(finder, config.sft, max_tokens=limit)
        self._num_dropped = 0

    def units(self, data: DatasetConfig, rows: SFTRowsConfig) -> RowStore[_Unit]:
        units = RowStore(self._units(data, rows))
        raise_faults(self._builder.faults, source=data.source)
        if not units:
            raise DataError(f"{data.source}: no row is left to train on; raise sft.max_tokens")
        return units

    def _units(self, data: DatasetConfig, rows: SFTRowsConfig) -> Iterator[_Unit]:
        column = rows.text or rows.messages or ("" if data.format else rows.answer)
        needed = [name for name in (column, rows.tools) if name]
        asks = not (rows.text or rows.messages or data.format)
        found = iterate_rows(data, seed=self._config.seed, needed=needed, asks=asks)
        for index, (_, row) in enumerate(found):
            unit = self._text(row, index, rows.text) if rows.text else self._chat(row, index, data, rows)
            if unit.examples:
                yield unit
            else:
                self._num_dropped += 1

    def _text(self, row: Any, index: int, column: str) -> _Unit:
        text = dig(row, column)
        if not isinstance(text, str) or not text:
            raise DataError(f"row {index}: expected text in column {column!r}, got {text!r:.80}")
        return _Unit(list(self._builder.from_text(str(index), text)))

    def _chat(self, row: Any, index: int, data: DatasetConfig, rows: SFTRowsConfig) -> _Unit:
        chat = conversation_of(row, index, data, rows, tools=self._tools)
        drops = data.overlong == "drop"
        return _Unit(self._builder.from_chat(chat, rows, drop_overlong=drops), chat)

    def notes(self, first: SFTExample) -> list[str]:
        """Notes for the user: the first example, decoded, and rewritten or dropped rows."""
        lines = ["SFT, the first row: only what is marked + is trained on"]
        for trained, text in describe_example(first, self._finder.tokenizer):
            lines.append(f"  {'+' if trained else '-'} {text!r}")
        if self._builder.num_rewritten:
            lines.append(
                f"SFT: {self._builder.num_rewritten} chats have turns that the chat template shows "
                "differently later, or without their reasoning; each turn of these becomes a row, as the "
                "model sees it at inference"
            )
        if self._num_dropped:
            lines.append(f"SFT: {self._num_dropped} rows are too long and left out (overlong: drop)")
        return lines


def _split(units: Sequence[_Unit], config: TrainConfig, name: str) -> tuple[Iterator[_Unit], Sequence[_Unit]]:
    """(rows to train on, rows held out) by `sft.validation.fraction`."""
    validation = config.sft.validation
    if validation is None or not validation.fraction:
        return iter(units), []
    count = max(round(validation.fraction * len(units)), 1)
    if count >= len(units):
        raise DataError(f"sft.validation.fraction={validation.fraction} leaves nothing of {len(units)} rows")
    chosen = set(random.Random(f"sft validation:{config.seed}:{name}").sample(range(len(units)), count))
    kept = (unit for at, unit in enumerate(units) if at not in chosen)
    return kept, [unit for at, unit in enumerate(units) if at in chosen]


def _prompt(finder: ResponseFinder, chat: Conversation) -> PromptRow:
    """The chat up to its last answer, ready to sample from."""
    turn = chat.assistant_turns[-1]
    reference = chat.columns.get("reference")
    text = finder.render(chat, turn, for_inference=True)
    return PromptRow(
        id=chat.id,
        messages=chat.messages[:turn],
        prompt_ids=finder.tokens(text).ids,
        reference=None if reference is None else str(reference),
        columns=chat.columns,
    )
