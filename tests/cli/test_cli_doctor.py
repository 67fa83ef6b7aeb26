"""`verl-lite doctor`: the layers of isolation, for people and for machines."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from verl_lite.cli import doctor as doctor_module
from verl_lite.cli.app import app
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
    versions = doctor_module._package_versions()
    assert versions["pyarrow"]
    assert "torch" in versions
