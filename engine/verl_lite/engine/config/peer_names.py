"""The names that other trainers have for our settings, for the message on an unknown key.

They are those of TRL (Unsloth and ms-swift take them over), verl, OpenRLHF, SkyRL, prime-rl and NeMo RL.
docs/migrate.md says what differs in meaning.
"""

from collections.abc import Mapping

_THEIRS = {
    "rollout.num_samples": """n num_generations n_samples_per_prompt rollouts_per_example group_size
        num_generations_per_prompt samples_per_prompt""",
    "rollout.num_prompts": """train_batch_size rollout_batch_size per_device_train_batch_size gen_batch_size
        generation_batch_size num_prompts_per_step groups_per_batch gradient_accumulation_steps batch_size""",
    "rollout.max_new_tokens": """max_completion_length max_response_length generate_max_len max_tokens
        max_generate_length response_length max_completion_tokens""",
    "rollout.max_prompt_tokens": "max_prompt_length prompt_max_len max_input_length",
    "rollout.max_context_tokens": """max_model_len vllm_max_model_len max_seq_length max_seq_len seq_len
        max_total_sequence_length max_length""",
    "rollout.sampler": "use_vllm fast_inference",
    "rollout.placement": "vllm_mode colocate_all colocate_all_models hybrid_engine",
    "rollout.server.url": "vllm_server_base_url vllm_server_host vllm_server_port base_url",
    "rollout.num_engines": "vllm_num_engines num_inference_engines num_engines",
    "rollout.weight_transfer": "vllm_sync_backend weight_sync_backend weight_broadcast",
    "rollout.vllm.gpu_memory_utilization": "gpu_memory_utilization vllm_gpu_memory_utilization",
    "rollout.vllm.tensor_parallel_size": """tensor_parallel_size vllm_tensor_parallel_size
        tensor_model_parallel_size inference_engine_tensor_parallel_size""",
    "rollout.vllm.sleep": "sleep_level free_cache_engine vllm_enable_sleep vllm_enable_sleep_mode",
    "rollout.vllm.enforce_eager": "enforce_eager vllm_enforce_eager",
    "rollout.vllm.prefix_caching": "enable_prefix_caching vllm_enable_prefix_caching",
    "rollout.vllm.quantization": "rollout_quantization fp8_rollout",
    "algorithm.advantage": """adv_estimator advantage_estimator scale_rewards norm_adv_by_std_in_grpo
        grpo_norm_by_std""",
    "algorithm.loss": """loss_type policy_loss_type loss_mode importance_sampling_level rlhf_type
        policy_loss""",
    "algorithm.aggregate": "loss_agg_mode loss_reduction token_level_loss",
    "algorithm.clip_low": """epsilon epsilon_low eps_clip eps_clip_low clip_eps_low clip_ratio clip_ratio_low
        cliprange ratio_clip_min""",
    "algorithm.clip_high": "epsilon_high eps_clip_high clip_eps_high clip_ratio_high ratio_clip_max",
    "algorithm.dual_clip": "delta clip_ratio_c",
    "algorithm.epochs": "num_iterations ppo_epochs num_ppo_epochs max_epochs update_epochs_per_batch",
    "algorithm.mini_batches": """ppo_mini_batch_size policy_mini_batch_size num_mini_batches mini_batch_size
        steps_per_generation train_global_batch_size""",
    "algorithm.entropy_bonus": "entropy_coeff entropy_coef ent_coef entropy_loss_coef",
    "algorithm.lam": "lambd lambda gae_lambda",
    "algorithm.dynamic_sampling": """filter_groups dynamic_sample dynamic_filtering use_dynamic_sampling
        online_difficulty_filtering""",
    "algorithm.max_refills": "max_num_gen_batches max_resample_times",
    "algorithm.kl.coefficient": """beta kl_coef init_kl_coef kl_loss_coef kl_beta kl_coeff kl_tau
        reference_policy_kl_penalty""",
    "algorithm.kl.estimator": "kl_loss_type kl_estimator kl_estimator_type kl_penalty",
    "algorithm.kl.placement": "use_kl_loss use_kl_in_reward kl_in_reward",
    "algorithm.kl.target": "target_kl kl_target",
    "algorithm.overlong.mode": """mask_truncated_completions overlong_filter overlong_filtering
        apply_overlong_filtering overlong_buffer""",
    "algorithm.overlong.buffer_tokens": "soft_cache_length overlong_buffer_len",
    "algorithm.overlong.penalty": "overlong_penalty_factor",
    "algorithm.critic.model": "critic_pretrain value_model_path",
    "algorithm.critic.learning_rate": "critic_learning_rate critic_lr",
    "algorithm.critic.value_clip": "cliprange_value eps_clip_value",
    "algorithm.critic.warmup_steps": "critic_warmup freezing_actor_steps",
    "algorithm.importance.mode": """vllm_importance_sampling_correction enable_vllm_is_correction rollout_is
        use_tis""",
    "algorithm.importance.high": """vllm_importance_sampling_cap tis_imp_ratio_cap rollout_is_threshold
        token_mask_high""",
    "learner.optimizer.learning_rate": "lr learning_rate actor_learning_rate",
    "learner.optimizer.schedule": "lr_scheduler_type lr_scheduler warmup_style",
    "learner.optimizer.warmup_steps": """lr_warmup_steps warmup_ratio lr_warmup_ratio lr_warmup_steps_ratio
        num_warmup_steps""",
    "learner.optimizer.max_grad_norm": "grad_clip max_norm gradient_clipping",
    "learner.optimizer.name": "optim",
    "learner.optimizer.offload": "adam_offload optimizer_offload cpu_offload",
    "learner.optimizer.betas": "adam_betas adam_beta1 adam_beta2",
    "learner.optimizer.weight_decay": "l2",
    "learner.dtype": "bf16 fp16 mixed_precision",
    "learner.gradient_checkpointing": """enable_gradient_checkpointing use_gradient_checkpointing
        activation_checkpointing""",
    "learner.max_tokens_per_micro_batch": """ppo_max_token_len_per_gpu max_token_len_per_gpu
        ppo_micro_batch_size_per_gpu micro_train_batch_size micro_train_batch_size_per_gpu
        micro_forward_batch_size_per_gpu train_micro_batch_size micro_batch_size""",
    "learner.backend": "packing padding_free use_remove_padding use_sample_packing packing_samples",
    "learner.num_ranks": """n_gpus_per_node gpus_per_node actor_num_gpus_per_node policy_num_gpus_per_node
        num_processes""",
    "learner.parallel": "zero_stage deepspeed fsdp fsdp_config",
    "learner.lora": "peft_config use_peft tuner_type train_type use_lora",
    "learner.lora.rank": "lora_rank lora_r max_lora_rank",
    "learner.lora.alpha": "lora_alpha",
    "learner.lora.dropout": "lora_dropout",
    "learner.lora.target_modules": "lora_target_modules",
    "learner.lora.quantize": "load_in_4bit",
    "model.path": "pretrain model_name model_name_or_path model_id",
    "model.dtype": "torch_dtype param_dtype",
    "data.train": "train_files train_data train_dataset dataset prompt_data dataset_name",
    "data.held_out": "val_files val_data eval_dataset",
    "data.train.prompt": "prompt_key input_key",
    "data.train.reference": "label_key",
    "data.train.num_rows": "max_samples train_max_samples",
    "data.train.overlong": "filter_overlong_prompts truncation",
    "data.template_kwargs": "chat_template_kwargs apply_chat_template_kwargs",
    "rewards": """reward_funcs reward_weights reward_function custom_reward_function remote_rm_url
        reward_pretrain reward_model reward_model_path""",
    "environment.use": "environment_class env_class",
    "steps": """max_steps total_training_steps total_epochs num_train_epochs num_epochs num_episodes epochs
        max_num_steps""",
    "seed": "random_seed data_seed",
    "name": "run_name experiment_name wandb_run_name",
    "checkpoints.every_steps": "save_steps save_freq save_interval ckpt_interval save_period",
    "checkpoints.keep": "save_total_limit max_ckpt_num max_actor_ckpt_to_keep keep_top_k",
    "evaluation.every_steps": "eval_steps test_freq eval_interval val_period",
    "logging.trackers": "report_to use_wandb wandb logger",
    "asynchrony.mode": "async_train async_rollout fully_async",
    "asynchrony.max_lag": """max_async_level max_staleness max_staleness_steps staleness_threshold
        max_off_policy_steps async_queue_size""",
    "cluster.address": "nnodes num_nodes",
}

