"""Decoder families with experts, with layers other than attention, or with both; as families.py."""

from collections.abc import Mapping
from typing import Any

from verl_lite.engine.testing.families import ABSENT, FULL, LATENT, LINEAR, MIXED, SLIDING, WINDOW, Family

# by the names of all families: each config is given those that it knows
EXPERTS = {
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 8),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("first_k_dense_replace", "moe_layer_start_index", "n_group", "topk_group"), 1),
    **dict.fromkeys(("moe_intermediate_size", "shared_intermediate_size"), 64),
    "shared_expert_intermediate_size": 64,
}
_GROUPS = {"n_group": 4, "topk_group": 2}
# With few heads many keys have a score of exactly 0, and the row's length decides which are selected.
_INDEXER = {"index_topk": 16, "index_head_dim": 64, "index_n_heads": 32}
_DELTA_NET = {
    "layer_types": [LINEAR, LINEAR, LINEAR, FULL],
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
_QWEN_VISION = {
    "depth": 1,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
    "out_hidden_size": 128,
    "num_position_embeddings": 16,
}


def _moe(model_type: str, **options: Any) -> Family:
    return Family("moe", model_type, {**EXPERTS, **options})


def _hybrid(model_type: str, **options: Any) -> Family:
    return Family("hybrid", model_type, options)


MIXTURES: Mapping[str, Family] = {
    "mixtral": _moe("mixtral", sliding_window=None),
    "qwen2-moe": _moe("qwen2_moe"),
    "qwen3-moe": _moe("qwen3_moe", norm_topk_prob=True),
    "qwen3-moe-window": _moe("qwen3_moe", use_sliding_window=True, sliding_window=WINDOW),
    "deepseek-v2": _moe("deepseek_v2", **LATENT, **_GROUPS, topk_method="group_limited_greedy"),
    "deepseek-v3": _moe("deepseek_v3", **LATENT, **_GROUPS, topk_method="noaux_tc"),
    "glm4-moe": _moe("glm4_moe", use_qk_norm=True),
    "glm4-moe-lite": _moe("glm4_moe_lite", **LATENT),
    "deepseek-v3_2": _moe("deepseek_v32", **LATENT, **_GROUPS, **_INDEXER),
    "glm-moe-dsa": _moe("glm_moe_dsa", **LATENT, **_INDEXER),
    "llama4": _moe(
        "llama4_text",
        num_hidden_layers=4,
        attention_chunk_size=WINDOW,
        num_experts_per_tok=1,
        num_local_experts=4,
        intermediate_size_mlp=192,
    ),
    "mimo-v2-flash": _moe("mimo_v2_flash", sliding_window=WINDOW, v_head_dim=32),
    "solar-open": _moe("solar_open"),
    "afmoe": _moe("afmoe", **MIXED, score_func="sigmoid"),
    "gpt-oss": _moe(
        "gpt_oss",
        sliding_window=WINDOW,
        layer_types=[SLIDING, FULL],
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
    "minimax-m2": _moe("minimax_m2", rotary_dim=16, scoring_func="sigmoid"),
    "phimoe": _moe("phimoe", sliding_window=WINDOW, lm_head_bias=True),
    "olmoe": _moe("olmoe"),
    "granite-moe": _moe("granitemoe", logits_scaling=4.0, embedding_multiplier=6.0),
    "dots1": _moe("dots1", **MIXED),
    "ernie4_5-moe": _moe("ernie4_5_moe"),
    "hunyuan-moe": _moe("hunyuan_v1_moe"),
    "exaone-moe": _moe(
        "exaone_moe",
        **MIXED,
        mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
    ),
    "aria-text": _moe("aria_text", moe_num_shared_experts=2),
    "axk1": _moe("axk1", **LATENT, **_GROUPS),
    "axk2": _moe("axk2", **LATENT, **_GROUPS, **_INDEXER),
    "cohere2-moe": _moe(
        "cohere2_moe", **MIXED, logit_scale=0.25, first_k_dense_replace=0, num_shared_experts=0
    ),
    "dbrx": _moe(
        "dbrx",
        d_model=128,
        n_heads=4,
        n_layers=2,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        ffn_config={"hidden_size": 128, "ffn_hidden_size": 64, "moe_num_experts": 8, "moe_top_k": 2},
        **dict.fromkeys(
            ("hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads"), ABSENT
        ),
    ),
    "deepseek-v4": _moe(
        "deepseek_v4",
        **{**_INDEXER, "index_n_heads": 4},
        num_key_value_heads=1,
        q_lora_rank=48,
        o_groups=2,
        o_lora_rank=32,
        hc_mult=2,
        sliding_window=WINDOW,
        layer_types=[SLIDING, "heavily_compressed_attention", "compressed_sparse_attention", SLIDING],
        compress_rates={"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        mlp_layer_types=["hash_moe", "moe", "moe", "moe"],
    ),
    "flex-olmo": _moe("flex_olmo"),
    "granite-moe-shared": _moe("granitemoeshared"),
    "granite-moe-swa": _moe(
        "granitemoe_swa", shared_intermediate_size=0, sliding_window=WINDOW, layer_types=[SLIDING, FULL]
    ),
    "hy-v3": _moe("hy_v3"),
    "hy-v4": _moe("hy_v4", **LATENT, **_INDEXER, hc_mult=2),
    "jetmoe": _moe("jetmoe", num_key_value_heads=4, kv_channels=32),
    "laguna": _moe("laguna", **MIXED),
    "longcat-flash": _moe(
        "longcat_flash",
        **LATENT,
        num_layers=1,
        num_hidden_layers=ABSENT,
        ffn_hidden_size=192,
        zero_expert_num=4,
        expert_ffn_hidden_size=64,
    ),
    "mellum": _moe("mellum", **MIXED),
    "minimax-m3-text": _moe(
        "minimax_m3_vl_text",
        intermediate_size=64,
        dense_intermediate_size=192,
        rotary_dim=16,
        index_head_dim=32,
        index_block_size=8,
        index_topk_blocks=2,
        layer_types=[FULL, "minimax_m3_sparse"],
        mlp_layer_types=["dense", "sparse"],
    ),
    "qwen3-next": _hybrid("qwen3_next", **_DELTA_NET, **EXPERTS),
    "qwen3_5": Family("hybrid", "qwen3_5", {"vision_config": _QWEN_VISION}, text=_DELTA_NET),
    "qwen3_5-moe": Family(
        "hybrid",
        "qwen3_5_moe",
        {"vision_config": _QWEN_VISION},
        text={**_DELTA_NET, **EXPERTS},
    ),
    "kimi-linear": _hybrid(
        "kimi_linear",
        **{**LATENT, "q_lora_rank": None},
        **EXPERTS,
        num_experts_per_token=2,
        linear_head_dim=32,
        linear_num_heads=4,
        layer_types=[LINEAR, LINEAR, LINEAR, FULL],
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
        layers_block_type=["mamba", "moe", "attention", "mlp"],
        mamba_num_heads=8,
        mamba_head_dim=32,
        n_groups=1,
        ssm_state_size=16,
        chunk_size=16,
        **EXPERTS,
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
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"],
        num_mem_blocks=1,
        n_mamba_heads=8,
        mamba_d_state=16,
        mamba_ngroups=1,
        chunk_size=16,
    ),
    "lfm2": _hybrid("lfm2", layer_types=["conv", FULL, "conv", FULL], conv_dim=128),
    "lfm2-moe": _hybrid(
        "lfm2_moe",
        **EXPERTS,
        num_dense_layers=1,
        layer_types=["conv", FULL, "conv", FULL],
    ),
    "olmo-hybrid": _hybrid("olmo_hybrid", **_DELTA_NET),
    "falcon-mamba": _hybrid("falcon_mamba", time_step_rank=8),
    "inkling-text": _hybrid(
        "inkling_text",
        num_hidden_layers=3,
        swa_num_attention_heads=4,
        swa_num_key_value_heads=2,
        swa_head_dim=32,
        sliding_window_size=WINDOW,
        rel_extent=64,
        local_layer_ids=[0, 1],
        mlp_layer_types=["dense", "sparse", "sparse"],
        **{**EXPERTS, "n_shared_experts": 2},
    ),
    "minimax": _hybrid("minimax", num_local_experts=8, layer_types=[LINEAR, FULL] * 2, block_size=16),
    "qwen4-exp-text": _hybrid(
        "qwen4_exp_text",
        **_DELTA_NET,
        **EXPERTS,
        hc_count=2,
        hc_lowrank=16,
        indexer_n_heads=4,
        indexer_kv_heads=1,
        indexer_head_dim=32,
        indexer_budget=16,
        indexer_compress_ratio=4,
    ),
    "rwkv": _hybrid("rwkv"),
    "xlstm": _hybrid("xlstm"),
    "zamba": _hybrid(
        "zamba",
        layers_block_type=["mamba", "hybrid"] * 2,
        mamba_d_state=16,
        mamba_dt_rank=8,
        num_key_value_heads=4,
    ),
    "zaya": _hybrid(
        "zaya",
        num_experts=8,
        moe_intermediate_size=64,
        sliding_window=WINDOW,
        router_hidden_size=32,
        layer_types=["hybrid", "hybrid_sliding"] * 2,
    ),
    "recurrent-gemma": _hybrid(
        "recurrent_gemma",
        num_hidden_layers=3,
        lru_width=128,
        attention_window_size=WINDOW,
        block_types=["recurrent", "recurrent", "attention"],
    ),
}
