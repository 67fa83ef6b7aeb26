"""Data set rows to prompts: read, check the columns, apply the chat template, shuffle by seed."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from verl_lite.engine.config.data import DatasetConfig, Task
from verl_lite.engine.data.arithmetic import arithmetic_rows
from verl_lite.engine.data.messages import refuse_media, to_messages, to_tools
from verl_lite.engine.data.word_problems import sum_rows, word_problem_rows
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.types import PromptRow
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import Message, reference_text

Row = Mapping[str, Any]
TASKS: Mapping[Task, Callable[..., Iterator[Row]]] = {
    "arithmetic": arithmetic_rows,
    "sums": sum_rows,
    "word_problems": word_problem_rows,
}


def read_rows(
    config: DatasetConfig, *, seed: int, needed: Iterable[str] = (), asks: bool = True
) -> list[Row]:
    """The rows of the data set, at most `num_rows`. Raises DataError for a missing file or column.

    With `asks` the columns of prompt and reference are required too.
    """
    source, rows = _open(config, seed=seed)
    taken: list[Row] = []
    for row in rows:
        if config.num_rows and len(taken) == config.num_rows:
            break
        taken.append(row)
    if not taken:
        raise DataError(f"{source} has no rows")
    wanted = [config.prompt] if asks and config.prompt and not config.prompt_template else []
    wanted += [config.reference] if asks and config.reference else []
    for column in dict.fromkeys([*wanted, *needed]):
        for index, row in enumerate(taken):
            if column not in row:
                raise DataError(f"{source}, row {index}: no column {column!r}; it has {', '.join(row)}")
    return taken


def _open(config: DatasetConfig, *, seed: int) -> tuple[str, Iterable[Row]]:
    if config.task is not None:
        num_rows = config.num_rows or 1000
        split = cast(Any, config.split)
        try:
            return f"the task {config.task}", list(TASKS[config.task](split, num_rows=num_rows, seed=seed))
        except ValueError as error:
            raise ConfigError(f"the task {config.task}: {error}; lower num_rows") from None
    if config.hub is not None:
        return f"{config.hub} ({config.split})", _hub_rows(config)
    path = Path(config.path or "")
    if not path.is_file():
        raise DataError(f"there is no data file {path} (looked from {Path.cwd()})")
    return str(path), _jsonl_rows(path) if path.suffix == ".jsonl" else _parquet_rows(path)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number} is not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}:{number}: expected an object, got {type(row).__name__}")
            yield row


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a Parquet file: {error}") from None
    with file:
        for batch in file.iter_batches(batch_size=1024):
            yield from batch.to_pylist()


def _hub_rows(config: DatasetConfig) -> Iterable[Row]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        return cast(Iterable[Row], datasets.load_dataset(config.hub, config.hub_subset, split=config.split))
    except (DatasetNotFoundError, ValueError, OSError) as error:
        raise DataError(f"cannot load the data set {config.hub!r} ({config.split}): {error}") from None


def row_messages(row: Row, config: DatasetConfig, *, where: str = "the row") -> list[Message]:
    """The row's prompt as a chat. Raises DataError if it is neither text nor a chat, or has images."""
    refuse_media({key: value for key, value in row.items() if key not in config.ignore}, where=where)
    if config.prompt_template:
        try:
            messages = to_messages(config.prompt_template.format_map(row), where=where)
        except KeyError as error:
            raise DataError(f"prompt_template names {error}; the row has {', '.join(row)}") from None
    else:
        messages = to_messages(row[config.prompt], where=f"{where}, column {config.prompt!r}")
    if config.system_prompt and messages[0]["role"] != "system":
        messages.insert(0, Message(role="system", content=config.system_prompt))
    return messages


def row_tools(row: Row, config: DatasetConfig, *, where: str = "the row") -> list[Mapping[str, Any]]:
    """The row's tools for the chat template. Raises DataError if they are none."""
    if not config.tools or config.tools in config.ignore:
        return []
    return to_tools(row.get(config.tools), where=f"{where}, column {config.tools!r}")


