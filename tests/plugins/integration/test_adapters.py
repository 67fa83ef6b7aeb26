"""Our rewards in other trainers: calls that the real ones made, from ../fixtures/record_adapter_calls.py."""

import asyncio
import json
import math
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from verl_lite.errors import ConfigError, DataError, PluginError, RewardError
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.adapters import (
    as_openrlhf_reward_func,
    as_trl_reward_func,
    as_verifiers_reward,
    as_verifiers_rubric,
    as_verl_compute_score,
    score_one,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"
REWARDS_FILE = FIXTURES / "adapter_rewards.py"
CONFIG = {
    "rewards": {
        "correct": {"use": "exact"},
        "brevity": {"use": f"{REWARDS_FILE}:brevity", "weight": 0.5},
    },
    "scoring": {"on_abstain": "drop"},
}
GROUP_REWARD = """
from verl_lite.plugins import reward
@reward("rank", form="group", isolate=False)
def rank(rollouts):
    best = max(len(r.completion) for r in rollouts)
    return [float(len(r.completion) == best) for r in rollouts]
"""
STEPS_REWARD = """
from verl_lite.plugins import Score, StepScore, reward
@reward("steps", isolate=False)
def steps(rollout):
    return Score(0.0, steps=(StepScore(0, 1, 1.0),))
"""


def recorded(peer: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FIXTURES / f"adapter_calls_{peer}.json").read_text())
    return found


def use_of(tmp_path: Path, source: str, name: str) -> dict[str, Any]:
    path = tmp_path / f"{name}_reward.py"
    path.write_text(source)
    return {"rewards": {name: {"use": f"{path}:{name}"}}}


class FakeTorch(ModuleType):
    """Enough of torch for what the OpenRLHF adapter makes."""

    float32 = "float32"

    @staticmethod
    def tensor(values: list[float], dtype: object = None) -> Any:
        return SimpleNamespace(tolist=lambda: list(values), clone=lambda: FakeTorch.tensor(values))


@pytest.mark.parametrize("form", ["conversational", "text"])
def test_the_calls_of_trl_get_the_recorded_rewards(form: str) -> None:
    calls = recorded("trl")[form]
    assert len(calls) == 2  # of two real GRPO steps
    function = as_trl_reward_func(CONFIG)
    for call in calls:
        state = SimpleNamespace(**call["kwargs"].pop("trainer_state"))
        columns: dict[str, list[Any]] = {}
        metrics: dict[str, float] = {}
        call["kwargs"] |= {"log_extra": columns.__setitem__, "log_metric": metrics.__setitem__}
        rewards = function(**call["kwargs"], trainer_state=state)
        assert rewards == call["result"]
        assert columns["correct"] == [0.0] * 4  # a random model knows no sums
        assert columns["brevity"] == [2 * reward for reward in rewards if reward is not None]
        assert metrics["reward/rows"] == 4
        assert metrics["reward/brevity/weight"] == 0.5


def test_trl_gets_none_for_a_dropped_sample_and_rewards_by_hand() -> None:
    function = as_trl_reward_func(CONFIG)
    prompts = ["2 + 2?", "2 + 2?", "2 + 2?"]
    given = {"prompts": prompts, "completions": ["4", "drop me", "no idea"], "reference": ["4"] * 3}
    with pytest.warns(UserWarning, match=r"dropped 1 of 3 samples .*abstain in brevity.*`other: \{use: trl:"):
        rewards = function(**given)
    assert rewards == [1.5, None, 0.25]  # 1 + 0.5 * 1; dropped; 0 + 0.5 / 2
    assert function(**given) == rewards  # and the warning, which would be an error here, came once


def test_a_second_function_of_trl_belongs_into_our_config() -> None:
    """TRL 1.16 made these advantages of the rewards None, 1, 1, 1 beside, and with, a function of zeros."""
    advantages = recorded("trl_drops")["advantages"]
    # beside: 0, 1, 1, 1 have the mean 3/4 and the sample deviation 1/2
    assert advantages["beside"] == pytest.approx([-1.5, 0.5, 0.5, 0.5], abs=1e-3)
    assert advantages["inside"] == [0.0, 0.0, 0.0, 0.0]
    rewards = {
        "first": {"use": f"{REWARDS_FILE}:all_but_first"},
        "nothing": {"use": f"trl:{REWARDS_FILE}:nothing"},
    }
    function = as_trl_reward_func({"rewards": rewards, "scoring": {"on_abstain": "drop"}})
    with pytest.warns(UserWarning, match="dropped 1 of 4"):
        assert function(["2 + 2?"] * 4, ["a", "b", "c", "d"]) == [None, 1.0, 1.0, 1.0]


