"""The rewards that come with verl-lite, registered through the same entry points as everyone else's.

A reward's module is named after the reward (`builtin/length.py`), its function `length_reward`, its
options `LengthOptions`. Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from verl_lite.lazy import lazy_exports

if TYPE_CHECKING:
    from verl_lite.plugins.builtin.choice import ChoiceOptions, choice_reward
    from verl_lite.plugins.builtin.code import CodeReward, CodeRewardOptions
    from verl_lite.plugins.builtin.equations import equations_in
    from verl_lite.plugins.builtin.exact import ExactOptions, exact_reward
    from verl_lite.plugins.builtin.format import FormatOptions, RegexOptions, format_reward, regex_reward
    from verl_lite.plugins.builtin.guard import GuardOptions, guard_reward
    from verl_lite.plugins.builtin.json_schema import JsonSchemaOptions, JsonSchemaReward
    from verl_lite.plugins.builtin.judge import Judge, JudgeOptions
    from verl_lite.plugins.builtin.judge_client import BusyError, ChatClient
    from verl_lite.plugins.builtin.judge_prompt import (
        DEFAULT_RUBRIC,
        fenced,
        make_messages,
        read_reply,
        template_problem,
    )
    from verl_lite.plugins.builtin.length import LengthOptions, length_reward
    from verl_lite.plugins.builtin.math import MathRewardOptions, math_reward
    from verl_lite.plugins.builtin.process import ProcessOptions, process_reward
    from verl_lite.plugins.builtin.process_model import ProcessModel, ProcessModelOptions
    from verl_lite.plugins.builtin.repetition import RepetitionOptions, repetition_reward
    from verl_lite.plugins.builtin.reward_model import RewardModel, RewardModelOptions
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            ".choice": ("ChoiceOptions", "choice_reward"),
            ".code": ("CodeReward", "CodeRewardOptions"),
            ".equations": ("equations_in",),
            ".exact": ("ExactOptions", "exact_reward"),
            ".format": ("FormatOptions", "RegexOptions", "format_reward", "regex_reward"),
            ".guard": ("GuardOptions", "guard_reward"),
            ".json_schema": ("JsonSchemaOptions", "JsonSchemaReward"),
            ".judge": ("Judge", "JudgeOptions"),
            ".judge_client": ("BusyError", "ChatClient"),
            ".judge_prompt": ("DEFAULT_RUBRIC", "fenced", "make_messages", "read_reply", "template_problem"),
            ".length": ("LengthOptions", "length_reward"),
            ".math": ("MathRewardOptions", "math_reward"),
            ".process": ("ProcessOptions", "process_reward"),
            ".process_model": ("ProcessModel", "ProcessModelOptions"),
            ".repetition": ("RepetitionOptions", "repetition_reward"),
            ".reward_model": ("RewardModel", "RewardModelOptions"),
        },
    )

__all__ = [
    "DEFAULT_RUBRIC",
    "BusyError",
    "ChatClient",
    "ChoiceOptions",
    "CodeReward",
    "CodeRewardOptions",
    "ExactOptions",
    "FormatOptions",
    "GuardOptions",
    "JsonSchemaOptions",
    "JsonSchemaReward",
    "Judge",
    "JudgeOptions",
    "LengthOptions",
    "MathRewardOptions",
    "ProcessModel",
    "ProcessModelOptions",
    "ProcessOptions",
    "RegexOptions",
    "RepetitionOptions",
    "RewardModel",
    "RewardModelOptions",
    "choice_reward",
    "equations_in",
    "exact_reward",
    "fenced",
    "format_reward",
    "guard_reward",
    "length_reward",
    "make_messages",
    "math_reward",
    "process_reward",
    "read_reply",
    "regex_reward",
    "repetition_reward",
    "template_problem",
]
