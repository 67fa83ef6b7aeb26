from .advantages import (
    estimate_advantages as estimate_advantages,
    group_center as group_center,
    group_standardize as group_standardize,
    informative_groups as informative_groups,
    leave_one_out as leave_one_out,
    mean_normalised as mean_normalised,
)
from .distillation import sampled_divergence as sampled_divergence, token_kl as token_kl
from .entropy import (
    EntropyController as EntropyController,
    limit_covariance as limit_covariance,
    token_covariances as token_covariances,
)
from .importance import importance_weights as importance_weights, mismatch_metrics as mismatch_metrics
from .kl import KLController as KLController, kl_estimate as kl_estimate
from .loss_table import dppo as dppo, gmpo as gmpo, policy_loss as policy_loss, sapo as sapo
from .losses import (
    LossInput as LossInput,
    cispo as cispo,
    gspo as gspo,
    policy_gradient as policy_gradient,
    ppo_clip as ppo_clip,
    token_weights as token_weights,
)
from .objective import Terms as Terms, component_weights as component_weights, objective as objective
from .returns import (
    discounted_returns as discounted_returns,
    gae as gae,
    overlong_penalty as overlong_penalty,
)
