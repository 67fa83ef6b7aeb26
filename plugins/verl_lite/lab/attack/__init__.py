"""Hostile answers and programs against a reward: what is rewarded without being right."""

from verl_lite.lab.attack.corpus import Attack, attack_rollout, load_attacks, wrong_answers
from verl_lite.lab.attack.exploits import AttackReport, Exploit, FamilyTally, attack_rewards, default_rows

__all__ = [
    "Attack",
    "AttackReport",
    "Exploit",
    "FamilyTally",
    "attack_rewards",
    "attack_rollout",
    "default_rows",
    "load_attacks",
    "wrong_answers",
]
