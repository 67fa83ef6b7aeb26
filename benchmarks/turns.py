"""The cost of turns: tokens/s beside the same tokens in one turn, and the wall time with slow tools.

    python benchmarks/turns.py [--trajectories 64] [--turns 4] [--tokens 48] [--repeats 3] [--only-ours]

1. Our machinery alone: CPU time per turn where the engine and the environment answer at once (--only-ours
   ends here).
2. vLLM in this process with a tiny model: trajectories of several turns with an environment that answers at
   once, against one completion of as many sampled tokens, and against the very requests of the turns sent to
   vLLM without any of our machinery. Turns have a fixed length, prefix caching is on and begins empty.
3. 256 trajectories whose tool takes 0.5 s per call, on a sampler with a simulated rate of decoding: the wall
   time beside the longest chain of one trajectory's decoding and tools.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from verl_lite.engine.config import RolloutConfig, TinyModelConfig, VllmConfig
from verl_lite.engine.model import ChatTemplate, build_tiny_model, build_tiny_tokenizer
from verl_lite.engine.rollout import FinishedSequence, SequenceRequest, TurnsSampler, VllmSampler
from verl_lite.engine.rollout.requests import QueueStream
from verl_lite.engine.rollout.streams import StreamSampler
from verl_lite.engine.rollout.turns.rendering import TurnRenderer
from verl_lite.engine.rollout.turns.trajectory import TurnBudgets, TurnKit
from verl_lite.engine.testing import FakeSampler
from verl_lite.engine.types import PromptRow
from verl_lite.plugins import SamplerSettings, Step
from verl_lite.plugins.testing import FakeEnvironments

TOOL_S = 0.5
STEP_S = 0.005
SLOW = 256


class FixedLengths(VllmSampler):
    """Every sequence has all the tokens that it may have, and then ends by itself; `log` has the requests."""

    log: dict[str, list[SequenceRequest]]

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> Any:
        stream = super().stream(settings, check)
        add, step = stream.add, stream.step

        def add_unended(requests: Sequence[SequenceRequest]) -> None:
            for request in requests:
                self.log.setdefault(request.id, []).append(request)
            add([replace(request, ignore_end=True) for request in requests])

        def step_ended() -> list[FinishedSequence]:
            return [replace(one, finish_reason="stop") for one in step()]

        stream.add, stream.step = add_unended, step_ended  # type: ignore[method-assign]
        return stream


def only_ordinary_tokens(inner: FixedLengths) -> None:
    """A random model writes special tokens into its turns: no history shows them, so all would be split."""
    special, add = set(inner.tokenizer.all_special_ids), inner.engine._add
    ordinary = [id for id in range(len(inner.tokenizer)) if id not in special]

    def add_ordinary(id: str, prompt_ids: Sequence[int], parameters: Any, **options: Any) -> None:
        parameters.allowed_token_ids = ordinary
        add(id, prompt_ids, parameters, **options)

    inner.engine._add = add_ordinary  # type: ignore[method-assign]


def kit(tokenizer: Any, *, max_turns: int, turn_tokens: int | None = None) -> TurnKit:
    return TurnKit(
        renderer=TurnRenderer(ChatTemplate(tokenizer), end_ids=(tokenizer.eos_token_id,)),
        parser=None,
        budgets=TurnBudgets(
            context_tokens=4096, max_turns=max_turns, max_tool_s=1e9, max_turn_tokens=turn_tokens
        ),
    )


def rows(count: int) -> list[PromptRow]:
    tokenizer = build_tiny_tokenizer()
    template = ChatTemplate(tokenizer)
    made = []
    for at in range(count):
        messages: Any = [{"role": "user", "content": f"{at}+1="}]
        ids = template.prompt_ids(messages, where="")
        made.append(PromptRow(id=str(at), messages=messages, prompt_ids=ids))
    return made


def answer(message: Any) -> Step:
    return Step(messages=[{"role": "user", "content": "go on"}])


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one pass over all trajectories; `cpu_s` is fair on a machine with other work, `wall_s` is not."""

    wall_s: float
    cpu_s: float


