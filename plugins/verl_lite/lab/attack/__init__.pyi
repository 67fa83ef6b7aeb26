from .corpus import (
    Attack as Attack,
    attack_rollout as attack_rollout,
    load_attacks as load_attacks,
    wrong_answers as wrong_answers,
)
from .exploits import (
    AttackReport as AttackReport,
    Exploit as Exploit,
    FamilyTally as FamilyTally,
    attack_rewards as attack_rewards,
    default_rows as default_rows,
)
