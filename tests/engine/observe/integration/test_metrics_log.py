"""metrics.jsonl is always there; trackers see the same numbers; a resumed run does not repeat steps."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from verl_lite.engine.observe import MetricsLog, check_trackers, read_metrics, sample_table
from verl_lite.errors import ConfigError
from verl_lite.plugins import ComponentScore, Score, ScoredRollout, ScoreOutcome
from verl_lite.plugins.testing import fake_rollout


def log(run_dir: Path, resume_at: int | None = None, trackers: tuple[str, ...] = ()) -> MetricsLog:
    config = {"seed": 0, "rollout": {"top_p": 1.0, "betas": [0.9, 0.95]}}
    return MetricsLog(run_dir, run_name="t", trackers=trackers, config=config, resume_at=resume_at)


def test_lines_hold_the_numbers_and_null_for_what_is_none(tmp_path: Path) -> None:
    writer = log(tmp_path)
    writer.log({"reward/mean": 0.5, "loss/policy": float("nan")}, step=1)
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "reward/mean": 0.5, "loss/policy": None}]


def test_resuming_takes_out_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    writer = log(tmp_path)
    for step in range(1, 6):
        writer.log({"a": float(step)}, step=step)
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "a"')  # cut off by a crash
    writer = log(tmp_path, resume_at=3)
    writer.log({"a": 40.0}, step=4)
    writer.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["a"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_a_crash_while_cutting_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = log(tmp_path)
    for step in (1, 2, 3):
        writer.log({"a": float(step)}, step=step)
    writer.close()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: pytest.fail("killed here"))
    with pytest.raises(pytest.fail.Exception):
        log(tmp_path, resume_at=2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    writer = log(tmp_path, trackers=("tensorboard",))
    writer.log({"reward/mean": 0.25, "loss/policy": float("inf")}, step=3)
    writer.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward/mean")] == [(3, 0.25)]
    assert "loss/policy" not in events.Tags()["scalars"]


def test_trackers_are_checked_by_name_and_by_package() -> None:
    check_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; expected one of aim, "):
        check_trackers(["tensorbord"])
    with pytest.raises(ConfigError, match="'aim' is not installed: pip install aim"):
        check_trackers(["aim"])


def rows(*rewards: float | None) -> list[ScoredRollout]:
    made = []
    for at, reward in enumerate(rewards):
        score = Score(reward) if reward is not None else Score(None, outcome=ScoreOutcome.ABSTAIN)
        rollout = fake_rollout(f"<b>answer</b> {at}", question="1+1=")
        components = {"math": ComponentScore(score=score, weight=1.0, contribution=reward)}
        made.append(ScoredRollout(rollout=rollout, components=components, reward=reward))
    return made


def test_the_table_has_the_best_and_the_worst() -> None:
    table = sample_table(rows(0.5, None, 1.0, 0.0, 0.25, 1.0), step=7, count=3)
    assert table.columns == ["step", "prompt", "completion", "reward", "math"]
    assert [(row[2], row[3]) for row in table.data] == [
        ("<b>answer</b> 2", 1.0),
        ("<b>answer</b> 5", 1.0),
        ("<b>answer</b> 3", 0.0),
    ]
    assert len(sample_table(rows(0.5), step=1, count=4).data) == 1
    assert sample_table(rows(None), step=1, count=4).data == []


TABLE_ROWS = (1.0, 0.0)


def send(run_dir: Path, tracker: str) -> None:
    writer = log(run_dir, trackers=(tracker,))
    writer.log(METRICS, step=3)
    writer.log_samples(sample_table(rows(*TABLE_ROWS), step=3, count=2), step=3)
    writer.close()


def test_tensorboard_gets_the_samples_as_text_that_is_no_markup(tmp_path: Path) -> None:
    send(tmp_path, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Tensors("samples/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    assert (event.step, lines[0]) == (3, "    reward 1  math 1")
    assert all(line.startswith("    ") for line in lines if line and line != "---")
    assert "    <b>answer</b> 1" in lines


METRICS = {"reward/mean": 0.25, "reward/math/mean": 0.5, "loss/policy": float("inf")}


@pytest.mark.filterwarnings("ignore")  # another project's, and that project is no dependency
def test_wandb_offline_gets_the_components_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    send(tmp_path, "wandb")
    (file,) = tmp_path.rglob("run-*.wandb")
    deadline = time.monotonic() + 60  # wandb's own process writes it
    while b"reward/math/mean" not in (content := file.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert b"loss/policy" not in content
    (table,) = tmp_path.rglob("media/table/*.table.json")
    shown = json.loads(table.read_text())
    assert shown["columns"] == ["step", "prompt", "completion", "reward", "math"]
    assert shown["data"][1] == [3, "1+1=", "<b>answer</b> 1", 0.0, 0.0]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_without_a_server_writes_into_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    send(tmp_path, "mlflow")
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.metrics == {"reward/mean": 0.25, "reward/math/mean": 0.5}
    assert run.data.params["rollout.top_p"] == "1.0"
    assert (tmp_path / "mlflow.db").is_file()
    (table,) = tmp_path.rglob("samples/step_000003.json")
    assert json.loads(table.read_text())["data"][0] == [3, "1+1=", "<b>answer</b> 0", 1.0, 1.0]


@pytest.mark.filterwarnings("ignore")
def test_trackio_keeps_its_database_in_the_run(tmp_path: Path) -> None:
    """In a process of its own: trackio reads where its database lies as it is imported."""
    pytest.importorskip("trackio")
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); "
        "import test_metrics_log; test_metrics_log.send(Path(sys.argv[2]), 'trackio')"
    )
    hidden = ("TRACKIO_DIR", "HF_TOKEN", "TRACKIO_SPACE_ID")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "trackio").rglob("t.db")
    content = file.read_bytes() + b"".join(path.read_bytes() for path in file.parent.glob("t.db-wal"))
    assert b"reward/math/mean" in content
    assert b"answer</b> 1" in content
