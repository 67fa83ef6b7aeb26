"""`verl-lite plugins list`: the rewards, and the plugins that are none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verl_lite.cli.app import app

RUN = CliRunner()


def test_the_table_names_every_reward() -> None:
    done = RUN.invoke(app, ["plugins", "list", "--no-plugins"])
    assert done.exit_code == 0
    assert done.stdout.startswith("reward ")
    for name in ("exact", "format", "length", "regex"):
        assert f"\n{name} " in done.stdout


def test_json_is_for_machines() -> None:
    done = RUN.invoke(app, ["plugins", "list", "--json", "--no-plugins"])
    data = json.loads(done.stdout)
    exact = next(item for item in data["rewards"] if item["name"] == "exact")
    assert exact["form"] == "rollout"
    assert exact["distribution"] == "verl-lite"
    plugin = next(item for item in data["plugins"] if item["name"] == "exact")
    assert plugin["status"] == "ok"
    assert len(plugin["content_hash"]) == 64


def test_listing_rewards_does_not_load_torch() -> None:
    code = (
        "import sys; sys.argv = ['verl-lite', 'plugins', 'list', '--no-plugins']\n"
        "from verl_lite.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'vllm', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_a_plugin_that_cannot_be_used_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "sick_rewards-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sick-rewards\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[verl_lite]\nsick = sick_rewards_module\n")
    (tmp_path / "sick_rewards_module.py").write_text("import no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    done = RUN.invoke(app, ["plugins", "list"])
    assert done.exit_code == 0
    expected = (
        "sick (sick-rewards 1.0): failed (import): ModuleNotFoundError: No module named 'no_such_module'"
    )
    assert expected in done.stdout
