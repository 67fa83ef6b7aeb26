"""`verl-lite plugins list`: the rewards, and the plugins that are none."""

import json
import subprocess
import sys

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
