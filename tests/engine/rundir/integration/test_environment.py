"""environment.json tells what a run ran on; `config diff` tells two runs apart."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from verl_lite.engine import PromptRow
from verl_lite.engine.rundir import (
    Difference,
    changed_data,
    describe_environment,
    diff_runs,
    fingerprint_rows,
    make_deterministic,
)
from verl_lite.errors import DataError


def row(reference: str = "3", **columns: str) -> PromptRow:
    return PromptRow(id="a", messages=(), prompt_ids=[1, 2], reference=reference, columns=columns)


def test_it_names_versions_hardware_and_plugins_but_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hidden-value")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plugin = {"name": "math", "distribution": "verl-lite", "version": "0.1.0", "sha256": "ab"}
    environment = describe_environment([plugin], {"train": fingerprint_rows([row()])})
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["packages"]["verl-lite"]
    assert environment["num_cpus"] == os.cpu_count()
    assert environment["memory_gib"] > 0
    assert environment["plugins"] == [plugin]
    assert environment["data"]["train"]["rows"] == 1
    assert environment["variables"]["OMP_NUM_THREADS"] == "1"
    assert "hidden-value" not in json.dumps(environment)


def test_the_git_state_tells_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe_environment([], {})["git"] is None
    (tmp_path / "a.txt").write_text("one")
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = describe_environment([], {})["git"]
    assert len(clean["commit"]) == 40
    assert (clean["changed_files"], clean["diff_sha256"]) == ([], None)
    (tmp_path / "a.txt").write_text("two")
    changed = describe_environment([], {})["git"]
    assert changed["changed_files"] == ["a.txt"]
    assert len(changed["diff_sha256"]) == 64


def test_fingerprints_see_every_column_and_the_order(tmp_path: Path) -> None:
    rows = [row(), row("4"), row(level="easy")]
    prints = {fingerprint_rows(some)["sha256"] for some in (rows, rows[::-1], rows[:2], [row("5")])}
    assert len(prints) == 4
    assert fingerprint_rows(rows) == fingerprint_rows(list(rows))
    file = tmp_path / "environment.json"
    file.write_text(json.dumps({"data": {"train": fingerprint_rows(rows)}}))
    assert changed_data(file, {"train": fingerprint_rows(rows)}) == []
    assert changed_data(file, {"train": fingerprint_rows(rows[:2])}) == ["train"]


def run_folder(folder: Path, config: str, packages: dict[str, str]) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    plugins = [{"name": "math", "sha256": packages["torch"]}]
    (folder / "environment.json").write_text(json.dumps({"packages": packages, "plugins": plugins}))
    return folder


def test_two_runs_are_told_apart_by_key(tmp_path: Path) -> None:
    a = run_folder(tmp_path / "a", "seed: 0\nrollout: {temperature: 1.0, top_k: 5}\n", {"torch": "2.8"})
    b = run_folder(tmp_path / "b", "seed: 0\nrollout: {temperature: 0.5}\n", {"torch": "2.9"})
    assert diff_runs(a, b) == [
        Difference("config", "rollout.temperature", 1.0, 0.5),
        Difference("config", "rollout.top_k", 5, None),
        Difference("environment", "packages.torch", "2.8", "2.9"),
        Difference("environment", "plugins.math.sha256", "2.8", "2.9"),
    ]
    assert diff_runs(a, a) == []
    assert len(diff_runs(a, b / "config.yaml")) == 2
    with pytest.raises(DataError, match="name a run folder or a config file"):
        diff_runs(a, tmp_path / "nothing")


def test_deterministic_mode_is_set_and_the_users_own_setting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
        if not torch.cuda.is_available():
            assert torch.get_num_threads() == 1
    finally:
        torch.use_deterministic_algorithms(False)
