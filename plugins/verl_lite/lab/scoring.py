"""Score rollouts: streamed, on every core, with the same Scorer as training.

Each process holds one chunk of whole groups in memory, whatever the size of the files. Large sources are
cut into pieces that split no group; each process scores pieces and writes parts, which are joined in
their order.
"""

import gc
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.cache import ScoreCache
from verl_lite.lab.formats import AUTO
from verl_lite.lab.groups import consecutive_groups
from verl_lite.lab.outputs import check_output
from verl_lite.lab.reading import Piece, Rollouts, Sources, open_rollouts
from verl_lite.lab.results import KeptResult, ResultStore
from verl_lite.lab.statistics import group_advantages
from verl_lite.lab.summary import ScoreSummary
from verl_lite.plugins import RewardCatalog, RewardsConfig, Rollout, ScoredRollout, Scorer, find_rewards
from verl_lite.plugins.progress import Advance, stage
from verl_lite.plugins.records import BadRow, Record, RecordWriter, infer_columns, join_record_files
from verl_lite.plugins.records.columns import ColumnTypes
from verl_lite.workers import num_cores

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_CHUNK_ROWS = 2048
_LOOK_S = 0.2  # how often the rows that the processes have scored are counted
_ROWS_FOR_TYPES = 256  # of every file: the types of the output's columns
_OBJECTS_PER_ROW = 60  # about twice what three components allocate


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOptions:
    """How to score, apart from the rewards: how to read the files, processes, plugins.

    format        who wrote the files (lab/formats); "auto" looks at the first row of each
    renames       columns by other names: new name -> path in the row, as in `--map`
    workers       processes; None for one per core
    debug_inline  score in this process, so that breakpoints hit
    load_plugins  False uses the built-in rewards and local files only
    cache         the file of the score cache (lab/cache.py); None for no cache
    catalog       the rewards that a config may use; None for the installed ones
    """

    format: str = AUTO
    renames: Mapping[str, str] = field(default_factory=dict)
    workers: int | None = None
    debug_inline: bool = False
    load_plugins: bool = True
    cache: Path | None = None
    catalog: RewardCatalog | None = None

    def mapping(self, config: RewardsConfig) -> dict[str, str]:
        """The columns' other names: those of the config, and of `renames`, which count more."""
        return {**config.map, **self.renames}

    @property
    def num_processes(self) -> int:
        return 1 if self.debug_inline else self.workers or num_cores()


def score_file(
    sources: Sources,
    config: RewardsConfig,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    bad_rows: str | Path | None = None,
    options: ScoringOptions | None = None,
) -> ScoreSummary:
    """Score every rollout of `sources`; write the scored records to `output` if given, group by group.

    Unreadable rows are counted and, if `bad_rows` is given, written there as JSONL with position and
    reason. Raises DataError for unreadable sources, sources of which no row could be read, and an output
    that cannot be written or would replace something without `overwrite`; PluginError and ConfigError for
    the rewards.
    """
    options = options or ScoringOptions()
    started = time.perf_counter()
    target = Path(output) if output else None
    if target is not None:
        check_output(target, inputs=sources, overwrite=overwrite)
    with ExitStack() as stack:
        rollouts = stack.enter_context(
            open_rollouts(sources, format=options.format, renames=options.mapping(config))
        )
        task = _Task(without_breaker(config), options, _column_types(rollouts, target))
        scorer = stack.enter_context(open_scorer(task.config, options))
        store = _result_store(task, rollouts, scorer)
        kept = store.fetch(target) if store else None
        result = kept or _score_all(task, rollouts, scorer, target)
        if store is not None and kept is None:
            store.keep(target, result)
    result.summary.name_sources(scorer.components)
    if bad_rows is not None and result.bad_rows:
        _write_bad_rows(Path(bad_rows), result.bad_rows)
    result.summary.is_cached = kept is not None
    result.summary.num_bad_rows = len(result.bad_rows)
    result.summary.wall_s = time.perf_counter() - started
    return result.summary


def _column_types(rollouts: Rollouts, output: Path | None) -> ColumnTypes | None:
    if output is None or output.suffix != ".parquet":
        return None
    return infer_columns(record.rollout.columns for record in rollouts.first_records(_ROWS_FOR_TYPES))