def test_trl_sees_whole_groups_and_its_step_moves_weights(tmp_path: Path) -> None:
    config = use_of(tmp_path, GROUP_REWARD, "rank")
    config["rewards"]["rank"]["weight"] = {"linear": {0: 0.0, 10: 1.0}}
    function = as_trl_reward_func(config, name="rank")
    assert function.__name__ == "rank"
    state = SimpleNamespace(global_step=5)
    rewards = function(["a", "a", "b"], ["x", "xx", "y"], trainer_state=state)
    assert rewards == [0.0, 0.5, 0.5]


def test_messages_of_a_completion_are_turns(tmp_path: Path) -> None:
    source = (
        "from verl_lite.plugins import reward\n"
        "@reward('seen', isolate=False)\n"
        "def seen(rollout):\n"
        "    assert [m['role'] for m in rollout.prompt] == ['user'], rollout.prompt\n"
        "    assert [turn.role for turn in rollout.turns] == ['assistant', 'tool', 'assistant']\n"
        "    assert rollout.completion == '4' and rollout.completion_ids == ()\n"
        "    return 1.0\n"
    )
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
    ]
    function = as_trl_reward_func(use_of(tmp_path, source, "seen"))
    question = [{"role": "user", "content": "2 + 2?"}]
    assert function([question], [turns], [[1, 2, 3]]) == [1.0]
    assert function(["2 + 2?"], [turns], [[1, 2, 3]]) == [1.0]


def test_the_calls_of_verl_get_the_recorded_scores() -> None:
    found = recorded("verl")
    function = as_verl_compute_score(CONFIG)
    assert [function(**call["kwargs"]) for call in found["calls"]] == [
        call["result"] for call in found["calls"]
    ]
    assert [item["reward_score"] for item in found["reward_loop"]] == [1.5, 0.125, 1.5]
    last_tokens = [item["reward_tensor"][0][-1] for item in found["naive_manager"]]
    assert last_tokens == [1.5, 0.125, 1.5]


def test_verl_gets_no_silent_zero() -> None:
    call = {"data_source": "sums", "solution_str": "drop me", "ground_truth": "4", "extra_info": None}
    with pytest.raises(
        RewardError, match=r"no reward \(abstain in brevity\), and verl needs a number.*dropped="
    ):
        as_verl_compute_score(CONFIG)(**call)
    scored = as_verl_compute_score(CONFIG, dropped=-1.0)(**call)
    assert (scored["score"], scored["correct"]) == (-1.0, 0.0)
    assert math.isnan(scored["brevity"])
    assert list(scored) == ["correct", "brevity", "score"]  # the same keys as for other samples


def test_verl_routes_by_data_source_and_passes_reward_kwargs(tmp_path: Path) -> None:
    config = {"rewards": {"correct": {"use": "exact", "sources": ["sums"]}}}
    function = as_verl_compute_score(config)
    assert function("sums", "4", 4)["score"] == 1.0
    with pytest.raises(DataError, match="no reward takes data_source='poems'"):
        function("poems", "4", 4)


def test_the_calls_of_openrlhf_get_the_recorded_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("torch"))
    found = recorded("openrlhf")
    function = as_openrlhf_reward_func(CONFIG, end_tokens=["<eos>"])
    for call in found["calls"][:2]:
        answer = function(*call["args"], **call["kwargs"])
        logs = {name: values.tolist() for name, values in answer["extra_logs"].items()}
        rewards, scores = answer["rewards"].tolist(), answer["scores"].tolist()
        assert {"rewards": rewards, "scores": scores, "extra_logs": logs} == call["result"]
    dropped = found["calls"][2]
    assert dropped["raised"] == "RewardError"
    with pytest.raises(RewardError, match="OpenRLHF needs a number"):
        function(*dropped["args"])
    # what OpenRLHF made of it: a sample without a reward, not one with 0
    assert [item["rewards"] for item in found["experiences"]] == [[1.5], [0.125], None]


