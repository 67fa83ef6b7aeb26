"""Programs that try to get out, or to bring the machine down: see the corpus in attacks/*.txt.

Each cell there is a program, the statuses it may end with, and why it is worth trying. A program
prints ESCAPED when it got what it wanted.
"""

import dataclasses
import os
import platform
import re
import secrets
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from verl_lite.sandbox import Limits, Result, Sandbox, Status

FOLDER = Path(__file__).parents[1] / "attacks"
# Those that are meant to run out of time get little of it, the others enough for a busy machine.
LIMITS = Limits(wall_s=15.0, memory_mb=256, output_kb=256, processes=16)
SHORT = dataclasses.replace(LIMITS, wall_s=0.4)
# What programs may see in bubblewrap that the native backend hides, and why that gives them nothing.
SEEN_IN_BUBBLEWRAP = {
    "proc_files": r"(sys/kernel/core_pattern|keys|net/tcp) b",  # to read: its own, or no secret
    "kill_trainer": r"saw process 1$",  # bubblewrap itself, the init of the run's namespace
    "read_memory_of_others": r"maps '.*/bwrap|environ 'PATH=/usr/local/bin:/usr/bin:/bin.x00LANG=C.UTF-8",
    "run_own_binaries": r"(exec|shell) CompletedProcess",  # as compiled programs do, within the same limits
}
# Programs that end well there because what they try is refused outright.
REFUSED_IN_BUBBLEWRAP = {"shared_memory_left_to_children", "shared_memory_in_small_parts"}
# Programs that end otherwise without namespaces, since the kernel refuses a step that is harmless in one.
LANDLOCK_REFUSES: dict[str, set[str]] = {
    **{key: {"error"} for key in ("climb_out", "environment", "inherited_memory")},  # no list of /, no /proc
    **{key: {"error"} for key in ("kill_all", "kill_trainer", "stop_everything")},  # EPERM
    "run_own_binaries": {"error"},  # chmod, where the trainer has the same user
    # The folder is no file system of its own: whoever fills it is killed.
    **{key: {"memory"} for key in ("disk_bomb", "million_files", "mapped_files_left_to_children")},
}
# Programs that count what they got, and get nothing at all.
NOTHING_IN_LANDLOCK = dict.fromkeys(("shared_memory_folder_bomb", "open_file_bomb"), r"^ESCAPED 0$")
MACHINE_SPECIFIC = {"calls_of_another_architecture", "x32_calls", "machine_code"}


@dataclass(frozen=True)
class Attack:
    name: str
    statuses: set[str]
    why: str
    program: str


def read_corpus(file: Path) -> list[Attack]:
    attacks = []
    for cell in file.read_text().split("# %% ")[1:]:
        head, why, program = cell.split("\n", 2)
        name, _, statuses = head.partition(" | ")
        attacks.append(Attack(name, set(statuses.split()), why.removeprefix("# why: "), program))
    return attacks


ATTACKS = [attack for file in sorted(FOLDER.glob("*.txt")) for attack in read_corpus(file)]


class Outside:
    """What must not be reached: a secret file, variable and memory, and two listening sockets."""

    def __init__(self, folder: Path) -> None:
        self.secret = secrets.token_hex(16)
        self.file = folder / "secret"
        self.file.write_text(self.secret)
        self.planted = [f"planted:{self.secret[:8]}-{i}".encode() for i in range(100)]
        os.environ["VERL_LITE_TEST_TOKEN"] = self.secret
        self.reached: list[str] = []
        self.abstract_name = f"verl-lite-{self.secret[:8]}"
        self.tcp, self.abstract = socket.socket(), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.streams = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        for stream, address in zip(
            self.streams, (str(folder / "socket"), f"\0{self.abstract_name}-stream"), strict=True
        ):
            stream.bind(address)
            stream.listen()
        self.tcp.bind(("127.0.0.1", 0))
        self.tcp.listen()
        self.abstract.bind("\0" + self.abstract_name)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                connection, _ = self.tcp.accept()
                connection.close()
                self.reached.append("tcp")
        except OSError:
            return  # closed at the end

    def arguments(self) -> list[str]:
        port = str(self.tcp.getsockname()[1])
        return [str(self.file), port, self.abstract_name, str(os.getpid()), self.secret[::-1]]

    def close(self) -> None:
        os.environ.pop("VERL_LITE_TEST_TOKEN", None)
        self.tcp.close()
        for opened in (self.abstract, *self.streams):
            opened.close()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    things = Outside(tmp_path_factory.mktemp("outside"))
    yield things
    things.close()