_THEIRS_IN_SFT = {
    "sft.batch_rows": "batch_size train_batch_size per_device_train_batch_size micro_batch_size_per_gpu",
    "sft.max_tokens": "max_length max_seq_length max_seq_len max_len",
    "sft.epochs": "num_train_epochs num_epochs total_epochs max_epochs",
    "sft.steps": "max_steps total_training_steps",
    "sft.mask": "assistant_only_loss completion_only_loss",
    "sft.text": "dataset_text_field",
    "sft.data": "dataset train_files train_dataset dataset_name",
    "sft.validation": "val_files eval_dataset",
    "sft.validation.every_steps": "eval_steps test_freq",
    "sft.lora": "peft_config use_peft",
    "sft.optimizer.learning_rate": "lr learning_rate",
    "sft.optimizer.schedule": "lr_scheduler_type lr_scheduler",
    "sft.optimizer.warmup_steps": "warmup_ratio lr_warmup_steps lr_warmup_steps_ratio",
    "sft.optimizer.max_grad_norm": "clip_grad grad_clip max_norm",
}

PEER_NAMES: Mapping[str, str] = {
    **{name: ours for ours, theirs in _THEIRS.items() for name in theirs.split()},
    **{f"sft.{name}": ours for ours, theirs in _THEIRS_IN_SFT.items() for name in theirs.split()},
}
