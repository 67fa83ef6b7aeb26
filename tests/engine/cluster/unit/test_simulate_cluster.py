"""The simulator of benchmarks/ against cases worked out by hand."""

from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def simulator(load_script: Callable[[str], ModuleType]) -> ModuleType:
    return load_script("benchmarks/simulate_cluster.py")


def test_engines_take_from_one_queue(simulator: ModuleType) -> None:
    # two engines of one place: 4 | 1, then 1 and 1 on the second: it ends at 3, the first at 4
    cluster = simulator.Cluster(num_engines=2, num_slots=1, token_s=1.0, train_s=1.0)
    engines = simulator.Engines(cluster)
    engines.submit([[4], [1], [1], [1]])
    assert engines.run_until(4) == 4.0
    assert engines.finished == [1, 2, 3, 0]
    assert engines.finished_at == [1.0, 2.0, 3.0, 4.0]
    engines.settle()
    assert engines.slot_s == engines.engine_s == 7.0


def test_a_group_ends_with_its_last_sequence_and_places_run_side_by_side(simulator: ModuleType) -> None:
    # one engine of two places, 0.5 s a token: 2 and 6 tokens begin; the 4 follows the 2 and ends at 3 s
    cluster = simulator.Cluster(num_engines=1, num_slots=2, token_s=0.5, train_s=1.0)
    engines = simulator.Engines(cluster)
    engines.submit([[2, 6], [4]])
    engines.run_until(2)
    assert engines.now == pytest.approx(3.0)
    engines.settle()
    assert engines.slot_s == pytest.approx(6.0)
    assert engines.engine_s == pytest.approx(3.0)


def test_the_three_modes_with_equal_times(simulator: ModuleType) -> None:
    # generating takes 4 s, training 4 s, the sync 1 s: 9 s in turn, 5 s one ahead
    cluster = simulator.Cluster(num_engines=2, num_slots=1, token_s=1.0, train_s=4.0, sync_s=1.0)
    batches = [[[4], [4]]] * 12
    sync = simulator.simulate(cluster, batches, mode="sync")
    assert sync.step_s == pytest.approx(9.0)
    assert sync.engines_idle == sync.engines_empty == pytest.approx(5 / 9)
    assert sync.learner_idle == pytest.approx(4 / 9)
    assert sync.staleness == 0
    ahead = simulator.simulate(cluster, batches, mode="one_ahead")
    assert ahead.step_s == pytest.approx(5.0)
    assert ahead.engines_idle == pytest.approx(1 / 5)  # while weights move
    assert ahead.learner_idle == pytest.approx(0.0)
    assert ahead.staleness == 1
    overlapped = simulator.simulate(cluster, batches, mode="async", max_lag=2)
    assert overlapped.step_s == pytest.approx(5.0)  # the learner's own time: it never waits
    assert overlapped.learner_idle == pytest.approx(0.0)
    assert 1 <= overlapped.staleness <= 2


def test_async_does_not_wait_for_the_long_one(simulator: ModuleType) -> None:
    # every batch has one sequence of 9 s and one of 1 s on two engines; training takes 2 s.
    # In turn: 9 + 2. One ahead: 9, as training hides. Async: 10 s of work on 2 engines: 5.
    cluster = simulator.Cluster(num_engines=2, num_slots=1, token_s=1.0, train_s=2.0)
    batches = [[[9], [1]]] * 40
    assert simulator.simulate(cluster, batches, mode="sync").step_s == pytest.approx(11.0)
    assert simulator.simulate(cluster, batches, mode="one_ahead").step_s == pytest.approx(9.0)
    free = simulator.simulate(cluster, batches, mode="async", max_lag=4)
    assert free.step_s == pytest.approx(5.0, rel=0.1)
    assert free.engines_idle < 0.1


def test_a_bound_of_the_lag_makes_engines_wait(simulator: ModuleType) -> None:
    # the learner takes 10 s, a batch 1 s: engines may only run ahead by max_lag batches, so they rest 9 of 10
    cluster = simulator.Cluster(num_engines=1, num_slots=1, token_s=1.0, train_s=10.0)
    result = simulator.simulate(cluster, [[[1]]] * 12, mode="async", max_lag=1)
    assert result.step_s == pytest.approx(10.0)
    assert result.engines_empty == pytest.approx(0.9)
    assert result.staleness == 1


def test_lengths_are_heavy_tailed_and_cut(simulator: ModuleType) -> None:
    lengths = simulator.lognormal_lengths(median=100, sigma=1.0, limit=1000, seed=0)
    drawn = sorted(next(lengths) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(100, rel=0.05)
    assert drawn[-1] == 1000
    assert sum(value == 1000 for value in drawn) / 20_000 == pytest.approx(0.0107, abs=0.003)  # P(z > ln 10)


def test_the_plot_names_every_mode(simulator: ModuleType) -> None:
    text = simulator.plot({"sync": [(8, 10.0), (16, 12.0)], "async, max_lag 2": [(8, 5.0), (16, 5.5)]})
    assert text.count("<polyline") == 2
    assert ">sync</text>" in text
    assert ">async, max_lag 2</text>" in text
