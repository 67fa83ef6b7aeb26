"""Libraries that programs find imported, and those that they do not find at all."""

import importlib.util
import sysconfig
from pathlib import Path

import pytest

from verl_lite.errors import SandboxError
from verl_lite.sandbox import LIBRARY_SETS, Limits, Sandbox, Status

USES = {
    "numpy": ("import numpy as np\nprint(np.arange(4).sum())", b"6\n"),
    "pandas": ("import pandas as pd\nprint(pd.Series([1, 2]).sum())", b"3\n"),
    "scipy": ("from scipy.special import comb\nprint(int(comb(4, 2)))", b"6\n"),
    "sympy": ("import sympy\nprint(sympy.factorint(12))", b"{2: 2, 3: 1}\n"),
    "networkx": ("import networkx as nx\nprint(nx.path_graph(4).number_of_edges())", b"3\n"),
    "sortedcontainers": ("from sortedcontainers import SortedList\nprint(SortedList([2, 1])[0])", b"1\n"),
}
INSTALLED = [name for name in USES if importlib.util.find_spec(name)]
shown = pytest.mark.skipif(
    Path(sysconfig.get_path("purelib")).is_relative_to("/tmp"),
    reason="a run's own /tmp hides what lies below it",
)


@shown
def test_installed_libraries_are_imported_before_any_program() -> None:
    if not INSTALLED:
        pytest.skip("none of them is installed")
    with Sandbox(workers=1, backend="native", libraries=INSTALLED) as sandbox:
        for name in INSTALLED:
            program, stdout = USES[name]
            loaded = f"import sys\nassert {name!r} in sys.modules\n{program}"
            result = sandbox.run_python(loaded, limits=Limits(wall_s=20))
            assert (result.status, result.stdout) == (Status.OK, stdout), result
        assert sandbox.missing_modules("import os, numpy.linalg\nfrom torch_x import nn") == ["torch_x"]


@shown
def test_random_numbers_differ_between_runs() -> None:
    pytest.importorskip("numpy")
    with Sandbox(workers=1, backend="native", libraries=["arrays"]) as sandbox:
        drawn = {sandbox.run_python("import numpy\nprint(numpy.random.rand())").stdout for _ in range(3)}
    assert len(drawn) == 3


def test_sets_are_names_for_libraries() -> None:
    assert "numpy" in LIBRARY_SETS["science"]
    with pytest.raises(SandboxError, match=r"libraries: no_such_library not installed.*sets arrays, "):
        Sandbox(libraries=["no_such_library"])


def test_what_a_program_imports_and_does_not_find(sandbox: Sandbox) -> None:
    assert sandbox.missing_modules("import json, numpy\nif x:\n    import pandas.core") == ["numpy", "pandas"]
    assert sandbox.missing_modules("from . import a\nimport numpy.") == []
