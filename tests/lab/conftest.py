"""Small rollout files and reward configs for the lab's tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.plugins import RewardsConfig

EXACT = {"rewards": {"correct": {"use": "exact"}}}


@pytest.fixture
def rewards() -> Callable[..., RewardsConfig]:
    """A config from keyword components; `exact` alone without any."""

    def make(**components: Any) -> RewardsConfig:
        return RewardsConfig.model_validate({"rewards": components} if components else EXACT)

    return make


@pytest.fixture
def rollout_file(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSONL and return the path."""

    def write(rows: list[dict[str, Any]], name: str = "rollouts.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.fixture
def sums() -> list[dict[str, Any]]:
    """Ten prompts with four samples each; the last sample of every group is right, of every third all are."""
    return [
        {
            "group": f"g{g}",
            "prompt": f"{g}+1=",
            "completion": str(g + 1) if sample == 3 or g % 3 == 0 else str(g + 5),
            "reference": str(g + 1),
            "is_correct": sample == 3 or g % 3 == 0,
        }
        for g in range(10)
        for sample in range(4)
    ]
