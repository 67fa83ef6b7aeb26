"""Checks everything about a run before a model is loaded or a file written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.engine.config.data import DatasetConfig
from verl_lite.engine.config.sft import SFTRowsConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.prompts import read_prompts, read_sources
from verl_lite.engine.data.stream import PromptSource
from verl_lite.engine.gpu_checks import check_driver, check_machine, this_machine
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.model.compatibility import check_config, check_critic, check_vocabulary
from verl_lite.engine.model.configuration import check_context
from verl_lite.engine.model.end_tokens import end_token_ids, named_token_ids, note_on_end
from verl_lite.engine.model.folder import load_tokenizer, open_chat_template
from verl_lite.engine.model.quantization import check_bitsandbytes
from verl_lite.engine.observe.metrics_log import check_trackers, read_metrics
from verl_lite.engine.rollout.turns.plan import TurnsPlan, plan_turns
from verl_lite.engine.rundir.checkpoint_files import PassedOver, newest_whole
from verl_lite.engine.rundir.checkpoints import Checkpoint, load_checkpoint
from verl_lite.engine.rundir.fingerprints import changed_data, data_digest, date_of, fingerprint_rows
from verl_lite.engine.rundir.folder import FREE_FOR_MEMORY, FREE_TO_CHANGE, RunFolder, choose_run_dir
from verl_lite.engine.sft.data import SFTData, read_sft
from verl_lite.engine.sft.examples import SFTExample
from verl_lite.engine.sft.saved_rollouts import SavedRollout, read_saved_rollouts
from verl_lite.engine.teachers import check_teachers
from verl_lite.engine.types import PromptRow, Tokenizer
from verl_lite.errors import ConfigError
from verl_lite.plugins.composite import build_composite
from verl_lite.plugins.config_file import load_config
from verl_lite.plugins.discovery import RewardCatalog, find_rewards

FREE_IN_SFT = ("checkpoints", "logging", "name", *FREE_FOR_MEMORY)


@dataclass(frozen=True, kw_only=True)
class ForRL:
    """What only RL reads; `train_sources` says which prompts are of which data set, if there are several."""

    train_prompts: Sequence[PromptRow] = ()
    train_sources: Sequence[PromptSource] = ()
    held_out_prompts: Sequence[PromptRow] = ()
    demonstrations: SFTData | None = None
    saved_rollouts: Sequence[SavedRollout] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class PreparedRun(ForRL):
    """A run with its checked inputs.

    RL continues from `checkpoint`; `passed_over` are newer, damaged ones. A run that `resumes` without a
    checkpoint continues with SFT, or from RL's first step. `turns` is None for single completions, `sft` is
    None without SFT. `date` is the date that chat templates write, `notes` are to be shown to the user.
    """

    config: TrainConfig
    folder: RunFolder
    catalog: RewardCatalog
    tokenizer: Tokenizer
    template: ChatTemplate
    turns: TurnsPlan | None
    sft: SFTData | None
    checkpoint: Checkpoint | None
    passed_over: Sequence[PassedOver] = ()
    resumes: bool = False
    date: str = ""

    @property
    def data(self) -> dict[str, Mapping[str, Any]]:
        """Fingerprints of the rows by their name in the config, for environment.json."""
        prompts = {"data.train": self.train_prompts, "data.held_out": self.held_out_prompts}
        found: dict[str, Mapping[str, Any]] = {
            name: fingerprint_rows(rows) for name, rows in prompts.items() if rows
        }
        if self.sft is not None:
            found["sft"] = {"rows": self.sft.num_examples, "sha256": self.sft.digest}
        if (shown := self.demonstrations) is not None:
            found["demonstrations"] = {"rows": shown.num_examples, "sha256": shown.digest}
        if (saved := self.saved_rollouts) is not None:
            digest = data_digest([list(one.input_ids), list(one.weights_T)] for one in saved)
            found["distillation.rollouts"] = {"rows": len(saved), "sha256": digest}
        return found

    @property
    def demonstrated(self) -> Sequence[SFTExample]:
        """The rows of `demonstrations`, which are one source."""
        return () if self.demonstrations is None else self.demonstrations.sources[0].examples

    @property
    def plugins(self) -> list[Mapping[str, str]]:
        """The plugins, for environment.json."""
        return [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "sha256": plugin.content_hash(),
            }
            for plugin in self.catalog.plugins
        ]


def prepare_run(
    config: TrainConfig,
    folder: RunFolder | None = None,
    *,
    resume: bool = False,
    only_sft: bool = False,
    here: bool = True,
) -> PreparedRun:
    """Check everything and read the data. Raises ConfigError, DataError or PluginError; writes nothing.

    `folder` defaults to a new run's. `only_sft` skips the prompts of RL. Unless it will run `here`, this
    machine is not checked.
    """
    machine_notes = _check_machine(config, only_sft=only_sft) if here else []
    folder = folder or RunFolder(choose_run_dir(config, None, resume=resume))
    if resume:
        _check_resumed(folder, config, only_sft=only_sft)
    catalog = _check_rewards(config)
    check_trackers(config.logging.trackers)
    tokenizer = _check_model(config, only_sft=only_sft)
    today = config.data.date or date_of(folder.environment)
    template = open_chat_template(tokenizer, config.data, today=today)
    end_ids = end_token_ids(tokenizer, config.model.path, config.sft.end_of_turn)
    turns = plan_turns(config, template, catalog, end_ids=end_ids)
    rl = ForRL() if only_sft else _read_for_rl(config, template, turns, end_ids=end_ids)
    tools = turns.tools if turns is not None else ()
    checkpoint, passed_over = _checkpoint(folder, config) if resume and not only_sft else (None, [])
    end_note = note_on_end(tokenizer, config.model.path, config.sft.end_of_turn)
    prepared = PreparedRun(
        **vars(rl) | {"notes": [*machine_notes, *filter(None, [end_note]), *rl.notes]},
        config=config,
        folder=folder,
        catalog=catalog,
        tokenizer=tokenizer,
        template=template,
        turns=turns,
        sft=read_sft(config, template, end_ids=end_ids, tools=tools) if config.sft.is_on else None,
        checkpoint=checkpoint,
        passed_over=passed_over,
        resumes=resume,
        date=today.isoformat(),
    )
    _refuse_other_data(prepared)
    return prepared


def _check_resumed(folder: RunFolder, config: TrainConfig, *, only_sft: bool) -> None:
    folder.check_same_run(config, free=FREE_IN_SFT if only_sft else FREE_TO_CHANGE)
    if only_sft:
        folder.refuse_finished()


def _check_rewards(config: TrainConfig) -> RewardCatalog:
    catalog = find_rewards()
    if config.rewards:
        build_composite(config, catalog)
    return catalog


def _refuse_other_data(prepared: PreparedRun) -> None:
    """A resumed run goes on with the rows it began with."""
    folder = prepared.folder
    if prepared.resumes and (changed := changed_data(folder.environment, prepared.data)):
        raise ConfigError(
            f"--resume: the rows of {' and '.join(changed)} are not those {folder.path} began with; "
            "put the old data back, or start a new run"
        )


def _check_machine(config: TrainConfig, *, only_sft: bool) -> list[str]:
    machine = this_machine()
    if not only_sft:
        return check_machine(config, machine)
    check_driver(machine)
    return []


def _check_model(config: TrainConfig, *, only_sft: bool) -> Tokenizer:
    """The tokenizer, after checking it and the model's configuration."""
    check_bitsandbytes(config.learner)
    check_config(config.model.path or "", trains=config.steps > 0 or config.sft.is_on)
    tokenizer = load_tokenizer(config.model, chat_template=config.data.chat_template)
    check_vocabulary(tokenizer, config.model)
    named_token_ids(tokenizer, config.sft.end_of_turn)
    check_context(config.model, needed_tokens=config.sft.max_tokens or 0, what="sft.max_tokens")
    check_context(config.model, needed_tokens=config.rollout.context_tokens)
    if not only_sft:
        check_teachers(config, tokenizer)
    critic = config.algorithm.critic
    if critic is not None and critic.model and not only_sft:
        check_critic(critic.model, config.model)
    return tokenizer


