"""docs/rewards.md: its first example runs as printed, and prints what the page says."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verl_lite.plugins import RewardsConfig, read_yaml, validate

PAGE = (Path(__file__).parents[3] / "docs" / "rewards.md").read_text()


def test_the_first_example_prints_what_the_page_says(
    page: Callable[[str], Any], environment: Any, tmp_path: Path
) -> None:
    rewards = page("rewards.md")
    assert [block.path for block in rewards.blocks if block.path] == [
        "my_rewards.py",
        "rewards.yaml",
        "score.py",
    ]
    assert sum(block.language == "console" for block in rewards.blocks) == 1
    rewards.run(tmp_path, environment.variables)


def test_every_yaml_block_is_a_config(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        (tmp_path / "rewards.yaml").write_text(block)
        validate(RewardsConfig, read_yaml(tmp_path / "rewards.yaml"), source="docs/rewards.md")
