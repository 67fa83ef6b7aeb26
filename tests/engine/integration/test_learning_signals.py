"""Distillation and curricula in whole runs: what saved rollouts teach, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine import train
from verl_lite.engine.config import TrainConfig
from verl_lite.engine.model import build_tiny_model
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.teachers import best_other, with_hint
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import Rollout, ScoredRollout, validate

TEACHER = "TEACHER"  # stands for the folder of a model
SAVED = "SAVED"  # for that of a run with rollouts


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    from verl_lite.engine.config import TinyModelConfig

    folder = tmp_path_factory.mktemp("teacher") / "model"
    size = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    build_tiny_model(folder, TinyModelConfig(**size), seed=5)
    return str(folder)


@pytest.fixture(scope="module")
def saved(small_tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a run that left its rollouts, with token ids and log-probabilities."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    config = validate(TrainConfig, {**small_tree, "steps": 1}, source="test")
    train(config, run_dir=folder, debug_inline=True)
    return str(folder)


@pytest.fixture
def make_config(
    small_run: dict[str, Any], teacher: str, saved: str, tmp_path: Path
) -> Callable[..., TrainConfig]:
    rows = [{"question": f"{a}+{b}=", "reference": str(a + b), "answer": f"\\boxed{{{a + b}}}", "a": a}
            for a in range(1, 6) for b in range(4)]  # fmt: skip
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    small_run["data"] = {"train": {"path": str(path)}, "held_out": {"path": str(path), "num_rows": 4}}
    small_run |= {"evaluation": {"right_at": 0.12}, "checkpoints": {"every_steps": 2, "keep": 0}}

    def make(changes: dict[str, Any]) -> TrainConfig:
        changes = json.loads(json.dumps(changes).replace(TEACHER, teacher).replace(SAVED, saved))
        data = {**small_run["data"], **changes.pop("data", {})}
        return validate(TrainConfig, {**small_run, **changes, "data": data}, source="test")

    return make


def test_saved_rollouts_alone_teach_what_their_sampler_knows(
    make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    """Without a teacher: cross-entropy, which falls towards that of the model that wrote them."""
    rollouts = {"path": SAVED, "rows_per_step": 24}
    adamw = {"optimizer": {"learning_rate": 1e-2}}
    config = make_config(
        {"distillation": {"rollouts": rollouts}, "algorithm": {"advantage": "none"}, "learner": adamw}
    )
    config = config.model_copy(update={"seed": 1})
    train(config, run_dir=tmp_path / "run", debug_inline=True)
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "reward/mean" in row]
    losses = [row["loss/cross_entropy"] for row in rows]
    floor = rows[0]["distillation/teacher_cross_entropy"]
    assert losses[0] > floor
    assert losses[-1] < losses[0]
    assert "loss/forward_kl" not in rows[0]


def refusals() -> list[tuple[dict[str, Any], str]]:
    taught = {"teachers": {"t": {"model": TEACHER}}}
    return [
        ({"distillation": {"teachers": {"t": {}}}}, "the policy itself, which teaches only with a hint"),
        ({"distillation": {"teachers": {"t": {"model": "a", "server": "http://b"}}}}, "not both"),
        (
            {"distillation": {**taught, "placement": "reward", "estimate": "full"}},
            "rewards the sampled token",
        ),
        ({"distillation": {"teachers": {"a": {"model": "x"}, "b": {"model": "y"}}}}, "more than one teacher"),
        ({"distillation": {**taught, "weight": -1.0}}, "expected at least 0"),
        (
            {"distillation": {"teachers": {"t": {"server": "http://x"}}, "estimate": "full"}},
            "a server does not give",
        ),
        (
            {"distillation": {"teachers": {"t": {"hint": "x"}}}, "learner": {"num_ranks": 2}},
            "no single process holds",
        ),
        (
            {
                "distillation": {
                    "teachers": {"t": {"hint": "x"}},
                    "rollouts": {"path": "x"},
                    "estimate": "top_k",
                }
            },
            "teachers.t is the policy: name a model or a server",
        ),
        ({"distillation": {"rollouts": {"path": "x", "weight": -1.0}}}, "expected at least 0"),
        ({"data": {"curriculum": {"replay": {}}}}, "only right with importance weights"),
        (
            {"data": {"curriculum": {"gate": {"at_or_below": 0.9, "at_or_above": 0.5}}}},
            "no prompt would be left",
        ),
        ({"evaluation": {"weights": "ema"}}, "there is no moving average"),
        ({"demonstrations": {"weight": -0.5}}, "expected at least 0"),
        ({"learner": {"optimizer": {"name": "muon", "bits": 8}}}, "Muon has one momentum"),
        (
            {"learner": {"optimizer": {"name": "muon"}, "num_ranks": 2}},
            "orthogonalises whole matrices, but a rank holds shards",
        ),
        ({"algorithm": {"entropy": {"covariance": "kl"}}}, "gradient is 0 in the only update"),
        ({"algorithm": {"loss": "gmpo"}}, "loss=gmpo has one ratio per sequence"),
        ({"algorithm": {"importance": {"reject": [{}]}}}, "without a bound nothing is dropped"),
        ({"algorithm": {"advantage": "rft", "whiten": True}}, "advantage=rft has none"),
    ]


@pytest.mark.parametrize(("changes", "message"), refusals())
def test_what_makes_no_sense_is_refused(
    changes: dict[str, Any], message: str, make_config: Callable[..., TrainConfig]
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config(changes)


def test_a_teacher_with_another_tokenizer_is_refused_before_anything_loads(
    make_config: Callable[..., TrainConfig], teacher: str, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    spec = json.loads((other / "tokenizer.json").read_text())
    vocabulary = spec["model"]["vocab"]
    vocabulary["1"], vocabulary["2"] = vocabulary["2"], vocabulary["1"]
    (other / "tokenizer.json").write_text(json.dumps(spec))
    (other / "model.safetensors").unlink()
    for path, message in (
        (other, "2 tokens differ: '1' is .* there"),
        (tmp_path / "no", "no tokenizer can be read"),
    ):
        config = make_config({"distillation": {"teachers": {"t": {"model": str(path)}}}})
        with pytest.raises(ConfigError, match=message):
            train(config, run_dir=tmp_path / "run", debug_inline=True)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("hint", "message"),
    [
        ("{nothing}", r"hint names 'nothing'; the row has .*reference"),
        ("{reference} {", r"distillation\.teachers\.t\.hint does not fit: Single '{'"),
    ],
)
def test_a_hint_that_does_not_fit_says_what_there_is(
    hint: str, message: str, make_config: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make_config({"distillation": {"teachers": {"t": {"hint": hint}}}})
    with pytest.raises(DataError, match=message):
        train(config, run_dir=tmp_path / "run", debug_inline=True)


def test_hints_and_solutions() -> None:
    chat = [{"role": "user", "content": "q"}]
    assert with_hint(chat, "h") == [{"role": "user", "content": "q\nh"}]
    assert with_hint([*chat, {"role": "tool", "content": "t"}], "h")[-1] == {"role": "user", "content": "h"}
    group = [
        ScoredRollout(
            rollout=Rollout(completion=text, group="g", sample_index=i), components={}, reward=reward
        )
        for i, (text, reward) in enumerate([("wrong", 0.0), ("right", 1.0), ("lost", None)])
    ]
    assert best_other(group[0], group) == "right"
    assert best_other(group[1], group) is None
