"""One evaluation: from its config to a folder with results.json and all samples as rollout records.

It does not use open_run: nothing is trained, so there is nothing to lock, log or resume.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import TypeAdapter

from verl_lite.engine.build import sampler_for
from verl_lite.engine.config.model import ModelConfig
from verl_lite.engine.data.prompts import read_prompts
from verl_lite.engine.evals.config import EvalConfig
from verl_lite.engine.evals.measures import (
    Measure,
    PromptResult,
    measure_greedy,
    measure_samples,
    perplexity_measure,
)
from verl_lite.engine.model.compatibility import check_config, check_vocabulary
from verl_lite.engine.model.configuration import check_context
from verl_lite.engine.model.end_tokens import end_of_answer, end_token_ids
from verl_lite.engine.model.folder import load_tokenizer, open_chat_template, prepare_model
from verl_lite.engine.rollout.canary import canary_tokens
from verl_lite.engine.rollout.scoring import scoring
from verl_lite.engine.rollout.turns.plan import TurnsPlan, plan_turns, with_turns
from verl_lite.engine.rundir.folder import write_whole
from verl_lite.engine.rundir.out_of_memory import clear_memory_errors
from verl_lite.engine.types import PromptRow, Sampler, Tokenizer
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.scoring import without_breaker
from verl_lite.plugins import SamplerSettings, ScoredRollout
from verl_lite.plugins.discovery import find_rewards
from verl_lite.plugins.progress import counted
from verl_lite.plugins.records import RecordWriter
from verl_lite.plugins.scorer import Scorer

RESULTS = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """Measures on one data set, and the result per prompt."""

    measures: Sequence[Measure]
    prompts: Mapping[str, PromptResult]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """A model on every data set of a config."""

    name: str
    model: str
    datasets: Mapping[str, DatasetResult]

    def to_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return asdict(self)


def evaluate_model(
    config: EvalConfig, model_path: str, *, out_dir: Path | None = None, debug_inline: bool = False
) -> EvalResult:
    """Measure the model in `model_path`; with `out_dir`, write results and samples there.

    Raises ConfigError, DataError or PluginError before the model is loaded.
    """
    if out_dir is not None and (out_dir / RESULTS).exists():
        raise ConfigError(f"{out_dir} already holds the results of an evaluation: choose another folder")
    inputs = _read_inputs(config, ModelConfig(path=model_path))
    with (
        Scorer(without_breaker(config), debug_inline=debug_inline, decode=inputs.tokenizer.decode) as scorer,
        _open_sampler(config, model_path, inputs, debug_inline=debug_inline) as sampler,
    ):
        results = {
            name: _Dataset(config, name, rows, inputs, out_dir).measure(sampler, scorer)
            for name, rows in inputs.prompts.items()
        }
    result = EvalResult(name=config.name, model=model_path, datasets=results)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
        write_whole(out_dir / RESULTS, json.dumps(result.to_json(), indent=1) + "\n")
    return result


def read_result(folder: Path) -> EvalResult:
    """The results that `evaluate_model` wrote to `folder`. Raises DataError if there are none."""
    path = folder / RESULTS
    try:
        return TypeAdapter(EvalResult).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """What is read and checked before the model is loaded; `prompts` by data set."""

    tokenizer: Tokenizer
    end_ids: Sequence[int]
    prompts: Mapping[str, Sequence[PromptRow]]
    turns: TurnsPlan | None


def _read_inputs(config: EvalConfig, model: ModelConfig) -> _Inputs:
    tokenizer = load_tokenizer(model, chat_template=config.chat_template)
    template = open_chat_template(tokenizer, config)
    check_config(model.path or "", trains=False)
    check_vocabulary(tokenizer, model)
    check_context(model, needed_tokens=config.rollout.context_tokens)
    end_ids = end_token_ids(tokenizer, model.path)
    turns = plan_turns(config, template, find_rewards(), end_ids=end_ids)
    prompts = {
        name: read_prompts(
            data,
            template,
            max_prompt_tokens=config.rollout.max_prompt_tokens,
            seed=config.seed,
            needed=[config.perplexity] if config.perplexity else [],
            tools=turns.tools if turns else (),
        )
        for name, data in config.datasets.items()
    }
    if turns is not None:
        turns.check(next(iter(prompts.values()))[0])
    return _Inputs(tokenizer=tokenizer, end_ids=end_ids, prompts=prompts, turns=turns)


@contextmanager
def _open_sampler(
    config: EvalConfig, model_path: str, inputs: _Inputs, *, debug_inline: bool
) -> Iterator[Sampler]:
    first = next(iter(inputs.prompts.values()))
    canary, _ = canary_tokens(first, window=None, context=config.rollout.context_tokens)
    with TemporaryDirectory() as unpacked:
        path = prepare_model(ModelConfig(path=model_path), Path(unpacked) / "model", seed=config.seed)
        with clear_memory_errors("starting the sampler", resumes=False):
            inner = sampler_for(
                path,
                inputs.tokenizer,
                config.rollout,
                canary_ids=canary,
                seed=config.seed,
                cluster=config.cluster,
            )
        with closing(with_turns(inner, inputs.turns, debug_inline=debug_inline)) as sampler:
            yield sampler


@dataclass(frozen=True, slots=True)
class _Dataset:
    """Samples, scores and measures one data set."""

    config: EvalConfig
    name: str
    prompts: Sequence[PromptRow]
    inputs: _Inputs
    out_dir: Path | None

    def measure(self, sampler: Sampler, scorer: Scorer) -> DatasetResult:
        measures: list[Measure] = []
        greedy: dict[str, bool] = {}
        right: dict[str, int] = {}
        if self.config.greedy:
            limit = self.config.rollout.max_new_tokens
            settings = SamplerSettings(temperature=0.0, max_new_tokens=limit, seed=self.config.seed)
            rows = self._score(sampler, scorer, settings, num_samples=1, kind="greedy")
            found, greedy = measure_greedy(rows, self.config)
            measures += found
        if self.config.num_samples:
            groups: dict[str, list[ScoredRollout]] = defaultdict(list)
            settings = self.config.rollout.settings(seed=self.config.seed)
            for row in self._score(
                sampler, scorer, settings, num_samples=self.config.num_samples, kind="samples"
            ):
                groups[row.rollout.group].append(row)
            found, right = measure_samples(groups, self.config)
            measures += found
        if self.config.perplexity:
            measures.append(perplexity_measure(self._answer_logprobs(sampler)))
        prompts = {
            prompt.id: PromptResult(
                greedy=greedy.get(prompt.id),
                num_right=right.get(prompt.id, 0),
                num_samples=self.config.num_samples,
            )
            for prompt in self.prompts
        }
        return DatasetResult(measures=measures, prompts=prompts)

    def _score(
        self, sampler: Sampler, scorer: Scorer, settings: SamplerSettings, *, num_samples: int, kind: str
    ) -> Sequence[ScoredRollout]:
        with clear_memory_errors("generating", resumes=False), scoring(scorer, step=0) as session:
            groups = sampler.generate(self.prompts, num_samples=num_samples, settings=settings)
            for group in counted(groups, f"{self.name} {kind}", total=len(self.prompts)):
                session.add(group)
        rows = session.finish().rows
        if self.out_dir is not None:
            with RecordWriter(self.out_dir / f"{self.name}_{kind}.parquet") as writer:
                writer.write(rows)
        return rows

    def _answer_logprobs(self, sampler: Sampler) -> list[list[float]]:
        """log p of every token of every prompt's answer, including the end of turn."""
        tokenizer, found = self.inputs.tokenizer, []
        end_id = end_of_answer(tokenizer, self.inputs.end_ids)
        for prompt in self.prompts:
            text = prompt.columns[self.config.perplexity]
            if not isinstance(text, str) or not text:
                raise DataError(
                    f"row {prompt.id}: expected text in column {self.config.perplexity!r}, got {text!r:.80}"
                )
            answer = [*tokenizer.encode(text, add_special_tokens=False), end_id]
            found.append(sampler.token_logprobs([*prompt.prompt_ids, *answer])[-len(answer) :])
        return found