def _result_store(task: "_Task", rollouts: Rollouts, scorer: Scorer) -> ResultStore | None:
    definitions = [part.definition for part in scorer.components]
    if task.options.cache is None or any(one.is_remote and not one.cache for one in definitions):
        return None
    folder = task.options.cache.with_name(task.options.cache.stem + "-results")
    return ResultStore(folder, rollouts.files, task.config, scorer)


def _score_all(task: "_Task", rollouts: Rollouts, scorer: Scorer, output: Path | None) -> KeptResult:
    """Score into parts beside `output`, and put it in its place when all of it is there."""
    total = KeptResult(ScoreSummary(), [])
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=output.parent if output else None)))

        def part(number: int) -> Path | None:
            return folder / f"{number}{output.suffix}" if output else None

        for result in _results(task, rollouts, scorer, part, stack):
            total.summary.merge(result.summary)
            total.bad_rows.extend(result.bad_rows)
        if not total.summary.num_rows:
            raise DataError(_nothing_read(rollouts, total.bad_rows))
        if output is not None:
            join_record_files(sorted(folder.iterdir(), key=lambda path: int(path.stem)), output)
    return total


def _nothing_read(rollouts: Rollouts, bad_rows: Sequence[BadRow]) -> str:
    names = ", ".join(file.name for file in rollouts.files[:3])
    if not bad_rows:
        return f"{names}: the rows hold no completion"
    first = f"the first, row {bad_rows[0].row}: {bad_rows[0].reason}"
    return f"{names}: none of the {len(bad_rows):,} rows could be read; {first}"


def score_groups(
    groups: Iterable[list[Record]],
    scorer: Scorer,
    cache: ScoreCache | None = None,
    advance: Advance = lambda _: None,
) -> Iterator[tuple[list[Record], list[ScoredRollout]]]:
    """Score a stream of whole groups in chunks; a chunk has one step, whose reward weights apply.

    A cache is read and written chunk by chunk, so an interrupted pass resumes where it stopped.
    `advance` is called with how many more rollouts are scored.
    """
    chunk: list[Record] = []
    for group in groups:
        if chunk and (len(chunk) + len(group) > _CHUNK_ROWS or group[0].step != chunk[0].step):
            yield chunk, _score_chunk(chunk, scorer, cache, advance)
            chunk = []
        chunk += group
    if chunk:
        yield chunk, _score_chunk(chunk, scorer, cache, advance)


def _score_chunk(
    chunk: list[Record], scorer: Scorer, cache: ScoreCache | None, advance: Advance
) -> list[ScoredRollout]:
    rollouts, step = [record.rollout for record in chunk], chunk[0].step or 0
    if cache is None:
        return scorer.score_rows(rollouts, step=step, advance=advance)
    known = cache.known(scorer, rollouts)
    rows = scorer.score_rows(rollouts, step=step, known=known, advance=advance)
    cache.keep(scorer, rows, known)
    return rows


def without_breaker(config: RewardsConfig) -> RewardsConfig:
    """`config` with the circuit breaker off: offline, every failure is counted and shown."""
    scoring = config.scoring.model_copy(update={"max_error_fraction": 1.0, "max_timeout_fraction": 1.0})
    return config.model_copy(update={"scoring": scoring})


def open_scorer(config: RewardsConfig, options: ScoringOptions) -> Scorer:
    return Scorer(
        config,
        workers=options.workers,
        debug_inline=options.debug_inline,
        catalog=options.catalog or find_rewards(load_plugins=options.load_plugins),
    )


def primary_component(scorer: Scorer, wanted: str | None) -> str:
    """The component that says what is correct: the named one, or the one with the largest weight."""
    names = [component.name for component in scorer.components]
    if wanted is None:
        probe = scorer.score([Rollout(completion="", id="weights", group="weights")]).rows[0]
        return max(names, key=lambda name: abs(probe.components[name].weight))
    if wanted not in names:
        raise ConfigError(f"--primary {wanted}: the rewards are {', '.join(names)}")
    return wanted


@dataclass(frozen=True, slots=True)
class _Task:
    """What every process of one scoring run shares."""

    config: RewardsConfig
    options: ScoringOptions
    columns: ColumnTypes | None = None  # of the output, the same in every part


