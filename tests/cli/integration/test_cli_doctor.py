"""`verl-lite doctor`: the layers of isolation, for people and for machines."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from verl_lite.cli.app import app
from verl_lite.cli.versions import TESTED, installed_versions, untested
from verl_lite.engine.cluster import NodeReport, version_mismatches
from verl_lite.sandbox import Layer, State

WORKING = [Layer("seccomp", State.ACTIVE, "an allow-list"), Layer("python backend", State.ACTIVE, "native")]
BROKEN = [
    Layer("user namespace", State.MISSING, "not permitted"),
    Layer("python backend", State.MISSING, "no"),
]


@pytest.mark.parametrize(("layers", "code"), [(WORKING, 0), (BROKEN, 1)])
def test_doctor_tables_and_json(layers: list[Layer], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verl_lite.sandbox.probe", lambda: layers)
    tables = CliRunner().invoke(app, ["doctor"])
    assert tables.exit_code == code
    assert ("can NOT be isolated" in tables.output) == (code == 1)
    assert layers[0].detail in tables.output
    as_json = CliRunner().invoke(app, ["doctor", "--json"])
    assert as_json.exit_code == code
    answer = json.loads(as_json.output)
    assert answer["can_isolate"] == (code == 0)
    assert [row["state"] for row in answer["layers"]] == [layer.state for layer in layers]
    assert answer["versions"]["verl-lite"]


def test_doctor_does_not_import_torch() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from verl_lite.cli.app import app\n"
        "CliRunner().invoke(app, ['doctor']); print('torch' in sys.modules, 'vllm' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False False\n"


def test_doctor_names_its_packages() -> None:
    versions = installed_versions()
    assert versions["pyarrow"]
    assert "torch" in versions


def test_a_version_outside_the_tested_range_is_noted() -> None:
    assert list(untested({name: newest for name, (_, newest) in TESTED.items()})) == []
    assert list(untested({"ray": "2.61.3", "torch": "2.8.0+cu128", "transformers": None})) == [
        "torch 2.8.0+cu128 is older than what the tests ran with (2.13)",
        "ray 2.61.3 is newer than what the tests ran with (2.60)",
    ]


def test_the_installed_versions_are_those_of_the_page() -> None:
    """The newest tested versions are what this environment has, where it has them."""
    assert list(untested(installed_versions())) == []


def _node(name: str, **versions: str | None) -> NodeReport:
    return NodeReport(name=name, versions=versions, round_trip_s=0.001, sees_folder=True)


def test_versions_that_differ_between_nodes_are_named() -> None:
    nodes = [
        _node("a", python="3.11.2", torch="2.13.0"),
        _node("b", python="3.11.2", torch="2.12.0"),
        _node("c", python="3.11.2", torch="2.13.0", brevity="1.0"),
    ]
    assert version_mismatches(nodes) == [
        "brevity differs: not installed on a, b; 1.0 on c",
        "torch differs: 2.13.0 on a, c; 2.12.0 on b",
    ]
    assert version_mismatches(nodes[:1]) == []


def test_an_address_without_cluster_is_refused() -> None:
    refused = CliRunner().invoke(app, ["doctor", "--address", "auto"])
    assert refused.exit_code == 1
    assert "--cluster" in str(refused.exception)


@pytest.mark.slow
def test_doctor_of_a_cluster_of_two_nodes(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        arguments = ["doctor", "--cluster", "--address", cluster.address, "--runs", str(tmp_path / "runs")]
        fine = _doctor(*arguments, "--json")
        assert fine.returncode == 0, fine.stderr
        report = json.loads(fine.stdout)
        assert sorted(node["cpus"] for node in report["nodes"]) == [1.0, 2.0]
        assert all(node["round_trip_s"] < 5 and node["sees_folder"] for node in report["nodes"])
        assert {node["versions"]["python"] for node in report["nodes"]} == {platform.python_version()}
        assert not list((tmp_path / "runs").iterdir())
        assert fine.stderr == ""
        text = _doctor(*arguments)
        assert text.stdout.splitlines()[-1] == "2 nodes, fine together"
        cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)
        broken = _doctor(*arguments)
        assert broken.returncode == 1
        assert " is dead" in broken.stdout
    finally:
        cluster.shutdown()


def _doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from verl_lite.cli.app import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)
