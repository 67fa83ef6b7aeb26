"""docs/builtin-rewards.md: its configs are configs; that its tables are fresh is tested in tests/docs."""

import re
from pathlib import Path

import pytest

from verl_lite.plugins import RewardsConfig, Scorer, find_rewards, read_yaml, validate

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "builtin-rewards.md").read_text()


@pytest.mark.parametrize("name", re.findall(r"<!-- options: (\S+) -->", PAGE))
def test_every_option_says_what_it_is(name: str) -> None:
    definition = find_rewards().get(name)
    assert f"## {name}\n" in PAGE
    for option, info in definition.options_model.model_fields.items():
        assert info.description, option


def test_every_yaml_block_is_a_config_whose_options_fit(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 7
    for block in blocks:
        (tmp_path / "rewards.yaml").write_text(block)
        config = validate(RewardsConfig, read_yaml(tmp_path / "rewards.yaml"), source="builtin-rewards.md")
        assert Scorer(config).components