def _checkpoint(folder: RunFolder, config: TrainConfig) -> tuple[Checkpoint | None, list[PassedOver]]:
    """The newest intact RL checkpoint and newer damaged ones. Raises ConfigError if one must exist."""
    path, passed_over = newest_whole(folder.checkpoints)
    if path is None and (passed_over or _had_checkpoints(folder, config)):
        broken = "".join(f"; {passed.path.name}: {passed.reason}" for passed in passed_over)
        raise ConfigError(
            f"--resume: {folder.path} has no intact checkpoint left; restore them, or delete the "
            f"folder and start the run anew{broken}"
        )
    return load_checkpoint(path) if path else None, passed_over


def _had_checkpoints(folder: RunFolder, config: TrainConfig) -> bool:
    """Whether RL must have left a checkpoint; if not, it may start at its first step again.

    The second checkpoint is started only once the first is on disk; by then its step is in the metrics.
    """
    if folder.summary.is_file() and "steps" in json.loads(folder.summary.read_text(encoding="utf-8")):
        return True  # RL had ended, with a checkpoint; SFT's summary has no steps
    rows = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    last = max((row["step"] for row in rows if "reward/mean" in row), default=0)
    began = load_config(type(config), folder.path / "config.yaml")
    every = max(one.checkpoints.every_steps for one in (began, config))
    return bool(began.checkpoints.every_steps) and last > 2 * every


