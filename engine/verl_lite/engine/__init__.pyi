from .algorithm.advantages import (
    estimate_advantages as estimate_advantages,
    group_center as group_center,
    group_standardize as group_standardize,
    leave_one_out as leave_one_out,
)
from .algorithm.importance import (
    importance_weights as importance_weights,
    mismatch_metrics as mismatch_metrics,
)
from .algorithm.kl import KLController as KLController, kl_estimate as kl_estimate
from .algorithm.loss_table import policy_loss as policy_loss
from .algorithm.losses import (
    LossInput as LossInput,
    cispo as cispo,
    gspo as gspo,
    policy_gradient as policy_gradient,
    ppo_clip as ppo_clip,
    token_weights as token_weights,
)
from .algorithm.returns import (
    discounted_returns as discounted_returns,
    gae as gae,
    overlong_penalty as overlong_penalty,
)
from .config.train import TrainConfig as TrainConfig, load_config as load_config
from .data.prompts import read_prompts as read_prompts
from .evals.compare import compare_results as compare_results
from .evals.config import EvalConfig as EvalConfig
from .evals.evaluate import (
    EvalResult as EvalResult,
    evaluate_model as evaluate_model,
    read_result as read_result,
)
from .learner.learner import Learner as Learner
from .model.tiny import build_tiny_model as build_tiny_model, build_tiny_tokenizer as build_tiny_tokenizer
from .observe.metrics_log import read_metrics as read_metrics
from .preference.config import DPOConfig as DPOConfig, RewardModelConfig as RewardModelConfig
from .preference.training import train_dpo as train_dpo, train_reward_model as train_reward_model
from .tools.diagnosis import diagnose as diagnose
from .tools.export import export_policy as export_policy
from .tools.pipeline import PipelineConfig as PipelineConfig, run_pipeline as run_pipeline
from .tools.sampling import write_rollouts as write_rollouts
from .training import RunResult as RunResult, train as train, train_only_sft as train_only_sft
from .types import (
    PolicyLearner as PolicyLearner,
    PromptRow as PromptRow,
    Sampler as Sampler,
    StepBatch as StepBatch,
    TokenStatistics as TokenStatistics,
    TrainingSample as TrainingSample,
    UpdateStats as UpdateStats,
    WeightSource as WeightSource,
)
