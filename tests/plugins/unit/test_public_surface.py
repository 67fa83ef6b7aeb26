"""What other rooms and users import, name by name. A change here is a change of what we promise."""

import importlib
import inspect
import re
from types import ModuleType

import pytest

from verl_lite import plugins

ROOMS = {
    "verl_lite.plugins": """
        API_VERSION EPS Component ComponentScore ConfigModel EnvironmentDefinition EnvironmentHost
        EnvironmentSession Form FunctionCall Message Moments NoOptions
        PluginInfo PluginStatus Register RewardCatalog RewardDefinition RewardsConfig Rollout SamplerSettings
        Score ScoreOutcome ScoredBatch ScoredRollout Scorer ScoringSession Segment Step StepResult StepScore
        ToolCall ToolDefinition ToolError ToolSchema Turn TurnOutcome apply_overrides
        content_hash definition_of environment find_rewards gdpo_advantages group_center group_standardize
        has_zero_variance hookimpl load_config load_rewards_config mean_and_std read_yaml
        reference_text reward to_score tool validate
    """,
    "verl_lite.plugins.adapters": """
        OpenRlhfCall RewardBridge ScoreOne TrlCall VerlCall as_openrlhf_reward_func as_trl_reward_func
        as_verifiers_reward as_verifiers_rubric as_verl_compute_score score_one
    """,
    "verl_lite.plugins.builtin": """
        DEFAULT_RUBRIC BusyError ChatClient ChoiceOptions CodeReward CodeRewardOptions Comparer
        Comparison ComparisonJudge Criterion EndpointOptions ExactOptions JudgeEndpoint Listwise
        ListwiseOptions Pairwise PairwiseOptions Rubric RubricOptions read_verdict ring_pairs
        FormatOptions GuardOptions InstructionOptions JsonSchemaOptions JsonSchemaReward Judge JudgeOptions
        LengthOptions MathRewardOptions ProcessModel ProcessModelOptions ProcessOptions RegexOptions
        RepetitionOptions RewardModel RewardModelOptions SecondStageOptions choice_reward
        equations_in exact_reward
        fenced format_reward guard_reward instructions_reward length_reward make_messages math_reward
        process_reward read_reply REASONING_COLUMN GymDataset ReasoningOptions ReasoningReward
        ToolCallOptions encode_entry open_task tool_calls_reward regex_reward
        repetition_reward template_problem CitationOptions LanguageOptions SearchAnswerOptions
        SqlOptions TextOverlap TextOverlapOptions citations_reward language_reward
        search_answer_reward sql_reward
    """,
    "verl_lite.plugins.calls": """
        BY_NAME FORMATS Call CallFormat call_of calls_in read_calls split_calls
    """,
    "verl_lite.plugins.composite": """
        METRICS CircuitBreaker Combiner ComponentConfig Composite Decode Gate GroupConfig Leaf
        RewardNode RewardsConfig Schedule ScoringConfig Weight batch_metrics build_composite
        even_spans gdpo_advantages leaves load_rewards_config parse_gate spans_from_pieces
        steps_to_tokens token_pieces weight_at weights_of
    """,
    "verl_lite.plugins.environments": """
        EnvironmentConfig Environments ToolConfig ToolsConfig
    """,
    "verl_lite.plugins.records": """
        SCHEMA_VERSION BadRow Convert Record RecordWriter Span StoredScore arrow_schema
        check_record_file infer_columns join_record_files own_records read_records read_rows spans_of to_json
        to_record to_scored turn_rows
    """,
    "verl_lite.plugins.serving": """
        RemoteOptions RemoteReward RewardService SHAPES ServingOptions Shape make_app remote_reward
        serve_rewards
    """,
    "verl_lite.plugins.testing": """
        ChatRequest FakeChatServer FakeEnvironments assert_any_order assert_group_scores assert_score
        component_for fake_group fake_rollout play score_rollouts
    """,
    "verl_lite.lab": """
        AttackReport CalibrationBin CheckOptions CheckReport ComponentDiff Confusion DiffReport
        Finding Latencies Level ReportOptions Rollouts ScoreCache ScoreSummary ScoringOptions Sources
        attack_rewards calibration_bins calibration_error check_file cohen_kappa compare_golden
        default_cache_path diff_groups digest group_advantages group_records make_golden mcnemar_exact
        mean_interval open_rollouts open_scorer pair_inversions pass_at_k primary_component quantile
        read_golden rollout_digest score_file score_groups wilson_interval without_breaker write_golden
        write_report
    """,
    "verl_lite.lab.attack": """
        Attack AttackReport Exploit FamilyTally attack_rewards attack_rollout default_rows
        load_attacks wrong_answers
    """,
    "verl_lite.lab.notebook": """
        NotebookRewards Scores attack check diff read_rewards read_source score
    """,
    "verl_lite.lab.authoring": """
        Description PluginNames PluginReport check_plugin describe write_plugin
    """,
    "verl_lite.lab.check": """
        CheckOptions CheckReport ComponentTally Finding GroupTally LabelTally Level check_file
        component_findings group_findings label_findings read_label
    """,
    "verl_lite.lab.formats": """
        AUTO DATA_SETS FORMATS OWN DataSet Format UnknownFormatError format_of
    """,
    "verl_lite.lab.preferences": """
        Agreement AnnotationPage AnnotationStore Candidates PairChoice PreferenceRow
        annotator_agreement annotator_name rank_by_judge rank_by_rewards read_candidates
        read_preferences to_preference write_preferences
    """,
    "verl_lite.lab.reading": """
        Piece RecordFile Rollouts Row Sources data_rows detect group_records open_rollouts records_of_rows
    """,
    "verl_lite.lab.report": """
        NOTHING ReportData ReportOptions collect shown_rollouts timeline_data write_report
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


SIGNATURES = {
    "reward": """
        name: str
        *
        options: type[BaseModel] | None = None
        form: Literal['rollout', 'batch', 'group'] = 'rollout'
        isolate: bool = True
        timeout_s: float = 10.0
        max_batch: int = 64
        max_concurrency: int = 32
        retry_on: tuple[type[Exception], ...] = ()
        max_retries: int = 2
        version: str = '1'
        cache: bool = True
        is_remote: bool = False
        -> Callable[[~CallableT], ~CallableT]
    """,
    "RewardDefinition": """
        *
        name: str
        call: Callable[..., Any]
        options_model: type[BaseModel] = <class 'NoOptions'>
        timeout_s: float = 10.0
        distribution: str = ''
        form: Literal['rollout', 'batch', 'group'] = 'rollout'
        isolate: bool = True
        max_batch: int = 64
        max_concurrency: int = 32
        retry_on: tuple[type[Exception], ...] = ()
        max_retries: int = 2
        version: str = '1'
        cache: bool = True
        is_remote: bool = False
    """,
    "Component": """
        *
        name: str
        definition: RewardDefinition
        options: BaseModel
        timeout_s: float
        needs: frozenset[str] = frozenset()
        applies: Callable[[Rollout, Mapping[str, Score]], bool] = <function applies_always>
    """,
    "Rollout": """
        *
        completion: str
        prompt: Sequence[Message] = ()
        reference: str | None = None
        columns: Mapping[str, Any] = <factory>
        id: str = ''
        group: str = ''
        sample_index: int = 0
        finish_reason: str = ''
        prompt_ids: Sequence[int] = ()
        completion_ids: Sequence[int] = ()
        logprobs: Sequence[float] = ()
        policy_version: int = 0
        token_versions: Sequence[int] = ()
        sampling: SamplerSettings = <factory>
        turns: Sequence[Turn] = ()
        segments: Sequence[Segment] = ()
    """,
    "SamplerSettings": """
        *
        temperature: float = 1.0
        top_p: float = 1.0
        top_k: int = 0
        max_new_tokens: int = 0
        seed: int | None = None
    """,
    "Score": """
        value: float | None
        outcome: ScoreOutcome = <ScoreOutcome.OK: 'ok'>
        reason: str = ''
        details: Mapping[str, Any] = <factory>
        steps: tuple[StepScore, ...] = ()
    """,
    "StepScore": """
        start: int
        end: int
        value: float
        unit: Literal['char', 'token', 'turn'] = 'char'
    """,
    "ComponentScore": """
        *
        score: Score
        weight: float
        contribution: float | None
        latency_s: float = 0.0
    """,
    "ScoredRollout": """
        *
        rollout: Rollout
        components: Mapping[str, ComponentScore]
        reward: float | None
        dropped_because: str = ''
        token_rewards: Sequence[float] = ()
    """,
    "ScoredBatch": """
        *
        rows: Sequence[ScoredRollout]
        metrics: Mapping[str, float]
        slowest: Mapping[str, Sequence[SlowRow]] = <factory>
    """,
    "to_score": """
        answer: object
        -> Score
    """,
    "find_rewards": """
        *
        load_plugins: bool = True
        extra: Iterable[EntryPoint] = ()
        -> RewardCatalog
    """,
    "load_rewards_config": """
        path: str | Path
        overrides: Sequence[str] = ()
        -> RewardsConfig
    """,
    "Scorer": """
        config: RewardsConfig
        *
        workers: int | None = None
        debug_inline: bool = False
        catalog: RewardCatalog | None = None
        decode: Callable[[Sequence[int]], str] | None = None
        failures_path: str | Path | None = None
        placement: Placement | None = None
    """,
    "gdpo_advantages": """
        rows: Sequence[ScoredRollout]
        *
        eps: float = 1e-06
        normalise_batch: bool = True
        -> list[float | None]
    """,
    "group_standardize": """
        rewards_G: Sequence[float]
        *
        eps: float = 1e-06
        -> list[float]
    """,
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_signatures_of_the_reward_contract(name: str) -> None:
    written = [line.strip() for line in SIGNATURES[name].strip().splitlines()]
    assert signature_lines(name) == written


def signature_lines(name: str) -> list[str]:
    """One line per parameter, "*" before the keyword-only ones, the result last; modules left out."""
    signature = inspect.signature(getattr(plugins, name))
    lines = [str(parameter) for parameter in signature.parameters.values()]
    kinds = [parameter.kind for parameter in signature.parameters.values()]
    if inspect.Parameter.KEYWORD_ONLY in kinds:
        lines.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "*")
    if signature.return_annotation is not None:
        lines.append(f"-> {inspect.formatannotation(signature.return_annotation)}")
    return [re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z])| at 0x[0-9a-f]+", "", line) for line in lines]


def test_the_hook_and_the_version_of_the_contract() -> None:
    assert plugins.API_VERSION == 1
    assert list(inspect.signature(plugins.contract.register_rewards).parameters) == ["register"]
    assert plugins.hookimpl.project_name == "verl_lite"


def test_the_keys_of_a_message() -> None:
    keys = ["role", "content", "name", "tool_calls", "tool_call_id"]
    assert list(plugins.Message.__annotations__) == keys
