"""Weights to two engines through Ray's object store on the CPU, as a share of plain copying.

    python benchmarks/weight_transfer.py [--megabytes 512] [--repeats 7]

What is timed: `ray.put(pack(weights))`, then both engine processes copying every tensor out of the
store into tensors of their own at the same time, until both have answered. What vLLM does with them
afterwards (repacking for its kernels) is no part of it. The yardstick, in the same run: one thread
copying the same bytes from one tensor into another. Bytes delivered are those both engines hold.
"""

import argparse
import statistics
import sys
import time

import ray
import torch

from verl_lite.engine.cluster import PackedWeights, RayRuntime, pack, unpack
from verl_lite.engine.config import ClusterConfig

ENGINES, LAYER_MB = 2, 8


class Receiver:
    """An engine's process as far as the transfer goes: it holds tensors of its own."""

    def __init__(self) -> None:
        self.own: dict[str, torch.Tensor] = {}

    def receive(self, weights: PackedWeights) -> float:
        """Copy everything; returns the seconds that took."""
        started = time.perf_counter()
        for name, tensor in unpack(weights):
            if name not in self.own:
                self.own[name] = torch.empty_like(tensor)
            self.own[name].copy_(tensor)
        return time.perf_counter() - started

    def holds(self, name: str, value: float) -> bool:
        return bool((self.own[name] == value).all())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    numel = LAYER_MB * 2**20 // 2
    weights = {
        f"layer.{index}": torch.zeros(numel, dtype=torch.bfloat16)
        for index in range(options.megabytes // LAYER_MB)
    }
    num_bytes = sum(tensor.nbytes for tensor in weights.values())
    others = {name: torch.empty_like(tensor) for name, tensor in weights.items()}
    puts, reads, totals, copies = [], [], [], []
    with RayRuntime(ClusterConfig(), cpus=ENGINES):
        receivers = [ray.remote(Receiver).options(num_cpus=1).remote() for _ in range(ENGINES)]
        for repeat in range(options.repeats + 1):
            for tensor in weights.values():
                tensor.fill_(repeat)
            started = time.perf_counter()
            for name, tensor in weights.items():
                others[name].copy_(tensor)
            copies.append(time.perf_counter() - started)
            started = time.perf_counter()
            reference = ray.put(pack(weights.items()))
            puts.append(time.perf_counter() - started)
            reads.append(max(ray.get([receiver.receive.remote(reference) for receiver in receivers])))
            totals.append(time.perf_counter() - started)
            del reference
            last = f"layer.{len(weights) - 1}"
            assert all(ray.get([receiver.holds.remote(last, repeat) for receiver in receivers]))
    gib = num_bytes / 2**30
    copy, put, read, total = (statistics.median(times[1:]) for times in (copies, puts, reads, totals))
    share = statistics.median(
        ENGINES * whole / one for one, whole in zip(totals[1:], copies[1:], strict=True)
    )
    print(
        f"{len(weights)} bfloat16 tensors, {num_bytes / 1e6:.0f} MB, {ENGINES} engines, "
        f"median of {options.repeats}"
    )
    print(f"plain copy, one thread         {1000 * copy:7.0f} ms  {gib / copy:5.2f} GiB/s")
    print(f"put into the store             {1000 * put:7.0f} ms  {gib / put:5.2f} GiB/s")
    print(f"copied out, the slower engine  {1000 * read:7.0f} ms  {gib / read:5.2f} GiB/s")
    print(
        f"all of it, both engines        {1000 * total:7.0f} ms  {ENGINES * gib / total:5.2f} GiB/s delivered"
    )
    print(f"of plain copying: {share:.0%} (at least 30% wanted)")
    sys.exit(int(share < 0.3))


if __name__ == "__main__":
    main()