def test_openrlhf_queries_that_do_not_begin_with_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", FakeTorch("torch"))
    function = as_openrlhf_reward_func(CONFIG)
    assert function(["Q: 4</s></s>"], ["Q: "], ["4"])["rewards"].tolist() == [1.5]
    with pytest.raises(DataError, match="does not begin with its prompt"):
        function([": 4"], ["Q: "], ["4"])


class Model(SimpleNamespace):
    def model_dump(self, **_: Any) -> dict[str, Any]:
        return vars(self)


def fake_trace(completion: str) -> Any:
    messages = [Model(role="user", content="2 + 2?"), Model(role="assistant", content=completion)]
    return SimpleNamespace(id="t", messages=messages, last_reply=completion, is_truncated=False, info={})


def test_verifiers_tasks_get_what_was_recorded_with_the_real_ones() -> None:
    function = as_verifiers_reward(CONFIG)
    for outcome in recorded("verifiers_task")["outcomes"]:
        trace = fake_trace(outcome["answer"])
        if outcome["ok"]:
            assert asyncio.run(function(Model(answer="4"), trace)) == outcome["reward"]
        else:
            with pytest.raises(RewardError, match="verifiers needs a number"):
                asyncio.run(function(Model(answer="4"), trace))
        assert trace.info == outcome["info"]


def test_a_rubric_scores_the_recorded_states_as_the_real_one_did(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("verifiers")
    module.Rubric = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "verifiers", module)
    found = recorded("verifiers_rubric")
    rubric = as_verifiers_rubric(CONFIG)
    states = [{**state, **state["input"], "reward": None, "trajectory": [{}]} for state in found["states"]]
    asyncio.run(rubric.score_group(states))
    scored = [{key: state[key] for key in ("reward", "advantage", "metrics")} for state in states]
    assert scored == found["scored"]
    assert [s["reward"] for s in scored] == [1.5, 0.125, 1.5]
    assert scored[1]["advantage"] == pytest.approx(0.125 - (1.5 + 0.125 + 1.5) / 3)
    assert states[1]["trajectory"] == [{"advantage": scored[1]["advantage"], "reward": 0.125}]
    assert not rubric.has_group_rewards


TURNS_CONFIG = {"rewards": {"calls": {"use": "tool_calls", "weight": 1.0, "options": {"column": "calls"}}}}
CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 2}'}}
SAID = [
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "1"},
    {"role": "assistant", "content": "4"},
]


