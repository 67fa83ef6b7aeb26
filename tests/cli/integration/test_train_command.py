"""`verl-lite train`: a bad input is one clear message and exit code 2; nothing loaded, nothing written."""

import importlib.metadata
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from verl_lite.cli import main
from verl_lite.engine import training as engine_run
from verl_lite.engine.model import build_tiny_tokenizer

Cli = Callable[..., tuple[int, str, str]]

CONFIG: dict[str, Any] = {
    "name": "small",
    "steps": 2,
    "model": {"tiny": {}},
    "data": {"train": {"task": "arithmetic", "num_rows": 20}},
    "rewards": {"format": {"use": "format", "options": {"pattern": "think_boxed"}}},
    "rollout": {"num_prompts": 4, "num_samples": 2, "max_prompt_tokens": 32, "max_new_tokens": 16},
}


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["verl-lite", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        code = ended.value.code
        return code if isinstance(code, int) else 0, captured.out, captured.err

    return call


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory in which loading a model fails the test."""

    def no_model(*arguments: Any, **options: Any) -> None:
        pytest.fail("a model was loaded")

    for name in ("load_policy", "prepare_model", "make_sampler"):
        monkeypatch.setattr(engine_run, name, no_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_file(folder: Path, **changes: Any) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, **changes}))
    return str(path)


def rows_file(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def refused(cli: Cli, folder: Path, *arguments: str) -> str:
    """The one message of a command that must end with exit code 2 and write nothing."""
    before = sorted(folder.rglob("*"))
    code, out, err = cli("train", *arguments)
    assert code == 2, err
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("error: ") == 1
    assert "Traceback" not in err
    assert sorted(folder.rglob("*")) == before
    return err


def test_an_unknown_key_suggests_the_nearest(cli: Cli, folder: Path) -> None:
    config = config_file(folder, rollout={**CONFIG["rollout"], "num_sample": 4})
    assert "unknown key 'rollout.num_sample': did you mean 'num_samples'?" in refused(cli, folder, config)
    assert "unknown key 'sead'" in refused(cli, folder, config_file(folder), "sead=3")


def test_a_missing_config_and_a_missing_data_file(cli: Cli, folder: Path) -> None:
    assert "cannot read the config nowhere.yaml: No such file" in refused(cli, folder, "nowhere.yaml")
    config = config_file(folder, data={"train": {"path": "nowhere.jsonl"}})
    assert "no file at nowhere.jsonl" in refused(cli, folder, config)


def test_a_missing_column_lists_those_there_are(cli: Cli, folder: Path) -> None:
    rows = rows_file(folder, [{"query": "1+1", "reference": "2", "source": "x"}])
    message = refused(cli, folder, config_file(folder, data={"train": {"path": rows}}))
    assert "row 0: no column 'question'; it has query, reference, source" in message


def test_the_sft_answer_is_a_needed_column_too(cli: Cli, folder: Path) -> None:
    rows = rows_file(folder, [{"question": "1+1", "reference": "2"}] * 5)
    config = config_file(folder, data={"train": {"path": rows}}, sft={"steps": 1, "answer": "solution"})
    assert "no column 'solution'; it has question, reference" in refused(cli, folder, config)


def test_a_prompt_longer_than_allowed_and_a_context_that_is_too_short(cli: Cli, folder: Path) -> None:
    rows = rows_file(folder, [{"question": "1+1" * 20, "reference": "2"}])
    config = config_file(folder, data={"train": {"path": rows}})
    assert "the prompt has 63 tokens, more than rollout.max_prompt_tokens=32" in refused(cli, folder, config)
    rollout = {**CONFIG["rollout"], "max_new_tokens": 500}
    message = refused(cli, folder, config_file(folder, rollout=rollout))
    assert "more than model.tiny.max_context_tokens=512" in message


def test_a_local_model_s_context_is_read_from_its_config(cli: Cli, folder: Path) -> None:
    model = folder / "model"
    build_tiny_tokenizer().save_pretrained(model)
    (model / "config.json").write_text(json.dumps({"model_type": "qwen3", "max_position_embeddings": 40}))
    message = refused(cli, folder, config_file(folder, model={"path": str(model)}))
    assert "= 48 tokens, but the context of" in message
    assert "is 40" in message


def test_a_model_folder_without_a_chat_template_and_one_that_is_not_there(cli: Cli, folder: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    message = refused(cli, folder, config_file(folder, model={"path": str(folder / "model")}))
    assert "has no chat template: use an instruction-tuned model" in message
    message = refused(cli, folder, config_file(folder, model={"path": "./nowhere"}))
    assert "there is no folder ./nowhere" in message


def test_no_row_left_after_filtering(cli: Cli, folder: Path) -> None:
    rows = rows_file(folder, [{"question": "1+1" * 20, "reference": "2"}] * 3)
    config = config_file(folder, data={"train": {"path": rows, "overlong": "drop"}})
    assert "all 3 prompts are longer than rollout.max_prompt_tokens=32" in refused(cli, folder, config)


def test_fewer_rows_than_a_step_needs(cli: Cli, folder: Path) -> None:
    config = config_file(folder, data={"train": {"task": "arithmetic", "num_rows": 3}})
    assert "rollout.num_prompts=4 is more than the 3 training rows" in refused(cli, folder, config)


def test_a_reward_nobody_registered_lists_what_there_is(cli: Cli, folder: Path) -> None:
    message = refused(cli, folder, config_file(folder, rewards={"good": {"use": "formatt"}}))
    assert "rewards.good.use" in message
    assert "'formatt'" in message
    for name in ("exact", "format", "length"):
        assert name in message


def test_a_run_folder_that_holds_another_run(cli: Cli, folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "config.yaml").write_text("name: other\n")
    message = refused(cli, folder, config_file(folder), "--run-dir", "taken")
    assert "taken already holds another run or other files: choose another --run-dir" in message


def test_an_evaluation_of_nothing_and_a_group_of_one(cli: Cli, folder: Path) -> None:
    message = refused(cli, folder, config_file(folder), "evaluation.every_steps=5")
    assert "evaluation.every_steps=5 needs data.held_out" in message
    message = refused(cli, folder, config_file(folder), "rollout.num_samples=1")
    assert "a group of one always gives 0" in message
    message = refused(cli, folder, config_file(folder), "algorithm.advantage=gdpo")
    assert "set both to gdpo or neither" in message
    message = refused(cli, folder, config_file(folder), "evaluation.accuracy=nothing")
    assert "is not a reward of this config: expected one of format" in message


def test_config_check_show_and_schema(cli: Cli, folder: Path) -> None:
    code, out, _ = cli("config", "check", config_file(folder))
    assert code == 0
    assert "fine; 20 training prompts, 0 held out, 0 SFT examples" in out
    code, out, _ = cli("config", "show", config_file(folder), "seed=7")
    assert code == 0
    assert yaml.safe_load(out)["seed"] == 7
    code, out, _ = cli("config", "schema")
    assert code == 0
    assert json.loads(out)["properties"]["rollout"]
    assert not (folder / "runs").exists()


def test_the_version_is_that_of_the_distribution(cli: Cli) -> None:
    assert cli("--version") == (0, f"verl-lite {importlib.metadata.version('verl-lite')}\n", "")


def test_ctrl_c_writes_a_checkpoint_and_says_how_to_go_on(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 64, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 64}
    config = config_file(
        tmp_path,
        steps=100_000,
        model={"tiny": small},
        rollout={**CONFIG["rollout"], "sampler": "transformers"},
        checkpoints={"every_steps": 0},
        logging={"trackers": [], "rollouts_every_steps": 0},
    )
    monkeypatch.chdir(tmp_path)
    metrics, over = tmp_path / "run" / "metrics.jsonl", threading.Event()

    def interrupt_after_three_steps() -> None:
        while not over.wait(0.05):
            if metrics.exists() and metrics.read_text().count("\n") >= 3:
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=interrupt_after_three_steps)
    thread.start()
    try:
        code, out, err = cli("train", config, "--run-dir", "run", "--debug-inline")
    finally:
        over.set()
        thread.join()
    assert code == 130
    assert "stopping: writing a checkpoint first" in err
    assert "Traceback" not in err
    assert "stopped; continue with: verl-lite train run/config.yaml --run-dir run --resume" in out
    (checkpoint,) = (tmp_path / "run" / "checkpoints").iterdir()
    finished = json.loads((checkpoint / "trainer.json").read_text())["step"]
    assert metrics.read_text().count("\n") == finished >= 3
    again = ("run/config.yaml", f"steps={finished + 1}", "--run-dir", "run", "--resume", "--debug-inline")
    code, out, err = cli("train", *again)
    assert code == 0, err
    assert f"resumed from run/checkpoints/{checkpoint.name} after {finished} steps" in out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == finished + 1


def test_without_vllm_nothing_is_loaded(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "vllm" else find(name, *more)
    )
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(CONFIG))
    run_dir = tmp_path / "run"
    code, out, err = cli("train", str(tmp_path / "c.yaml"), "rollout.sampler=vllm", "--run-dir", str(run_dir))
    assert (code, out, run_dir.exists()) == (2, "", False)
    assert "rollout.sampler=vllm needs vLLM" in err
    assert "rollout.sampler=transformers" in err


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("learner.optimizer.bits=8", r"learner.optimizer.bits=8 needs the bitsandbytes package"),
        ("learner.lora={quantize: true}", r"learner.lora.quantize=true needs the bitsandbytes package"),
    ],
)
def test_quantisation_without_its_package(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch, override: str, key: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest)
    )
    assert key in refused(cli, folder, config_file(folder), override)


def test_the_same_command_begins_a_run_and_goes_on_with_it(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a scheduler starts it again; without the run's folder there is nothing to look into."""
    resumed: list[bool] = []

    def train(config: Any, *, resume: bool, **_: Any) -> Any:
        resumed.append(resume)
        return engine_run.RunResult(run_dir=folder, summary={}, stopped=False)

    monkeypatch.setattr(engine_run, "train", train)
    command = ("train", config_file(folder), "--auto-resume")
    run_dir = folder / "run"
    assert cli(*command, "--run-dir", str(run_dir))[0] == 0
    run_dir.mkdir()
    (run_dir / "config.yaml").touch()
    assert cli(*command, "--run-dir", str(run_dir))[0] == 0
    assert resumed == [False, True]
    code, _, err = cli(*command)
    assert code == 2
    assert "--auto-resume needs --run-dir" in err