def read_prompts(
    config: DatasetConfig,
    template: ChatTemplate,
    *,
    max_prompt_tokens: int,
    seed: int,
    needed: Iterable[str] = (),
) -> list[PromptRow]:
    """The data set's rows as prompts, by the model's chat template.

    Prompts longer than `max_prompt_tokens` are dropped with overlong=drop. Raises DataError otherwise, and
    if no row is left.
    """
    rows = read_rows(config, seed=seed, needed=needed)
    source = config.path or config.hub or config.task or ""
    prompts = []
    for index, row in enumerate(rows):
        where = f"{source}, row {index}"
        messages = row_messages(row, config, where=where)
        tools = row_tools(row, config, where=where)
        ids = template.prompt_ids(messages, where=where, tools=tools)
        if len(ids) <= max_prompt_tokens:
            prompts.append(_prompt_row(row, config, messages, ids, index=index))
        elif config.overlong == "error":
            raise DataError(
                f"{where}: the prompt has {len(ids)} tokens, more than "
                f"rollout.max_prompt_tokens={max_prompt_tokens}; raise it, or set overlong: drop"
            )
    if not prompts:
        raise DataError(
            f"{source}: all {len(rows)} prompts are longer than rollout.max_prompt_tokens="
            f"{max_prompt_tokens}, so no row is left; raise it"
        )
    _check_ids(prompts, source)
    return prompts


def _prompt_row(
    row: Row, config: DatasetConfig, messages: Sequence[Message], prompt_ids: Sequence[int], *, index: int
) -> PromptRow:
    reference = _reference(row, config)
    return PromptRow(
        id=str(row.get("id", index)),
        messages=messages,
        prompt_ids=prompt_ids,
        reference=None if reference is None else reference_text(reference),
        columns=row if reference is None else {**row, "reference": reference},
    )


def _reference(row: Row, config: DatasetConfig) -> str | list[str] | None:
    """The reference, or the accepted ones where the column holds a list."""
    given = row[config.reference] if config.reference else None
    if isinstance(given, (list, tuple)):
        return [_one_reference(item, config) for item in given if item is not None]
    return None if given is None else _one_reference(given, config)


def _one_reference(given: object, config: DatasetConfig) -> str:
    text = str(given)
    if config.reference_after:
        _, found, text = text.rpartition(config.reference_after)
        if not found:
            raise DataError(f"the reference {given!r:.80} lacks {config.reference_after!r}")
    return text.strip()


def _check_ids(prompts: Sequence[PromptRow], source: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(
                f"{source}: two rows have id={prompt.id!r}; ids group samples, so they must differ"
            )
        seen.add(prompt.id)


class PromptStream:
    """Endless prompts, each epoch in a new order that follows from the seed.

    A batch never contains a prompt twice, even across epochs. `state_dict` is the exact position.
    """

    def __init__(self, prompts: Sequence[PromptRow], *, seed: int) -> None:
        self._prompts = prompts
        self._seed = seed
        self.epoch = 0
        self._remaining = self._order(epoch=0)

    def _order(self, *, epoch: int) -> list[int]:
        order = list(range(len(self._prompts)))
        random.Random(f"prompts:{self._seed}:{epoch}").shuffle(order)
        return order

    @property
    def num_rows(self) -> int:
        return len(self._prompts)

    def take(self, num_prompts: int, *, besides: Sequence[PromptRow] = ()) -> list[PromptRow]:
        """The next prompts, except those in use (`besides`). ConfigError if there are too few rows."""
        if num_prompts + len(besides) > len(self._prompts):
            raise ConfigError(
                f"rollout.num_prompts={num_prompts} is more than the {len(self._prompts)} rows there are"
            )
        before = {prompt.id for prompt in besides}
        batch: list[int] = []
        while True:
            skipped: list[int] = []
            at = 0
            while at < len(self._remaining) and len(batch) < num_prompts:
                index = self._remaining[at]
                taken = index in batch or self._prompts[index].id in before
                (skipped if taken else batch).append(index)
                at += 1
            self._remaining = skipped + self._remaining[at:]
            if len(batch) == num_prompts:
                break
            self.epoch += 1
            fresh = self._order(epoch=self.epoch)
            # prompts in use come last: no group may be in flight twice
            in_use = {i for i in fresh if i in batch or self._prompts[i].id in before}
            self._remaining += [i for i in fresh if i not in in_use] + [i for i in fresh if i in in_use]
        return [self._prompts[index] for index in batch]

    def find(self, ids: Sequence[str]) -> list[PromptRow]:
        """The prompts with these ids, in the data's order. Raises ConfigError for an unknown id."""
        wanted = set(ids)
        found = [prompt for prompt in self._prompts if prompt.id in wanted]
        if len(found) != len(wanted):
            missing = ", ".join(sorted(wanted - {prompt.id for prompt in found}))
            raise ConfigError(f"the checkpoint is of other training rows: there is no row with id {missing}")
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "remaining": list(self._remaining), "num_rows": len(self._prompts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if state["num_rows"] != len(self._prompts):
            raise ConfigError(
                f"the checkpoint was made with {state['num_rows']} training rows, the data now has "
                f"{len(self._prompts)}: resume with the same data"
            )
        self.epoch = state["epoch"]
        self._remaining = list(state["remaining"])
