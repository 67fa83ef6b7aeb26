"""The texts of token ids, from a tokenizer.json, by the package `tokenizers`, which transformers brings."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from verl_lite.errors import ConfigError
from verl_lite.plugins.records import Record

_FILE = "tokenizer.json"


def token_texts(records: Sequence[Record], folder: Path | None, runs: Iterable[Path] = ()) -> dict[str, str]:
    """id -> text of every token in the completions, from `folder` or else a run's newest checkpoint or model.

    Empty where no tokenizer is found. Raises ConfigError for a `folder` without a readable one.
    """
    ids = {token for record in records for token in record.rollout.completion_ids}
    path = (folder / _FILE if folder.is_dir() else folder) if folder else _of_a_run(runs)
    if path is None or not ids:
        return {}
    try:
        json.loads(path.read_text(encoding="utf-8"))
        from tokenizers import Tokenizer
    except (ImportError, OSError, ValueError) as error:
        if folder is None:
            return {}
        raise ConfigError(
            f"--tokenizer {folder}: expected a folder with a {_FILE}, and the package tokenizers installed "
            f"(pip install tokenizers): {error}"
        ) from None
    tokenizer = Tokenizer.from_file(str(path))
    # Decoders of sentencepiece strip the space before the first token, so each is decoded after itself.
    once = {token: tokenizer.decode([token], skip_special_tokens=False) for token in ids}
    return {
        str(token): tokenizer.decode([token, token], skip_special_tokens=False)[len(text) :] or text
        for token, text in sorted(once.items())
    }


def _of_a_run(runs: Iterable[Path]) -> Path | None:
    for run in runs:
        found = [*run.glob(f"model/{_FILE}"), *sorted(run.glob(f"checkpoints/*/policy/{_FILE}"))]
        if found:
            return found[-1]
    return None
