"""The supervised warm-up as a stage of a run: adapters, log, validation, and the final gate.

Data, loss and loop are in the room `sft`. Metrics go to sft.jsonl.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from verl_lite.engine.build import make_scorer
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.learner.loop_checkpoints import LoopCheckpoints, find_start
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.end_tokens import end_token_ids
from verl_lite.engine.model.folder import pad_token_id
from verl_lite.engine.model.lora import add_adapters
from verl_lite.engine.observe.display import Display
from verl_lite.engine.observe.metrics_log import MetricsLog, read_metrics
from verl_lite.engine.open_run import Run
from verl_lite.engine.preparation import PreparedRun
from verl_lite.engine.sft.data import SFTData
from verl_lite.engine.sft.training import SFTStep, train_sft
from verl_lite.engine.sft.validation import Answers, answer, perplexity, validation_loss
from verl_lite.engine.types import PreTrainedModel, Sampler
from verl_lite.errors import TrainingError
from verl_lite.plugins.records import RecordWriter
from verl_lite.plugins.scorer import Scorer

METRICS_FILE = "sft.jsonl"


def run_sft(
    run: Run[PreparedRun], model: PreTrainedModel, *, debug_inline: bool = False, trackers: Sequence[str] = ()
) -> tuple[PreTrainedModel, dict[str, float]]:
    """Train `model`; returns it (adapters merged) and the last measurements.

    A resumed run continues from the newest checkpoint in <run>/sft_checkpoints. Raises TrainingError when
    the final format compliance is below sft.validation.min_format.
    """
    prepared = run.inputs
    config, data = prepared.config, prepared.sft
    assert data is not None
    start = find_start(run.folder.sft_checkpoints, data=data.digest, resume=prepared.resumes)
    for note in (*data.notes, *start.lines):
        run.display.note(note)
    policy = _policy(run, model)
    resume_at = start.step if prepared.resumes else None
    with (
        run.open_log(trackers, resume_at=resume_at, file_name=METRICS_FILE) as log,
        LoopCheckpoints(
            run.folder.sft_checkpoints,
            start,
            config=config.checkpoints,
            tokenizer=prepared.tokenizer,
            log=log,
            interrupt=run.interrupt,
        ) as checkpoints,
        _scorer(prepared, debug_inline=debug_inline) as scorer,
    ):
        measure = _Measurements(prepared, data, policy, scorer, run.display, log)
        done = train_sft(
            policy,
            data,
            config.sft,
            seed=config.seed,
            on_step=_report_to(log, run.display),
            measure=measure if data.validation else None,
            checkpoints=checkpoints,
        )
        metrics = measure.at(done)
    _check_floor(config, metrics)
    trained: PreTrainedModel = policy.model
    return (trained.merge_and_unload() if config.sft.lora is not None else trained), metrics


def _policy(run: Run[PreparedRun], model: PreTrainedModel) -> Policy:
    """The model with adapters if configured; its generation config gets the end tokens."""
    prepared, config, sft = run.inputs, run.inputs.config, run.inputs.config.sft
    ends = end_token_ids(prepared.tokenizer, model, sft.end_of_turn)
    if set(ends) - {prepared.tokenizer.eos_token_id}:
        model.generation_config.eos_token_id = list(ends)
    learner = config.learner.model_copy(update={"dropout": sft.dropout})
    policy = Policy(add_adapters(model, sft.lora), learner, pad_token_id=pad_token_id(prepared.tokenizer))
    if policy.arrangement.note:
        run.display.note(policy.arrangement.note)
    return policy


def _report_to(log: MetricsLog, display: Display) -> Callable[[SFTStep], None]:
    def report(step: SFTStep) -> None:
        metrics = {
            "sft/loss": step.loss,
            "sft/grad_norm": step.grad_norm,
            "sft/learning_rate": step.learning_rate,
            "sft/tokens": float(step.num_tokens),
            "sft/trained_tokens": float(step.num_trained_tokens),
            "sft/is_decaying": float(step.is_decaying),
        }
        log.log(metrics, step=step.step)
        display.sft_step(step.step - 1, step.num_steps, step.loss)

    return report


def _scorer(prepared: PreparedRun, *, debug_inline: bool) -> AbstractContextManager[Scorer | None]:
    """The config's rewards, for the answers; None without rewards or answers."""
    if prepared.sft is None or not prepared.sft.prompts or not prepared.config.rewards:
        return nullcontext()
    return make_scorer(prepared, debug_inline=debug_inline)


