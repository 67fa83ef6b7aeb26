"""The public names of the engine and of its rooms. A change here is a change of what we promise."""

import importlib
from types import ModuleType

import pytest

ROOMS: dict[str, str] = {
    "verl_lite.engine": """
        DPOConfig EvalConfig EvalResult KLController Learner LossInput PipelineConfig PolicyLearner
        PromptRow RewardModelConfig RunResult Sampler StepBatch TokenStatistics TrainConfig
        TrainingSample UpdateStats WeightSource build_tiny_model build_tiny_tokenizer cispo
        compare_results diagnose discounted_returns estimate_advantages evaluate_model export_policy
        gae group_center group_standardize gspo importance_weights kl_estimate leave_one_out
        load_config mismatch_metrics overlong_penalty policy_gradient policy_loss ppo_clip
        read_metrics read_prompts read_result run_pipeline token_weights train train_dpo
        train_only_sft train_reward_model write_rollouts
    """,
    "verl_lite.engine.algorithm": """
        EntropyController KLController LossInput Terms cispo component_weights discounted_returns dppo
        estimate_advantages gae gmpo group_center group_standardize gspo importance_weights
        informative_groups kl_estimate leave_one_out limit_covariance mean_normalised mismatch_metrics
        objective overlong_penalty policy_gradient policy_loss ppo_clip sampled_divergence sapo
        token_covariances token_kl token_weights
    """,
    "verl_lite.engine.cluster": """
        Batch EngineActor EngineClient EngineLoad EngineLost EnginePool Job LearnerGroup LearnerSpec
        NodeReport PackedWeights PoolLimits RankActor RankGroup RayEngine RayRanks RayRuntime
        RaySampler ResourceRequest RewardActors SLOW SequenceQueue TERMINATED WeightSender
        check_capacity check_launch descendants engine_resources follow inspect_cluster join
        launched_rank pack reserve_placement_group resource_requests unpack version_mismatches
        weight_source write_probe_file
    """,
    "verl_lite.engine.config": """
        AlgorithmConfig CheckpointConfig ClusterConfig CriticConfig DatasetConfig ImportanceConfig KLConfig
        LearnerConfig LoraConfig ModelConfig MonitorsConfig OptimizerConfig OverlongConfig
        RewardActorsConfig RolloutConfig SFTConfig SFTRowsConfig TinyModelConfig TrainConfig
        TrainSourceConfig VllmConfig json_schema load_config
    """,
    "verl_lite.engine.data": """
        DataReport MixedStream PromptSource PromptStream RowStore TextRow arithmetic_rows check_rows
        data_page iterate_rows length_plot make_stream near_duplicates read_prompts read_rows
        read_sources row_messages text_row to_messages to_tools worked_answer
    """,
    "verl_lite.engine.evals": """
        Comparison EvalConfig EvalResult Measure PromptResult RESULTS compare_results evaluate_model
        load_eval_config majority_share measure_greedy measure_samples read_result training_config
    """,
    "verl_lite.engine.learner": """
        AttentionMetadata LayerRule Learner LogitRule Policy PolicyOptimizer Ranks SINGLE_RANK Segment
        balance_ranks decay_start distribute_like explained_variance
        learning_rate_factor make_critic pack pack_padded shared_tokens packed_attention
        saved_state split_micro_batches start_saving token_logprobs token_logprobs_and_entropy value_loss
        write_sharded
    """,
    "verl_lite.engine.model": """
        CHAT_TEMPLATE ChatTemplate ModelShape PACKAGED_MODELS adapters_to_sync add_adapters base_model
        build_tiny_model build_tiny_tokenizer check_bitsandbytes check_critic end_of_answer
        end_token_ids fetch_model in_checkpoint_format load_policy load_tokenizer
        named_weights note_on_end open_chat_template save_policy shape_of shape_of_config without_end
    """,
    "verl_lite.engine.observe": """
        DisplayMode MONITORS MetricsLog Monitors RollbackRules StageClock StepReport SummaryRow
        Trigger Warned advice check_trackers duplicate_fraction make_display read_metrics repetition
        sample_table summary_table why_unjudged
    """,
    "verl_lite.engine.preference": """
        DPOConfig DPOObjective PreferenceConfig Ranking RewardModelConfig RewardModelObjective
        ScoringHead bradley_terry centring chat_ids dpo_loss load_scoring_model plackett_luce
        read_rankings reply_ids sequence_logprobs train_dpo train_reward_model with_reference
    """,
    "verl_lite.engine.rollout": """
        Canary FinishedSequence PROVIDER SequenceRequest ServerSampler TransformersSampler
        TurnsSampler VllmEngine VllmSampler canary_tokens use_kernels
    """,
    "verl_lite.engine.rundir": """
        ADVICE CheckpointWriter Difference FREE_FOR_MEMORY FREE_TO_CHANGE LOCK_FILE
        StopRequested changed_data choose_run_dir clear_memory_errors copy_of derive_seed
        describe_environment diff_runs fingerprint_rows load_checkpoint
        load_tensors make_deterministic newest_whole remove_leftovers restore_random_states run_lock
        why_not_whole write_manifest
    """,
    "verl_lite.engine.sft": """
        Conversation ExampleBuilder Fault FaultKind IGNORED ResponseFinder SFTData SFTExample
        SFTSource SFTStep SFTStream SavedRollout as_sample backward describe_example
        read_saved_rollouts read_sft token_factors train_sft trained_part validation_loss
    """,
    "verl_lite.engine.testing": """
        FAMILIES FakeSampler Family SlowedLearner family_config family_model write_family
    """,
    "verl_lite.engine.tools": """
        Advice Diagnosis PipelineConfig Sampled diagnose export_policy recommend
        run_pipeline summarise write_rollouts
    """,
}


@pytest.mark.parametrize("name", ROOMS)
def test_the_names_of_a_room(name: str) -> None:
    room, names = importlib.import_module(name), ROOMS[name].split()
    assert room.__all__ == sorted(names)
    assert len(set(names)) == len(names)
    for exported in room.__all__:
        value = getattr(room, exported)
        assert not isinstance(value, ModuleType), f"{name}.{exported} is hidden by the module of that name"
