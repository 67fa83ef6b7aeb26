"""The sandbox's tests once more, as an ordinary user, when they run as root: the layers differ."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
LAUNCHER = FOLDER.parent / "run_as_user.py"


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("suites", "selected", "at_least"),
    [
        pytest.param(["attacks"], "not slow", 100, id="attacks"),
        pytest.param(["attacks"], "slow", 2, id="attacks in other backends", marks=pytest.mark.slow),
        pytest.param(
            ["limits", "programs", "lifetime", "backends", "languages", "landlock"],
            "not slow",
            100,
            id="rest",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_same_holds_as_an_ordinary_user(suites: list[str], selected: str, at_least: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("this is an ordinary user already")
    launcher = [sys.executable, str(LAUNCHER)]
    tried = subprocess.run([*launcher, sys.executable, "-c", "pass"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"cannot become another user here: {tried.stderr.decode()[-300:]}")
    tests = [str(FOLDER / f"test_sandbox_{name}.py") for name in suites]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", "-m", selected, *tests]
    ran = subprocess.run([*launcher, *command], capture_output=True, text=True, cwd=FOLDER, check=False)
    if "no isolation on this machine" in ran.stdout:
        pytest.skip("ordinary users cannot isolate here: " + ran.stdout[-500:])
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None
    assert int(passed.group(1)) >= at_least


WITHOUT_RIGHTS = """
from verl_lite.sandbox import Sandbox
program = '''
import os, time
count = 0
try:
    while count < 100:
        if os.fork() == 0:
            time.sleep(30)
        count += 1
except OSError:
    print(count, flush=True)
os._exit(0)
'''
with Sandbox(workers=1, backend="native") as sandbox:
    print(sandbox.run_python(program).stdout, sandbox.run_python("open('/etc/shadow')").status.value)
"""


WITHOUT_NAMESPACES = """
from verl_lite.errors import SandboxError
from verl_lite.sandbox import Sandbox
from verl_lite.verifiers.code import AssertTest, StdinTest, verify_code
try:
    Sandbox(workers=1)
except SandboxError as error:
    print("CAP_SYS_ADMIN" in str(error), "backend: landlock" in str(error))
with Sandbox(workers=1, backend="landlock") as sandbox:
    refused = "import os\\nos.chmod(os.__file__, 0o777)", "import os\\nos.kill(os.getppid(), 0)"
    print([sandbox.run_python(program).status.value for program in refused])
    for program, test in (
        ("print(6 * 7)", StdinTest(expected="42")),
        ("def f(x): return iter(x)", AssertTest(source="a = f([3, 4])\\nassert [*a] == [3, 4]")),
    ):
        verdict = verify_code(program, [test], sandbox=sandbox)
        print(verdict.outcome.value, verdict.details["isolation"])
"""


def test_where_no_namespace_is_allowed_landlock_isolates_for_those_who_ask() -> None:
    """Root in a user namespace of its own, without CAP_SYS_ADMIN: as in a pod that may do nothing."""
    shell = (
        "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin --inh-caps=-all "
        '"$@"'
    )
    command = ["unshare", "-Ur", "sh", "-c", shell, "sh", sys.executable, "-c"]
    tried = subprocess.run([*command, "pass"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no user namespaces here: {tried.stderr[-300:]}")
    ran = subprocess.run([*command, WITHOUT_NAMESPACES], capture_output=True, text=True, check=False)
    expected = "True True\n['error', 'error']\n" + 2 * "correct landlock\n"
    assert ran.stdout == expected, ran.stdout + ran.stderr[-2000:]


def test_root_without_the_right_to_make_namespaces_makes_a_user_namespace() -> None:
    """As in a container with the usual capabilities."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root and setpriv")
    launcher = [sys.executable, str(LAUNCHER), "--root", "/usr/bin/setpriv", "--bounding-set=-sys_admin"]
    command = [*launcher, "--inh-caps=-all", sys.executable, "-c", WITHOUT_RIGHTS]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if "user namespace" in ran.stderr or "Operation not permitted" in ran.stderr:
        pytest.skip(f"no user namespaces here: {ran.stderr[-300:]}")
    assert ran.stdout == "b'15\\n' error\n", ran.stdout + ran.stderr[-2000:]
