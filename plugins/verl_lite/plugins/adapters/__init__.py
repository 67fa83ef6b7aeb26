"""Our rewards in other trainers, and their reward functions as ours. No trainer is imported before it calls.

as_*        one of our configs as a reward function of TRL, verl, OpenRLHF or verifiers
foreign.py  the other way: `use: trl:my_module.my_reward` in a config
"""

from verl_lite.plugins.adapters.bridge import RewardBridge
from verl_lite.plugins.adapters.foreign_calls import OpenRlhfCall, TrlCall, VerlCall
from verl_lite.plugins.adapters.openrlhf import as_openrlhf_reward_func
from verl_lite.plugins.adapters.trl import as_trl_reward_func
from verl_lite.plugins.adapters.verifiers import as_verifiers_reward, as_verifiers_rubric
from verl_lite.plugins.adapters.verl import as_verl_compute_score

__all__ = [
    "OpenRlhfCall",
    "RewardBridge",
    "TrlCall",
    "VerlCall",
    "as_openrlhf_reward_func",
    "as_trl_reward_func",
    "as_verifiers_reward",
    "as_verifiers_rubric",
    "as_verl_compute_score",
]
