"""The pool's promises, on engines that live in this process and fail when told to."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from verl_lite.engine.cluster import EngineLost, EnginePool, PoolLimits, RayEngine
from verl_lite.engine.rollout import FinishedSequence, SequenceRequest
from verl_lite.errors import RankLost, TrainingError
from verl_lite.plugins import SamplerSettings

LIMITS = PoolLimits(start_timeout_s=5, call_timeout_s=5, max_restarts=2, in_flight=4)


@dataclass
class FakeEngine:
    """Gives its oldest `num_slots` sequences one token per `advance`, of the version loaded last.

    Dies when `dies` says so.
    """

    dies: Callable[["FakeEngine", str], bool] = lambda engine, method: False
    version: int = 0
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    running: dict[str, list[int]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    most_running: int = 0
    ended: list[str] = field(default_factory=list)
    killed: bool = False
    num_slots: int = 256

    def call(self, method: str, *arguments: Any) -> tuple[str, tuple[Any, ...]]:
        self.calls.append((method, arguments))
        return method, arguments

    def answer(self, call: tuple[str, tuple[Any, ...]], *, timeout_s: float) -> Any:
        method, arguments = call
        if self.killed or self.dies(self, method):
            raise EngineLost("is gone: told to")
        return getattr(self, method)(*arguments)

    def kill(self) -> None:
        self.killed = True

    def describe(self) -> dict[str, int]:
        return {"num_slots": self.num_slots}

    def load(self, version: int) -> int:
        self.version = version
        return version

    def advance(self, add: Sequence[SequenceRequest], abort: Sequence[str]) -> list[FinishedSequence]:
        time.sleep(0.001)
        for id in abort:
            self.running.pop(id, None)
        for request in add:
            self.running[request.id] = []
            self.lengths[request.id] = request.settings.max_new_tokens
        self.most_running = max(self.most_running, len(self.running))
        for versions in list(self.running.values())[: self.num_slots]:
            versions.append(self.version)
        done = [id for id, versions in self.running.items() if len(versions) == self.lengths[id]]
        self.ended += done
        return [finished(id, self.running.pop(id)) for id in done]


def finished(id: str, versions: list[int]) -> FinishedSequence:
    n = len(versions)
    return FinishedSequence(
        id=id, token_ids=[1] * n, logprobs=[-1.0] * n, token_versions=versions, finish_reason="length"
    )


def requests(lengths: Sequence[int], prefix: str = "") -> list[SequenceRequest]:
    return [
        SequenceRequest(id=f"{prefix}{i}", prompt_ids=[1], settings=SamplerSettings(max_new_tokens=length))
        for i, length in enumerate(lengths)
    ]


@pytest.fixture
def pool_of() -> Iterator[Callable[..., tuple[EnginePool, list[FakeEngine]]]]:
    pools: list[EnginePool] = []

    def make(
        num_engines: int = 2, limits: PoolLimits = LIMITS, engines: Sequence[FakeEngine] = ()
    ) -> tuple[EnginePool, list[FakeEngine]]:
        rest, started = iter(engines), []

        def start(index: int) -> FakeEngine:
            started.append(next(rest, None) or FakeEngine())
            return started[-1]

        pools.append(EnginePool(start, num_engines=num_engines, limits=limits))
        pools[-1].broadcast("describe")
        return pools[-1], started

    yield make
    for pool in pools:
        pool.close()
        assert all(not one.thread.is_alive() for one in pool._supervisors)


def test_every_sequence_ends_once_and_engines_are_kept_at_their_limit(pool_of: Any) -> None:
    pool, engines = pool_of()
    ends = [answer.id for answer in pool.run(requests([3] * 50))]
    assert sorted(ends, key=int) == [str(i) for i in range(50)]
    assert [engine.most_running for engine in engines] == [4, 4]


def test_a_long_tail_idles_nobody(pool_of: Any) -> None:
    pool, engines = pool_of()
    lengths = [400] * 4 + [4] * 200  # by count both engines would get half, and one of them all long ones
    list(pool.run(requests(lengths)))
    tokens = [sum(engine.lengths[id] for id in engine.lengths) for engine in engines]
    assert sum(tokens) == sum(lengths)
    assert max(tokens) < 0.65 * sum(lengths)


def test_few_sequences_are_spread_evenly(pool_of: Any) -> None:
    pool, engines = pool_of(num_engines=3, limits=PoolLimits(
        start_timeout_s=5, call_timeout_s=5, max_restarts=0, in_flight=100))  # fmt: skip
    list(pool.run(requests([50] * 9)))
    assert [len(engine.lengths) for engine in engines] == [3, 3, 3]


def test_unset_the_limit_is_what_each_engine_works_on_and_as_many_again(pool_of: Any) -> None:
    unset = PoolLimits(start_timeout_s=5, call_timeout_s=5, max_restarts=0)
    pool, engines = pool_of(limits=unset, engines=[FakeEngine(num_slots=8), FakeEngine(num_slots=16)])
    list(pool.run(requests([3] * 100)))
    assert [engine.most_running for engine in engines] == [16, 32]


def test_a_batch_that_fits_the_engines_slots_starts_at_once(pool_of: Any) -> None:
    unset = PoolLimits(start_timeout_s=5, call_timeout_s=5, max_restarts=0)
    pool, engines = pool_of(limits=unset)
    list(pool.run(requests([3] * 256)))
    assert [engine.most_running for engine in engines] == [128, 128]


def test_what_waits_inside_an_engine_goes_to_one_with_a_free_place(pool_of: Any) -> None:
    """The first engine to take gets every other sequence: one has the short ones, the other the long ones."""
    pool, engines = pool_of(engines=[FakeEngine(num_slots=1), FakeEngine(num_slots=1)])
    lengths = [2, 300] * 4
    answers = list(pool.run(requests(lengths)))
    assert sorted(answer.id for answer in answers) == [str(i) for i in range(8)]
    assert all(len(answer.token_ids) == lengths[int(answer.id)] for answer in answers)
    long = [sum(lengths[int(id.partition(":")[2])] == 300 for id in engine.ended) for engine in engines]
    assert max(long) < 4
    list(pool.run(requests([1], prefix="last")))
    pool.broadcast("describe")  # all calls before it have been answered
    assert [engine.running for engine in engines] == [{}, {}]


def test_what_was_taken_over_comes_back_when_its_new_engine_is_lost(pool_of: Any) -> None:
    def dies(engine: FakeEngine, method: str) -> bool:
        return any(engine.lengths[id] == 300 for id in engine.running) and len(engine.ended) >= 4

    pool, _ = pool_of(engines=[FakeEngine(num_slots=1, dies=dies), FakeEngine(num_slots=1, dies=dies)])
    answers = list(pool.run(requests([2, 300] * 4)))
    assert sorted(answer.id for answer in answers) == [str(i) for i in range(8)]
    assert pool.num_restarts >= 1
    assert pool.num_requeued >= 1


def test_new_weights_arrive_between_steps_and_every_token_says_whose_it_is(pool_of: Any) -> None:
    pool, _ = pool_of()
    answers = pool.run(requests([2] * 4 + [200] * 4))
    first = next(answers)
    assert sorted(pool.broadcast("load", 1)) == [1, 1]
    versions = {answer.id: answer.token_versions for answer in [first, *answers]}
    for i in range(4, 8):
        long = versions[str(i)]
        assert long == sorted(long)
        assert set(long) == {0, 1}


def test_a_lost_engine_is_replaced_has_the_newest_weights_and_loses_no_sequence(pool_of: Any) -> None:
    dying = FakeEngine(dies=lambda engine, method: method == "advance" and len(engine.calls) > 20)
    pool, started = pool_of(engines=[FakeEngine(), dying])
    pool.broadcast("load", 7, replay=True)
    answers = list(pool.run(requests([30] * 40)))
    assert sorted(int(answer.id) for answer in answers) == list(range(40))
    assert all(answer.token_versions == [7] * 30 for answer in answers)
    assert dying.killed
    assert len(started) == 3
    assert [method for method, _ in started[2].calls[:2]] == ["describe", "load"]
    assert started[2].lengths  # it took work again
    assert (pool.num_restarts, pool.num_requeued) == (1, 4)


def test_an_engine_lost_while_weights_load_is_asked_again(pool_of: Any) -> None:
    dying = FakeEngine(dies=lambda engine, method: method == "load")
    pool, started = pool_of(engines=[dying, FakeEngine()])
    assert pool.broadcast("load", 3, replay=True) == [3, 3]
    assert started[2].version == 3


def test_too_many_losses_are_one_clear_error_for_everyone(pool_of: Any) -> None:
    def dies(engine: FakeEngine, method: str) -> bool:
        return method == "advance"

    pool, started = pool_of(num_engines=1, engines=[FakeEngine(dies=dies) for _ in range(9)])
    message = r"rollout engine 0 is gone: told to\. That is loss 3 .* cluster\.max_restarts=2 allows no more"
    with pytest.raises(TrainingError, match=message):
        list(pool.run(requests([5] * 3)))
    assert len(started) == 3
    for method in (lambda: list(pool.run(requests([1]))), lambda: pool.broadcast("load", 1)):
        with pytest.raises(TrainingError, match="loss 3"):
            method()


def test_an_engine_that_never_started_is_not_tried_again() -> None:
    started = []

    def start(index: int) -> FakeEngine:
        started.append(FakeEngine(dies=lambda engine, method: True))
        return started[-1]

    pool = EnginePool(start, num_engines=1, limits=LIMITS)
    with pytest.raises(TrainingError, match="engine 0 did not start: it is gone: told to"):
        pool.broadcast("describe")
    pool.close()
    assert len(started) == 1


def test_a_wrong_answer_stops_the_run_also_on_a_replacement(pool_of: Any) -> None:
    def check(version: int) -> int:
        if version != 1:
            raise TrainingError(f"version {version} is not 1")
        return version

    dying = FakeEngine(dies=lambda engine, method: method == "advance")
    pool, _ = pool_of(num_engines=1, engines=[dying])
    pool.broadcast("load", 1, check=check, replay=True)
    wrong = FakeEngine()
    wrong.load = lambda version: 0  # type: ignore[method-assign]
    pool.start = lambda index: wrong
    with pytest.raises(TrainingError, match="version 0 is not 1"):
        list(pool.run(requests([3])))


def test_a_fault_of_our_own_reaches_those_who_wait(pool_of: Any) -> None:
    engine = FakeEngine()
    engine.advance = lambda add, abort: 1 / 0  # type: ignore[method-assign, assignment]
    pool, _ = pool_of(num_engines=1, engines=[engine])
    with pytest.raises(TrainingError, match="rollout engine 0: ZeroDivisionError"):
        list(pool.run(requests([3])))


def test_paused_engines_are_not_called_and_go_on_where_they_were(pool_of: Any) -> None:
    pool, engines = pool_of()
    answers = pool.run(requests([2] * 4 + [300] * 4))
    found = [next(answers)]
    with pool.paused() as paused:
        assert len(paused) == 2
        before = [len(engine.calls) for engine in engines]
        time.sleep(0.05)
        assert [len(engine.calls) for engine in engines] == before
    found += list(answers)
    assert sorted(int(answer.id) for answer in found) == list(range(8))


def test_an_engine_that_cannot_even_be_ended_hangs_nobody(pool_of: Any) -> None:
    def kill() -> None:
        raise ConnectionError("no cluster any more")

    engine = FakeEngine(dies=lambda engine, method: method == "advance")
    engine.kill = kill  # type: ignore[method-assign]
    pool, _ = pool_of(num_engines=1, engines=[engine])
    with pytest.raises(TrainingError, match="rollout engine 0: ConnectionError: no cluster any more"):
        list(pool.run(requests([3])))


def test_a_batch_given_up_early_leaves_the_engines_to_others(pool_of: Any) -> None:
    pool, engines = pool_of()
    answers = pool.run(requests([2] * 4 + [100_000] * 20))
    next(answers)
    answers.close()
    assert len(list(pool.run(requests([5] * 20, prefix="second")))) == 20
    deadline = time.monotonic() + 60
    while any(engine.running for engine in engines) and time.monotonic() < deadline:
        pool.broadcast("describe")
        list(pool.run(requests([1], prefix="third")))
    assert [engine.running for engine in engines] == [{}, {}]


def test_who_waits_may_stop_while_nothing_ends(pool_of: Any) -> None:
    pool, _ = pool_of()
    wanted = time.monotonic() + 0.3

    def check() -> None:
        if time.monotonic() > wanted:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(pool.run(requests([100_000] * 4), check=check))
    assert time.monotonic() < wanted + 60
    assert len(list(pool.run(requests([5] * 4, prefix="second")))) == 4  # the engines are free for others


def test_closing_wakes_those_who_wait(pool_of: Any) -> None:
    pool, _ = pool_of()
    answers = pool.run(requests([2, 100_000]))
    next(answers)
    threading.Timer(0.05, pool.close).start()
    with pytest.raises(TrainingError, match="have been closed"):
        next(answers)


def test_two_threads_may_generate_at_once(pool_of: Any) -> None:
    pool, _ = pool_of()
    results: dict[str, list[str]] = {}

    def generate(name: str) -> None:
        results[name] = sorted(answer.id for answer in pool.run(requests([5] * 30, prefix=name)))

    threads = [threading.Thread(target=generate, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert results == {name: sorted(f"{name}{i}" for i in range(30)) for name in "ab"}


def test_weights_that_went_with_their_rank_are_the_ranks_loss(pool_of: Any) -> None:
    """Starting one engine after the other for weights that nobody has would only use up the restarts."""

    class WithoutWeights(FakeEngine):
        def load(self, version: int) -> int:
            raise RankLost("a learner rank died, and the newest weights with it")

    first = FakeEngine(dies=lambda engine, method: method == "advance" and bool(engine.running))
    pool, started = pool_of(1, engines=[first, WithoutWeights()])
    pool.broadcast("load", 1, replay=True)
    with pytest.raises(RankLost, match="newest weights"):
        list(pool.run(requests([5])))
    assert len(started) == 2


def test_an_owner_that_died_is_told_from_an_engine_that_did() -> None:
    ray = pytest.importorskip("ray")
    errors = ray.exceptions

    def engine_that_meets(error: Exception) -> RayEngine:
        engine, stub = object.__new__(RayEngine), SimpleNamespace(exceptions=errors)

        def get(call: object, timeout: float) -> None:
            raise error

        stub.get = get
        engine._ray = stub
        return engine

    owner = errors.OwnerDiedError("00", b"", "")
    in_the_task = errors.RayTaskError("load", "trace", owner).as_instanceof_cause()
    for error in (owner, in_the_task):
        with pytest.raises(RankLost, match="newest weights"):
            engine_that_meets(error).answer(None, timeout_s=1)
    with pytest.raises(EngineLost, match=r"failed: .*boom"):
        engine_that_meets(errors.RayTaskError("load", "boom", ValueError("boom"))).answer(None, timeout_s=1)
