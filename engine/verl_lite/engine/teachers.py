"""Teachers: what other models, or the policy with a hint, say about the policy's own rollouts.

    samples -> each row's teacher, by its data source -> the teacher's log-probabilities at every token
            -> the component `distillation`, or a part of the advantages

Teachers read token ids, so they must have the policy's tokenizer: `check_teachers` refuses others before
anything loads. A teacher from a folder is loaded once, in the trainer's process.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import fmean

import torch

from verl_lite.engine.algorithm.trajectories import sample_parts
from verl_lite.engine.config.distillation import DistillationConfig, TeacherConfig
from verl_lite.engine.config.train import TrainConfig
from verl_lite.engine.data.prompts import fill_template
from verl_lite.engine.learner.finite import refuse_not_finite
from verl_lite.engine.learner.learner import Learner
from verl_lite.engine.learner.policy import Policy
from verl_lite.engine.model.chat_template import ChatTemplate
from verl_lite.engine.model.folder import default_device, load_policy, pad_token_id
from verl_lite.engine.rollout.server_client import ServerClient
from verl_lite.engine.types import (
    PolicyLearner,
    TeacherTokens,
    Tokenizer,
    TrainingSample,
)
from verl_lite.errors import ConfigError, DataError
from verl_lite.plugins import Message, ScoredRollout
from verl_lite.plugins.composite.schedule import weight_at

MAX_FULL_GB = 16.0
PROBES = ("What is 17 + 25?", "<think>a b</think>\n\\boxed{42}", "Ünïcode ✓ 東京 \t\n  end")


def check_teachers(config: TrainConfig, tokenizer: Tokenizer) -> None:
    """Raise ConfigError for a teacher that cannot be read, or whose tokenizer is not the policy's."""
    distillation = config.distillation
    for name, teacher in distillation.teachers.items():
        where = f"distillation.teachers.{name}"
        if teacher.model:
            _check_vocabulary(where, teacher.model, tokenizer)
        elif teacher.server:
            client = _client(teacher, where)
            for probe in PROBES:
                ids = list(tokenizer(probe, add_special_tokens=False)["input_ids"])
                if (theirs := client.tokenize(probe)) != ids:
                    raise ConfigError(
                        _differ(where, teacher.server, f"{probe!r} is {theirs} there, {ids} here")
                    )
            client.close()
    if distillation.teachers and distillation.estimate == "full":
        saved = 0 if distillation.rollouts is None else distillation.rollouts.rows_per_step
        tokens = (
            config.rollout.num_prompts * config.rollout.num_samples + saved
        ) * config.rollout.max_new_tokens
        size_gb = tokens * len(tokenizer) * 4 / 1e9
        if size_gb > MAX_FULL_GB:
            raise ConfigError(
                f"distillation.estimate=full keeps {len(tokenizer)} log-probabilities for each of up to "
                f"{tokens} tokens per step, {size_gb:.0f} GB (at most {MAX_FULL_GB:.0f}): use top_k"
            )


def _check_vocabulary(where: str, path: str, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(path).get_vocab()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where}.model={path}: no tokenizer can be read there ({error})") from None
    ours = tokenizer.get_vocab()
    different = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    if different:
        token = different[0]
        example = f"{token!r} is {theirs.get(token)} there, {ours.get(token)} here"
        raise ConfigError(_differ(f"{where}.model", path, f"{len(different)} tokens differ: {example}"))


def _differ(where: str, name: str, how: str) -> str:
    return (
        f"{where}={name} has another tokenizer than the policy ({how}): a teacher reads the policy's token "
        "ids, so choose one of the same family"
    )


def _client(teacher: TeacherConfig, where: str) -> ServerClient:
    return ServerClient(
        teacher.server, api_key_env=teacher.api_key_env, timeout_s=600.0, retries=3, setting=f"{where}.server"
    )


