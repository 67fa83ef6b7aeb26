"""Tiny random models of the decoder families in transformers, to test and measure other architectures with.

Weights are drawn so that every part counts: projections are far from zero, and norms, biases and router
biases are moved from where they start. Windows are 8 tokens, so short sequences outgrow them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from verl_lite.engine.model.tiny import build_tiny_tokenizer
from verl_lite.engine.types import PreTrainedModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Kind = Literal["dense", "moe", "hybrid"]

WINDOW = 8
VOCAB = 105  # the tiny tokenizer's
_SPREAD = 0.2  # of what is added to norms, biases and buffers
_ABSENT = object()  # an option of _SIZES that the family's config refuses
_SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_SLIDING, _FULL, _LINEAR = "sliding_attention", "full_attention", "linear_attention"
_QWEN_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
_LATENT = {
    "q_lora_rank": 48,
    "kv_lora_rank": 512,  # with the 64 below what vLLM's kernels for latent attention are built for
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64,
    "v_head_dim": 32,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
_DEEPSEEK_EXPERTS = {
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 1,
    "n_group": 4,
    "topk_group": 2,
}
_UNGROUPED_EXPERTS = {**_DEEPSEEK_EXPERTS, "n_group": 1, "topk_group": 1}
# With few heads many keys have a score of exactly 0, and the row's length decides which are selected.
_INDEXER = {"index_topk": 16, "index_head_dim": 64, "index_n_heads": 32}
_DELTA_NET = {
    "num_hidden_layers": 4,
    "layer_types": [_LINEAR, _LINEAR, _LINEAR, _FULL],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
}
_MAMBA = {
    "mamba_n_heads": 8,
    "mamba_d_head": 32,
    "mamba_n_groups": 1,
    "mamba_d_state": 16,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}
# the embeddings, which are the output head too, are multiplied by sqrt(hidden size)
_GEMMA = {"query_pre_attn_scalar": 32, "initializer_range": 0.08}
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 128,
    "num_position_embeddings": 16,
}
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


def _moe(model_type: str, **options: Any) -> Family:
    return Family("moe", model_type, options)


def _hybrid(model_type: str, **options: Any) -> Family:
    return Family("hybrid", model_type, options)


_MIXED: Mapping[str, Any] = {
    "num_hidden_layers": 4,
    "sliding_window": WINDOW,
    "layer_types": [_SLIDING, _SLIDING, _SLIDING, _FULL],
}

FAMILIES: Mapping[str, Family] = {
    "llama": _dense("llama", tie_word_embeddings=False),
    "qwen2": _dense("qwen2"),
    "qwen3": _dense("qwen3", tie_word_embeddings=True),
    "mistral": _dense("mistral", sliding_window=None),
    "mistral-window": _dense("mistral", sliding_window=WINDOW),
    "ministral": _dense("ministral", **_MIXED),
    "ministral3": _dense("ministral3"),
    "phi": _dense("phi", num_key_value_heads=4, partial_rotary_factor=0.5),
    "phi3": _dense("phi3", sliding_window=None),
    "phi3-window": _dense("phi3", sliding_window=WINDOW),
    "gemma": _dense("gemma", **_GEMMA),
    "gemma2": _dense("gemma2", **_MIXED, **_GEMMA),
    "gemma3-text": _dense("gemma3_text", **_MIXED, **_GEMMA),
    "gemma3": Family(
        "dense",
        "gemma3",
        {"vision_config": _SIGLIP, "mm_tokens_per_image": 4, "image_token_index": 104},
        text={**_MIXED, **_GEMMA},
    ),
    "gemma4": Family(
        "dense",
        "gemma4",
        {"vision_config": {**_SIGLIP, "head_dim": 16, "num_key_value_heads": 2}, "audio_config": None},
        text={
            **_MIXED,
            "initializer_range": 0.08,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": VOCAB,
            "num_kv_shared_layers": 0,
        },
    ),
    "olmo": _dense("olmo"),
    "olmo2": _dense("olmo2"),
    "olmo3": _dense("olmo3", **_MIXED),
    "smollm3": _dense("smollm3", no_rope_layers=[1, 0]),
    "granite": _dense(
        "granite",
        embedding_multiplier=6.0,
        attention_multiplier=0.1,
        residual_multiplier=0.5,
        logits_scaling=4.0,
    ),
    "cohere": _dense("cohere", logit_scale=0.25),
    "cohere2": _dense("cohere2", **_MIXED, logit_scale=0.25),
    "glm": _dense("glm", partial_rotary_factor=0.5),
    "glm4": _dense("glm4", partial_rotary_factor=0.5),
    "starcoder2": _dense("starcoder2", sliding_window=WINDOW),
    "nemotron": _dense("nemotron"),
    "doge": _dense("doge", keep_window_size=2048),
    "minicpm3": _dense("minicpm3", **_LATENT, scale_emb=4, scale_depth=1.4, dim_model_base=64),
    "exaone4": _dense("exaone4", **_MIXED),
    "ernie4_5": _dense("ernie4_5"),
    "hunyuan": _dense("hunyuan_v1_dense"),
    "seed-oss": _dense("seed_oss"),
    "apertus": _dense("apertus"),
    "arcee": _dense("arcee"),
    "helium": _dense("helium"),
    "stablelm": _dense("stablelm"),
    "nanochat": _dense("nanochat"),
    "gpt2": _dense("gpt2", n_positions=512, n_inner=192),
    "gpt-neox": _dense("gpt_neox"),
    "gptj": _dense("gptj", n_positions=512, rotary_dim=16),
    "gpt-bigcode": _dense("gpt_bigcode", n_positions=512),
    "bloom": _dense("bloom"),
    "mpt": _dense("mpt", max_seq_len=512),
    "falcon": _dense("falcon", head_dim=_ABSENT, multi_query=True, parallel_attn=True),
    "falcon-40b": _dense("falcon", head_dim=_ABSENT, new_decoder_architecture=True, num_kv_heads=2),
    "gpt-neo": _dense(
        "gpt_neo", num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=WINDOW
    ),
    "opt": _dense("opt", ffn_dim=192, word_embed_proj_dim=128, init_std=0.15),
    "mixtral": _moe("mixtral", num_local_experts=8, sliding_window=None),
    "qwen2-moe": _moe("qwen2_moe", **_QWEN_EXPERTS, shared_expert_intermediate_size=64),
    "qwen3-moe": _moe("qwen3_moe", **_QWEN_EXPERTS, norm_topk_prob=True),
    "qwen3-moe-window": _moe("qwen3_moe", **_QWEN_EXPERTS, use_sliding_window=True, sliding_window=WINDOW),
    "deepseek-v2": _moe("deepseek_v2", **_LATENT, **_DEEPSEEK_EXPERTS, topk_method="group_limited_greedy"),
    "deepseek-v3": _moe("deepseek_v3", **_LATENT, **_DEEPSEEK_EXPERTS, topk_method="noaux_tc"),
    "glm4-moe": _moe("glm4_moe", **_UNGROUPED_EXPERTS, use_qk_norm=True),
    "glm4-moe-lite": _moe("glm4_moe_lite", **_LATENT, **_UNGROUPED_EXPERTS),
    "deepseek-v3_2": _moe("deepseek_v32", **_LATENT, **_DEEPSEEK_EXPERTS, **_INDEXER),
    "glm-moe-dsa": _moe("glm_moe_dsa", **_LATENT, **_UNGROUPED_EXPERTS, **_INDEXER),
    "llama4": _moe(
        "llama4_text",
        num_hidden_layers=4,
        attention_chunk_size=WINDOW,
        num_local_experts=4,
        intermediate_size_mlp=192,
    ),
    "mimo-v2-flash": _moe("mimo_v2_flash", sliding_window=WINDOW, v_head_dim=32, **_UNGROUPED_EXPERTS),
    "solar-open": _moe("solar_open", **_UNGROUPED_EXPERTS),
    "afmoe": _moe("afmoe", **_MIXED, **_QWEN_EXPERTS, num_shared_experts=1, score_func="sigmoid"),
    "gpt-oss": _moe(
        "gpt_oss",
        num_local_experts=8,
        num_experts_per_tok=2,
        sliding_window=WINDOW,
        layer_types=[_SLIDING, _FULL],
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 128,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    ),
    "minimax-m2": _moe(
        "minimax_m2", num_local_experts=8, num_experts_per_tok=2, rotary_dim=16, scoring_func="sigmoid"
    ),
    "phimoe": _moe("phimoe", num_local_experts=8, sliding_window=WINDOW, lm_head_bias=True),
    "olmoe": _moe("olmoe", num_experts=8, num_experts_per_tok=2),
    "granite-moe": _moe("granitemoe", num_local_experts=8, logits_scaling=4.0, embedding_multiplier=6.0),
    "dots1": _moe("dots1", **_UNGROUPED_EXPERTS, **_MIXED),
    "ernie4_5-moe": _moe(
        "ernie4_5_moe",
        moe_num_experts=8,
        moe_k=2,
        moe_intermediate_size=64,
        moe_num_shared_experts=1,
        moe_layer_start_index=1,
    ),
    "hunyuan-moe": _moe("hunyuan_v1_moe", num_experts=8, moe_topk=2),
    "exaone-moe": _moe(
        "exaone_moe",
        **_MIXED,
        **_QWEN_EXPERTS,
        num_shared_experts=1,
        mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
    ),
    "qwen3-next": _hybrid("qwen3_next", **_DELTA_NET, **_QWEN_EXPERTS, shared_expert_intermediate_size=64),
    "qwen3_5": Family("hybrid", "qwen3_5", {"vision_config": _QWEN_VISION}, text=_DELTA_NET),
    "qwen3_5-moe": Family(
        "hybrid",
        "qwen3_5_moe",
        {"vision_config": _QWEN_VISION},
        text={**_DELTA_NET, **_QWEN_EXPERTS, "shared_expert_intermediate_size": 64},
    ),
    "kimi-linear": _hybrid(
        "kimi_linear",
        **{**_LATENT, "q_lora_rank": None},
        num_experts=8,
        num_experts_per_token=2,
        moe_intermediate_size=64,
        linear_head_dim=32,
        linear_num_heads=4,
        num_hidden_layers=4,
        layer_types=[_LINEAR, _LINEAR, _LINEAR, _FULL],
    ),
    "falcon-h1": _hybrid(
        "falcon_h1", **_MAMBA, mamba_d_ssm=256, ssm_out_multiplier=0.5, lm_head_multiplier=0.5
    ),
    "bamba": _hybrid("bamba", **_MAMBA, num_hidden_layers=4, attn_layer_indices=[1, 3]),
    "granite-hybrid": _hybrid(
        "granitemoehybrid",
        **_MAMBA,
        num_local_experts=8,
        layer_types=["mamba", "attention"],
        shared_intermediate_size=64,
    ),
    "nemotron-h": _hybrid(
        "nemotron_h",
        num_hidden_layers=4,
        layers_block_type=["mamba", "moe", "attention", "mlp"],
        mamba_num_heads=8,
        mamba_head_dim=32,
        n_groups=1,
        ssm_state_size=16,
        chunk_size=16,
        n_routed_experts=8,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        moe_shared_expert_intermediate_size=64,
    ),
    "mamba": _hybrid("mamba", time_step_rank=8),
    "mamba2": _hybrid("mamba2", num_heads=8, head_dim=32, n_groups=1, state_size=16, expand=2, chunk_size=16),
    "jamba": _hybrid(
        "jamba",
        num_hidden_layers=4,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=4,
        mamba_d_state=16,
    ),
    "zamba2": _hybrid(
        "zamba2",
        num_hidden_layers=4,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        num_mem_blocks=1,
        n_mamba_heads=8,
        mamba_d_state=16,
        mamba_ngroups=1,
        chunk_size=16,
    ),
    "lfm2": _hybrid("lfm2", num_hidden_layers=4, layer_types=["conv", _FULL, "conv", _FULL], conv_dim=128),
    "lfm2-moe": _hybrid(
        "lfm2_moe",
        **_QWEN_EXPERTS,
        num_dense_layers=1,
        num_hidden_layers=4,
        layer_types=["conv", _FULL, "conv", _FULL],
    ),
    "olmo-hybrid": _hybrid("olmo_hybrid", **_DELTA_NET),
    "falcon-mamba": _hybrid("falcon_mamba", time_step_rank=8),
    "recurrent-gemma": _hybrid(
        "recurrent_gemma",
        num_hidden_layers=3,
        lru_width=128,
        attention_window_size=WINDOW,
        block_types=["recurrent", "recurrent", "attention"],
    ),
}


def family_config(name: str) -> "PreTrainedConfig":
    """The tiny config of FAMILIES[`name`]."""
    from transformers import AutoConfig

    family = FAMILIES[name]
    if family.text is None:
        return AutoConfig.for_model(family.model_type, **_sized(family.options))
    text = AutoConfig.for_model(family.model_type).get_text_config()
    text = type(text)(**_sized(family.text))
    return AutoConfig.for_model(family.model_type, text_config=text.to_dict(), **family.options)


def _sized(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**_SIZES, **options}.items() if value is not _ABSENT}


@torch.no_grad()
def family_model(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A random model of the family in float32, as its folder on the hub has it: with towers for images."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    loader: Any = AutoModelForCausalLM if FAMILIES[name].text is None else AutoModelForImageTextToText
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = loader.from_config(family_config(name), dtype=torch.float32)
        for tensor in model.state_dict().values():
            if tensor.ndim < 2 and tensor.is_floating_point():
                tensor.add_(_SPREAD * torch.randn_like(tensor))
    return model.eval()


def write_family(name: str, folder: Path, *, seed: int = 0) -> None:
    """Write the family's random model, with the tiny tokenizer, as a Hugging Face folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    family_model(name, seed=seed).save_pretrained(folder)
    build_tiny_tokenizer().save_pretrained(folder)
