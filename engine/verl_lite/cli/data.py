"""`verl-lite data check`: find faults in a file of training rows."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson

if TYPE_CHECKING:
    from verl_lite.engine.data import DataReport, TextRow

data_app = typer.Typer(no_args_is_help=True, help="Look at data sets.")


@data_app.callback()
def root() -> None:
    """Look at data sets."""


File = Annotated[
    Path,
    typer.Argument(help="Rows: a file (JSONL, JSON, CSV, Parquet, Arrow) or a folder"),
]
Evaluation = Annotated[Path | None, typer.Option("--eval", help="The evaluation set, to find leaks")]
Model = Annotated[str | None, typer.Option(help="Measure in tokens of this model's tokenizer")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Report rows longer than this")]
Page = Annotated[
    Path | None,
    typer.Option("--html", help="Write the findings and a plot to this HTML file"),
]


@data_app.command("check")
def check(
    file: File,
    evaluation: Evaluation = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    prompt: Annotated[str, typer.Option(help="The column with the question")] = "question",
    answer: Annotated[str, typer.Option(help="The column with the answer")] = "answer",
    messages: Annotated[str, typer.Option(help="The column with the chat")] = "messages",
    reference: Annotated[str, typer.Option(help="The column with the right answer")] = "reference",
    page: Page = None,
    as_json: AsJson = False,
) -> None:
    """Find duplicates, long rows, broken turns, odd style, leaked evaluation rows and wrong answers.

    Lengths are in characters unless --model names a tokenizer. Answers are checked as mathematics against
    the reference, or as programs against the row's tests.

    Example: verl-lite data check rows.jsonl --html data.html
    """
    from verl_lite.cli.terminal import print_json
    from verl_lite.engine.data import check_rows
    from verl_lite.errors import ConfigError
    from verl_lite.plugins.progress import stage

    if max_tokens is not None and model is None:
        raise ConfigError("--max-tokens counts tokens: name the tokenizer with --model")
    names = {"prompt": prompt, "answer": answer, "messages": messages, "reference": reference}
    held_out = [row.question for row in _read(evaluation, names)] if evaluation is not None else []
    length = _tokens_of(model) if model is not None else len
    with stage("checking"):
        found = check_rows(_read(file, names), length=length, max_length=max_tokens, held_out=held_out)
    unit = "tokens" if model else "characters"
    if page is not None:
        _write_page(found, page, title=f"{file}: {found.num_rows:,} rows", unit=unit, limit=max_tokens)
    if as_json:
        print_json(asdict(found))
        return
    _show(found, title=f"{file}: {found.num_rows:,} rows", unit=unit)


def _read(path: Path, names: dict[str, str]) -> "list[TextRow]":
    from verl_lite.engine.config import DatasetConfig
    from verl_lite.engine.data import read_rows, text_row

    rows = read_rows(DatasetConfig(path=str(path)), seed=0, asks=False)
    return [text_row(row, **names) for row in rows]


def _tokens_of(model: str) -> Callable[[str], int]:
    from verl_lite.engine.config import ModelConfig
    from verl_lite.engine.model import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(path=model))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _findings(found: "DataReport") -> list[list[str]]:
    """One row per finding: name, share of the rows, the first few."""
    from verl_lite.cli.terminal import share

    def line(name: str, rows: Sequence[object], whole: int = found.num_rows) -> list[str]:
        return [name, share(len(rows), whole), ", ".join(map(_shown, rows[:3]))]

    return [
        line("exact duplicates", found.exact_duplicates),
        line("near duplicates", found.near_duplicates),
        line("malformed or empty turns", found.faults),
        line("longer than --max-tokens", found.truncated),
        line("asked by the evaluation set", found.overlap),
        line("odd style", found.odd_style),
        line("wrong answer", found.wrong, found.num_verified),
        line("unreadable answer", found.unparsed, found.num_verified),
        line("cannot be judged", found.unjudged, found.num_verified),
    ]


def _write_page(found: "DataReport", path: Path, *, title: str, unit: str, limit: int | None) -> None:
    from verl_lite.engine.data import data_page

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data_page(found, _findings(found), title=title, unit=unit, limit=limit), encoding="utf-8")


def _show(found: "DataReport", *, title: str, unit: str) -> None:
    from verl_lite.cli.terminal import console, print_table

    print_table(title, ["", "rows", "the first"], _findings(found))
    most = max((count for _, _, count in found.histogram), default=1)
    console.print(f"length in {unit}")
    block = "#" if console.options.ascii_only else "█"
    for low, high, count in found.histogram:
        console.print(f"{low:>7}-{high:<7} {block * round(40 * count / most)} {count}", markup=False)


def _shown(row: object) -> str:
    return f"row {row[0]}: {row[1]}" if isinstance(row, tuple) else f"row {row}"
