"""The recipes of docs/other-trainers.md, called as each trainer calls a reward.

Where the trainer's package is installed, its own classes are used (and, for AReaL, its own caller); elsewhere
stand-ins with the same names, fields and signatures. The versions on the page are those that this file passed
with.
"""

import asyncio
import re
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

import pytest

from verl_lite.errors import ConfigError, RewardError
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.adapters import score_one

PAGE = (Path(__file__).parents[3] / "docs" / "other-trainers.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^## (.+?)\n\n```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))


@dataclass
class RewardOutput:  # of rllm.rewards.reward_types
    reward: float
    metadata: dict[str, Any] = field(default_factory=dict)
    is_correct: bool | None = None


@dataclass
class EvaluateResult:  # of eval_protocol
    score: float
    is_score_valid: bool = True
    reason: str | None = None


class BaseTextEnvStepOutput(TypedDict):  # of skyrl_gym.envs.base_text_env
    observations: list[dict[str, str]]
    reward: float
    done: bool
    metadata: dict[str, Any]


class Base:
    """Any trainer's base class: what its constructor is given is kept."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.given = (args, kwargs)


STAND_INS: dict[str, dict[str, Any]] = {
    "skyrl_gym.envs.base_text_env": {
        "BaseTextEnv": Base,
        "BaseTextEnvStepOutput": BaseTextEnvStepOutput,
    },
    "swift.rewards": {"ORM": Base, "orms": {}},
    "tinker_cookbook.rl.problem_env": {"ProblemEnv": Base},
    "rllm.rewards.reward_types": {"RewardOutput": RewardOutput},
    "eval_protocol": {"EvaluateResult": EvaluateResult, "reward_function": lambda function: function},
}


def is_installed(package: str) -> bool:
    try:
        return find_spec(package.partition(".")[0]) is not None
    except ValueError:  # a stand-in of an earlier test
        return False


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs a recipe's code and returns its names."""
    (tmp_path / "rewards.yaml").write_text("rewards:\n  correct: {use: exact}\n")
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> SimpleNamespace:
        for module, names in STAND_INS.items():
            if f"from {module} import" in RECIPES[name] and not is_installed(module):
                parts = module.split(".")
                for at in range(1, len(parts) + 1):
                    stand_in = ModuleType(".".join(parts[:at]))
                    stand_in.__path__ = []
                    monkeypatch.setitem(sys.modules, stand_in.__name__, stand_in)
                vars(stand_in).update(names)
        found: dict[str, Any] = {"__name__": "my_reward"}
        exec(RECIPES[name], found)
        return SimpleNamespace(**found)

    return run


def test_every_named_trainer_has_a_recipe() -> None:
    assert list(RECIPES) == [
        "SkyRL-gym", "slime", "AReaL", "ms-swift", "EasyR1", "NeMo-RL", "Tinker cookbook", "rLLM", "Unsloth",
        "eval-protocol",
    ]  # fmt: skip


def test_skyrl_gym(recipe: Any) -> None:
    make = recipe("SkyRL-gym").VerlLiteEnv
    for action, reward in (("4", 1.0), ("5", 0.0)):
        env = make(env_config={}, extras={"reward_spec": {"method": "rule", "ground_truth": "4"}})
        output = env.step(action)
        assert (output["reward"], output["done"], output["observations"]) == (reward, True, [])


def test_slime(recipe: Any) -> None:
    reward = recipe("slime").reward
    samples = [SimpleNamespace(response=text, prompt="2 + 2?", label="4", metadata={}) for text in ("4", "5")]

    async def both() -> list[float]:
        return await asyncio.gather(
            *(reward(SimpleNamespace(), sample, evaluation=False) for sample in samples)
        )

    assert asyncio.run(both()) == [1.0, 0.0]


def test_areal(recipe: Any) -> None:
    reward_fn = recipe("AReaL").reward_fn
    row = {"answer": "4", "query_id": "7"}
    assert reward_fn("2 + 2?", "4", [1], [2], **row) == 1.0
    assert reward_fn("2 + 2?", "5", [1], [2], **row) == 0.0


def test_ms_swift(recipe: Any) -> None:
    names = recipe("ms-swift")
    assert names.orms["verl_lite"] is names.VerlLite
    function = names.VerlLite(args=None)
    given = {"solution": ["4", "4"], "messages": [[], []], "trainer_state": None}
    assert function(["4", "5"], **given) == [1.0, 0.0]


def test_easyr1(recipe: Any) -> None:
    inputs = [{"response": text, "response_length": 1, "ground_truth": "4"} for text in ("4", "5")]
    assert recipe("EasyR1").compute_score(inputs) == [{"overall": 1.0}, {"overall": 0.0}]


def test_nemo_rl(recipe: Any) -> None:
    reward = recipe("NeMo-RL").verl_lite_reward
    assert [reward("4", "4"), reward("4", "5")] == [(1.0, True), (0.0, False)]


def test_tinker_cookbook(recipe: Any) -> None:
    env = recipe("Tinker cookbook").VerlLiteEnv(SimpleNamespace(), "2 + 2?", "4")
    assert (env.get_question(), env.get_reference_answer(), env.check_format("4")) == ("2 + 2?", "4", True)
    assert [env.check_answer("4"), env.check_answer("5")] == [1.0, 0.0]


def test_rllm(recipe: Any) -> None:
    reward_fn = recipe("rLLM").reward_fn
    task = {"question": "2 + 2?", "ground_truth": "4", "data_source": "sums"}
    right, wrong = reward_fn(task, "4"), reward_fn(task, SimpleNamespace(action="5"))
    assert [(right.reward, right.is_correct), (wrong.reward, wrong.is_correct)] == [(1.0, True), (0.0, False)]


def test_unsloth(recipe: Any) -> None:
    reward = recipe("Unsloth").reward
    prompts = [[{"role": "user", "content": "2 + 2?"}]] * 2
    completions = [[{"role": "assistant", "content": text}] for text in ("4", "5")]
    assert reward.__name__.isidentifier()
    assert reward(prompts=prompts, completions=completions, answer=["4", "4"]) == [1.0, 0.0]


def test_eval_protocol(recipe: Any) -> None:
    evaluate = recipe("eval-protocol").evaluate
    question = {"role": "user", "content": "2 + 2?"}

    def result(text: str, truth: str | None) -> tuple[float, bool]:
        found = evaluate(messages=[question, {"role": "assistant", "content": text}], ground_truth=truth)
        return found.score, found.is_score_valid

    assert [result("4", "4"), result("5", "4"), result("4", None)] == [(1.0, True), (0.0, True), (0.0, False)]


def test_score_one_takes_messages_columns_and_several_references(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from verl_lite.plugins import reward\n"
        "@reward('mine', isolate=False)\ndef mine(r):\n"
        "    assert r.prompt_text in ('a', 'a\\n\\nb'), r.prompt\n"
        "    return float(r.completion in r.references) + r.columns['bonus']\n"
    )
    score = score_one({"rewards": {"mine": {"use": f"{file}:mine"}}})
    turns = [{"role": "assistant", "content": "b"}, {"role": "assistant", "content": "4"}]
    assert score(turns, prompt="a", reference=["5", 4], columns={"bonus": 0.5}) == 1.5
    rewards = score.many(["4", "5"], prompts=["a", "a"], references=["4", "4"], columns={"bonus": [0.0, 2.0]})
    assert rewards == [1.0, 2.0]
    with pytest.raises(ConfigError, match="references has 1 values for 2 completions"):
        score.many(["4", "5"], references=["4"])
    with pytest.raises(RewardError, match=r"has no reward .*KeyError"):
        score("4", prompt="a")
    assert score.scored("4", prompt="a").reward is None
    assert score_one(score.bridge.config, dropped=-1.0)("4", prompt="a") == -1.0
    schedule = {"rewards": {"e": {"use": "exact", "weight": {"linear": {0: 0.0, 10: 1.0}}}}}
    with pytest.raises(ConfigError, match="follows a schedule"):
        score_one(RewardsConfig.model_validate(schedule))
