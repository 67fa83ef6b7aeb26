"""The tokenizer that a model's tokenizer.json describes, also where transformers would build another one."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "In 2023, (x+1)^2 = 650841823?  We'LL see\n\n\tdéjà vu, 漢字, 🙂 <|x|> def f(a_b):\n    return 1.5e-3"


def load_auto_tokenizer(
    name: str, *, revision: str | None = None, code: bool = False
) -> "PreTrainedTokenizerBase":
    """transformers' AutoTokenizer for the folder or hub id `name`, unless tokenizer.json says otherwise.

    transformers 5 builds the class that tokenizer_config.json or the model's type names, with that class's
    own splitting and decoding. Where the file has others (DeepSeek-R1-Distill-Llama and deepseek-math name
    LlamaTokenizer), text turns into other tokens than those the model was trained on, without an error. The
    file decides here; a warning says so. `code`: trust remote code.

    Raises OSError or ValueError for a tokenizer that cannot be loaded.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    where = {"revision": revision or "main", "trust_remote_code": code}
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **where)
    built = type(tokenizer).__name__
    if type(tokenizer) is PreTrainedTokenizerFast or not tokenizer.is_fast or not _has_file(name, revision):
        return tokenizer
    described: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(name, **where)
    if _is_word_piece(described) or _reads(tokenizer) == _reads(described):
        return tokenizer
    warnings.warn(
        f"{name}: transformers builds a {built}, which turns text into other tokens than the model's "
        "tokenizer.json does. The file's tokenizer is used here; other programs may read text otherwise",
        stacklevel=2,
    )
    return described


def _has_file(name: str, revision: str | None) -> bool:
    from transformers.utils import cached_file

    if Path(name).is_dir():
        return (Path(name) / "tokenizer.json").is_file()
    quiet = dict.fromkeys(("gated_repo", "missing_entries", "connection_errors"), False)
    options = {f"_raise_exceptions_for_{kind}": raises for kind, raises in quiet.items()}
    return cached_file(name, "tokenizer.json", revision=revision, **options) is not None


def _is_word_piece(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """BERT's kind: there tokenizer_config.json (do_lower_case) overrules the file, in every version."""
    return type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece"


def _reads(tokenizer: "PreTrainedTokenizerBase") -> tuple[list[int], str] | None:
    """The probe's ids and the text they stand for; None if the tokenizer cannot read it."""
    backend = tokenizer.backend_tokenizer
    try:
        ids = list(backend.encode(PROBE, add_special_tokens=False).ids)
        return ids, backend.decode(ids)
    except Exception:  # noqa: BLE001  tokenizers raises nothing more special
        return None
