from .choice import ChoiceOptions as ChoiceOptions, choice_reward as choice_reward
from .citations import CitationOptions as CitationOptions, citations_reward as citations_reward
from .code import CodeReward as CodeReward, CodeRewardOptions as CodeRewardOptions
from .comparing import (
    Comparer as Comparer,
    Comparison as Comparison,
    ComparisonJudge as ComparisonJudge,
    read_verdict as read_verdict,
)
from .equations import equations_in as equations_in
from .exact import ExactOptions as ExactOptions, exact_reward as exact_reward
from .format import (
    FormatOptions as FormatOptions,
    RegexOptions as RegexOptions,
    format_reward as format_reward,
    regex_reward as regex_reward,
)
from .guard import GuardOptions as GuardOptions, guard_reward as guard_reward
from .instructions import InstructionOptions as InstructionOptions, instructions_reward as instructions_reward
from .json_schema import JsonSchemaOptions as JsonSchemaOptions, JsonSchemaReward as JsonSchemaReward
from .judge import Judge as Judge, JudgeOptions as JudgeOptions
from .judge_client import BusyError as BusyError, ChatClient as ChatClient
from .judge_endpoint import EndpointOptions as EndpointOptions, JudgeEndpoint as JudgeEndpoint
from .judge_prompt import (
    DEFAULT_RUBRIC as DEFAULT_RUBRIC,
    fenced as fenced,
    make_messages as make_messages,
    read_reply as read_reply,
    template_problem as template_problem,
)
from .language import LanguageOptions as LanguageOptions, language_reward as language_reward
from .length import LengthOptions as LengthOptions, length_reward as length_reward
from .math import MathRewardOptions as MathRewardOptions, math_reward as math_reward
from .pairwise import (
    Listwise as Listwise,
    ListwiseOptions as ListwiseOptions,
    Pairwise as Pairwise,
    PairwiseOptions as PairwiseOptions,
    ring_pairs as ring_pairs,
)
from .process import ProcessOptions as ProcessOptions, process_reward as process_reward
from .process_model import ProcessModel as ProcessModel, ProcessModelOptions as ProcessModelOptions
from .reasoning_gym import (
    REASONING_COLUMN as REASONING_COLUMN,
    GymDataset as GymDataset,
    ReasoningOptions as ReasoningOptions,
    ReasoningReward as ReasoningReward,
    encode_entry as encode_entry,
    open_task as open_task,
)
from .repetition import RepetitionOptions as RepetitionOptions, repetition_reward as repetition_reward
from .reward_model import RewardModel as RewardModel, RewardModelOptions as RewardModelOptions
from .rubric import Criterion as Criterion, Rubric as Rubric, RubricOptions as RubricOptions
from .search_answer import (
    SearchAnswerOptions as SearchAnswerOptions,
    search_answer_reward as search_answer_reward,
)
from .second_stage import SecondStageOptions as SecondStageOptions
from .sql import SqlOptions as SqlOptions, sql_reward as sql_reward
from .text_overlap import TextOverlap as TextOverlap, TextOverlapOptions as TextOverlapOptions
from .tool_calls import ToolCallOptions as ToolCallOptions, tool_calls_reward as tool_calls_reward
