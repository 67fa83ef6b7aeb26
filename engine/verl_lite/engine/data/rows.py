"""The rows of a data set: read from where the config says, with their columns found and checked."""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, cast

from verl_lite.engine.config.data import GYM, DatasetConfig
from verl_lite.engine.data.arithmetic import arithmetic_rows
from verl_lite.engine.data.products import product_rows
from verl_lite.engine.data.reasoning import reasoning_rows
from verl_lite.engine.data.word_problems import sum_rows, word_problem_rows
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.reading import Row, data_rows
from verl_lite.plugins.paths import MISSING, dig

TASKS: Mapping[str, Callable[..., Iterator[Row]]] = {
    "arithmetic": arithmetic_rows,
    "sums": sum_rows,
    "word_problems": word_problem_rows,
    "products": product_rows,
}


def iterate_rows(
    config: DatasetConfig, *, seed: int, needed: Iterable[str] = (), asks: bool = True
) -> Iterator[tuple[str, Row]]:
    """(place, row) of each row of the data set, at most `num_rows`; `place` is for messages.

    Every row must have the columns `needed` and, with `asks`, that of the prompt; at least one must have that
    of the reference. Raises DataError for missing files and columns, and when there are no rows.
    """
    wanted = [config.prompt] if asks and config.prompt and not config.prompt_template else []
    reference = config.reference if asks else ""
    columns, count, has_reference = dict.fromkeys([*wanted, *needed]), 0, not reference
    row: Row = {}
    for where, row in _open(config, seed=seed):
        if config.num_rows and count == config.num_rows:
            break
        row = {name: value for name, value in row.items() if name not in config.ignore}
        for column in columns:
            if dig(row, column) is MISSING:
                raise DataError(f"{where}: {no_column(column, row)}")
        has_reference = has_reference or dig(row, reference) is not MISSING
        count += 1
        yield where, row
    if not count:
        raise DataError(f"{config.source} has no rows")
    if not has_reference:
        raise DataError(
            f"{config.source}: {no_column(reference, row)}; name the one with the right answer in "
            "reference, or set reference: '' if the rewards need none"
        )


def read_rows(
    config: DatasetConfig, *, seed: int, needed: Iterable[str] = (), asks: bool = True
) -> list[Row]:
    """The rows of `iterate_rows`, in memory."""
    return [row for _, row in iterate_rows(config, seed=seed, needed=needed, asks=asks)]


def no_column(name: str, row: Row) -> str:
    """That the row has no such column, which it has, and the nearest."""
    near = difflib.get_close_matches(name, list(row), n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"no column {name!r}; it has {', '.join(map(str, row))}{hint}"


def reference_of(row: Row, config: DatasetConfig, *, where: str) -> str | list[str] | None:
    """The right answer, as text; a list if any of several is right; None if there is none.

    Raises DataError for a reference without `reference_after`.
    """
    value = dig(row, config.reference) if config.reference else None
    if value is MISSING or value is None:
        return None
    several = value if isinstance(value, list | tuple) else [value]
    texts = [_after(_as_text(one), config.reference_after, where) for one in several if one is not None]
    kept = [text.strip() for text in texts if text.strip()]
    return kept if len(kept) > 1 else kept[0] if kept else None


def _as_text(value: Any) -> str:
    if isinstance(value, float):  # columns with gaps are floats in pandas: 72.0 is 72, and a gap is nan
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict) else str(value)


def _after(text: str, mark: str, where: str) -> str:
    if not mark or not text:
        return text
    _, found, rest = text.rpartition(mark)
    if not found:
        raise DataError(f"{where}: the reference {text!r:.80} lacks {mark!r}")
    return rest


def _open(config: DatasetConfig, *, seed: int) -> Iterator[tuple[str, Row]]:
    if config.task is not None:
        rows: Iterable[Row] = _task_rows(config, seed=seed)
    elif config.hub is not None:
        rows = _hub_rows(config)
    else:
        yield from data_rows(config.path or "", split=config.split)
        return
    for index, row in enumerate(rows):
        yield f"{config.source}, row {index}", row


def _task_rows(config: DatasetConfig, *, seed: int) -> list[Row]:
    assert config.task is not None
    try:
        make = TASKS.get(config.task) or partial(
            reasoning_rows, config.task.removeprefix(GYM), config.task_options
        )
        return list(make(cast(Any, config.split), num_rows=config.num_rows or 1000, seed=seed))
    except ValueError as error:
        advice = "; lower num_rows" if "were requested" in str(error) else ""
        raise ConfigError(f"{config.source}: {error}{advice}") from None


def _hub_rows(config: DatasetConfig) -> Iterable[Row]:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        loaded = datasets.load_dataset(config.hub, config.hub_subset, split=config.split)
    except (DatasetNotFoundError, ValueError, OSError) as error:
        raise DataError(f"cannot load the data set {config.hub!r} ({config.split}): {error}") from None
    for name, feature in loaded.features.items():  # images and sound stay bytes: they are refused, never read
        if isinstance(feature, datasets.Image | datasets.Audio | datasets.Video):
            loaded = loaded.cast_column(name, type(feature)(decode=False))
    return cast(Iterable[Row], loaded)
