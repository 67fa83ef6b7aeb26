"""Hostile answers and programs against a reward: what earns marks without being right."""

from verl_lite.lab.attack.corpus import Attack, load_attacks
from verl_lite.lab.attack.run import AttackReport, attack_rewards

__all__ = ["Attack", "AttackReport", "attack_rewards", "load_attacks"]
