"""Every learning signal with every way to run it: docs/algorithms.md has the table, these tests run it."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from verl_lite.engine import train, training
from verl_lite.engine.config import TinyModelConfig, TrainConfig
from verl_lite.engine.model import build_tiny_model
from verl_lite.engine.observe import read_metrics
from verl_lite.engine.testing import FakeSampler
from verl_lite.errors import ConfigError
from verl_lite.plugins import validate

Tree = dict[str, Any]
TEACHER, SAVED = "TEACHER", "SAVED"  # stand for a model's folder, and for a file of rollouts
CURRICULUM = {"gate": {"at_or_above": 0.9, "rest_steps": 2}, "order": "difficulty"}
LEVELS = {"levels": {"column": "a", "start": 0.5, "steps": 3}}
TOP_K = {"teachers": {"t": {"model": TEACHER}}, "estimate": "top_k", "top_k": 4}
HINT = {"teachers": {"self": {"hint": "The answer is {reference}. {feedback}"}}, "estimate": "full"}
SIGNALS: dict[str, Tree] = {  # as the rows of the table
    "policy loss, importance weights, rejection": {
        "algorithm": {"importance": {"mode": "truncate", "reject": [{"over": "min", "low": 1e-4}]}}
    },
    "adaptive entropy bonus, Clip-Cov": {
        "algorithm": {
            "entropy": {"target": 3.0, "covariance": "clip", "fraction": 0.05, "low": 0.01},
            "entropy_bonus": 0.01,
        }
    },
    "KL-Cov": {"algorithm": {"mini_batches": 2, "entropy": {"covariance": "kl", "fraction": 0.1}}},
    "KL to the policy's average": {
        "algorithm": {"kl": {"coefficient": 0.01, "reference": "ema", "ema_decay": 0.5}}
    },
    "evaluation of the average": {"evaluation": {"weights": "ema", "every_steps": 2}},
    "own right samples (RFT)": {"algorithm": {"advantage": "rft", "right_at": 0.12}},
    "demonstrations": {"demonstrations": {"rows_per_step": 3, "weight": {"linear": {0: 0.5, 3: 0.1}}}},
    "distillation in the loss": {"distillation": {**TOP_K, "weight": {"linear": {0: 1.0, 4: 0.5}}}},
    "distillation as reward": {
        "distillation": {"teachers": {"t": {"model": TEACHER}}, "placement": "reward", "weight": 0.2}
    },
    "self-distillation by a hint": {"distillation": HINT},
    "saved rollouts": {"distillation": {"rollouts": {"path": SAVED, "rows_per_step": 5}}},
    "gates, levels, draws by difficulty": {"data": {"curriculum": {**CURRICULUM, **LEVELS}}},
    "replay": {"data": {"curriculum": {"replay": {"rare_at": 0.9, "num_prompts": 2}}}},
    "Muon": {"learner": {"optimizer": {"name": "muon", "learning_rate": 1e-3}}},
}
COLUMNS = ("padded", "shared prompts", "two ranks", "one_ahead", "async", "exact resume")
PLACED = {"sampler": "vllm", "num_engines": 2, "num_prompts": 4, "num_samples": 3, "max_new_tokens": 12}
PLACED |= {"max_prompt_tokens": 16}
HOW: dict[str, Tree] = {
    "padded": {"learner": {"backend": "padded"}},
    "shared prompts": {"learner": {"share_prompts": "always"}},
    "two ranks": {"learner": {"num_ranks": 2}},
    "one_ahead": {"asynchrony": {"mode": "one_ahead"}},
    "async": {"asynchrony": {"mode": "async", "max_lag": 2}, "rollout": PLACED},
    "exact resume": {},
}
REFUSED: dict[tuple[str, str], tuple[str, Tree, str]] = {  # the cell, what else is set, the message
    ("evaluation of the average", "two ranks"): (
        "refused", SIGNALS["KL to the policy's average"], "keep it in shards: use one rank"
    ),
    ("evaluation of the average", "one_ahead"): (
        "refused", SIGNALS["KL to the policy's average"], "samples meanwhile: use sync"
    ),
    ("evaluation of the average", "async"): (
        "refused", SIGNALS["KL to the policy's average"], "samples meanwhile: use sync"
    ),
    ("self-distillation by a hint", "two ranks"): ("refused", {}, "which no single process holds"),
    ("distillation as reward", "async"): (
        "`max_lag: 1`", {}, "use placement: loss"
    ),
    ("replay", "async"): ("refused", {}, "batches are cut from a stream there; use one_ahead"),
    ("Muon", "two ranks"): ("`replicated`", {}, "orthogonalises whole matrices, but a rank holds shards"),
}  # fmt: skip
WEIGHED = SIGNALS["policy loss, importance weights, rejection"]
COMBINATIONS: dict[str, Sequence[str]] = {
    "teachers": (
        "policy loss, importance weights, rejection", "KL to the policy's average", "demonstrations",
        "evaluation of the average", "distillation in the loss", "saved rollouts", "Muon",
    ),
    "prompts": (
        "policy loss, importance weights, rejection", "adaptive entropy bonus, Clip-Cov",
        "gates, levels, draws by difficulty", "replay",
    ),
    "itself": ("KL-Cov", "self-distillation by a hint"),
    "rewarded": ("KL-Cov", "distillation as reward"),
    "right": ("own right samples (RFT)", "saved rollouts"),
}  # fmt: skip
EXPECTED: dict[str, Callable[[Mapping[str, float]], bool]] = {  # of a step's metrics
    "adaptive entropy bonus, Clip-Cov": lambda row: row["policy/entropy_bonus"] != 0.0,
    "KL-Cov": lambda row: "loss/kl_cov" in row,
    "KL to the policy's average": lambda row: "policy/kl_reference" in row,
    "own right samples (RFT)": lambda row: row["loss/cross_entropy"] > 0,
    "demonstrations": lambda row: row["loss/cross_entropy"] > 0,
    "distillation in the loss": lambda row: row["loss/distillation"] > 0,
    "self-distillation by a hint": lambda row: row["loss/distillation"] > 0,
    "distillation as reward": lambda row: "distillation/kl" in row and "loss/distillation" not in row,
    "gates, levels, draws by difficulty": lambda row: row["data/prompts_seen"] > 0,
    "replay": lambda row: "data/replayed_groups" in row,
}
CLOCK = ("time/", "latency", "tokens_per_s")


def merged(*trees: Tree) -> Tree:
    found: Tree = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = merged(found[key], value) if both else value
    return found


@pytest.fixture(scope="module")
def make(small_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainConfig]:
    folder = tmp_path_factory.mktemp("files")
    size = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    build_tiny_model(folder / "teacher", TinyModelConfig(**size), seed=5)
    rows = [{"question": f"{a}+{b}=", "reference": str(a + b), "answer": f"\\boxed{{{a + b}}}", "a": a}
            for a in range(1, 6) for b in range(4)]  # fmt: skip
    saved = [{"prompt": row["question"], "completion": row["reference"]} for row in rows]
    for name, lines in (("rows", rows), ("saved", saved)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = {"path": str(folder / "rows.jsonl")}
    base = {
        **small_tree,
        "steps": 3,
        "data": {"train": data, "held_out": {**data, "num_rows": 4}},
        "evaluation": {"right_at": 0.12},
        "rollout": PLACED,
        "learner": {"optimizer": {"learning_rate": 1e-3}},
        "checkpoints": {"every_steps": 2, "keep": 0},
    }

    def make(*changes: Tree) -> TrainConfig:
        text = json.dumps(merged(base, *changes)).replace(TEACHER, str(folder / "teacher"))
        tree = json.loads(text.replace(SAVED, str(folder / "saved.jsonl")))
        return validate(TrainConfig, tree, source="test")

    return make


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Random completions from threads; `cluster`: the learner's ranks are placed all the same."""

    def sampler(prepared: Any, path: str, session: Any, **_: Any) -> FakeSampler:
        return FakeSampler(prepared.tokenizer, length=lambda seed: 4 + seed % 8, step_s=0.0005)

    def install(*, cluster: bool = False) -> None:
        monkeypatch.setattr(training, "make_sampler", sampler)
        if not cluster:
            monkeypatch.setattr(training, "open_cluster", lambda *_: nullcontext())

    return install


