"""A GGUF file trains like a folder: read before anything is written, de-quantised once, and then plain."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

from verl_lite.engine.config import ModelConfig
from verl_lite.engine.model import load_tokenizer, shape_of
from verl_lite.engine.model.configuration import check_context
from verl_lite.engine.model.folder import prepare_model
from verl_lite.errors import ConfigError, DataError

gguf: Any = pytest.importorskip("gguf")

LAYERS, HEADS, KV_HEADS, HIDDEN, FEED_FORWARD, CONTEXT = 2, 4, 2, 64, 96, 128
SPECIALS = ["<|unk|>", "<|start|>", "<|end|>"]
MERGES = ["t h", "th e"]
TEMPLATE = "{% for m in messages %}<|start|>{{ m['role'] }} {{ m['content'] }}<|end|>{% endfor %}<|start|>"
NAMES = {  # of GGUF for the weights of a Llama
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    if name in NAMES:
        return NAMES[name]
    _, _, layer, part = name.split(".", 3)
    return f"blk.{layer}.{NAMES[part.removesuffix('.weight')]}.weight"


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key weight in GGUF's order: the halves of each rotated pair side by side."""
    out, into = weight.shape
    return weight.reshape(heads, 2, out // heads // 2, into).swapaxes(1, 2).reshape(out, into)


def write_gguf(path: Path, weights: Mapping[str, torch.Tensor], *, quantised: bool) -> dict[str, np.ndarray]:
    """Write a Llama as other programs do; the linear maps in 8 bits. Returns what the file's values are."""
    tokens = [*SPECIALS, *bytes_to_unicode().values(), *(one.replace(" ", "") for one in MERGES)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIALS) + [1] * (256 + len(MERGES)))
    writer.add_token_merges(MERGES)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    kept: dict[str, np.ndarray] = {}
    q8 = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in weights.items():
        values = tensor.numpy().astype(np.float32)
        turned = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2], 0)
        stored = interleaved(values, turned) if turned else values
        if quantised and "proj" in name:
            data = gguf.quants.quantize(stored, q8)
            writer.add_tensor(gguf_name(name), data, raw_dtype=q8)
            rounded = gguf.quants.dequantize(gguf.quants.quantize(values, q8), q8)
            kept[name] = rounded
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(stored))
            kept[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return kept


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SPECIALS) + 256 + len(MERGES),
            hidden_size=HIDDEN,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KV_HEADS,
            max_position_embeddings=CONTEXT,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        )
    ).eval()


@pytest.mark.parametrize("quantised", [False, True])
def test_the_folder_holds_the_values_of_the_file(
    tmp_path: Path, llama: LlamaForCausalLM, quantised: bool
) -> None:
    kept = write_gguf(tmp_path / "small.gguf", llama.state_dict(), quantised=quantised)
    path = prepare_model(ModelConfig(path=str(tmp_path / "small.gguf")), tmp_path / "out", seed=0)

    assert path == str(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(path)
    assert not hasattr(model.config, "quantization_config")
    found = model.state_dict()
    assert set(found) == set(kept)
    for name, values in kept.items():
        assert found[name].dtype == torch.float32
        np.testing.assert_array_equal(found[name].numpy(), values, err_msg=name)
    llama_of_file = LlamaForCausalLM(llama.config).eval()
    llama_of_file.load_state_dict({name: torch.from_numpy(values) for name, values in kept.items()})
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(model(ids).logits, llama_of_file(ids).logits, rtol=0, atol=1e-6)


def test_a_run_is_checked_with_the_file_alone(tmp_path: Path, llama: LlamaForCausalLM) -> None:
    file = tmp_path / "small.gguf"
    write_gguf(file, llama.state_dict(), quantised=True)
    config = ModelConfig(path=str(file))
    tokenizer = load_tokenizer(config)
    assert tokenizer.eos_token == "<|end|>"
    assert tokenizer.decode(tokenizer.encode("the sum is 5\n", add_special_tokens=False)) == "the sum is 5\n"
    check_context(config, needed_tokens=CONTEXT)
    with pytest.raises(ConfigError, match=f"{CONTEXT + 1} tokens, but the context of .* is {CONTEXT}"):
        check_context(config, needed_tokens=CONTEXT + 1)
    assert shape_of(config).num_parameters == sum(one.numel() for one in llama.parameters())
    assert config.is_written
    assert [entry.name for entry in tmp_path.iterdir()] == ["small.gguf"]
    chat = [{"role": "user", "content": "What is 4 - 1?"}]
    before = tokenizer.apply_chat_template(chat, tokenize=False)
    prepare_model(config, tmp_path / "out", seed=0)
    saved = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert before == saved.apply_chat_template(chat, tokenize=False)
    assert before == "<|start|>user What is 4 - 1?<|end|><|start|>"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file"),
        (b"PK\x03\x04 a zip", "is not a GGUF file: it begins with b'PK"),
        (b"", "is not a GGUF file: it begins with b''"),
        (b"GGUF\x03\x00\x00\x00 cut", "cannot load"),
    ],
)
def test_a_file_that_is_none_gets_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "broken.gguf"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_tokenizer(ModelConfig(path=str(file)))


def test_without_the_package_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(DataError, match="needs the package gguf; pip install gguf"):
        load_tokenizer(ModelConfig(path=str(tmp_path / "a.gguf")))
