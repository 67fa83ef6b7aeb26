"""The GPU script: every stage on the CPU with tiny shapes; limits, failures, parts of packages, no GPU."""

import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "gpu" / "run_all.sh"


# what of the gpu tests a CPU cannot run: layers compiled by inductor, products of 8 bits
ONLY_ON_A_GPU = {
    "test_an_update_is_the_one_of_the_cpu[{'compile': True}]",
    "test_new_weights_reach_a_sleeping_engine[FP8]",
}


def run(out: Path, *options: str) -> tuple[int, dict[str, dict[str, object]], str]:
    done = subprocess.run(
        [str(SCRIPT), "--out", str(out), *options],
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "HOME": str(out)},
        capture_output=True, text=True, timeout=880,
    )  # fmt: skip
    found = json.loads((out / "summary.json").read_text()) if (out / "summary.json").exists() else []
    return done.returncode, {one["stage"]: one for one in found}, done.stdout + done.stderr


@pytest.mark.slow
def test_the_rehearsal_runs_every_stage_to_its_end(tmp_path: Path) -> None:
    code, stages, said = run(tmp_path, "--rehearse")
    assert code == 0, said
    statuses = {name: one["status"] for name, one in stages.items()}
    if importlib.util.find_spec("trl") is None:
        assert stages["trl"]["reason"] == "TRL is not installed"
        del statuses["trl"]
    assert set(statuses.values()) == {"ok"}, said
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in statuses}
    assert [row["tokens_per_s"] > 0 for row in found["learner"]["rows"].values()] == [True] * 5
    for name, kinds in (("grpo_small", 3), ("grpo_large", 2)):
        assert len(found[name]) == kinds
        for kind in found[name].values():
            for metric in ("time/step_s", "rollout/completion_tokens_mean", "learner/tokens_per_s"):
                assert kind["medians"][metric] > 0
    for name in ("quickstart", "smollm2"):
        assert found[name]["steps"] == 2
    cases = found["tests"]["cases"]
    left_out = {name for name, case in cases.items() if case["result"] == "skipped"}
    assert left_out <= ONLY_ON_A_GPU | {"test_adapters_on_a_base_of_four_bits"}  # without bitsandbytes
    assert {case["result"] for case in cases.values()} <= {"passed", "skipped"}
    assert len(cases) >= 30


def test_every_gpu_test_is_in_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files with the marker are named in stages.py, which the script runs on a GPU and in its rehearsal."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    stages = importlib.import_module("stages")
    named = {name.partition("::")[0] for names in stages.GPU_TESTS for name in names}
    marker = "pytest.mark" + ".gpu"
    marked = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if marker in path.read_text(encoding="utf-8")
    }
    assert named == marked


def test_without_a_gpu_every_stage_says_so(tmp_path: Path) -> None:
    code, stages, said = run(tmp_path, "--only", "versions")
    assert (code, stages["versions"]["status"]) == (0, "skipped"), said
    assert stages["versions"]["reason"] == "no GPU that torch can use is here (--rehearse runs on the CPU)"


@pytest.fixture
def run_all(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("run_all")


def test_the_stages_take_at_most_eight_minutes_together(run_all: Any) -> None:
    assert sum(run_all.LIMITS.values()) <= 8 * 60
    page = (SCRIPT.parent / "README.md").read_text()
    for stage, seconds in run_all.LIMITS.items():
        assert f"| `{stage}` | {seconds} |" in page


def has_ended(pid: str, *, within_s: float = 60.0) -> bool:
    """Whether the process is gone, or dead and not yet collected."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


STAGES = """
import pathlib, subprocess, sys, time
stage, out = sys.argv[1], pathlib.Path(sys.argv[3])
if stage == "versions":
    out.write_text('{"rows": 1}')
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (out.parent / "child").write_text(str(child.pid))
    time.sleep(600)
if stage == "learner":
    out.write_text('{"rows": 2}')
    raise RuntimeError("no kernel image is available")
if stage == "memory":
    out.write_text('{"skipped": "no memory to measure"}')
if stage == "trl":
    out.write_text('{"step_s": 1.0}')
"""


def test_a_stage_that_hangs_is_cut_and_one_that_fails_leaves_its_traceback(
    run_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next stage goes on; each result and the summary are on disk when their stage ends."""
    (tmp_path / "stages.py").write_text(STAGES)
    monkeypatch.setattr(run_all, "HERE", tmp_path)
    monkeypatch.setattr(run_all, "LIMITS", {"versions": 6, "learner": 60, "memory": 60, "trl": 60})
    written: list[list[str]] = []
    write = run_all.write

    def spying(path: Path, value: Any) -> None:
        write(path, value)
        written.append([one["stage"] for one in json.loads(path.read_text())])

    monkeypatch.setattr(run_all, "write", spying)
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["run_all", "--out", str(out), "--only", *run_all.LIMITS])
    assert run_all.main() == 1
    assert written == [
        ["versions"],
        ["versions", "learner"],
        ["versions", "learner", "memory"],
        [*run_all.LIMITS],
    ]
    found = {
        one["stage"]: (one["status"], one["reason"]) for one in json.loads((out / "summary.json").read_text())
    }
    assert found == {
        "versions": ("timed out", "after 6 s; what it had written is kept"),
        "learner": ("failed", "RuntimeError: no kernel image is available"),
        "memory": ("skipped", "no memory to measure"),
        "trl": ("ok", ""),
    }
    assert json.loads((out / "versions.json").read_text()) == {"rows": 1}
    assert "Traceback (most recent call last)" in (out / "learner.log").read_text()
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [*run_all.LIMITS]
    assert has_ended((out / "child").read_text()), "what a cut stage had started goes on"


def test_parts_of_packages_are_put_together_in_order(run_all: Any, tmp_path: Path) -> None:
    """And a folder without parts is one clear line."""
    site = tmp_path / "made"
    site.mkdir()
    (site / "package.py").write_text("x = 1\n" * 5000)
    subprocess.run(["tar", "-C", str(site), "-cJf", str(tmp_path / "whole"), "."], check=True)
    data = (tmp_path / "whole").read_bytes()
    parts = tmp_path / "parts"
    parts.mkdir()
    for at in range(3):
        size = len(data) // 3 + 1
        (parts / f"part-{at:02d}").write_bytes(data[at * size : (at + 1) * size])
    out = run_all.unpack(parts, tmp_path / "site")
    assert (out / "package.py").read_text() == "x = 1\n" * 5000
    with pytest.raises(SystemExit, match="has no files named part-"):
        run_all.unpack(site, tmp_path / "other")


def test_a_checkout_that_is_not_installed_brings_its_roots_and_entry_points(
    run_all: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_all.project(tmp_path / "project") == []
    monkeypatch.setattr(importlib.metadata, "distributions", lambda **_: [])
    folder, *roots = run_all.project(tmp_path / "project")
    assert [root.name for root in roots] == ["sandbox", "verifiers", "plugins", "engine"]
    assert all((root / "verl_lite").is_dir() for root in roots)
    monkeypatch.undo()
    (made,) = importlib.metadata.distributions(name="verl-lite", path=[str(folder)])
    (own,) = importlib.metadata.distributions(name="verl-lite")
    assert made.version == own.version
    assert set(made.entry_points) == set(own.entry_points)