def measured(inner: FixedLengths, work: Callable[[], object]) -> Measured:
    inner.engine.llm.reset_prefix_cache()
    inner.log = {}
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    work()
    return Measured(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def sample_all(
    sampler: Any, count: int, settings: SamplerSettings, tokens: int, *, num_samples: int = 1
) -> None:
    groups = sampler.generate(rows(count // num_samples), num_samples=num_samples, settings=settings)
    rollouts = [rollout for group in groups for rollout in group]
    assert sum(rollout.num_sampled for rollout in rollouts) == count * tokens
    assert not any(rollout.segments for rollout in rollouts)


def send_straight(
    inner: FixedLengths, requests: dict[str, list[SequenceRequest]], settings: SamplerSettings
) -> None:
    """Each trajectory's requests, the next one as soon as vLLM has answered the one before."""
    with inner.stream(settings, lambda: None) as stream:
        stream.add([turns[0] for turns in requests.values()])
        done = dict.fromkeys(requests, 1)
        while stream.num_unfinished:
            for finished in stream.step():
                turns, at = requests[finished.id], done[finished.id]
                stream.add(turns[at : at + 1])
                done[finished.id] += 1


def beside_one_turn(count: int, turns: int, tokens: int, repeats: int) -> None:
    tokenizer = build_tiny_tokenizer()
    config = RolloutConfig(
        max_prompt_tokens=32,
        max_new_tokens=992,
        vllm=VllmConfig(prefix_caching=True, kv_cache_gib=0.5),
    )
    with tempfile.TemporaryDirectory() as folder:
        build_tiny_model(Path(folder) / "model", TinyModelConfig(max_context_tokens=1024), seed=0)
        inner = FixedLengths(str(Path(folder) / "model"), tokenizer, config, canary_ids=[1, 2, 3, 4], seed=0)
        only_ordinary_tokens(inner)
        sampler = TurnsSampler(
            inner,
            FakeEnvironments(reply=answer),
            kit(tokenizer, max_turns=turns, turn_tokens=tokens),
        )
        settings = SamplerSettings(max_new_tokens=turns * tokens, seed=1)
        found: list[tuple[Measured, Measured, Measured]] = []
        for _ in range(repeats + 1):
            plain = measured(inner, lambda: sample_all(inner, count, settings, turns * tokens))
            several = measured(inner, lambda: sample_all(sampler, count, settings, turns * tokens))
            requests = inner.log
            straight = measured(inner, partial(send_straight, inner, requests, settings))
            found.append((plain, several, straight))
        show(found[1:], count * turns, tokens)  # the first pass warms up
        sampler.close()


def show(found: Sequence[tuple[Measured, Measured, Measured]], num_turns: int, tokens: int) -> None:
    for clock in ("wall_s", "cpu_s"):
        plain, several, straight = (
            statistics.median(getattr(one[at], clock) for one in found) for at in range(3)
        )
        print(f"{clock}: one turn {plain:.2f}; {num_turns} turns of {tokens} tokens {several:.2f}")
        print(f"  their requests straight to vLLM {straight:.2f}")
        print(f"  tokens/s beside one turn {plain / several:.0%}, of vLLM alone {plain / straight:.0%}")
        print(
            f"  per turn {1e3 * (several - plain) / num_turns:.2f} ms, of them ours "
            f"{1e3 * (several - straight) / num_turns:.2f} ms"
        )


class AtOnce(StreamSampler):
    """Every sequence has the same tokens, without an engine; a step ends `batch` of them."""

    canary: Any = None
    version = 0

    def __init__(self, tokenizer: Any, *, tokens: int, batch: int) -> None:
        super().__init__(tokenizer, (tokenizer.eos_token_id,))
        word = tokenizer("1+", add_special_tokens=False)["input_ids"]
        self.ids = [*(word * tokens)[: tokens - 1], tokenizer.eos_token_id]
        self.batch = batch

    def stream(self, settings: SamplerSettings, check: Callable[[], None]) -> Any:
        return _AtOnceStream(self, check)

    def close(self) -> None:
        """Nothing to free."""


class _AtOnceStream(QueueStream):
    def __init__(self, sampler: AtOnce, check: Callable[[], None]) -> None:
        super().__init__(check)
        self.sampler = sampler
        self.waiting: list[SequenceRequest] = []

    def send(self, requests: Sequence[SequenceRequest]) -> None:
        self.waiting += requests

    def drop(self) -> None:
        self.waiting = []

    def step(self) -> list[FinishedSequence]:
        ids, batch = self.sampler.ids, self.sampler.batch
        done, self.waiting = self.waiting[:batch], self.waiting[batch:]
        self.num_unfinished -= len(done)
        return [
            FinishedSequence(
                id=one.id,
                token_ids=list(ids),
                logprobs=[-1.0] * len(ids),
                token_versions=[0] * len(ids),
                finish_reason="stop",
            )
            for one in done
        ]


def ours_alone(count: int, turns: int, tokens: int, repeats: int) -> None:
    tokenizer = build_tiny_tokenizer()
    settings = SamplerSettings(max_new_tokens=turns * tokens + 1, seed=1)
    for batch in (count, 8):
        inner = AtOnce(tokenizer, tokens=tokens, batch=batch)
        sampler: Any = TurnsSampler(
            inner,  # type: ignore[arg-type]
            FakeEnvironments(reply=answer),
            kit(tokenizer, max_turns=turns),
        )
        spent = []
        for _ in range(repeats + 1):
            began = time.process_time()
            sample_all(sampler, count, settings, turns * tokens, num_samples=8)
            spent.append(1e3 * (time.process_time() - began) / (count * turns))
        sampler.close()
        print(
            f"our machinery alone, {count} trajectories of {turns} turns of {tokens} tokens, {batch} ending "
            f"per step: {statistics.median(spent[1:]):.3f} ms CPU per turn"
        )


def slow_tools(turns: int) -> None:
    tokenizer = build_tiny_tokenizer()
    end = tokenizer.eos_token_id
    chains: dict[str, float] = {}

    def write(request: SequenceRequest) -> list[int]:
        count = random.Random(request.seed).randrange(10, 60)
        chains[request.id] = chains.get(request.id, 0.0) + (count + 1) * STEP_S
        return [50] * count + [end]

    inner = FakeSampler(tokenizer, write=write, end_ids=(end,), num_slots=SLOW, step_s=STEP_S)
    sampler = TurnsSampler(
        inner, FakeEnvironments(reply=answer, delay_s=TOOL_S), kit(tokenizer, max_turns=turns)
    )
    started = time.perf_counter()
    settings = SamplerSettings(max_new_tokens=4000, seed=1)
    found = list(sampler.generate(rows(SLOW), num_samples=1, settings=settings))
    wall_s = time.perf_counter() - started
    sampler.close()
    assert len(found) == SLOW
    longest_s = max(chains.values()) + turns * TOOL_S
    print(
        f"{SLOW} trajectories of {turns} turns, tools of {TOOL_S} s: {wall_s:.2f} s; the longest chain of "
        f"decoding and tools is {longest_s:.2f} s: {wall_s / longest_s:.2f} x"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trajectories", type=int, default=64)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-ours", action="store_true")
    given = parser.parse_args()
    ours_alone(given.trajectories, given.turns, given.tokens, 3 * given.repeats)
    if given.only_ours:
        return
    slow_tools(given.turns)
    beside_one_turn(given.trajectories, given.turns, given.tokens, given.repeats)


if __name__ == "__main__":
    main()
