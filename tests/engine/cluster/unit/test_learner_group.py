"""The group's own part, over ranks that are one object here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from verl_lite.engine.cluster import LearnerGroup, LearnerSpec, RankActor, write_probe_file
from verl_lite.engine.config import AlgorithmConfig, TrainConfig
from verl_lite.errors import ConfigError, TrainingError
from verl_lite.plugins import validate


class Elsewhere:
    """Ranks that write below `root`, as on a node with a disk of its own."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.asked: list[Path] = []

    def start(self, method: str, folder: Path) -> Callable[[], Any]:
        assert method == "save"
        self.asked.append(folder)
        written = folder if self.root is None else self.root / folder.relative_to("/")
        written.mkdir(parents=True, exist_ok=True)
        (written / "learner.pt").touch()
        return lambda: None

    def call(self, method: str, folder: Path) -> float:
        assert method == "restore"
        self.asked.append(folder)
        return 0.0

    def put(self, method: str) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        pass


def test_ranks_are_told_absolute_paths(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's processes run in the folder that `ray start` was called in."""
    monkeypatch.chdir(tmp_path)
    ranks = Elsewhere(None)
    group = LearnerGroup(ranks, AlgorithmConfig())
    group.start_saving(Path("part"), tokenizer)()
    group.restore(Path("part"))
    assert ranks.asked == [tmp_path / "part"] * 2


def test_a_checkpoint_that_the_ranks_wrote_on_another_disk_is_none(tmp_path: Path, tokenizer: Any) -> None:
    group = LearnerGroup(Elsewhere(tmp_path / "node7"), AlgorithmConfig())
    with pytest.raises(TrainingError, match="folder that all nodes share with --run-dir"):
        group.start_saving(tmp_path / "part", tokenizer)()


def test_a_rank_that_sees_another_folder_of_the_run_s_name_is_refused(
    tmp_path: Path, small_run: dict[str, Any]
) -> None:
    run_dir = tmp_path / "run"
    probe = write_probe_file(run_dir)
    spec = LearnerSpec(
        config=validate(TrainConfig, {**small_run, "learner": {"num_ranks": 2}}, source="test"),
        model_path=str(tmp_path),
        pad_token_id=0,
        run_dir=run_dir,
    )
    probe.unlink()  # as on a node with a disk of its own
    with pytest.raises(ConfigError, match="name one that all nodes share with --run-dir"):
        RankActor().join(spec, 1, ("127.0.0.1", 1), 1.0, on_gpu=False, probe=probe)
