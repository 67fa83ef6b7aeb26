"""The examples that need data: preferences on the file beside them, ready evaluations on such rows."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from verl_lite.cli import main
from verl_lite.engine import PromptRow
from verl_lite.engine.config import TinyModelConfig
from verl_lite.engine.evals import evaluate as evals, load_eval_config
from verl_lite.engine.model import build_tiny_model
from verl_lite.plugins import Rollout, SamplerSettings

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
GSM8K = ROOT.parent / "shared" / "data" / "gsm8k" / "test.jsonl"
ADD = "```python\ndef add(a, b):\n    return a + b\n```"
SUBTRACT = "```python\ndef add(a, b):\n    return a - b\n```"

# one row of each data set, in the columns its page on the hub documents
ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {
        "question": "Ann has 3 apples and buys 4. How many has she?",
        "answer": "She has 3 + 4 = <<3+4=7>>7 apples.\n#### 7",
    },
    "math500": {
        "problem": "What is $\\frac{1}{2} + \\frac{1}{4}$?",
        "solution": "It is $\\boxed{\\frac{3}{4}}$.",
        "answer": "\\frac{3}{4}",
        "subject": "Prealgebra",
        "level": 1,
        "unique_id": "test/prealgebra/0.json",
    },
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": 'def add(a, b):\n    """The sum."""\n',
        "canonical_solution": "    return a + b\n",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 2) == 7\n",
        "entry_point": "add",
    },
    "mbpp": {
        "source_file": "mbpp.json",
        "task_id": 2,
        "prompt": "Write a function add that gives the sum.",
        "code": "def add(a, b):\n    return a + b",
        "test_imports": [],
        "test_list": ["assert add(1, 2) == 3", "assert add(5, 2) == 7"],
    },
}
RIGHT = {"gsm8k": "So \\boxed{7}", "math500": "\\boxed{0.75}", "humaneval": ADD, "mbpp": ADD}
WRONG = {"gsm8k": "So \\boxed{8}", "math500": "\\boxed{0.5}", "humaneval": SUBTRACT, "mbpp": SUBTRACT}


class Answers:
    """In the sampler's place: the same answer to everything."""

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(
        self, prompts: Sequence[PromptRow], *, num_samples: int, settings: SamplerSettings, **_: object
    ) -> Iterator[list[Rollout]]:
        for prompt in prompts:
            yield [
                Rollout(
                    prompt=prompt.messages,
                    completion=self.text,
                    reference=prompt.reference,
                    columns=prompt.columns,
                    group=prompt.id,
                    sample_index=index,
                    completion_ids=[1],
                )
                for index in range(num_samples)
            ]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def long_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("long") / "model"
    shape = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    build_tiny_model(folder, TinyModelConfig(**shape, max_context_tokens=4096), seed=0)
    return folder


def accuracy(
    name: str, data: Path, answer: str, model: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[float, int]:
    """(greedy accuracy, its count) of the ready config on `data`, when every answer is `answer`."""
    monkeypatch.setattr(evals, "sampler_for", lambda *_, **__: Answers(answer))
    hub = [f"datasets.{name}.hub=", f"datasets.{name}.path={data}", f"datasets.{name}.hub_subset="]
    config = load_eval_config(EXAMPLES / f"eval_{name}.yaml", [*hub, "num_samples=2", *more])
    result = evals.evaluate_model(config, str(model), debug_inline=True)
    measures = {measure.name: measure for measure in result.datasets[name].measures}
    found = measures["greedy accuracy"]
    assert measures["avg@2"].value == found.value
    return found.value, found.count


@pytest.mark.parametrize("name", sorted(ROWS))
def test_a_ready_evaluation_reads_its_data_set_s_rows(
    name: str, long_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps(ROWS[name]) + "\n")
    assert accuracy(name, path, RIGHT[name], long_model, monkeypatch) == (1.0, 1)
    assert accuracy(name, path, WRONG[name], long_model, monkeypatch) == (0.0, 1)


@pytest.mark.skipif(not GSM8K.is_file(), reason="GSM8K is not here")
def test_gsm8k_itself(long_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is answered with 18, the first row's answer: as many are right as say so after ####."""
    rows = [json.loads(line) for line in GSM8K.read_text().splitlines()]
    eighteen = sum(row["answer"].split("####")[1].strip() == "18" for row in rows)
    limits = ("rollout.max_prompt_tokens=2048", "rollout.max_new_tokens=512")
    value, count = accuracy("gsm8k", GSM8K, "\\boxed{18}", long_model, monkeypatch, *limits)
    assert (count, round(value * count)) == (len(rows), eighteen)


Cli = Callable[..., str]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["verl-lite", *arguments])
        monkeypatch.chdir(ROOT)
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert not ended.value.code, captured.err
        return captured.out

    return call


SMALL = ("model.tiny.hidden_size=32", "model.tiny.num_layers=1", "model.tiny.intermediate_size=64")


@pytest.mark.parametrize("command", ["dpo", "reward-model"])
def test_the_preference_examples_run_and_learn(command: str, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = f"examples/{command.replace('-', '_')}.yaml"
    changes = ("learner.optimizer.learning_rate=3e-3", "trackers=[]")
    out = cli(command, config, *SMALL, *changes, "--run-dir", str(run))
    assert "held-out pairs" in out
    accuracies = json.loads((run / "summary.json").read_text())["metrics"]["held_out/accuracy"]
    assert accuracies["before"] == pytest.approx(0.5, abs=0.1)  # noise: equal scores
    assert accuracies["after"] > 0.6
    assert (run / "model" / "model.safetensors").is_file()


def test_diagnose_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    """A random model never answers in the format: a warm-up comes first."""
    changes = (*SMALL, "rollout.sampler=transformers", "rollout.max_new_tokens=8")
    sizes = ("--prompts", "4", "--samples", "2", "--debug-inline")
    out = cli("diagnose", "examples/quickstart.yaml", *changes, *sizes, "-o", str(tmp_path / "r.jsonl"))
    assert "pass@2" in out
    assert "groups without variance" in out
    assert "steps of SFT" in out
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 8
    found = json.loads(cli("diagnose", "examples/quickstart.yaml", *changes, *sizes, "--json"))
    assert found["pass_at"]["1"] == 0.0
    assert found["advice"]["sft_steps"] > 0
