"""macOS and Windows: the core works where what only Linux has is hidden from every process."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ELSEWHERE = Path(__file__).parents[1] / "fixtures" / "elsewhere"
REWARDS = '''
import os, time
from verl_lite.plugins import reward

@reward("mine", timeout_s=2.0)
def mine(rollout):
    """1.0 for a 4."""
    if rollout.completion == "hang":
        time.sleep(60)
    if rollout.completion == "die":
        os._exit(3)
    return float("4" in rollout.completion)

@reward("most", form="batch")
def most(rollouts):
    return [len(rollout.completion) for rollout in rollouts]
'''
# what may be imported or read at the top of a module: the sandbox is Linux's own room
LINUX_ONLY = {"resource", "fcntl", "pwd", "grp", "termios", "pty"}
LINUX_NAMES = {
    "os": {"sched_getaffinity", "memfd_create", "fork", "register_at_fork", "pipe2", "setsid"},
    "signal": {"setitimer", "SIGUSR1", "SIGKILL", "SIGCHLD"},
    "socket": {"AF_UNIX", "SOCK_SEQPACKET"},
}
FORK_SERVER = {"fork_server.py", "fork_server_handle.py"}


def elsewhere(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ELSEWHERE), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "verl_lite.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(REWARDS)
    (tmp_path / "rewards.yaml").write_text(
        "rewards: {mine: {use: './mine.py:mine'}, most: {use: './mine.py:most', weight: 0.1}}\n"
    )
    (tmp_path / "exact.yaml").write_text("rewards: {mine: {use: exact}}\n")
    (tmp_path / "code.yaml").write_text("rewards: {program: {use: code}}\n")
    texts = ["4", "5", "hang", "die"]
    rows = [{"id": text, "prompt": "2 + 2?", "completion": text, "reference": "4"} for text in texts]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_rewards_are_scored_in_processes_with_deadlines(folder: Path) -> None:
    done = elsewhere(
        folder, "score", "rows.jsonl", "-c", "rewards.yaml", "--no-cache", "--json", "--workers", 1
    )
    assert done.returncode == 0, done.stderr
    mine = json.loads(done.stdout)["components"]["mine"]
    assert (mine["mean"], mine["outcomes"]) == (0.5, {"ok": 2, "timeout": 1, "error": 1})
    reasons = {reason["id"]: reason["reason"] for reason in mine["reasons"]}
    assert reasons["hang"] == "no answer within 2 s; its worker process was killed"
    assert reasons["die"] == "the reward's worker process ended with exit code 3 while it scored this row"
    assert json.loads(done.stdout)["components"]["most"]["outcomes"] == {"ok": 4}


def test_what_needs_linux_says_so_and_what_to_do(folder: Path) -> None:
    done = elsewhere(folder, "score", "rows.jsonl", "-c", "code.yaml")
    assert done.returncode == 2
    assert "in a sandbox that needs Linux" in done.stderr
    assert "verl-lite rewards serve" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["diff", "rows.jsonl", "-a", "exact.yaml", "-b", "rewards.yaml", "--no-cache"],
            "what GRPO would see",
        ),
        (["check", "rows.jsonl", "-c", "exact.yaml"], "determinism"),
        (["report", "rows.jsonl", "-o", "report.html"], "report.html: 4 rollouts"),
        (["plugins", "check", "./mine.py:mine"], "reach a worker process"),
    ],
)
def test_the_other_commands_work(folder: Path, arguments: list[str], text: str) -> None:
    done = elsewhere(folder, *arguments)
    assert text in done.stdout, done.stderr


def core_modules() -> list[Path]:
    rooms = ["sandbox/verl_lite/workers", "verifiers", "plugins", "engine/verl_lite/cli"]
    return [path for room in rooms for path in (ROOT / room).rglob("*.py") if path.name not in FORK_SERVER]


@pytest.mark.parametrize("path", core_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_of_the_core_needs_linux_to_be_imported(path: Path) -> None:
    found = list(_at_the_top(ast.parse(path.read_text(encoding="utf-8")).body))
    assert found == [], f"{path}: imported or read at the top of the module"


def _at_the_top(body: list[ast.stmt]) -> list[str]:
    """What statements outside functions import or read that only Linux or Unix has; guarded ones are fine."""
    found: list[str] = []
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Try, ast.If)):
            continue
        for node in ast.walk(statement):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                found += [str(name) for name in names if name in LINUX_ONLY]
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if isinstance(statement, ast.ClassDef):
                    continue  # its methods run when they are called
                found += [node.attr] if node.attr in LINUX_NAMES.get(node.value.id, ()) else []
    return found
