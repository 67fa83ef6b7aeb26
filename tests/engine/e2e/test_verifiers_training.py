"""An environment of the real verifiers package, its rubric as the reward, trained with real vLLM."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from verl_lite.engine.observe import read_metrics
from verl_lite.plugins.records import read_records

ENVIRONMENT = '''
import verifiers as vf
from datasets import Dataset


async def digits(completion):
    """The part of the last answer that is digits."""
    text = completion[-1]["content"]
    return sum(c.isdigit() for c in text) / len(text) if text else 0.0


class Again(vf.MultiTurnEnv):
    async def env_response(self, messages, state, **kwargs):
        return [{"role": "user", "content": "again"}]

    @vf.stop
    async def is_over(self, state, **kwargs):
        return len(state["trajectory"]) >= 2


def load_environment():
    rows = Dataset.from_list([{"question": "1+1=", "answer": "2"}])
    return Again(dataset=rows, rubric=vf.Rubric(funcs=[digits]))
'''
CONFIG = {
    "name": "digits",
    "steps": 2,
    "model": {
        "tiny": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1,
                 "intermediate_size": 128, "max_context_tokens": 128}
    },
    "data": {"train": {"path": "rows.jsonl", "prompt": "prompt", "reference": "answer"}},
    "environment": {"use": "verifiers:say_digits", "workers": 4},
    "rewards": {"rubric": {"use": "environment", "weight": 1.0}},
    "rollout": {
        "num_prompts": 2, "num_samples": 4, "max_prompt_tokens": 32, "max_new_tokens": 64,
        "max_context_tokens": 128, "vllm": {"kv_cache_gib": 0.1},
    },
    "logging": {"trackers": []},
}  # fmt: skip


@pytest.mark.slow
def test_an_environment_of_verifiers_trains_with_vllm(
    tmp_path: Path, command: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    verifiers = pytest.importorskip("verifiers")
    if getattr(verifiers, "load_environment", None) is None:
        pytest.skip("this version of verifiers has no classic environments")
    (tmp_path / "say_digits.py").write_text(ENVIRONMENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    rows = [
        {"prompt": [{"role": "user", "content": f"{a}+{a}="}], "answer": str(2 * a), "example_id": a}
        for a in range(20)
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "run.yaml").write_text(json.dumps(CONFIG))
    command(tmp_path, "train", "run.yaml", "--run-dir=run", is_silent=False)
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in metrics] == [1, 2]
    records = list(read_records(tmp_path / "run" / "rollouts" / "step_000002.parquet"))
    for record in records:
        rollout = record.rollout
        said = [turn.content for turn in rollout.turns if turn.role == "assistant"]
        assert rollout.columns["environment"]["metrics"]["digits"] == pytest.approx(_digits(said[-1]))
    assert any(len(record.rollout.turns) == 3 for record in records)


def _digits(text: str) -> float:
    return sum(map(str.isdigit, text)) / len(text) if text else 0.0