@pytest.fixture
def fake_engines(fakes: Callable[..., None]) -> None:
    fakes()


def steps_of(run: Path) -> list[dict[str, float]]:
    return [row for row in read_metrics(run / "metrics.jsonl") if "reward/mean" in row]


def allowed(combination: str, column: str) -> list[str]:
    return [name for name in COMBINATIONS[combination] if (name, column) not in REFUSED]


def trained(make: Callable[..., TrainConfig], combination: str, column: str, run: Path) -> list[Tree]:
    """The steps of a run with all of the combination that `column` allows; each signal is seen in them."""
    names = allowed(combination, column)
    needs = [WEIGHED] if column == "async" else []
    train(make(*(SIGNALS[name] for name in names), *needs, HOW[column]), run_dir=run, debug_inline=True)
    steps = steps_of(run)
    assert len(steps) == 3
    for name in names:
        if name in EXPECTED:
            assert all(EXPECTED[name](row) for row in steps), name
    return steps


def resumed(make: Callable[..., TrainConfig], combination: str, column: str, run: Path) -> Path:
    """The same run, cut after its second step and resumed."""
    cut = run.with_name("cut")
    shutil.copytree(run, cut)
    shutil.rmtree(cut / "checkpoints" / "step_000003")
    (cut / "summary.json").unlink()
    needs = [WEIGHED] if column == "async" else []
    config = make(*(SIGNALS[name] for name in allowed(combination, column)), *needs, HOW[column])
    train(config, run_dir=cut, resume=True, debug_inline=True)
    return cut


