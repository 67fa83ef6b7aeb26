"""Functions written for TRL, verl, OpenRLHF and verifiers, used as rewards of ours."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from verl_lite.errors import PluginError
from verl_lite.plugins import RewardsConfig, Rollout, ScoreOutcome, Scorer, find_rewards
from verl_lite.plugins.testing import fake_group, fake_rollout

FIXTURES = Path(__file__).parents[1] / "fixtures"
FUNCTIONS = '''
import asyncio

def trl_lengths(prompts, completions, completion_ids, level, log_extra, log_metric, trainer_state, **kwargs):
    """Longer than the group's mean."""
    texts = [c[0]["content"] for c in completions]
    assert [p[-1]["content"] for p in prompts] == ["What is 2 + 2?"] * len(texts)
    mean = sum(map(len, texts)) / len(texts)
    log_extra("length", [len(t) for t in texts])
    log_metric("mean_length", mean)
    return [None if t == "skip" else float(len(t) > mean) + n for t, n in zip(texts, level)]

def trl_text(completions, **kwargs):
    return [float(len(c)) for c in completions]

async def trl_async(completions, **kwargs):
    await asyncio.sleep(0)
    return [1.0 for c in completions]

def trl_wrong(completions, **kwargs):
    return [1.0]

def verl_score(data_source, solution_str, ground_truth, extra_info=None, bonus=0.0):
    if solution_str == "nan":
        return float("nan")
    if solution_str == "float":
        return 0.25
    if solution_str == "nothing":
        return {"acc": 1.0}
    right = solution_str == ground_truth
    return {"score": right + bonus, "acc": right, "source": data_source, "split": extra_info["split"]}

def openrlhf_reward(queries, prompts, labels):
    (query,), (prompt,), (label,) = queries, prompts, labels
    right = float(query[len(prompt):] == label)
    return {"rewards": [right], "scores": [right], "extra_logs": {"length": [len(query)]}}

def rubric_reward(completion, answer, **kwargs):
    assert kwargs["state"]["answer"] == answer and kwargs["level"] == 1, kwargs
    return float(completion[0]["content"] == answer)

def rubric_group(completions, answers):
    return [float(c[0]["content"] == a) for c, a in zip(completions, answers)]

async def task_reward(task, trace):
    return {"right": float(trace.last_reply == task.answer), "turns": 0.5}

def needs_runtime(trace, runtime):
    return 1.0

