"""The wheel holds every room and data file, and importing the contract stays light."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOMS = ("sandbox", "verifiers", "plugins", "engine")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    [built] = folder.glob("verl_lite-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_file_of_every_room_is_in_the_wheel(names: set[str]) -> None:
    sources = {
        str(path.relative_to(ROOT / room))
        for room in ROOMS
        for path in (ROOT / room / "verl_lite").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == sources


def test_what_is_no_python_is_there_too(names: set[str]) -> None:
    assert {
        "verl_lite/lab/attack/corpus.jsonl",
        "verl_lite/lab/authoring/template/pyproject.toml.in",
        "verl_lite/lab/report/assets/page.html",
        "verl_lite/lab/report/assets/vendor/temml.min.js",
    } <= names
    rooms = {name.split("/")[1] for name in names if name.startswith("verl_lite/")}
    assert rooms == {"cli", "engine", "errors", "lab", "plugins", "sandbox", "verifiers", "workers"}
    assert {f"verl_lite/{room}/py.typed" for room in rooms} <= names
    assert "verl_lite/__init__.py" not in names


def test_the_contract_is_imported_from_the_wheel_without_heavy_packages(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    packages = [str(tmp_path), *(path for path in sys.path if path.endswith("site-packages"))]
    code = (
        f"import sys; sys.path += {packages!r}\n"
        "import verl_lite.plugins as plugins\n"
        f"assert plugins.__file__.startswith({str(tmp_path)!r}), plugins.__file__\n"
        "heavy = {'torch', 'vllm', 'transformers', 'sympy', 'pyarrow', 'numpy', 'typer', 'rich', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "missing = [name for name in plugins.__all__ if not hasattr(plugins, name)]\n"
        "print(missing, sorted({'torch', 'vllm', 'transformers', 'sympy', 'pyarrow'} & set(sys.modules)))\n"
    )
    # -S leaves out the editable install, so that the wheel's is the only verl_lite
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n[] []\n", done.stderr


def test_an_unknown_name_is_an_attribute_error() -> None:
    import verl_lite.plugins

    with pytest.raises(AttributeError, match=r"No verl_lite\.plugins attribute scorer_of_rewards"):
        _ = verl_lite.plugins.scorer_of_rewards


def test_importing_the_plugin_room_never_imports_torch() -> None:
    code = "import sys, verl_lite.plugins; print(sorted({'torch', 'vllm', 'sympy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
