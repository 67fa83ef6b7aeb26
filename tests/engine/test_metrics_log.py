"""metrics.jsonl is always there; trackers see the same numbers; a resumed run does not repeat steps."""

import time
from pathlib import Path

import pytest

from verl_lite.engine.metrics_log import MetricsLog, check_trackers, read_metrics
from verl_lite.errors import ConfigError


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


METRICS = {"reward/mean": 0.25, "reward/math/mean": 0.5, "loss/policy": float("inf")}


@pytest.mark.filterwarnings("ignore")  # another project's, and that project is no dependency
def test_wandb_offline_gets_the_components_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = log(tmp_path, trackers=("wandb",))
    writer.log(METRICS, step=3)
    writer.close()
    (file,) = tmp_path.rglob("run-*.wandb")
    deadline = time.monotonic() + 20  # wandb's own process writes it
    while b"reward/math/mean" not in (content := file.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert b"loss/policy" not in content


@pytest.mark.filterwarnings("ignore")
def test_mlflow_without_a_server_writes_into_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    writer = log(tmp_path, trackers=("mlflow",))
    writer.log(METRICS, step=3)
    writer.close()
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    assert run.data.metrics == {"reward/mean": 0.25, "reward/math/mean": 0.5}
    assert run.data.params["rollout.top_p"] == "1.0"
    assert (tmp_path / "mlflow.db").is_file()