def _read_demonstrations(config: TrainConfig, template: ChatTemplate) -> SFTData | None:
    """The rows of `demonstrations`, as SFT would read them."""
    shown = config.demonstrations
    if shown is None:
        return None
    own = {name: getattr(shown, name) for name in SFTRowsConfig.model_fields}
    sft = config.sft.model_copy(update={**own, "data": shown.data, "mixture": {}, "validation": None})
    ends = end_token_ids(template.tokenizer, config.model.path, sft.end_of_turn)
    return read_sft(config.model_copy(update={"sft": sft}), template, end_ids=ends)


def _read_for_rl(
    config: TrainConfig, template: ChatTemplate, turns: TurnsPlan | None, *, end_ids: Sequence[int]
) -> ForRL:
    tools = turns.tools if turns is not None else ()
    limit, data = config.rollout.max_prompt_tokens, config.data
    sources: Sequence[PromptSource] = ()
    if isinstance(data.train, DatasetConfig):
        train = read_prompts(data.train, template, max_prompt_tokens=limit, seed=config.seed, tools=tools)
    else:
        train, sources = read_sources(
            data.train,
            template,
            max_prompt_tokens=limit,
            seed=config.seed,
            source_column=config.scoring.source_column,
            tools=tools,
        )
    _check_enough(config, len(train))
    if turns is not None:
        turns.check(train[0])
    held_out: Sequence[PromptRow] = ()
    notes = [*train.notes]
    if data.held_out is not None:
        asked = read_prompts(data.held_out, template, max_prompt_tokens=limit, seed=config.seed, tools=tools)
        held_out, notes = asked, [*notes, *asked.notes]
    saved = None
    if config.distillation.rollouts is not None:
        saved = read_saved_rollouts(config, template, end_ids=end_ids)
        notes += saved.notes
    return ForRL(
        train_prompts=train,
        train_sources=sources,
        held_out_prompts=held_out,
        demonstrations=_read_demonstrations(config, template),
        saved_rollouts=saved,
        notes=notes,
    )


def _check_enough(config: TrainConfig, num_rows: int) -> None:
    if config.rollout.num_prompts > num_rows:
        raise ConfigError(
            f"rollout.num_prompts={config.rollout.num_prompts} is more than the {num_rows} training rows: "
            "a step would sample a prompt twice; lower it"
        )
    in_use = config.rollout.num_prompts * (config.asynchrony.max_lag + 1)
    if config.asynchrony.mode == "async" and in_use > num_rows:
        raise ConfigError(
            f"asynchrony.max_lag={config.asynchrony.max_lag} has {config.asynchrony.max_lag} + 1 batches of "
            f"rollout.num_prompts={config.rollout.num_prompts} prompts in use at once, more than the "
            f"{num_rows} training rows: lower one of them"
        )
