"""Tokenizers in the shapes of published models: their tokenizer.json decides, whatever class is named."""

import json
import warnings
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from verl_lite.engine.config import ModelConfig
from verl_lite.engine.model import load_tokenizer
from verl_lite.plugins.tokenizer_file import load_auto_tokenizer

WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CORPUS = ["In 2023, (x+1)^2 = 650841823? two  spaces. The end of its story: 12345 67 890"] * 20
TEXTS = (
    "In 2023, (x+1)^2 = 650841823?",
    "two  spaces\n\n\tand a tab",
    "déjà vu, 漢字, 🙂",
    "What is 41 - 17? Put it within \\boxed{}.",
)


def byte_level(split: str | None) -> Tokenizer:
    """Byte-level BPE that splits by a pattern, as Llama 3 and Qwen do, or into single digits, as DeepSeek."""
    first = pre_tokenizers.Split(Regex(split), "isolated") if split else pre_tokenizers.Digits(True)
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [first, pre_tokenizers.ByteLevel(False, use_regex=not split)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>"]
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    )
    return made


def words_alone() -> Tokenizer:
    """One token per word, as people write it for a toy model."""
    names = {word: at for at, word in enumerate(["<s>", "</s>", *sorted(set(" ".join(TEXTS).split()))])}
    made = Tokenizer(models.WordLevel(names, unk_token="<s>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def sentence_pieces() -> Tokenizer:
    """Spaces as ▁ and bytes for what is unknown, as Llama 2 and Mistral do."""
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(parts)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=500, special_tokens=special))
    return made


def write(folder: Path, made: Tokenizer, model_type: str, kind: str) -> None:
    made.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind, **tokens}))


@pytest.mark.filterwarnings("ignore:.*turns text into other tokens:UserWarning")
@pytest.mark.parametrize(
    ("model_type", "kind", "made"),
    [
        pytest.param("llama", "LlamaTokenizerFast", byte_level(WORDS), id="DeepSeek-R1-Distill-Llama"),
        pytest.param("llama", "LlamaTokenizerFast", byte_level(None), id="deepseek-math"),
        pytest.param("qwen2", "LlamaTokenizerFast", byte_level(WORDS), id="a Qwen2 that splits as Llama 3"),
        pytest.param("qwen2", "PreTrainedTokenizerFast", words_alone(), id="a toy Qwen2"),
        pytest.param("llama", "PreTrainedTokenizerFast", byte_level(WORDS), id="Llama 3"),
        pytest.param("llama", "LlamaTokenizerFast", sentence_pieces(), id="Llama 2"),
        pytest.param("llama", "GPT2Tokenizer", byte_level(None), id="SmolLM2"),
        pytest.param("olmo2", "GPT2Tokenizer", byte_level(WORDS), id="OLMo 2"),
        pytest.param("granite", "GPT2Tokenizer", byte_level(WORDS), id="Granite 4"),
        pytest.param("deepseek_v3", "LlamaTokenizerFast", byte_level(WORDS), id="DeepSeek-V3"),
        pytest.param("mistral", "LlamaTokenizerFast", byte_level(WORDS), id="Mistral with tekken"),
    ],
)
def test_text_turns_into_the_tokens_of_the_file(
    tmp_path: Path, model_type: str, kind: str, made: Tokenizer
) -> None:
    write(tmp_path, made, model_type, kind)
    tokenizer = load_tokenizer(ModelConfig(path=str(tmp_path)))
    for text in TEXTS:
        ids = made.encode(text, add_special_tokens=False).ids
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == made.decode(ids, skip_special_tokens=False)
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.chat_template


def test_a_class_that_reads_otherwise_is_named_once(tmp_path: Path) -> None:
    write(tmp_path, byte_level(WORDS), "llama", "LlamaTokenizerFast")
    with pytest.warns(UserWarning, match="transformers builds a LlamaTokenizer, which turns text"):
        tokenizer = load_auto_tokenizer(str(tmp_path))
    saved = tmp_path / "saved"
    tokenizer.save_pretrained(saved)
    (saved / "config.json").write_text((tmp_path / "config.json").read_text())
    with warnings.catch_warnings():  # what a run saves is read right by transformers itself
        warnings.simplefilter("error")
        again = load_auto_tokenizer(str(saved))
    assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_a_class_that_reads_as_the_file_does_is_kept(tmp_path: Path) -> None:
    write(tmp_path, byte_level(None), "llama", "GPT2Tokenizer")
    assert type(load_auto_tokenizer(str(tmp_path))).__name__ == "GPT2Tokenizer"
