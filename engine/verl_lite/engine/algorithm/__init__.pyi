from .advantages import (
    discounted_returns as discounted_returns,
    estimate_advantages as estimate_advantages,
    gae as gae,
    group_center as group_center,
    group_standardize as group_standardize,
    informative_groups as informative_groups,
    leave_one_out as leave_one_out,
    mean_normalised as mean_normalised,
    overlong_penalty as overlong_penalty,
)
from .distillation import sampled_divergence as sampled_divergence, token_kl as token_kl
from .entropy import (
    EntropyController as EntropyController,
    limit_covariance as limit_covariance,
    token_covariances as token_covariances,
)
from .importance import importance_weights as importance_weights, mismatch_metrics as mismatch_metrics
from .kl import KLController as KLController, kl_estimate as kl_estimate
from .losses import (
    LossInput as LossInput,
    cispo as cispo,
    dppo as dppo,
    gmpo as gmpo,
    gspo as gspo,
    policy_gradient as policy_gradient,
    policy_loss as policy_loss,
    ppo_clip as ppo_clip,
    sapo as sapo,
    token_weights as token_weights,
)
from .objective import Terms as Terms, component_weights as component_weights, objective as objective
