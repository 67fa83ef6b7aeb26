"""The game Mastermind as a verl-lite plugin: an environment, and its reward."""

from mastermind_game.environment import Mastermind, MastermindOptions, mastermind
from verl_lite.plugins import Register, hookimpl

__all__ = ["Mastermind", "MastermindOptions", "mastermind"]

VERL_LITE_API_VERSION = 1


@hookimpl
def register_environments(register: Register) -> None:
    register(Mastermind)


@hookimpl
def register_rewards(register: Register) -> None:
    register(mastermind)