class Teachers:
    """The teachers of a run; `annotate` asks them."""

    def __init__(
        self, config: TrainConfig, tokenizer: Tokenizer, template: ChatTemplate, learner: PolicyLearner
    ) -> None:
        self._config = config.distillation
        self._source_column = config.scoring.source_column
        self._tokenizer, self._template, self._learner = tokenizer, template, learner
        self._local = {
            name: _load(name, teacher.model, config, tokenizer)
            for name, teacher in self._config.teachers.items()
            if teacher.model
        }
        self._servers = {
            name: _client(teacher, f"distillation.teachers.{name}")
            for name, teacher in self._config.teachers.items()
            if teacher.server
        }

    def annotate(
        self, samples: Sequence[TrainingSample], rows: Sequence[ScoredRollout], *, step: int
    ) -> tuple[list[TrainingSample], dict[str, float]]:
        """The samples of `rows` with what their teachers say, and the metric `distillation/kl`.

        A sample without a teacher, or whose hint needs a solution that its group lacks, stays as it is, and
        so does one in segments under a hint.
        """
        weight = weight_at(self._config.weight, step)
        result = list(samples)
        rows = [row for row in rows for _ in sample_parts(row.rollout)]
        if not self._config.teachers or weight == 0:
            return result, {}
        gaps: list[float] = []
        sources = [str(row.rollout.columns.get(self._source_column, "")) for row in rows]
        for name, members in self._by_teacher(sources).items():
            asked = [
                (index, asked)
                for index in members
                if samples[index].is_in_policy and (asked := self._asked(name, samples[index], index, rows))
            ]
            answers = self._ask(name, [one for _, one in asked])
            for (index, _), answer in zip(asked, answers, strict=True):
                result[index], gap = _with_teacher(samples[index], answer, self._config, weight)
                gaps += gap
        return result, {"distillation/kl": fmean(gaps)} if gaps else {}

    def judge(
        self, samples: Sequence[TrainingSample], sources: Sequence[str]
    ) -> Sequence[TeacherTokens | None]:
        """What the teacher of each sample's data source says at its tokens; None without one.

        Under estimate: sampled nobody is asked: one token that the teacher sampled says nothing more.
        """
        found: list[TeacherTokens | None] = [None] * len(samples)
        if self._config.estimate != "sampled":
            for name, members in self._by_teacher(sources).items():
                answers = self._ask(name, [samples[index] for index in members])
                for index, answer in zip(members, answers, strict=True):
                    found[index] = answer
        return found

    def _by_teacher(self, sources: Sequence[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for index, source in enumerate(sources):
            if name := self._config.teacher_of(source):
                found.setdefault(name, []).append(index)
        return found

    def _asked(
        self, name: str, sample: TrainingSample, index: int, rows: Sequence[ScoredRollout]
    ) -> TrainingSample | None:
        """The sample as the teacher reads it; None if its hint cannot be filled."""
        hint = self._config.teachers[name].hint
        bare = replace(sample, components={}, advantages_T=(), loss_mask_T=(), sampler_logprobs_T=())
        if not hint:
            return bare
        row = rows[index]
        if row.rollout.segments:  # whose prompts are not the row's
            return None
        fields = {
            **row.rollout.columns,
            "reference": row.rollout.reference,
            "feedback": "; ".join(c.score.reason for c in row.components.values() if c.score.reason),
        }
        if "{solution}" in hint:
            if (solution := best_other(row, rows)) is None:
                return None
            fields["solution"] = solution
        text = fill_template(hint, fields, setting=f"distillation.teachers.{name}.hint", where=row.rollout.id)
        messages = with_hint(row.rollout.prompt, text)
        return replace(bare, prompt_ids=self._template.prompt_ids(messages, where=f"the hint of {name}"))

    def _ask(self, name: str, samples: Sequence[TrainingSample]) -> list[TeacherTokens]:
        answers = self._answers(name, samples) if samples else []
        refuse_not_finite(
            f"distillation.teachers.{name}",
            samples,
            [answer.logprobs_TK for answer in answers],
            may_be_impossible=any(answer.is_complete for answer in answers),
        )
        return answers

    def _answers(self, name: str, samples: Sequence[TrainingSample]) -> list[TeacherTokens]:
        if name in self._servers:
            return _ask_server(self._servers[name], samples, self._config)
        policy = self._local.get(name) or self._own_policy()
        if self._config.estimate == "sampled":
            return [_sampled(logprobs_T) for logprobs_T in policy.completion_logprobs(samples)]
        is_full = self._config.estimate == "full"
        found = policy.top_logprobs(samples, 2**31 if is_full else self._config.top_k)
        return [TeacherTokens(ids_TK=ids, logprobs_TK=top, is_complete=is_full) for ids, top in found]

    def _own_policy(self) -> Policy:
        assert isinstance(self._learner, Learner), "the config refuses several ranks"
        return self._learner.policy

    def close(self) -> None:
        for client in self._servers.values():
            client.close()


def _load(name: str, path: str, config: TrainConfig, tokenizer: Tokenizer) -> Policy:
    try:
        model = load_policy(path, dtype=config.model.dtype, device=default_device())
    except DataError as error:
        raise DataError(f"distillation.teachers.{name}: {error}") from None
    return Policy(
        model.requires_grad_(False).eval(),
        config.learner.model_copy(update={"gradient_checkpointing": False}),
        pad_token_id=pad_token_id(tokenizer),
        temperature=config.rollout.temperature,
    )


def best_other(row: ScoredRollout, rows: Sequence[ScoredRollout]) -> str | None:
    """The group's best completion with a higher reward than the group's worst, other than the row's own."""
    group = [one for one in rows if one.rollout.group == row.rollout.group and one.reward is not None]
    worst = min((one.reward for one in group if one.reward is not None), default=0.0)
    others = [
        (one.reward, one.rollout.completion)
        for one in group
        if one.rollout.sample_index != row.rollout.sample_index
        and one.reward is not None
        and one.reward > worst
    ]
    return max(others, key=lambda pair: pair[0])[1] if others else None


def with_hint(messages: Sequence[Message], text: str) -> list[Message]:
    """The chat with `text` after its last message if the user wrote that; else as a message of its own."""
    last = messages[-1]
    if last["role"] == "user" and isinstance(last["content"], str):
        return [*messages[:-1], Message(role="user", content=f"{last['content']}\n{text}")]
    return [*messages, Message(role="user", content=text)]


def _sampled(logprobs_T: Sequence[float]) -> TeacherTokens:
    return TeacherTokens(logprobs_TK=torch.tensor(logprobs_T)[:, None])


def _ask_server(
    client: ServerClient, samples: Sequence[TrainingSample], config: DistillationConfig
) -> list[TeacherTokens]:
    """The server's answers, several requests at a time."""
    is_sampled = config.estimate == "sampled"

    def ask(sample: TrainingSample) -> TeacherTokens:
        ids, start = [*sample.prompt_ids, *sample.completion_ids], len(sample.prompt_ids)
        if is_sampled:
            return _sampled(client.token_logprobs(ids)[start - 1 :])
        tops = client.top_logprobs(ids, config.top_k)[start - 1 :]
        return TeacherTokens(
            ids_TK=torch.tensor([[token for token, _ in top] for top in tops]),
            logprobs_TK=torch.tensor([[logprob for _, logprob in top] for top in tops]),
        )

    with ThreadPoolExecutor(max_workers=32) as pool:
        return list(pool.map(ask, samples))


def _with_teacher(
    sample: TrainingSample, answer: TeacherTokens, config: DistillationConfig, weight: float
) -> tuple[TrainingSample, list[float]]:
    """The sample with its teacher, and log p_sampler - log p_teacher at its counted tokens, where known."""
    mask_T, sampler_T = sample.loss_mask_T, sample.sampler_logprobs_T
    own_T = _of_sampled(sample, answer)
    gap_T = [s - t for s, t in zip(sampler_T, own_T, strict=True)] if sampler_T and own_T else []
    counted = [gap for gap, counts in zip(gap_T, mask_T, strict=False) if counts]
    if config.placement == "loss":
        components = {**sample.components, "distillation": [weight * counts for counts in mask_T]}
        return replace(sample, teacher=answer, components=components), counted
    if not gap_T:
        raise DataError(
            "distillation.placement=reward needs the sampler's log-probability of every token: use a sampler "
            "that reports them, or placement: loss"
        )
    pairs = zip(sample.advantages_T, gap_T, strict=True)
    return replace(sample, advantages_T=[a - weight * gap for a, gap in pairs]), counted


def _of_sampled(sample: TrainingSample, answer: TeacherTokens) -> list[float]:
    """The teacher's log-probabilities of the sampled tokens; empty if it did not give all of them."""
    if answer.ids_TK is None:
        return [float(value) for value in answer.logprobs_TK[:, 0]]
    is_it_TK = answer.ids_TK == torch.tensor(sample.completion_ids)[:, None]
    if not bool(is_it_TK.any(-1).all()):
        return []
    return [float(value) for value in answer.logprobs_TK[is_it_TK]]
