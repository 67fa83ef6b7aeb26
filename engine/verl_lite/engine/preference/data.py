"""From preference rows to rankings of token ids: read, tokenise, split into train and held out."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from verl_lite.engine.data.messages import refuse_media, to_messages
from verl_lite.engine.data.prompts import row_messages, with_system
from verl_lite.engine.data.rows import iterate_rows
from verl_lite.engine.model.chat_template import ChatTemplate, behind_prompt
from verl_lite.engine.preference.config import PreferenceConfig, PreferenceSource, RewardModelConfig
from verl_lite.engine.types import TrainingSample
from verl_lite.errors import ConfigError, DataError
from verl_lite.lab.preferences import PreferenceRow, to_preference
from verl_lite.lab.reading import Row
from verl_lite.plugins import Message
from verl_lite.plugins.paths import MISSING, dig

Tokenise = Callable[[ChatTemplate, PreferenceRow], list[tuple[list[int], list[int]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Completions of one prompt, tokenised. `pairs` are (better, worse) indices, `margins` one per pair.

    `reference_K` has the reference policy's log-probability of each completion (DPO, once computed).
    Rows are split into train and held out by `prompt`.
    """

    samples: Sequence[TrainingSample]
    ranks: Sequence[int]
    pairs: Sequence[tuple[int, int]]
    margins: Sequence[float]
    reference_K: Sequence[float] = ()
    prompt: str = ""

    @property
    def num_tokens(self) -> int:
        return sum(len(sample.prompt_ids) + len(sample.completion_ids) for sample in self.samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rankings:
    """Training and held-out rankings, and counts of unused rows: `num_tied` with only ties, `num_dropped`
    too long, `num_same` that rank equal completions."""

    train: Sequence[Ranking]
    held_out: Sequence[Ranking]
    num_tied: int
    num_dropped: int
    num_same: int = 0


def reply_ids(
    template: ChatTemplate, row: PreferenceRow, *, end_id: int | None = None
) -> list[tuple[list[int], list[int]]]:
    """(prompt, completion) ids as a sampler would produce them: template, answer, end of turn.

    `end_id` is the token that ends a turn; unset, the tokenizer's eos.
    """
    end = int(template.tokenizer.eos_token_id) if end_id is None else end_id
    prompt = template.render(row.prompt, where=_name(row), for_inference=True)
    answers = [template.encode(behind_prompt(prompt, text)) for text in row.completions]
    return [(template.encode(prompt), [*ids, end]) for ids in answers]


def chat_ids(template: ChatTemplate, row: PreferenceRow) -> list[tuple[list[int], list[int]]]:
    """Conversations as the `reward_model` reward renders them: (common prefix, rest) of each."""
    chats = [[*row.prompt, Message(role="assistant", content=text)] for text in row.completions]
    whole = [template.encode(template.render(chat, where=_name(row))) for chat in chats]
    equal = takewhile(lambda ids: len(set(ids)) == 1, zip(*whole, strict=False))
    # the rest keeps at least one token: the score is read at the last
    cut = min(sum(1 for _ in equal), *(len(ids) - 1 for ids in whole))
    return [(ids[:cut], ids[cut:]) for ids in whole]


def read_rankings(config: PreferenceConfig, template: ChatTemplate, tokenise: Tokenise) -> Rankings:
    """The config's rows as rankings; no prompt is on both sides. Raises DataError for unusable rows."""
    counts = {"tied": 0, "dropped": 0, "same": 0}

    def tokenised(source: PreferenceSource) -> list[Ranking]:
        found = []
        for name, columns, row in _rows(source, config.seed):
            own = template.of_row(columns, where=name)
            ranking = _ranking(row, name, config, tokenise(own, row))
            if ranking is None:
                counts["dropped"] += 1
            elif not ranking.pairs:
                counts["same" if row.pairs(config.data.pairs) else "tied"] += 1
            else:
                found.append(ranking)
        if not found:
            raise DataError(
                f"{source.dataset.source}: no row is left ({counts['tied']} had only ties, "
                f"{counts['same']} ranked equal completions, {counts['dropped']} "
                f"were longer than data.max_tokens={config.data.max_tokens})"
            )
        return found

    train = tokenised(config.data.train)
    if config.data.held_out is not None:
        held_out = tokenised(config.data.held_out)
    else:
        train, held_out = _split(train, fraction=config.data.held_out_fraction, seed=config.seed)
    return Rankings(
        train=train,
        held_out=held_out,
        num_tied=counts["tied"],
        num_dropped=counts["dropped"],
        num_same=counts["same"],
    )


def _name(row: PreferenceRow) -> str:
    return f"row {row.id}" if row.id else "a row"


def _rows(source: PreferenceSource, seed: int) -> list[tuple[str, Row, PreferenceRow]]:
    """(where, columns, preference) of every row."""
    rows = []
    for index, (where, row) in enumerate(iterate_rows(source.dataset, seed=seed, asks=False)):
        try:
            preference = _preference(row, source, index=index, where=where)
        except DataError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{where}: {error}") from None
        rows.append((where, row, preference))
    return rows


def _preference(row: Row, source: PreferenceSource, *, index: int, where: str) -> PreferenceRow:
    dataset = source.dataset
    refuse_media(row, where=where)
    if row.get("tools"):
        raise DataError(
            f"{where}: the row has tools, which training on preferences does not show the model; leave them "
            "out (ignore: [tools]) if the rows make sense without"
        )
    is_asked = source.prompt_template or (source.prompt and dig(row, source.prompt) is not MISSING)
    prompt = row_messages(row, dataset, where=where) if is_asked else None
    sides = {
        name: value if isinstance(value, str) else to_messages(value, where=f"{where}, column {name!r}")
        for name, path in (("chosen", source.chosen), ("rejected", source.rejected))
        if (value := dig(row, path)) is not MISSING
    }
    columns = {name: value for name, value in row.items() if name != "prompt"}
    found = to_preference({**columns, **sides, "id": row.get("id", index)}, prompt=prompt)
    return replace(found, prompt=with_system(list(found.prompt), row, dataset))


def _ranking(
    row: PreferenceRow, name: str, config: PreferenceConfig, ids: Sequence[tuple[list[int], list[int]]]
) -> Ranking | None:
    longest = max(len(prompt) + len(completion) for prompt, completion in ids)
    if longest > config.data.max_tokens:
        if config.data.overlong == "drop":
            return None
        raise DataError(
            f"{name}: {longest} tokens, more than data.max_tokens={config.data.max_tokens}; raise it, or "
            "set data.overlong: drop"
        )
    needs_margin = isinstance(config, RewardModelConfig) and config.margin_scale > 0
    if needs_margin and row.margin is None and not row.scores:
        raise DataError(
            f"{name}: margin_scale above 0 needs 'margin' or 'scores' in every row (of a pair also "
            "'score_chosen' and 'score_rejected'); set it to 0"
        )
    completions = [completion for _, completion in ids]
    pairs = [(b, w) for b, w in row.pairs(config.data.pairs) if completions[b] != completions[w]]
    return Ranking(
        samples=[
            TrainingSample(prompt_ids=prompt, completion_ids=answer, loss_mask_T=[1] * len(answer))
            for prompt, answer in ids
        ],
        ranks=list(row.ranks),
        pairs=pairs,
        margins=[_margin(row, better, worse) for better, worse in pairs],
        prompt=json.dumps([dict(message) for message in row.prompt]),
    )


def _margin(row: PreferenceRow, better: int, worse: int) -> float:
    if row.margin is not None:
        return row.margin
    return row.scores[better] - row.scores[worse] if row.scores else 0.0


def _split(rankings: Sequence[Ranking], *, fraction: float, seed: int) -> tuple[list[Ranking], list[Ranking]]:
    """All rows of a prompt go to the same side."""
    prompts = sorted({ranking.prompt for ranking in rankings})
    num_kept = round(len(prompts) * fraction)
    if fraction and not 0 < num_kept < len(prompts):
        raise ConfigError(
            f"data.held_out_fraction={fraction} of {len(prompts)} prompts leaves one side empty: "
            "name data.held_out, change the fraction, or set it to 0"
        )
    kept = set(random.Random(f"held out:{seed}").sample(prompts, num_kept))
    train = [ranking for ranking in rankings if ranking.prompt not in kept]
    return train, [ranking for ranking in rankings if ranking.prompt in kept]