def test_the_turns_of_a_conversation_reach_the_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its prompt ends before the first reply, and a reward sees the calls of every turn."""
    expected = [{"name": "add", "arguments": {"a": 2, "b": 2}}]
    messages = [Model(role="user", content="2 + 2?"), *(Model(**message) for message in SAID)]
    trace = SimpleNamespace(id="t", messages=messages, last_reply="4", is_truncated=False, info={})
    assert asyncio.run(as_verifiers_reward(TURNS_CONFIG)(Model(calls=expected), trace)) == 1.0
    module = ModuleType("verifiers")
    module.Rubric = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "verifiers", module)
    state = {"prompt": "2 + 2?", "completion": SAID, "info": {"calls": expected}, "trajectory": []}
    asyncio.run(as_verifiers_rubric(TURNS_CONFIG).score_group([state]))
    assert state["reward"] == 1.0
    one = score_one(TURNS_CONFIG)
    assert one(SAID, prompt="2 + 2?", columns={"calls": expected}) == 1.0
    assert one(SAID[2:], prompt="2 + 2?", columns={"calls": expected}) == 0.0
    one.close()


def test_a_verifiers_without_rubrics_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", ModuleType("verifiers"))
    with pytest.raises(PluginError, match=r"no Rubric .*as_verifiers_reward"):
        as_verifiers_rubric(CONFIG)


@pytest.mark.parametrize("make", [as_verl_compute_score, as_openrlhf_reward_func, as_verifiers_reward])
def test_what_a_trainer_cannot_carry_is_refused_when_the_adapter_is_made(make: Any, tmp_path: Path) -> None:
    schedule = {"rewards": {"a": {"rewards": {"e": {"use": "exact", "weight": {"linear": {0: 0, 9: 1}}}}}}}
    with pytest.raises(ConfigError, match=r"rewards\.a\.rewards\.e\.weight follows a schedule"):
        make(schedule)
    with pytest.raises(ConfigError, match="'rank' compares all samples"):
        make(use_of(tmp_path, GROUP_REWARD, "rank"))
    with pytest.raises(ConfigError, match="combine: gdpo makes advantages"):
        make({"rewards": {"e": {"use": "exact"}}, "scoring": {"combine": "gdpo"}})
    with pytest.raises(ConfigError, match="dropped=nan"):
        make(CONFIG, dropped=math.nan)
    with pytest.raises(ConfigError, match="unknown key 'rewrads'"):
        make({"rewrads": {}})
    with pytest.raises(PluginError, match="no reward 'exakt'"):
        make({"rewards": {"e": {"use": "exakt"}}})


def test_process_rewards_and_a_reward_named_score_are_refused(tmp_path: Path) -> None:
    config = use_of(tmp_path, STEPS_REWARD, "steps")
    for ids in ([[1, 2]], None):  # also where no tokens are known to carry the steps
        with pytest.raises(RewardError, match=r"steps gave process rewards .*TRL takes one number"):
            as_trl_reward_func(config)(["a"], ["bc"], ids)
    with pytest.raises(RewardError, match=r"process rewards .*verl takes one number"):
        as_verl_compute_score(config)("d", "bc", "4")
    shadow = {"rewards": {"e": {"use": "exact"}, "steps": {**config["rewards"]["steps"], "weight": 0.0}}}
    assert as_verl_compute_score(shadow)("d", "4", "4") == {"e": 1.0, "steps": 0.0, "score": 1.0}
    with pytest.raises(ConfigError, match="keeps the name 'score'"):
        as_verl_compute_score({"rewards": {"score": {"use": "exact"}}})


def test_a_path_a_dict_and_a_config_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "rewards.yaml").write_text("rewards:\n  e: {use: exact}\n")
    data = {"rewards": {"e": {"use": "exact"}}}
    for config in (tmp_path / "rewards.yaml", str(tmp_path / "rewards.yaml"), data, RewardsConfig(**data)):
        assert as_verl_compute_score(config)("d", "4", "4") == {"e": 1.0, "score": 1.0}


def test_threads_call_at_once_and_it_pickles_and_closes(tmp_path: Path) -> None:
    source = (
        "from verl_lite.plugins import reward\n"
        "@reward('digit')\ndef digit(r):\n    return float(r.completion)\n"
    )
    function = as_verl_compute_score(use_of(tmp_path, source, "digit"), workers=2)
    scores: dict[int, float] = {}

    def call(number: int) -> None:
        scores[number] = function("d", str(number), None)["score"]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == {number: float(number) for number in range(16)}
    again = pickle.loads(pickle.dumps(function))
    assert again("d", "7", None)["score"] == 7.0
    again.close()
    function.close()
    assert function("d", "3", None)["score"] == 3.0  # opens again
    function.close()


def test_a_script_that_closes_nothing_ends_and_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "my_reward.py").write_text(
        "import os\nfrom verl_lite.plugins import reward\n"
        "@reward('worker')\ndef worker(r):\n    return float(os.getpid())\n"
    )
    (tmp_path / "trainer.py").write_text(
        "from verl_lite.plugins.adapters import as_verl_compute_score\n"
        "if __name__ == '__main__':\n"
        "    score = as_verl_compute_score({'rewards': {'w': {'use': './my_reward.py:worker'}}}, workers=1)\n"
        "    print(int(score('d', 'x', None)['score']))\n"
    )
    done = subprocess.run(
        [sys.executable, "trainer.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_the_adapters_import_no_peer_and_no_torch() -> None:
    code = (
        "import sys, verl_lite.plugins.adapters, verl_lite.plugins.adapters.foreign\n"
        "print([m for m in ('torch', 'trl', 'verl', 'openrlhf', 'verifiers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