NOT_A_FUNCTION = dict
'''


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign_functions.py").write_text(FUNCTIONS)
    return tmp_path


def scored(use: str, rollouts: list[Rollout], *, inline: bool = True, **options: Any) -> list[Any]:
    config = RewardsConfig(
        rewards={"it": {"use": use, "options": options}}, scoring={"max_error_fraction": 1.0}
    )
    with Scorer(config, workers=1, debug_inline=inline) as scorer:
        return [row.components["it"].score for row in scorer.score(rollouts).rows]


def test_trl_functions_get_whole_groups_as_trl_calls_them(functions: Path) -> None:
    group = fake_group(["a", "skip", "long answer"], columns={"level": 2})
    for inline in (True, False):  # in worker processes too
        scores = scored("trl:./foreign_functions.py:trl_lengths", group, inline=inline)
        assert [score.value for score in scores] == [2.0, None, 3.0]
        assert scores[1].outcome is ScoreOutcome.ABSTAIN
        assert [score.details["length"] for score in scores] == [1, 4, 11]
        assert scores[0].details["mean_length"] == pytest.approx(16 / 3)


def test_trl_functions_get_the_arguments_that_trl_was_recorded_to_give() -> None:
    from verl_lite.plugins.adapters import TrlCall

    recorded = json.loads((FIXTURES / "adapter_calls_trl.json").read_text())
    for form in ("conversational", "text"):
        theirs = recorded[form][0]["kwargs"]
        rollouts = [
            fake_rollout(
                text if isinstance(text, str) else text[0]["content"],
                question="What is 2 + 2?",
                completion_ids=ids,
                columns={"reference": "4", "level": 0},
            )
            for text, ids in list(zip(theirs["completions"], theirs["completion_ids"], strict=True))[:2]
        ]
        ours, _ = TrlCall().prepare(rollouts, {"conversational": form == "conversational"})
        assert ours.keys() == theirs.keys()
        for key in ("prompts", "completions", "completion_ids", "reference", "level"):
            assert ours[key] == theirs[key][:2], key
        assert ours["trainer_state"].global_step == theirs["trainer_state"]["global_step"]


def test_verl_functions_get_the_arguments_that_verl_was_recorded_to_give() -> None:
    from verl_lite.plugins.adapters import VerlCall

    theirs = json.loads((FIXTURES / "adapter_calls_verl.json").read_text())["calls"][0]["kwargs"]
    columns = {
        "data_source": "sums",
        "reward_model": {"style": "rule", "ground_truth": "4"},
        "extra_info": {"split": "train", "index": 0, "question": "What is 2 + 2?"},
    }
    ours, _ = VerlCall().prepare([fake_rollout("4", columns=columns)], {})
    assert ours == theirs


def test_openrlhf_functions_get_the_arguments_that_openrlhf_was_recorded_to_give() -> None:
    from verl_lite.plugins.adapters import OpenRlhfCall

    theirs = json.loads((FIXTURES / "adapter_calls_openrlhf.json").read_text())["calls"][0]["args"]
    rollout = fake_rollout("4<eos>", question="What is 2 + 2?", reference="4")
    ours, _ = OpenRlhfCall().prepare([rollout], {})
    assert [ours["queries"], ours["prompts"], ours["labels"]] == theirs


def test_trl_text_and_async_functions(functions: Path) -> None:
    group = fake_group(["a", "bc"])
    text = scored("trl:./foreign_functions.py:trl_text", group, conversational=False)
    assert [score.value for score in text] == [1.0, 2.0]
    for inline in (True, False):
        scores = scored("trl:./foreign_functions.py:trl_async", group, inline=inline)
        assert [score.value for score in scores] == [1.0, 1.0]


def test_a_trl_function_of_the_wrong_length_is_an_error(functions: Path) -> None:
    scores = scored("trl:./foreign_functions.py:trl_wrong", fake_group(["a", "b"]))
    assert [score.outcome for score in scores] == [ScoreOutcome.ERROR] * 2
    assert "1 answers for 2 rollouts" in scores[0].reason


def test_verl_functions(functions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(functions))
    columns = {"data_source": "sums", "extra_info": {"split": "train"}}
    rollouts = [fake_rollout(text, reference="4", columns=columns) for text in ("4", "5", "float")]
    right, wrong, number = scored("verl:foreign_functions.verl_score", rollouts, bonus=0.5)
    assert (right.value, wrong.value, number.value) == (1.5, 0.5, 0.25)
    assert right.details == {"acc": True, "source": "sums", "split": "train"}
    failures = [fake_rollout(text, reference="4", columns=columns) for text in ("nan", "nothing")]
    not_finite, no_score = scored("verl:foreign_functions:verl_score", failures)
    assert (not_finite.outcome, no_score.outcome) == (ScoreOutcome.ERROR, ScoreOutcome.ERROR)
    assert "finite" in not_finite.reason
    assert "without 'score'; it has: acc" in no_score.reason


def test_openrlhf_functions(functions: Path) -> None:
    rollouts = [fake_rollout("4", reference="4"), fake_rollout("5", reference="4")]
    right, wrong = scored("openrlhf:./foreign_functions.py:openrlhf_reward", rollouts)
    assert (right.value, wrong.value) == (1.0, 0.0)
    assert right.details == {"length": len("What is 2 + 2?4"), "scores": 1.0}


def test_verifiers_rubric_functions(functions: Path) -> None:
    group = fake_group(["4", "5"], reference="4", columns={"level": 1})
    for name in ("rubric_reward", "rubric_group"):
        scores = scored(f"verifiers:./foreign_functions.py:{name}", group)
        assert [score.value for score in scores] == [1.0, 0.0], name


def test_verifiers_task_functions_get_a_trace(functions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verl_lite.plugins.adapters import foreign_verifiers

    def fake(rollout: Rollout) -> Any:
        return SimpleNamespace(answer=rollout.reference), SimpleNamespace(last_reply=rollout.completion)

    # tests/plugins/fixtures/record_adapter_calls.py checks the real traces of verifiers
    monkeypatch.setattr(foreign_verifiers, "_task_and_trace", fake)
    right, wrong = scored(
        "verifiers:./foreign_functions.py:task_reward",
        [fake_rollout("4", reference="4"), fake_rollout("5", reference="4")],
    )
    assert (right.value, wrong.value) == (1.5, 0.5)
    assert right.details == {"right": 1.0, "turns": 0.5}


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("verifiers:./foreign_functions.py:needs_runtime", "needs verifiers' runtime"),
        ("trl:./foreign_functions.py:NOT_A_FUNCTION", "expected a function written for trl"),
        ("trl:./foreign_functions.py:trl_lenghts", "did you mean 'trl_lengths'"),
        ("verl:no_such_module.compute_score", "no_such_module cannot be imported"),
        ("verl:compute_score", "expected verl:package.module.function or verl:./file.py:function"),
    ],
)
def test_mistakes_in_foreign_references(functions: Path, use: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        find_rewards().get(use)


def test_a_module_named_like_a_peer_is_still_reached_by_its_full_name(
    functions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("trl_like.rewards")
    module.mine = lambda rollout: 1.0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "trl_like", ModuleType("trl_like"))
    monkeypatch.setitem(sys.modules, "trl_like.rewards", module)
    assert find_rewards().get("trl_like.rewards:mine").form == "rollout"


def test_a_changed_function_changes_what_kept_scores_are_kept_by(functions: Path) -> None:
    config = RewardsConfig(rewards={"it": {"use": "verl:./foreign_functions.py:verl_score"}})
    environment = Scorer(config).environment()["it"]
    assert environment["distribution"] == "./foreign_functions.py"
    assert environment["content_hash"] == find_hash(functions / "foreign_functions.py")


def find_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.name.encode() + b"\0" + path.read_bytes() + b"\0").hexdigest()
