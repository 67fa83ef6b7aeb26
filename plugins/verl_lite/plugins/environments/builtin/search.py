"""The tool `search`: BM25 over the documents of local files, by bm25s (the extra `search`)."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from verl_lite.errors import ConfigError
from verl_lite.plugins.config_file import ConfigModel
from verl_lite.plugins.environments.contract import tool

SUFFIXES = (".jsonl", ".txt", ".md")


class SearchOptions(ConfigModel):
    """What is searched. A relative path starts at the working folder."""

    corpus: Path = Field(
        description="a .jsonl file with a document per line, a text file whose paragraphs are documents, or "
        "a folder of them"
    )
    text_key: str = Field(default="text", description="the key of a JSON document with its text")
    title_key: str = Field(default="title", description="the key with its title, which is searched too")
    results: int = Field(default=3, gt=0, description="documents that a call returns at most")
    max_chars: int = Field(default=2000, gt=0, description="of one document, as the model sees it")


@tool("search", options=SearchOptions)
class Search:
    """Search the documents for a query; returns the best ones, best first."""

    def __init__(self, options: SearchOptions) -> None:
        bm25s = _library()
        self._options = options
        self._documents = list(read_corpus(options))
        if not self._documents:
            raise ConfigError(f"tool search: {options.corpus} has no documents")
        self._tokenize = bm25s.tokenize
        self._index = bm25s.BM25()
        self._index.index(
            self._tokens([f"{title} {text}" for title, text in self._documents]), show_progress=False
        )

    def __call__(self, query: Annotated[str, Field(description="words to look for")]) -> str:
        count = min(self._options.results, len(self._documents))
        found, scores = self._index.retrieve(self._tokens([query]), k=count, show_progress=False)
        texts = [
            self._shown(number, *self._documents[int(position)])
            for number, (position, score) in enumerate(zip(found[0], scores[0], strict=True), start=1)
            if score > 0
        ]
        return "\n\n".join(texts) or "no document has any of these words"

    def _tokens(self, texts: list[str]) -> Any:
        return self._tokenize(texts, stopwords=None, show_progress=False)

    def _shown(self, number: int, title: str, text: str) -> str:
        head = f"[{number}] {title}\n" if title else f"[{number}] "
        return head + text[: self._options.max_chars]


def read_corpus(options: SearchOptions) -> Iterator[tuple[str, str]]:
    """(title, text) of every document. Raises ConfigError for what cannot be read."""
    path = options.corpus.expanduser()
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES)
    elif path.is_file() and path.suffix in SUFFIXES:
        files = [path]
    else:
        raise ConfigError(
            f"tool search: corpus: {path} is no folder and no file of {', '.join(SUFFIXES)}; a relative path "
            "starts at the working folder"
        )
    for file in files:
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".jsonl":
            yield from _json_documents(file, text, options)
        else:
            yield from ((file.stem, part.strip()) for part in text.split("\n\n") if part.strip())


def _json_documents(file: Path, text: str, options: SearchOptions) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            yield str(row.get(options.title_key) or ""), str(row[options.text_key])
        except (ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"tool search: {file}, line {number}: expected a JSON object with {options.text_key!r}, got "
                f"{line!r:.80}: {error!r}"
            ) from None


def _library() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise ConfigError(
            f"tool search needs the package bm25s ({error}): pip install 'verl-lite[search]'"
        ) from None
    return bm25s