def test_the_corpus_is_large_and_each_attack_says_why() -> None:
    assert len(ATTACKS) >= 75
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS)
    for attack in ATTACKS:
        assert attack.statuses <= set(Status), attack.name
        assert attack.why, attack.name
        assert attack.program.strip(), attack.name


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(attack: Attack, sandbox: Sandbox, outside: Outside) -> None:
    if not runs_here(attack):
        pytest.skip("machine code for x86_64")
    result = run(attack, sandbox, outside)
    assert result.status in attack.statuses, result
    after = sandbox.run_python("print('alive')")
    assert after.stdout == b"alive\n", after


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["bubblewrap", "landlock"])
def test_every_attack_in_another_backend(
    backend: str, request: pytest.FixtureRequest, outside: Outside
) -> None:
    """The same programs, several at a time; where another layer refuses, another status may be right."""
    sandbox: Sandbox = request.getfixturevalue(backend)
    seen = {"bubblewrap": SEEN_IN_BUBBLEWRAP, "landlock": NOTHING_IN_LANDLOCK}[backend]

    def fault(attack: Attack) -> str:
        try:
            result = run(attack, sandbox, outside, may_see=seen.get(attack.name))
            assert_allowed(backend, attack, result)
        except AssertionError as error:
            return f"{attack.name}: {error}"
        return ""

    attacks = [attack for attack in ATTACKS if runs_here(attack)]
    with ThreadPoolExecutor(4) as threads:
        faults = [found for found in threads.map(fault, attacks) if found]
    assert not faults, "\n".join(faults)
    assert [sandbox.run_python("print('alive')").stdout for _ in range(4)] == [b"alive\n"] * 4


def assert_allowed(backend: str, attack: Attack, result: Result) -> None:
    assert result.status is not Status.SANDBOX_ERROR, result
    if backend == "landlock":
        assert result.status in attack.statuses | LANDLOCK_REFUSES.get(attack.name, set()), result
    elif result.status is Status.OK:
        assert "ok" in attack.statuses or attack.name in REFUSED_IN_BUBBLEWRAP, result


def runs_here(attack: Attack) -> bool:
    return attack.name not in MACHINE_SPECIFIC or platform.machine() == "x86_64"


def run(attack: Attack, sandbox: Sandbox, outside: Outside, may_see: str | None = None) -> Result:
    files = {"attack.py": (FOLDER / "attack.py").read_bytes()}
    limits = SHORT if "timeout" in attack.statuses else LIMITS
    result = sandbox.run_python(attack.program, files=files, args=outside.arguments(), limits=limits)
    everything = result.stdout + result.stderr + result.reply
    text = everything.decode(errors="replace")
    got = [line for line in text.splitlines() if "ESCAPED" in line]
    assert [line for line in got if not (may_see and re.search(may_see, line))] == [], text
    assert outside.secret.encode() not in everything
    tries = "attempt(" in attack.program or "held" in attack.program
    if result.status is Status.OK and tries and not got:
        assert b"held" in everything, result  # it did try
    assert outside.file.read_text() == outside.secret
    assert outside.reached == []
    return result


def test_the_attacks_do_escape_without_a_sandbox(tmp_path: Path) -> None:
    """The corpus is not toothless: run plainly, its harmless part gets out."""
    import subprocess
    import sys

    outside = Outside(tmp_path)
    try:
        found = []
        for name in ("tcp_connect", "unix_sockets", "read_host_files", "environment", "symbolic_links"):
            program = next(attack.program for attack in ATTACKS if attack.name == name)
            (tmp_path / "attack.py").write_bytes((FOLDER / "attack.py").read_bytes())
            (tmp_path / "main.py").write_text(program)
            command = [sys.executable, str(tmp_path / "main.py"), *outside.arguments()]
            ran = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=60, check=False)
            found.append((name, b"ESCAPED" in ran.stdout))
        assert found == [(name, True) for name, _ in found]
    finally:
        outside.close()
