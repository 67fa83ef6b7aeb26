"""`verl-lite data check`: what is wrong with a file of rows to train on."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from verl_lite.cli.options import AsJson

if TYPE_CHECKING:
    from verl_lite.engine.data_quality import TextRow

__all__ = ["data_app"]

data_app = typer.Typer(no_args_is_help=True, help="Look at data sets.")


@data_app.callback()
def root() -> None:
    """Look at data sets."""


@data_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="Rows: .jsonl or .parquet", show_default=False)],
    evaluation: Annotated[
        Path | None, typer.Option("--eval", help="The evaluation set, to find leaks", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Measure in tokens of this model's tokenizer", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Rows longer than this are cut", show_default=False)
    ] = None,
    prompt: Annotated[str, typer.Option(help="The column with the question")] = "question",
    answer: Annotated[str, typer.Option(help="The column with the answer")] = "answer",
    messages: Annotated[str, typer.Option(help="The column with a whole chat")] = "messages",
    reference: Annotated[str, typer.Option(help="The column with the right (math) answer")] = "reference",
    as_json: AsJson = False,
) -> None:
    """Duplicates, lengths, truncation, broken turns, odd style, leaked evaluation rows, wrong answers.

    Lengths are characters unless --model names a tokenizer. Example: verl-lite data check rows.jsonl
    """
    from verl_lite.cli.terminal import console, print_json, print_table, share
    from verl_lite.engine.data import read_rows
    from verl_lite.engine.data_config import DatasetConfig
    from verl_lite.engine.data_quality import check_rows, text_row
    from verl_lite.errors import ConfigError

    if max_tokens is not None and model is None:
        raise ConfigError("--max-tokens counts tokens: name the tokenizer with --model")

    def read(path: Path) -> "list[TextRow]":
        if path.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"{path}: expected a .jsonl or .parquet file")
        rows = read_rows(DatasetConfig(path=str(path)), seed=0, asks=False)
        names = {"prompt": prompt, "answer": answer, "messages": messages, "reference": reference}
        return [text_row(row, **names) for row in rows]

    length = len
    if model is not None:
        from verl_lite.engine.config import ModelConfig
        from verl_lite.engine.model_folder import load_tokenizer

        tokenizer = load_tokenizer(ModelConfig(path=model))
        length = lambda text: len(tokenizer.encode(text, add_special_tokens=False))  # noqa: E731
    held_out = [row.question for row in read(evaluation)] if evaluation is not None else []
    found = check_rows(read(file), length=length, max_length=max_tokens, held_out=held_out)
    if as_json:
        print_json(asdict(found))
        return

    def line(name: str, rows: Sequence[object], whole: int = found.num_rows) -> list[str]:
        return [name, share(len(rows), whole), ", ".join(map(_shown, rows[:3]))]

    print_table(
        f"{file}: {found.num_rows:,} rows",
        ["", "rows", "the first"],
        [
            line("exact duplicates", found.exact_duplicates),
            line("near duplicates", found.near_duplicates),
            line("malformed or empty turns", found.faults),
            line("longer than --max-tokens", found.truncated),
            line("asked by the evaluation set", found.overlap),
            line("odd style", found.odd_style),
            line("wrong answer", found.wrong, found.num_verified),
            line("unreadable answer", found.unparsed, found.num_verified),
        ],
    )
    most = max(count for _, _, count in found.histogram)
    console.print(f"length in {'tokens' if model else 'characters'}")
    for low, high, count in found.histogram:
        console.print(f"{low:>7}-{high:<7} {'█' * round(40 * count / most)} {count}", markup=False)


def _shown(row: object) -> str:
    return f"row {row[0]}: {row[1]}" if isinstance(row, tuple) else f"row {row}"
