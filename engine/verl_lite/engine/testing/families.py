"""Dense decoder families in transformers, as the options of a tiny model each. Windows are 8 tokens."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["dense", "moe", "hybrid"]

WINDOW = 8
VOCAB = 105  # the tiny tokenizer's
ABSENT = object()  # for an option of every tiny model that the family's config refuses
SLIDING, FULL, LINEAR = "sliding_attention", "full_attention", "linear_attention"
LATENT = {
    "q_lora_rank": 48,
    "kv_lora_rank": 512,  # with the 64 below what vLLM's kernels for latent attention are built for
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64,
    "v_head_dim": 32,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
# the embeddings, which are the output head too, are multiplied by sqrt(hidden size)
_GEMMA = {"query_pre_attn_scalar": 32, "initializer_range": 0.08}
_PER_LAYER = {
    "sliding_window": WINDOW,
    "layer_types": [SLIDING, FULL] * 2,
    "num_kv_shared_layers": 2,
    "hidden_size_per_layer_input": 16,
    "vocab_size_per_layer_input": VOCAB,
}
_ROPE = {"rope_type": "default", "rope_theta": 10000.0}
_SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@dataclass(frozen=True, slots=True)
class Family:
    """How to make one tiny model: transformers' model type and the options that its config needs.

    `text` has the options of the nested `text_config` of a class that reads images too; the hub ships such
    models whole, and AutoModelForCausalLM loads them.
    """

    kind: Kind
    model_type: str
    options: Mapping[str, Any]
    text: Mapping[str, Any] | None = None


def _dense(model_type: str, **options: Any) -> Family:
    return Family("dense", model_type, options)


def _plain(names: str) -> dict[str, Family]:
    """Families that need no options, by `name` or `name=model_type`."""
    pairs = (one.partition("=") for one in names.split())
    return {name: _dense(model_type or name) for name, _, model_type in pairs}


MIXED: Mapping[str, Any] = {
    "sliding_window": WINDOW,
    "layer_types": [SLIDING, SLIDING, SLIDING, FULL],
}

DENSE: Mapping[str, Family] = {
    "llama": _dense("llama", tie_word_embeddings=False),
    **_plain(
        "qwen2 olmo olmo2 ministral3 nemotron ernie4_5 hunyuan=hunyuan_v1_dense seed-oss=seed_oss apertus "
        "arcee helium stablelm nanochat gpt-neox=gpt_neox bloom bitnet diffllama hyperclovax jais2 biogpt "
        "persimmon xglm openai-gpt ctrl gpt-neox-japanese=gpt_neox_japanese fuyu modernbert-decoder"
    ),
    "qwen3": _dense("qwen3", tie_word_embeddings=True),
    "mistral": _dense("mistral", sliding_window=None),
    "mistral-window": _dense("mistral", sliding_window=WINDOW),
    "ministral": _dense("ministral", **MIXED),
    "phi": _dense("phi", num_key_value_heads=4, partial_rotary_factor=0.5),
    "phi3": _dense("phi3", sliding_window=None),
    "phi3-window": _dense("phi3", sliding_window=WINDOW),
    "gemma": _dense("gemma", **_GEMMA),
    "gemma2": _dense("gemma2", **MIXED, **_GEMMA),
    "gemma3-text": _dense("gemma3_text", **MIXED, **_GEMMA),
    "gemma3": Family(
        "dense",
        "gemma3",
        {"vision_config": _SIGLIP, "mm_tokens_per_image": 4, "image_token_index": 104},
        text={**MIXED, **_GEMMA},
    ),
    "gemma4": Family(
        "dense",
        "gemma4",
        {"vision_config": {**_SIGLIP, "head_dim": 16, "num_key_value_heads": 2}, "audio_config": None},
        text={
            **MIXED,
            "initializer_range": 0.08,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": VOCAB,
            "num_kv_shared_layers": 0,
        },
    ),
    "olmo3": _dense("olmo3", **MIXED),
    "smollm3": _dense("smollm3", no_rope_layers=[1, 0]),
    "granite": _dense(
        "granite",
        embedding_multiplier=6.0,
        attention_multiplier=0.1,
        residual_multiplier=0.5,
        logits_scaling=4.0,
    ),
    "cohere": _dense("cohere", logit_scale=0.25),
    "cohere2": _dense("cohere2", **MIXED, logit_scale=0.25),
    "glm": _dense("glm", partial_rotary_factor=0.5),
    "glm4": _dense("glm4", partial_rotary_factor=0.5),
    "starcoder2": _dense("starcoder2", sliding_window=WINDOW),
    "doge": _dense("doge", keep_window_size=2048),
    "minicpm3": _dense("minicpm3", **LATENT, scale_emb=4, scale_depth=1.4, dim_model_base=64),
    "exaone4": _dense("exaone4", **MIXED),
    "gpt2": _dense("gpt2", n_positions=512, n_inner=192),
    "gptj": _dense("gptj", n_positions=512, rotary_dim=16),
    "gpt-bigcode": _dense("gpt_bigcode", n_positions=512, num_key_value_heads=1),
    "mpt": _dense("mpt", max_seq_len=512),
    "falcon": _dense("falcon", head_dim=ABSENT, multi_query=True, parallel_attn=True),
    "falcon-40b": _dense("falcon", head_dim=ABSENT, new_decoder_architecture=True, num_kv_heads=2),
    "gpt-neo": _dense(
        "gpt_neo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=WINDOW
    ),
    "opt": _dense("opt", ffn_dim=192, word_embed_proj_dim=128, init_std=0.15),
    "codegen": _dense("codegen", n_positions=512, rotary_dim=16),
    "cwm": _dense("cwm", **MIXED),
    "granite-swa": _dense("granite_swa", sliding_window=WINDOW, layer_types=[SLIDING, FULL]),
    "vaultgemma": _dense("vaultgemma", **MIXED, **_GEMMA),
    "gemma3n-text": _dense("gemma3n_text", **_GEMMA, **_PER_LAYER, laurel_rank=16, altup_num_inputs=2),
    "gemma4-text": _dense("gemma4_text", **_GEMMA, **_PER_LAYER, global_head_dim=32),
    "gemma4-unified": _dense("gemma4_unified_text", **MIXED, **_GEMMA, global_head_dim=32),
    "cohere-compass": _dense(
        "cohere_compass_text",
        **MIXED,
        logit_scale=0.25,
        rope_parameters={kind: {**_ROPE, "mrope_section": [6, 6, 4]} for kind in (SLIDING, FULL)},
    ),
    "youtu": _dense("youtu", **LATENT),
    "hrm-text": _dense("hrm_text", H_cycles=1, L_cycles=2),
}
