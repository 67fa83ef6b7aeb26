"""The hook of tests/conftest.py: a file's folder sets its tier, and nothing else does."""

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[2] / "conftest.py"
PASSES = "def test_it(): pass\n"
STARTS = "import subprocess, sys\ndef test_it(): subprocess.run([sys.executable, '-c', ''], check=True)\n"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """An empty test suite with the hook; `--co` lists what it collects."""
    pytester.makeconftest(CONFTEST.read_text())
    tiers = "\n".join(f"  {name}: a tier" for name in ("unit", "integration", "golden", "e2e"))
    pytester.makeini(f"[pytest]\naddopts = --import-mode=importlib --strict-markers -q\nmarkers =\n{tiers}\n")
    return pytester


def write(suite: pytest.Pytester, **files: str) -> None:
    """`room__unit__test_a=...` is the file room/unit/test_a.py."""
    for name, text in files.items():
        path = suite.path.joinpath(*name.split("__")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("tier", ["unit", "integration", "golden", "e2e"])
def test_a_tier_is_chosen_by_its_marker_which_the_folder_sets(suite: pytest.Pytester, tier: str) -> None:
    write(suite, **{f"{room}__{name}__test_a": PASSES for room in "ab" for name in ("unit", "golden", "e2e")})
    write(suite, a__deep__integration__test_a=PASSES, b__integration__test_a=PASSES)
    found = suite.runpytest_inprocess("--co", "-m", tier).outlines
    collected = [line for line in found if "::" in line]
    assert len(collected) == 2
    assert all(f"/{tier}/test_a.py::test_it" in line for line in collected)


@pytest.mark.parametrize("file", ["test_a", "room__test_a", "room__unit__deeper__test_a"])
def test_a_file_without_a_tier_fails_the_collection(suite: pytest.Pytester, file: str) -> None:
    write(suite, room__unit__test_fine=PASSES, **{file: PASSES})
    result = suite.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_a.py: has no tier: move it into a folder named unit or integration*"])


def test_a_tier_that_a_file_writes_is_refused(suite: pytest.Pytester) -> None:
    write(suite, room__golden__test_a="import pytest\n@pytest.mark.unit\n" + PASSES)
    result = suite.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*test_a.py::test_it: is marked unit: remove that, its folder says golden*"])


def test_a_unit_test_that_starts_a_process_fails(suite: pytest.Pytester) -> None:
    write(suite, room__unit__test_a=STARTS, room__integration__test_a=STARTS)
    result = suite.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["room/unit/test_a.py:2:*", "E *AssertionError: a unit test starts no process: move this one*"]
    )
