"""docs/rewards.md: its first example runs as printed, and prints what the page says."""

import re
import subprocess
import sys
from pathlib import Path

from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.config_file import read_yaml, validate

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text()


def test_the_first_example_prints_what_the_page_says(tmp_path: Path) -> None:
    files = dict(re.findall(r"`(\w+\.\w+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
    assert sorted(files) == ["my_rewards.py", "rewards.yaml", "score.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    expected = re.search(r"`python score.py` prints:\n\n```text\n(.*?)```", PAGE, re.DOTALL)
    assert expected is not None
    done = subprocess.run(
        [sys.executable, "score.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == expected[1]


def test_every_yaml_block_is_a_config(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        (tmp_path / "rewards.yaml").write_text(block)
        validate(RewardsConfig, read_yaml(tmp_path / "rewards.yaml"), source="docs/rewards.md")
