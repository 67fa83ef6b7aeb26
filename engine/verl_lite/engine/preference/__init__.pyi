from .config import (
    DPOConfig as DPOConfig,
    PreferenceConfig as PreferenceConfig,
    RewardModelConfig as RewardModelConfig,
)
from .data import (
    Ranking as Ranking,
    chat_ids as chat_ids,
    read_rankings as read_rankings,
    reply_ids as reply_ids,
)
from .dpo import (
    DPOObjective as DPOObjective,
    sequence_logprobs as sequence_logprobs,
    with_reference as with_reference,
)
from .losses import (
    bradley_terry as bradley_terry,
    centring as centring,
    dpo_loss as dpo_loss,
    plackett_luce as plackett_luce,
)
from .reward_model import (
    RewardModelObjective as RewardModelObjective,
    ScoringHead as ScoringHead,
    load_scoring_model as load_scoring_model,
)
from .training import train_dpo as train_dpo, train_reward_model as train_reward_model
