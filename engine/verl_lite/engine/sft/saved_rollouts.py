"""Saved rollouts of a teacher as examples: its token ids where it left them, else text as SFT reads it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verl_lite.engine.config.sft import SFTRowsConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.store import RowStore
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.sft.examples import ExampleBuilder, SFTExample
from verl_lite.engine.sft.faults import raise_faults
from verl_lite.engine.sft.responses import Conversation, ResponseFinder
from verl_lite.engine.types import Tokenizer
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.reading import open_rollouts
from verl_lite.plugins import Message, Rollout
from verl_lite.plugins.rollout import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRollout(SFTExample):
    """One training sample of a saved rollout.

    source           its data source, which says whose teacher it is
    teacher_logprob  sum of the log-probabilities its sampler gave to the trained tokens; None: unknown
    """

    source: str = ""
    teacher_logprob: float | None = None


def read_saved_rollouts(
    config: TrainConfig, template: ChatTemplate, *, end_ids: Sequence[int]
) -> RowStore[SavedRollout]:
    """The rollouts of `config.distillation.rollouts`; the store's note says how many are left out.

    These are failed and empty ones, and text that was cut off: SFT would write an end behind it. Raises
    DataError for what cannot be read or is too long, ConfigError for token ids of another tokenizer.
    """
    saved = config.distillation.rollouts
    assert saved is not None
    finder = ResponseFinder(template, end_ids=end_ids, named=config.sft.end_of_turn)
    limit = config.sft.max_tokens or config.rollout.context_tokens
    builder = ExampleBuilder(finder, config.sft, max_tokens=limit)
    source_column = config.scoring.source_column

    left_out = 0

    def examples() -> Iterator[SavedRollout]:
        nonlocal left_out
        with open_rollouts(saved.path) as opened:
            for rollout in (record.rollout for group in opened.groups() for record in group):
                source = str(rollout.columns.get(source_column, ""))
                if rollout.prompt_ids and rollout.completion_ids and not rollout.has_failed:
                    _check_tokens(rollout, template.tokenizer)
                    yield from _from_ids(rollout, source, limit)
                elif rollout.completion.strip() and not (rollout.has_failed or rollout.is_truncated):
                    yield from _from_text(rollout, source, builder)
                else:
                    left_out += 1

    store = RowStore(examples())
    raise_faults(builder.faults, source="distillation.rollouts")
    if not store:
        raise DataError(f"distillation.rollouts.path={saved.path}: every rollout failed, is empty or cut off")
    if left_out:
        store.notes = [f"distillation.rollouts: {left_out} are left out (failed, empty, or text cut off)"]
    return store


def _check_tokens(rollout: Rollout, tokenizer: Tokenizer) -> None:
    """Raise ConfigError where the ids are not the completion's in the policy's vocabulary."""
    largest = max(*rollout.prompt_ids, *rollout.completion_ids)
    found = f"{largest} is not in its vocabulary"
    if largest < len(tokenizer):
        texts = [tokenizer.decode(list(rollout.completion_ids), skip_special_tokens=s) for s in (True, False)]
        if any(rollout.completion in text for text in texts):
            return
        found = f"they read {texts[0]!r:.60} here, but {rollout.completion!r:.60} there"
    raise ConfigError(
        f"distillation.rollouts: {rollout.id} has token ids of another tokenizer than the policy ({found}): "
        "to learn from the text, use demonstrations with data: {path: ..., prompt: prompt} and answer: "
        "completion"
    )


def _from_ids(rollout: Rollout, source: str, limit: int) -> Iterator[SavedRollout]:
    whole = Segment(
        prompt_ids=rollout.prompt_ids,
        completion_ids=rollout.completion_ids,
        logprobs=rollout.logprobs,
        sampled_mask=rollout.sampled_mask,
    )
    for part in rollout.segments or (whole,):
        ids, mask_T = [*part.prompt_ids, *part.completion_ids], part.sampled_mask
        if len(ids) > limit:
            raise DataError(
                f"distillation.rollouts: {rollout.id} has {len(ids)} tokens, more than {limit}: raise "
                "sft.max_tokens"
            )
        if any(mask_T):
            known = len(part.logprobs) == len(mask_T)
            yield SavedRollout(
                input_ids=ids,
                weights_T=[0.0] * len(part.prompt_ids) + [float(bit) for bit in mask_T],
                row=rollout.id,
                source=source,
                teacher_logprob=sum(map(float.__mul__, part.logprobs, map(float, mask_T))) if known else None,
            )


def _from_text(rollout: Rollout, source: str, builder: ExampleBuilder) -> Iterator[SavedRollout]:
    if not rollout.prompt:
        raise DataError(f"distillation.rollouts: {rollout.id} has no prompt: there is nothing to answer")
    only = [Message(role="assistant", content=rollout.completion)]
    answer = [turn.message for turn in rollout.turns] or only
    chat = Conversation(id=rollout.id, messages=[*rollout.prompt, *answer], columns=rollout.columns)
    for one in builder.from_chat(chat, SFTRowsConfig()):
        yield SavedRollout(input_ids=one.input_ids, weights_T=one.weights_T, row=one.row, source=source)
