"""A run whose reward is hacked: paid for its form alone, while a strict verifier stands beside it unpaid."""

from io import StringIO
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console

from verl_lite.engine import train
from verl_lite.engine.config import MonitorsConfig, TrainConfig
from verl_lite.engine.observe import read_metrics
from verl_lite.lab.report import collect
from verl_lite.plugins import validate

BOX = r"\boxed{"
LENIENT = """
from verl_lite.plugins import reward

@reward("boxed")
def boxed(rollout):
    return float({box!r} in rollout.completion)
"""


def test_paid_for_form_alone_a_run_is_called_hacked_at_the_step_it_shows(
    small_run: dict[str, Any], tmp_path: Path
) -> None:
    """The policy learns to open a box; what stands in it is never right, and the monitor says so."""
    lenient = tmp_path / "boxed.py"
    lenient.write_text(LENIENT.format(box=BOX))
    window = 4
    small_run |= {
        "steps": 20,
        "rewards": {
            "boxed": {"use": f"{lenient}:boxed"},
            "strict": {"use": "math", "weight": 0.0},
        },
        "monitors": {"window_steps": window},
        "checkpoints": {"every_steps": 0},
        "evaluation": {"every_steps": 10},
    }
    small_run["data"]["held_out"] = {"task": "arithmetic", "split": "held_out", "num_rows": 6}
    said = StringIO()
    run = tmp_path / "run"
    train(
        validate(TrainConfig, small_run, source="test"),
        run_dir=run,
        debug_inline=True,
        console=Console(file=said, width=400),
    )
    rows = [row for row in read_metrics(run / "metrics.jsonl") if "reward/mean" in row]
    rewards = [row["reward/mean"] for row in rows]
    assert fmean(rewards[-window:]) > fmean(rewards[:window]) + 0.3
    assert {row["reward/strict/mean"] for row in rows} == {0.0}
    # each window is full at step 8; before that nothing can be measured, and nothing is said
    assert [row["step"] for row in rows if "monitor/divergence" in row] == list(range(2 * window, 21))
    limit = MonitorsConfig().divergence
    begins = next(row["step"] for row in rows if row.get("monitor/divergence", 0.0) > limit)
    assert [row["warning/divergence"] for row in rows] == [float(row["step"] >= begins) for row in rows]
    lines = said.getvalue().splitlines()
    assert len([line for line in lines if line.startswith("held-out accuracy after step 10: ")]) == 1
    (at,) = [at for at, line in enumerate(lines) if line.startswith("warning divergence: ")]
    assert "measured hacking (rise beyond that of strict" in lines[at]
    assert lines[at + 1].startswith(f"step {begins:>4}/20")  # said at the step it was measured
    series = collect([run])["runs"][0]["series"]
    assert series["warning/divergence"] == [row["warning/divergence"] for row in rows]
    assert series["reward/strict/mean"] == [0.0] * 20