def _results(
    task: _Task, rollouts: Rollouts, scorer: Scorer, part: Callable[[int], Path | None], stack: ExitStack
) -> Iterator[KeptResult]:
    """Each piece's result, in order: from a pool where there is enough to share out.

    `part` is the file that a piece is scored into; None for each without an output.
    """
    if task.options.num_processes < 2 or rollouts.num_parts < 2:
        with stage("scoring", total=rollouts.num_rows) as advance:
            for number, piece in enumerate(rollouts.pieces()):
                yield _score_piece(task, scorer, piece, part(number), advance)
        return
    scored = multiprocessing.get_context("spawn").Value("q")
    size = min(task.options.num_processes, rollouts.num_parts)
    pool = stack.enter_context(_open_pool(task, size, scored))
    pieces = enumerate(rollouts.pieces(map=pool.map))
    futures = [pool.submit(_score_in_process, piece, part(number)) for number, piece in pieces]
    with stage("scoring", total=rollouts.num_rows) as advance:
        shown = 0
        for future in futures:
            while wait([future], timeout=_LOOK_S).not_done:
                advance(scored.value - shown)
                shown = scored.value
            yield future.result()
        advance(scored.value - shown)


@contextmanager
def _open_pool(task: _Task, size: int, scored: "Synchronized[int]") -> Iterator[ProcessPoolExecutor]:
    """Processes that score pieces. They end with this one, however it ends, and at once when it gives up.

    They count the rows in `scored`.
    """
    context = multiprocessing.get_context("spawn")  # never fork a process with threads or torch
    watched, held = context.Pipe(duplex=False)
    initial = (task, watched, scored)
    pool = ProcessPoolExecutor(size, mp_context=context, initializer=_start_process, initargs=initial)
    try:
        yield pool
        pool.shutdown()
    finally:
        held.close()
        pool.shutdown(cancel_futures=True)
        watched.close()


def _score_piece(
    task: _Task, scorer: Scorer, piece: Piece, output: Path | None, advance: Advance
) -> KeptResult:
    result = KeptResult(ScoreSummary(), [])
    with ExitStack() as stack:
        stack.enter_context(_collector_for_chunks())
        writer = stack.enter_context(RecordWriter(output, columns=task.columns)) if output else None
        cache = stack.enter_context(ScoreCache(task.options.cache)) if task.options.cache else None
        for chunk, rows in score_groups(piece.groups(result.bad_rows.append), scorer, cache, advance):
            result.summary.add(rows)
            if writer is not None:
                writer.write(rows, steps=[r.step for r in chunk], advantages=_advantages(chunk, rows))
    return result


@contextmanager
def _collector_for_chunks() -> Iterator[None]:
    """Raise the garbage collector's threshold to the objects of a whole chunk, which are freed with it.

    With Python's default of 700 objects, a seventh of the time went into visiting live ones.
    """
    before = gc.get_threshold()
    gc.set_threshold(_CHUNK_ROWS * _OBJECTS_PER_ROW, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _advantages(chunk: list[Record], rows: list[ScoredRollout]) -> list[float | None]:
    rewards = iter(row.reward for row in rows)
    return [
        advantage
        for group in consecutive_groups(chunk)
        for advantage in group_advantages([next(rewards) for _ in group])
    ]


_process: tuple[_Task, Scorer, Advance] | None = None  # one pool process's state between shards


def _start_process(task: _Task, watched: Connection, scored: "Synchronized[int]") -> None:
    global _process
    threading.Thread(target=_end_with, args=(watched,), daemon=True).start()
    scorer = open_scorer(task.config, replace(task.options, workers=1))
    scorer.__enter__()

    def advance(done: int) -> None:
        with scored.get_lock():
            scored.value += done

    _process = task, scorer, advance


def _end_with(watched: Connection) -> None:
    """End this process when the other end of `watched` is closed, which a dead process's is."""
    watched.poll(None)
    os._exit(1)


def _score_in_process(piece: Piece, output: Path | None) -> KeptResult:
    assert _process is not None, "the pool's initializer runs first"
    task, scorer, advance = _process
    return _score_piece(task, scorer, piece, output, advance)


def _write_bad_rows(path: Path, rows: list[BadRow]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
