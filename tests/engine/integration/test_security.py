"""What must not be in the tree: unpickling of files, eval, remote code by default, unsafe YAML, escapes."""

import ast
import io
import json
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from verl_lite.engine import train
from verl_lite.engine.config import CheckpointConfig, TrainConfig
from verl_lite.engine.learner import saved_state
from verl_lite.engine.rundir import CheckpointWriter, restore_random_states, why_not_whole
from verl_lite.errors import CheckpointError, ConfigError
from verl_lite.lab import score_file
from verl_lite.lab.report import collect, write_report
from verl_lite.plugins import load_config, validate
from verl_lite.plugins.composite.config import RewardsConfig
from verl_lite.plugins.records import read_records

ROOT = Path(__file__).parents[3]
ROOMS = ("engine", "plugins", "verifiers", "sandbox")
# programs that run inside the sandbox, or in the worker that is sandboxed before it runs anything
INSIDE = (
    "verifiers/verl_lite/verifiers/code/inside_",
    "sandbox/verl_lite/sandbox/",
    "plugins/verl_lite/plugins/environments/builtin/interpreter_program.py",
)
# messages between this program's own processes over pipes and sockets that it made itself
OWN_CHANNELS = (
    "engine/verl_lite/engine/data/store.py",  # a file without a name, which only its process can open
    "plugins/verl_lite/plugins/environments/",
    "plugins/verl_lite/plugins/execution/",
    "plugins/verl_lite/lab/",
    "sandbox/verl_lite/workers/",
    "verifiers/verl_lite/verifiers/math/worker.py",
)


