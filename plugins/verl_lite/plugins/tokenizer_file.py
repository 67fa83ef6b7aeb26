"""The tokenizer that a model's tokenizer.json describes, also where transformers would build another one."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
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
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    where = {"revision": revision or "main", "trust_remote_code": code}
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name, **where)
    built = type(tokenizer).__name__
    file = _tokenizer_file(name, revision)
    if type(tokenizer) is PreTrainedTokenizerFast or not tokenizer.is_fast or file is None:
        return tokenizer
    read = _reads(tokenizer.backend_tokenizer)
    if read == _reads(Tokenizer.from_file(file)):  # a third of the time that transformers takes to load it
        return tokenizer
    described: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(name, **where)
    if _is_word_piece(described) or read == _reads(described.backend_tokenizer):
        return tokenizer
    warnings.warn(
        f"{name}: transformers builds a {built}, which turns text into other tokens than the model's "
        "tokenizer.json does. The file's tokenizer is used here; other programs may read text otherwise",
        stacklevel=2,
    )
    return described


def _tokenizer_file(name: str, revision: str | None) -> str | None:
    from transformers.utils import cached_file

    if Path(name).is_dir():
        file = Path(name) / "tokenizer.json"
        return str(file) if file.is_file() else None
    quiet = dict.fromkeys(("gated_repo", "missing_entries", "connection_errors"), False)
    options = {f"_raise_exceptions_for_{kind}": raises for kind, raises in quiet.items()}
    found: str | None = cached_file(name, "tokenizer.json", revision=revision, **options)
    return found


def _is_word_piece(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """BERT's kind: there tokenizer_config.json (do_lower_case) overrules the file, in every version."""
    return type(tokenizer.backend_tokenizer.model).__name__ == "WordPiece"


def _reads(tokenizer: "Tokenizer") -> tuple[list[int], str] | None:
    """The probe's ids and the text they stand for; None if the tokenizer cannot read it."""
    try:
        ids = list(tokenizer.encode(PROBE, add_special_tokens=False).ids)
        return ids, tokenizer.decode(ids)
    except Exception:  # noqa: BLE001  tokenizers raises nothing more special
        return None