def assert_equal(one: Path, other: Path) -> None:
    """Every metric but times, and the last weights bit by bit."""
    rows = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    for left, right in zip(*rows, strict=True):
        names = [name for name in left if not any(part in name for part in CLOCK)]
        assert {name: left[name] for name in names} == {name: right[name] for name in names}
    last = Path("checkpoints/step_000003/policy/model.safetensors")
    ours, theirs = (load_file(run / last) for run in (one, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.usefixtures("fake_engines")
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_signals_do_not_depend_on_the_packing_and_resume_exactly(
    combination: str, make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    shared = trained(make, combination, "shared prompts", tmp_path / "run")
    for one, other in zip(shared, trained(make, combination, "padded", tmp_path / "padded"), strict=True):
        for name in (name for name in one if name.startswith(("loss/", "distillation/"))):
            assert other[name] == pytest.approx(one[name], rel=2e-3, abs=2e-5), name
    assert_equal(tmp_path / "run", resumed(make, combination, "shared prompts", tmp_path / "run"))


@pytest.mark.usefixtures("fake_engines")
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_signals_train_ahead_of_the_sampler_and_resume_exactly(
    combination: str, make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    trained(make, combination, "one_ahead", tmp_path / "run")
    assert_equal(tmp_path / "run", resumed(make, combination, "one_ahead", tmp_path / "run"))


@pytest.mark.usefixtures("fake_engines")
@pytest.mark.parametrize("combination", COMBINATIONS)
def test_signals_train_under_a_stream_and_go_on_after_a_resume(
    combination: str, make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    if combination == "rewarded":  # the table's `max_lag: 1`
        signals = [SIGNALS[name] for name in COMBINATIONS[combination]]
        config = make(*signals, WEIGHED, HOW["async"], {"asynchrony": {"max_lag": 1}})
        train(config, run_dir=tmp_path / "run", debug_inline=True)
        assert all(EXPECTED["distillation as reward"](row) for row in steps_of(tmp_path / "run"))
        return
    trained(make, combination, "async", tmp_path / "run")
    assert len(steps_of(resumed(make, combination, "async", tmp_path / "run"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("combinations", [("teachers", "prompts"), ("rewarded",)])
def test_signals_on_two_ranks_that_ray_places_are_those_of_one(
    combinations: Sequence[str], make: Callable[..., TrainConfig], fakes: Callable[..., None], tmp_path: Path
) -> None:
    """The components themselves are in tests/engine/learner/rank_scenarios.py; this is the way to them."""
    names = [name for one in combinations for name in COMBINATIONS[one]]
    signals = [SIGNALS[name] for name in names if REFUSED.get((name, "two ranks"), ("",))[0] != "refused"]
    alone = {"rollout": {"sampler": "transformers", "num_engines": 1}}
    ranks = {"num_ranks": 2, "parallel": "replicated" if "Muon" in names else "fsdp"}
    fakes(cluster=True)
    for folder, changes in (("one", {}), ("two", {"learner": ranks, "cluster": {"call_timeout_s": 120}})):
        train(make(*signals, alone, changes), run_dir=tmp_path / folder, debug_inline=True)
    for one, two in zip(steps_of(tmp_path / "one"), steps_of(tmp_path / "two"), strict=True):
        assert all(EXPECTED[name](two) for name in names if name in EXPECTED)
        for name in (name for name in one if name.startswith(("loss/", "distillation/", "data/"))):
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=2e-4), name


@pytest.mark.parametrize(("signal", "column"), REFUSED)
def test_what_makes_no_sense_is_refused(signal: str, column: str, make: Callable[..., TrainConfig]) -> None:
    _, needs, message = REFUSED[signal, column]
    with pytest.raises(ConfigError, match=message):
        make(WEIGHED, SIGNALS[signal], needs, HOW[column])


def test_the_table_of_the_docs_is_the_one_that_runs() -> None:
    def row(signal: str) -> str:
        cells = [REFUSED[signal, column][0] if (signal, column) in REFUSED else "yes" for column in COLUMNS]
        return f"| {signal} | {' | '.join(cells)} |"

    head = f"| | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}"
    table = "\n".join([head, *map(row, SIGNALS)])
    page = (Path(__file__).parents[3] / "docs" / "algorithms.md").read_text(encoding="utf-8")
    assert table in page, table
    assert {name for names in COMBINATIONS.values() for name in names} == SIGNALS.keys()
