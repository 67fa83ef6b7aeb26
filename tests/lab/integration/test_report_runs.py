"""The report of runs and evaluations in Chromium: curves, warnings, the timeline, calibration."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verl_lite.lab.report import collect

Rows = list[dict[str, Any]]
Scored = Callable[..., Path]
Page = Any

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "__proto__",
    "a\x00b",
]
TRAINING = "#view=training"


def test_a_run_shows_its_curves_while_it_is_still_written(report: Page, tmp_path: Path) -> None:
    run = tmp_path / "quick"
    run.mkdir()
    lines = [
        {
            "step": s,
            "reward/mean": s / 10,
            "policy/kl": 0.01 * s,
            "warning/flat": int(s in (3, 5, 6, 7)),
            "warning/entropy": int(s == 4),
        }
        for s in range(9)
    ]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "rew'
    )
    (run / "config.yaml").write_text("steps: 9\n")
    event = {"event": "rollback", "step": 6, "to_step": 4, "rule": "reward_collapse", "why": "it fell"}
    (run / "events.jsonl").write_text(json.dumps(event) + "\n")
    report.open(run, run)
    titles = report.all("#part-curves h3")
    assert titles == ["Reward", "KL and mismatch"]
    said = report.all(".warning")
    assert said == [
        "step 6: rollback to step 4, reward_collapse: it fell",
        "step 3: flat, see docs/monitors.md#flat",
        "step 4: entropy, see docs/monitors.md#entropy",
        "steps 5 to 7: flat, see docs/monitors.md#flat",
    ]
    assert len(report.all("#part-curves canvas")) == 2


def test_a_warm_up_alone_shows_its_curves_and_its_answers(
    report: Page, scored: Scored, sums: Rows, tmp_path: Path
) -> None:
    """Training and validation of a step are two lines of the file and one point of the curves."""
    run = tmp_path / "warm"
    (run / "sft_answers").mkdir(parents=True)
    shutil.copy(scored(sums), run / "sft_answers" / "step_000002.parquet")
    lines: Rows = [{"step": step, "sft/loss": 3.0 - step, "sft/grad_norm": 1.0} for step in (1, 2)]
    lines.append({"step": 2, "sft/validation_loss": 1.5, "sft/perplexity": 4.5, "sft/answers/format": 0.25})
    (run / "sft.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = {"sft/perplexity": {"after": 4.5}}
    (run / "summary.json").write_text(json.dumps({"name": "warm", "metrics": metrics}))
    data = collect([run])
    assert data["runs"][0]["warm_up"]["sft/loss"] == [2.0, 1.0]
    assert data["runs"][0]["warm_up"]["sft/validation_loss"] == [None, 1.5]
    report.open(run, address=TRAINING)
    titles = report.all("#part-warm-up-sft- h3")
    assert titles == [
        "Loss in nats per token", "Perplexity on held-out rows", "Rewards of generated answers (mean)",
        "Gradient norm",
    ]  # fmt: skip
    legend = report.text("#part-warm-up-sft- .u-legend").split()
    assert legend == ["step2", "loss1", "validation_loss1.5"]  # the newest, as nothing is pointed at
    assert report.all("#part-curves") == []
    assert report.all("#part-before-and-after td") == ["sft/perplexity", "–", "4.5"]
    assert report.go(view="rollouts").count() == "40 of 40 rollouts"


def test_a_reward_model_shows_its_accuracy_and_calibration(report: Page, tmp_path: Path) -> None:
    run = tmp_path / "rm"
    run.mkdir()
    lines = [{"step": s, "train/loss": 0.7 / s, "train/accuracy": 0.5 + s / 20} for s in (1, 2, 3)]
    lines.append({"step": 3, "held_out/accuracy": 0.75, "held_out/calibration_error": 0.05})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bins = [
        {"low": low, "high": low + 0.1, "mean_score": low + 0.05, "share": share, "count": 10}
        for low, share in ((0.5, 0.4), (0.9, 1.0))
    ]
    (run / "calibration.json").write_text(json.dumps(bins))
    report.open(run)
    titles = report.all("#part-curves h3")
    assert titles == ["Accuracy", "Loss on preferences", "Calibration error"]
    points = "return [...document.querySelectorAll('#part-calibration-on-held-out-pairs circle title')]"
    said = report.run(f"{points}.map((node) => node.textContent)")
    assert said == ["says 0.55, is right in 0.4 of 10", "says 0.95, is right in 1 of 10"]
    assert report.all("#views a") == ["Training"]  # it has no rollouts to browse


def test_the_timeline_is_drawn_and_its_names_run_nowhere(report: Page, tmp_path: Path) -> None:
    lines = [
        line
        for step, text in enumerate(HOSTILE)
        for line in (
            ("learner", "update", step * 10.0, step * 10.0 + 4, step),
            (text, text, step * 10.0 + 4, step * 10.0 + 9, step),
        )
    ]
    folder = tmp_path / "run"
    folder.mkdir()
    keys = ("worker", "stage", "start_s", "end_s", "step")
    text = "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
    (folder / "timeline.jsonl").write_text(text, encoding="utf-8")
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n', encoding="utf-8")
    report.open(folder)
    assert len(report.all("#timeline svg.timeline rect")) == 2 * len(HOSTILE)
    assert report.all("#timeline tbody tr td:first-child")[:2] == ["learner", HOSTILE[0]]
    assert report.run("return window.hacked") is None


def evaluation(folder: Path, model: str, accuracy: float, scored: Path) -> Path:
    """The --out folder of an eval: measures of two data sets, samples of one, greedy answers of both."""
    folder.mkdir()
    share = {
        "name": "greedy accuracy",
        "value": accuracy,
        "low": 0.4,
        "high": 0.9,
        "count": 40,
        "is_share": True,
    }
    mean = {"name": "perplexity", "value": 3.25, "low": None, "high": None, "is_share": False}
    datasets = {name: {"measures": [share, mean], "prompts": {}} for name in ("sums", "words")}
    results = {"name": "quick", "model": model, "datasets": datasets}
    (folder / "results.json").write_text(json.dumps(results))
    for name in ("sums_samples", "sums_greedy", "words_greedy"):
        shutil.copy(scored, folder / f"{name}.parquet")
    return folder


def test_evaluations_stand_side_by_side(report: Page, scored: Scored, sums: Rows, tmp_path: Path) -> None:
    records = scored(sums)
    folders = [
        evaluation(tmp_path / "before", "<b>sft</b>", 0.5, records),
        evaluation(tmp_path / "after", "rl", 0.75, records),
    ]
    report.open(*folders, address=TRAINING)
    assert len(report.all("#part-evaluation table")) == 2
    text = report.text("#part-evaluation")
    assert "50.0% (40.0% to 90.0%)" in text
    assert "75.0% (40.0% to 90.0%)" in text
    assert "before: <b>sft</b>; after: rl" in text
    assert report.go(view="rollouts").count() == "80 of 80 rollouts"


def test_a_finished_run_shows_before_and_after(report: Page, tmp_path: Path) -> None:
    run = tmp_path / "quick"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    metrics = {"evaluation/accuracy": {"before": 0.55, "after": 0.995}}
    (run / "summary.json").write_text(json.dumps({"name": "quick", "steps": 1, "metrics": metrics}))
    report.open(run)
    tiles = "return document.querySelectorAll('.tile, .card').length"
    boxes = "return [...document.querySelectorAll('.part')].map((n) => n.getBoundingClientRect().top)"
    assert report.run(tiles) >= 1
    assert len(set(report.run(boxes))) == len(report.run(boxes))
    assert report.all("#part-before-and-after td") == ["evaluation/accuracy", "0.55", "0.995"]
