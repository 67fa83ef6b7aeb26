from .advantages import (
    discounted_returns as discounted_returns,
    estimate_advantages as estimate_advantages,
    gae as gae,
    group_center as group_center,
    group_standardize as group_standardize,
    informative_groups as informative_groups,
    leave_one_out as leave_one_out,
    overlong_penalty as overlong_penalty,
)
from .importance import importance_weights as importance_weights, mismatch_metrics as mismatch_metrics
from .kl import KLController as KLController, kl_estimate as kl_estimate
from .losses import (
    LossInput as LossInput,
    cispo as cispo,
    gspo as gspo,
    policy_gradient as policy_gradient,
    policy_loss as policy_loss,
    ppo_clip as ppo_clip,
    token_weights as token_weights,
)
from .objective import Terms as Terms, component_weights as component_weights, objective as objective