def dotted(node: ast.AST) -> str:
    """The name as written; "" for what is called or read on something else than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """(file, a node of it); read once for all tests."""
    return [
        (path.relative_to(ROOT).as_posix(), node)
        for room in ROOMS
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call | ast.Attribute | ast.ImportFrom)
    ]


def calls() -> Iterator[tuple[str, str, ast.Call]]:
    """(file, the called name as written, the call)."""
    return ((name, dotted(node.func), node) for name, node in nodes() if isinstance(node, ast.Call))


def names_taken() -> Iterator[tuple[str, str]]:
    """(file, a dotted name read in it): called, subclassed, handed on or imported."""
    for name, node in nodes():
        if isinstance(node, ast.Attribute):
            yield name, dotted(node)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield name, f"{node.module}.{alias.name}"


def test_the_scan_sees_the_tree() -> None:
    found = list(calls())
    assert len({name for name, _, _ in found}) > 100
    assert any(called == "torch.load" for _, called, _ in found)


def test_no_eval_and_no_exec_outside_the_sandbox() -> None:
    """One exception: fast_init writes `__init__` of our own classes at import, from their field names."""
    allowed = (*INSIDE, "plugins/verl_lite/plugins/fast_init.py")
    bad = [
        f"{name}: {called}"
        for name, called, _ in calls()
        if called in ("eval", "exec", "builtins.eval", "builtins.exec") and not name.startswith(allowed)
    ]
    assert bad == []


def test_files_are_never_unpickled() -> None:
    pickles = {"pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "joblib.load", "shelve.open"}
    found = [(name, taken) for name, taken in names_taken() if taken in pickles]
    assert found, "the scan no longer sees the two ends of our own channels"
    bad = [f"{name}: {taken}" for name, taken in found if not name.startswith((*OWN_CHANNELS, *INSIDE))]
    assert bad == []


def test_torch_and_numpy_load_plain_tensors_only() -> None:
    for name, called, node in calls():
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if called == "torch.load":
            value = given.get("weights_only")
            assert isinstance(value, ast.Constant), name
            assert value.value is True, name
        if called in ("np.load", "numpy.load"):
            assert "allow_pickle" not in given, name


def test_code_of_a_model_s_author_runs_only_when_named() -> None:
    for name, _, node in calls():
        for keyword in node.keywords:
            if keyword.arg == "trust_remote_code":
                assert not (isinstance(keyword.value, ast.Constant) and keyword.value.value), name
    assert "trust_remote_code" not in str(TrainConfig.model_json_schema()) or (
        "'trust_remote_code': {'default': False" in str(TrainConfig.model_json_schema())
    )


def test_yaml_makes_plain_data_only(tmp_path: Path) -> None:
    for name, called, _ in calls():
        assert called not in ("yaml.unsafe_load", "yaml.full_load", "yaml.load_all"), name
    hostile = tmp_path / "config.yaml"
    hostile.write_text(f"name: !!python/object/apply:pathlib.Path.touch [!!str {tmp_path / 'ran'}]\n")
    with pytest.raises(ConfigError):
        load_config(TrainConfig, hostile)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(yaml.YAMLError):
        yaml.safe_load(hostile.read_text())


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["learner.pt", "rng.pt"])
def test_a_checkpoint_with_code_in_it_is_refused(tmp_path: Path, file: str) -> None:
    with closing(CheckpointWriter(tmp_path, CheckpointConfig(keep=0))) as writer:
        path = writer.submit(step=1, start_saving=lambda folder: (folder / "policy").mkdir, trainer={})
        writer.finish()
    torch.save({"a": Hostile(tmp_path / "ran")}, path / file)
    read = saved_state if file == "learner.pt" else restore_random_states
    with pytest.raises(CheckpointError, match="is damaged"):
        read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../out", "a/b", "..", "/etc/x", ".hidden", "a\nb", ""])
def test_a_run_s_name_cannot_lead_out_of_the_runs_folder(name: str) -> None:
    data = {
        "name": name,
        "steps": 1,
        "model": {"tiny": {}},
        "data": {"train": {"task": "arithmetic"}},
        "rewards": {"format": {"use": "format"}},
    }
    with pytest.raises(ConfigError, match="name"):
        validate(TrainConfig, data, source="test")


UP = "../../../stolen"


def files_under(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_no_field_of_a_record_becomes_a_path(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    fields = {"id": UP, "group": f"{UP}/g", "prompt": f"{UP} 1+1=", "completion": UP, "reference": "2"}
    row = {**fields, "path": UP, "file": "/etc/passwd", UP: UP, "model": UP, "data_source": UP}
    rollouts = home / "rollouts.jsonl"
    rollouts.write_text("".join(json.dumps({**row, "sample_index": at}) + "\n" for at in range(2)))
    rewards = validate(RewardsConfig, {"rewards": {"exact": {"use": "exact"}}}, source="test")
    out = home / "out"
    out.mkdir()
    score_file(rollouts, rewards, output=out / "scored.parquet", bad_rows=out / "bad.jsonl")
    (record, _) = read_records(out / "scored.parquet")
    assert (record.rollout.id, record.rollout.columns[UP]) == (UP, UP)  # kept as what it is: text
    write_report(collect([out / "scored.parquet"]), out / "report.html")
    assert files_under(tmp_path) == {
        "a/b/c/rollouts.jsonl",
        *(f"a/b/c/out/{name}" for name in ("scored.parquet", "report.html")),
    }


def test_no_field_of_a_training_row_becomes_a_path(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    rows = home / "rows.jsonl"
    rows.write_text(
        "".join(json.dumps({"id": f"{UP}{i}", "question": "1+1=", "path": UP}) + "\n" for i in "12")
    )
    tiny = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    config = validate(
        TrainConfig,
        {
            "steps": 1,
            "model": {"tiny": {**tiny, "max_context_tokens": 32}},
            "data": {"train": {"path": str(rows), "reference": ""}},
            "rewards": {"format": {"use": "format"}},
            "rollout": {
                "sampler": "transformers",
                "num_prompts": 2,
                "num_samples": 2,
                "max_prompt_tokens": 24,
                "max_new_tokens": 8,
            },
            "logging": {"trackers": []},
        },
        source="test",
    )
    train(config, run_dir=home / "run", debug_inline=True, console=Console(file=io.StringIO()))
    records = list(read_records(home / "run" / "rollouts" / "step_000001.parquet"))
    assert {record.rollout.group for record in records} == {f"{UP}1", f"{UP}2"}
    outside = {name for name in files_under(tmp_path) if not name.startswith("a/b/c/run/")}
    assert outside == {"a/b/c/rows.jsonl"}


def test_a_checkpoint_s_manifest_cannot_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "checkpoints" / "step_000001"
    folder.mkdir(parents=True)
    for name in ("../../secret", str(tmp_path / "secret")):
        (folder / "manifest.json").write_text(json.dumps({"files": {name: {"bytes": 1, "sha256": ""}}}))
        assert "leads out of the checkpoint" in why_not_whole(folder)
