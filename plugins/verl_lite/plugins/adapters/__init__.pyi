from .bridge import RewardBridge as RewardBridge
from .foreign_calls import OpenRlhfCall as OpenRlhfCall, TrlCall as TrlCall, VerlCall as VerlCall
from .openrlhf import as_openrlhf_reward_func as as_openrlhf_reward_func
from .score_one import ScoreOne as ScoreOne, score_one as score_one
from .trl import as_trl_reward_func as as_trl_reward_func
from .verifiers import as_verifiers_reward as as_verifiers_reward, as_verifiers_rubric as as_verifiers_rubric
from .verl import as_verl_compute_score as as_verl_compute_score