class _Measurements:
    """Called with a step number: measures, logs, shows, and writes the answers as rollout records."""

    def __init__(
        self,
        prepared: PreparedRun,
        data: SFTData,
        policy: Policy,
        scorer: Scorer | None,
        display: Display,
        log: MetricsLog,
    ) -> None:
        self._prepared, self._data, self._policy = prepared, data, policy
        self._scorer, self._display, self._log = scorer, display, log
        self._sampler = _sampler(prepared, policy) if data.prompts else None
        self._by_step = _measured(prepared.folder.path / METRICS_FILE)  # before a resume

    def __call__(self, step: int) -> float:
        loss = validation_loss(self._policy, self._data.validation)
        metrics = {"sft/validation_loss": loss, "sft/perplexity": perplexity(loss)}
        line = f"sft step {step}: validation loss {loss:.4f}, perplexity {perplexity(loss):.3f}"
        if self._sampler is not None:
            answers = self._answer(self._sampler, step)
            metrics |= {f"sft/answers/{name}": mean for name, mean in answers.means.items()}
            line += "".join(f", {name} {mean:.1%}" for name, mean in answers.means.items())
            first = answers.rows[0].rollout
            line += f"\n  {first.prompt_text!r} -> {first.completion!r}"
        self._display.note(line)
        self._log.log(metrics, step=step)
        self._by_step[step] = metrics
        return loss

    def _answer(self, sampler: Sampler, step: int) -> Answers:
        config = self._prepared.config
        assert config.sft.validation is not None
        limit = config.sft.validation.max_new_tokens or config.rollout.max_new_tokens
        answers = answer(sampler, self._scorer, self._data.prompts, max_new_tokens=limit)
        path = self._prepared.folder.path / "sft_answers" / f"step_{step:06d}.parquet"
        with RecordWriter(path) as writer:
            writer.write(answers.rows, step=step)
        return answers

    def at(self, step: int) -> dict[str, float]:
        """The measurements after `step`, if any."""
        return self._by_step.get(step, {})


def _measured(file: Path) -> dict[int, dict[str, float]]:
    rows = [row for row in read_metrics(file) if "sft/validation_loss" in row]
    return {row["step"]: {name: value for name, value in row.items() if name != "step"} for row in rows}


def _sampler(prepared: PreparedRun, policy: Policy) -> Sampler:
    """A sampler on the trained weights themselves: nothing to sync."""
    from verl_lite.engine.rollout.transformers_sampler import TransformersSampler

    assert prepared.sft is not None
    canary = list(prepared.sft.validation[0].input_ids[:2])
    return TransformersSampler(
        policy.model,
        prepared.tokenizer,
        prepared.config.rollout,
        canary_ids=canary,
        end_ids=end_token_ids(prepared.tokenizer, policy.model),
    )


def _check_floor(config: TrainConfig, metrics: dict[str, float]) -> None:
    validation = config.sft.validation
    if validation is None or not validation.min_format:
        return
    reached = metrics.get(f"sft/answers/{config.format_reward}", 0.0)
    if reached < validation.min_format:
        raise TrainingError(
            f"SFT ended with a format compliance ({config.format_reward}) of {reached:.1%}, below "
            f"sft.validation.min_format={validation.min_format:.1%}: from here RL would mostly see groups "
            "without a right answer. Train longer, or look at the answers in sft_answers/"
        )
