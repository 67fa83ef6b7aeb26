"""Which files of a folder of ours hold rollouts: a run's, or an evaluation's."""

from pathlib import Path

RESULTS = "results.json"  # of `verl-lite eval --out`


def is_run(folder: Path) -> bool:
    """Whether the folder holds the metrics of a training stage."""
    return any((folder / name).is_file() for name in ("metrics.jsonl", "sft.jsonl"))


def is_evaluation(folder: Path) -> bool:
    return (folder / RESULTS).is_file()


def run_records(folder: Path) -> list[Path] | None:
    """The rollouts of a run or an evaluation, all steps; None if the folder is neither."""
    if is_evaluation(folder):
        return _samples(folder)
    if is_run(folder):  # RL's, or the answers generated during SFT
        found = sorted((folder / "rollouts").glob("*.parquet"))
        return found or sorted((folder / "sft_answers").glob("*.parquet"))
    return None


def _samples(folder: Path) -> list[Path]:
    """Each data set's samples, or its greedy answers if it has no samples."""
    samples = sorted(folder.glob("*_samples.parquet"))
    sampled = {path.name.removesuffix("_samples.parquet") for path in samples}
    greedy = sorted(folder.glob("*_greedy.parquet"))
    return samples + [path for path in greedy if path.name.removesuffix("_greedy.parquet") not in sampled]
