"""Sampling without training: a config's model on its prompts, scored by its rewards if it has any."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from verl_lite.engine.config.model import ModelConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.model.folder import prepare_model
from verl_lite.engine.preparation import PreparedRun, prepare_run
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.rundir.seeds import derive_seed
from verl_lite.engine.types import PromptRow
from verl_lite.errors import ConfigError
from verl_lite.plugins import Rollout, SamplerSettings, ScoredRollout
from verl_lite.plugins.progress import Advance, stage
from verl_lite.plugins.records import RecordWriter
from verl_lite.plugins.scorer import Scorer

PROMPTS_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A summary of the records. Means are over rows with a value; None if there are none."""

    model: str
    num_prompts: int
    num_samples: int
    num_rollouts: int
    num_dropped: int
    reward_mean: float | None
    component_means: dict[str, float | None]
    truncated: float
    completion_tokens_mean: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_rollouts(
    config: TrainConfig,
    path: Path,
    *,
    model: str | None = None,
    num_prompts: int | None = None,
    num_samples: int | None = None,
    held_out: bool = False,
    debug_inline: bool = False,
) -> Sampled:
    """Sample the config's model, or the one in `model`, on its prompts and write the records to `path`.

    Samples the first `num_prompts` rows (default: all) of data.train or data.held_out, `num_samples` times
    each (default: rollout.num_samples). Without rewards, records are unscored. Raises ConfigError, DataError
    or PluginError before a model is loaded.
    """
    if held_out and config.data.held_out is None:
        raise ConfigError(
            "--held-out samples on data.held_out, but the config has none: add it, or leave --held-out out"
        )
    if model is not None:
        config = config.model_copy(update={"model": ModelConfig(path=model, dtype=config.model.dtype)})
    count = num_samples or config.rollout.num_samples
    totals = _Totals()
    prepared = _without_training(config)
    prompts = (prepared.held_out_prompts if held_out else prepared.train_prompts)[:num_prompts]
    settings = config.rollout.settings(seed=derive_seed(config.seed, "rollout"))
    with RecordWriter(path) as writer:
        for part in _parts(prepared, prompts, settings, num_samples=count, debug_inline=debug_inline):
            writer.write(part)
            totals.add(part)
    return totals.summary(
        model=config.model.path or "the tiny model", num_prompts=len(prompts), num_samples=count
    )


def sample_and_score(
    config: TrainConfig, *, num_prompts: int, num_samples: int, seed: int, debug_inline: bool = False
) -> list[ScoredRollout]:
    """Sample the config's model on the first `num_prompts` training rows, in any order."""
    prepared = _without_training(config)
    prompts, settings = prepared.train_prompts[:num_prompts], config.rollout.settings(seed=seed)
    parts = _parts(prepared, prompts, settings, num_samples=num_samples, debug_inline=debug_inline)
    return [row for part in parts for row in part]


def _without_training(config: TrainConfig) -> PreparedRun:
    """The config's inputs, checked as for a run that trains nothing."""
    sft = config.sft.model_copy(update={"steps": 0, "epochs": 0.0})
    one = config.rollout.model_copy(update={"num_prompts": 1})  # batches here are not those of steps
    return prepare_run(config.model_copy(update={"sft": sft, "steps": 0, "rollout": one}))


def _parts(
    prepared: PreparedRun,
    prompts: Sequence[PromptRow],
    settings: SamplerSettings,
    *,
    num_samples: int,
    debug_inline: bool,
) -> Iterator[Sequence[ScoredRollout]]:
    """The scored rows in chunks, so that memory stays bounded."""
    from verl_lite.engine.build import make_sampler

    config = prepared.config
    with TemporaryDirectory() as folder:
        with stage("loading the model"), clear_memory_errors("starting the sampler", resumes=False):
            path = prepare_model(config.model, Path(folder) / "model", seed=config.seed)
            made = make_sampler(prepared, path, debug_inline=debug_inline)
        watched = stage("sampling", total=len(prompts))
        with closing(made) as sampler, clear_memory_errors("generating", resumes=False), watched as advance:
            chunks = (
                _each(sampler.generate(some, num_samples=num_samples, settings=settings), advance)
                for at in range(0, len(prompts), PROMPTS_AT_ONCE)
                if (some := prompts[at : at + PROMPTS_AT_ONCE])
            )
            if not config.rewards:
                for groups in chunks:
                    rollouts = [rollout for group in groups for rollout in group]
                    yield [ScoredRollout(rollout=one, components={}, reward=None) for one in rollouts]
                return
            with Scorer(
                config, catalog=prepared.catalog, debug_inline=debug_inline, decode=prepared.tokenizer.decode
            ) as scorer:
                for groups in chunks:
                    session = scorer.start()
                    for group in groups:
                        session.add(group)
                    yield session.finish().rows


def _each(groups: Iterable[Sequence[Rollout]], advance: Advance) -> Iterator[Sequence[Rollout]]:
    for group in groups:
        yield group
        advance(1)


class _Totals:
    """Sums over the rows so far; the rows themselves are not kept."""

    def __init__(self) -> None:
        self.num_rollouts = self.num_dropped = self.num_truncated = self.num_tokens = 0
        self._values: dict[str, list[float]] = defaultdict(list)
        self._names: list[str] = []
        self._rewards: list[float] = []

    def add(self, rows: Sequence[ScoredRollout]) -> None:
        for row in rows:
            self.num_rollouts += 1
            self.num_dropped += bool(row.dropped_because)
            self.num_truncated += row.rollout.is_truncated
            self.num_tokens += row.rollout.num_sampled
            self._names = list(row.components)
            self._rewards += [row.reward] if row.reward is not None else []
            for name, part in row.components.items():
                self._values[name] += [part.score.value] if part.score.value is not None else []

    def summary(self, *, model: str, num_prompts: int, num_samples: int) -> Sampled:
        return Sampled(
            model=model,
            num_prompts=num_prompts,
            num_samples=num_samples,
            num_rollouts=self.num_rollouts,
            num_dropped=self.num_dropped,
            reward_mean=_mean(self._rewards),
            component_means={name: _mean(self._values[name]) for name in self._names},
            truncated=self.num_truncated / self.num_rollouts,
            completion_tokens_mean=self.num_tokens / self.num_rollouts,
        )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
