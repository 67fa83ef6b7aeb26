"""What a run asks Ray for, by hand, and what is said where the cluster has less."""

from typing import Any

import pytest

from verl_lite.engine.cluster import ResourceRequest, check_capacity, resource_requests
from verl_lite.engine.config import TrainConfig
from verl_lite.errors import ConfigError


def config(**sections: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "steps": 1,
            "model": {"path": "any"},
            "data": {"train": {"path": "rows.jsonl"}},
            "rewards": {"math": {"use": "math"}},
            **sections,
        }
    )


BOTH = {
    "learner": {"num_ranks": 8},
    "rollout": {"num_engines": 4, "vllm": {"tensor_parallel_size": 2, "cpu_threads": 3}},
    "cluster": {"rewards": {"count": 2, "cpus": 4, "gpus": 0.5}},
}


def test_every_part_asks_for_its_own() -> None:
    assert resource_requests(config(**BOTH), num_ranks=8, on_gpus=True) == [
        ResourceRequest("learner.num_ranks", 8, 1, 1),
        ResourceRequest("rollout.num_engines", 4, 3, 2),
        ResourceRequest("cluster.rewards.count", 2, 4.0, 0.5),
    ]
    assert resource_requests(config(**BOTH), num_ranks=8, on_gpus=False)[:2] == [
        ResourceRequest("learner.num_ranks", 8, 1, 0),
        ResourceRequest("rollout.num_engines", 4, 3, 0),
    ]
    colocated = {"num_engines": 8, "placement": "colocated"}
    asks = resource_requests(config(learner={"num_ranks": 8}, rollout=colocated), num_ranks=8, on_gpus=True)
    assert [ask.gpus for ask in asks] == [1, 0]
    assert resource_requests(config(), num_ranks=0, on_gpus=True) == []


def test_a_cluster_with_room_is_told_nothing() -> None:
    assert check_capacity(config(**BOTH), {"CPU": 28.0, "GPU": 17.0}, num_ranks=8, may_grow=False) == ""
    assert check_capacity(config(learner={"num_ranks": 2}), {"CPU": 2.0}, num_ranks=2, may_grow=False) == ""


def test_too_few_gpus_are_named_before_anything_waits() -> None:
    """The command of the docs on one node: 8 ranks and 8 engines want 16 GPUs."""
    docs = config(learner={"num_ranks": 8}, rollout={"num_engines": 8})
    message = (
        r"requests 16 GPUs \(Ray has 8\): learner.num_ranks=8 of 1 CPU and 1 GPU each; "
        r"rollout.num_engines=8 of 1 CPU and 1 GPU each. Lower one of these"
    )
    with pytest.raises(ConfigError, match=message):
        check_capacity(docs, {"CPU": 64.0, "GPU": 8.0}, num_ranks=8, may_grow=False)
    said = check_capacity(docs, {"CPU": 64.0, "GPU": 8.0}, num_ranks=8, may_grow=True)
    assert said.endswith("Waiting up to cluster.start_timeout_s=180 for nodes to join")


def test_fewer_gpus_than_ranks_do_not_become_ranks_without_any() -> None:
    with pytest.raises(ConfigError, match=r"requests 4 GPUs \(Ray has 2\)"):
        check_capacity(
            config(learner={"num_ranks": 4}), {"CPU": 8.0, "GPU": 2.0}, num_ranks=4, may_grow=False
        )
