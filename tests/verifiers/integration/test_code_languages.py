"""Test code in the program's own language, as MultiPL-E has it: the program may be whole, or a body alone."""

import shutil
from typing import Any

import pytest

from verl_lite.sandbox import Limits, Sandbox
from verl_lite.verifiers.code import CodeOptions, load_tests, verify_code

ROWS: dict[str, tuple[str, dict[str, Any], list[str], str]] = {
    "cpp": (
        "g++",
        {
            "language": "cpp",
            "prompt": "#include<assert.h>\n#include<vector>\n// The sum.\nlong add(long a, long b) {\n",
            "tests": "}\nint main() {\n    auto candidate = add;\n    assert(candidate(1, 2) == (3));\n}\n",
        },
        ["    return a + b;\n", "long add(long a, long b) {\n    return a + b;\n}\n"],
        "    return 4;\n",
    ),
    "js": (
        "node",
        {
            "language": "js",
            "prompt": "//The sum.\nfunction add(a, b){\n",
            "tests": "const assert = require('node:assert');\nassert.deepEqual(add(1, 2), 3);\n",
        },
        ["  return a + b;\n}\n", "function add(a, b) {\n  return a + b;\n}\n"],
        "  return 4;\n}\n",
    ),
    "sh": (
        "bash",
        {
            "language": "sh",
            "prompt": "#!/bin/bash\n# The sum.\nadd() {\n",
            "tests": "}\nset -e\n[[ $(add 1 2) = 3 ]]\n",
        },
        ["    echo $(($1 + $2))\n"],
        "    echo 4\n",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_other_languages(name: str) -> None:
    tool, columns, right, wrong = ROWS[name]
    if shutil.which(tool) is None or shutil.which("bwrap") is None:
        pytest.skip(f"{tool} or bubblewrap is not installed")
    loaded = load_tests(columns)
    options = CodeOptions(language=loaded.language, limits=Limits(wall_s=20))
    with Sandbox(workers=1) as sandbox:
        for program in right:
            verdict = verify_code(program, loaded.tests, options=options, sandbox=sandbox)
            assert (verdict.outcome, verdict.details["trusting"]) == ("correct", 1), verdict.reason
        assert verify_code(wrong, loaded.tests, options=options, sandbox=sandbox).outcome == "wrong"


def test_they_trust_the_program() -> None:
    loaded = load_tests(ROWS["js"][1])
    options = CodeOptions(language=loaded.language, trusting_tests="refuse")
    verdict = verify_code("process.exit(0)", loaded.tests, options=options)
    assert verdict.outcome == "bad_reference"
    assert "part of the program" in verdict.reason
