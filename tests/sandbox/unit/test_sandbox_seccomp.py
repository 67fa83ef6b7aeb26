"""The system-call filters, run in a BPF interpreter for both architectures: no kernel needed."""

import struct
from pathlib import Path

import pytest

from verl_lite.sandbox import _seccomp, _syscalls

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
NOTHING_DONE, ASK = 0x00050000, 0x7FC00000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE_THREAD = 0x3D0F00


def decide(program: bytes, number: int, architecture: int, *arguments: int) -> int:
    """What `program` answers to one system call: a small interpreter of classic BPF."""
    data = struct.pack("<IIQ6Q", number, architecture, 0, *(list(arguments) + [0] * 6)[:6])
    code = [struct.unpack_from("<HBBI", program, i) for i in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        operation, if_true, if_false, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return value
        else:
            tests = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }
            at += if_true if tests[operation] else if_false


def both(machine: str, number: int, *arguments: int) -> int:
    """The stricter of the fork server's filter and the run's, as the kernel takes it."""
    architecture = ARCHITECTURES[machine]
    answers = [
        decide(program, number, architecture, *arguments)
        for program in (_seccomp.server_filter(machine), _seccomp.run_filter(machine))
    ]
    return ALLOW if answers == [ALLOW, ALLOW] else next(a for a in answers if a != ALLOW)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_exactly_the_list_is_allowed(machine: str) -> None:
    column = _syscalls.COLUMN[machine]
    special = {numbers[column] for numbers in (*_syscalls.DECIDED_BY_ARGUMENTS, _syscalls.CLONE3)}
    allowed = {number for number in range(600) if number not in special and both(machine, number) == ALLOW}
    assert allowed == set(_syscalls.allowed_numbers(machine))
    strict = _seccomp.strict_filter(machine)
    for number in range(600):
        assert decide(strict, number, ARCHITECTURES[machine]) == both(machine, number), number


ARGUMENTS = [
    ("CLONE", (17,), ALLOW),
    ("CLONE", (CLONE_THREAD,), ALLOW),
    *(
        ("CLONE", (CLONE_THREAD | flag,), EPERM)
        for flag in (0x8000, 0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
    ),
    ("CLONE3", (), ENOSYS),
    ("PRCTL", (15,), ALLOW),
    ("PRCTL", (3,), ALLOW),
    ("PRCTL", (4, 0), ALLOW),
    ("PRCTL", (22,), EPERM),
    ("PRCTL", (38,), EPERM),
    ("PRCTL", (8,), EPERM),
    *((call, (1, kind), ALLOW) for call in ("SOCKET", "SOCKETPAIR") for kind in (1, 5, 1 | 0o2000000)),
    *(
        (call, which, EPERM)
        for call in ("SOCKET", "SOCKETPAIR")
        for which in ((1, 2), (1, 3), (2, 1), (10, 1), (16, 3), (40, 1))
    ),
    *(("SETSOCKOPT", (3, 1, option), NOTHING_DONE) for option in (7, 8, 32, 33)),
    ("SETSOCKOPT", (3, 1, 20), ALLOW),  # a receive timeout
    ("SETSOCKOPT", (3, 6, 7), ALLOW),  # another level
    ("FCNTL", (3, 1031, 1 << 20), EPERM),
    ("FCNTL", (3, 1030), ALLOW),
    ("MMAP", (0, 4096, 3, 0x22), ALLOW),  # private
    ("MMAP", (0, 4096, 3, 0x01, 5), ALLOW),  # a file, shared
    ("MMAP", (0, 4096, 3, 0x21), ASK),
    ("MMAP", (0, 4096, 3, 0x23), ASK),  # MAP_SHARED_VALIDATE
]


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("call", "arguments", "answer"), ARGUMENTS)
def test_arguments_decide(machine: str, call: str, arguments: tuple[int, ...], answer: int) -> None:
    number = getattr(_syscalls, call)[_syscalls.COLUMN[machine]]
    assert both(machine, number, *arguments) == answer
    strict = decide(_seccomp.strict_filter(machine), number, ARCHITECTURES[machine], *arguments)
    assert strict == (EPERM if answer == ASK else answer)  # bubblewrap has nobody to ask


WITHOUT_NAMESPACES = [
    *((numbers, (17,), ASK) for numbers in (*_syscalls.FORKS, *_syscalls.SIGNALS)),
    (_syscalls.CLONE, (0x10000000 | 17,), EPERM),
    *((numbers, (1, 1), EPERM) for numbers in _syscalls.WITH_ADDRESSES),
    (_syscalls.SOCKETPAIR, (1, 1), ALLOW),
    *((_syscalls.PRCTL, (option,), EPERM) for option in (1, 22, 36, 38)),
    (_syscalls.PRCTL, (4, 0), NOTHING_DONE),
    *((_syscalls.PRCTL, (option,), ALLOW) for option in (2, 3, 15, 0x53564D41)),
    *((_syscalls.FCNTL, (3, command), EPERM) for command in (8, 10, 15, 1024, 1031)),
    (_syscalls.FCNTL, (3, 4), ALLOW),
    *((_syscalls.IOCTL, (3, request), EPERM) for request in (0x8901, 0x8902)),
    (_syscalls.IOCTL, (3, 0x5401), ALLOW),
    (_syscalls.SETPRIORITY, (0, 0, 5), ALLOW),
    *((_syscalls.SETPRIORITY, arguments, EPERM) for arguments in ((0, 9, 5), (2, 0, 5), (1, 0, 5))),
    *((numbers, (0,), ALLOW) for numbers in _syscalls.ON_ONESELF),
    *((numbers, (9,), EPERM) for numbers in _syscalls.ON_ONESELF),
    *((numbers, (), EPERM) for numbers in _syscalls.BY_OWNERS),
    (_syscalls.MMAP, (0, 4096, 3, 0x22), ALLOW),
    *((_syscalls.MMAP, (0, 4096, 3, flags), ASK) for flags in (0x01, 0x21, 0x03)),
]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_without_namespaces_what_reaches_others_is_refused_or_asked_about(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    server = _seccomp.server_filter(machine, namespaces=False)
    run = _seccomp.run_filter(machine, namespaces=False, own_user=False)
    for numbers, arguments, expected in WITHOUT_NAMESPACES:
        number = numbers[_syscalls.COLUMN[machine]]
        if number < 0:
            continue
        answers = {decide(program, number, architecture, *arguments) for program in (server, run)}
        assert (answers - {ALLOW} or {ALLOW}) & {expected}, (number, arguments, answers)
    column = _syscalls.COLUMN[machine]
    usual = set(_syscalls.allowed_numbers(machine))
    asked = {numbers[column] for numbers in (*_syscalls.FORKS, *_syscalls.SIGNALS)}
    owners = {numbers[column] for numbers in (*_syscalls.BY_OWNERS, *_syscalls.WITH_ADDRESSES)}
    special = {numbers[column] for numbers in (*_syscalls.DECIDED_BY_ARGUMENTS, _syscalls.CLONE3)}
    for number in range(600):
        allowed = {decide(program, number, architecture) for program in (server, run)} == {ALLOW}
        assert allowed <= (number in usual - asked - owners or number in special), number


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_other_architectures_are_killed(machine: str) -> None:
    for program in (_seccomp.server_filter(machine), _seccomp.run_filter(machine)):
        assert decide(program, 20, 0x40000003) == KILL  # i386
        assert decide(program, 0x40000000, ARCHITECTURES[machine]) == KILL  # x32


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        _seccomp.server_filter("riscv64")


@pytest.mark.parametrize(
    ("machine", "header"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        ("aarch64", "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_numbers_agree_with_the_kernels_headers(machine: str, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    numbers = {}
    for line in Path(header).read_text().splitlines():
        words = line.split()
        if len(words) >= 3 and words[0] == "#define" and words[2].isdigit():
            name = words[1].removeprefix("__NR3264_").removeprefix("__NR_")
            numbers[{"fstatat": "newfstatat"}.get(name, name)] = int(words[2])
    for entry in _syscalls.ALLOWED.split():
        name, *columns = entry.split(":")
        number = int(columns[_syscalls.COLUMN[machine]])
        assert numbers.get(name, -1) == number, name
    names = [
        "mount",
        "unshare",
        "setns",
        "setresuid",
        "setresgid",
        "setgroups",
        "capset",
        "landlock_restrict_self",
        "pidfd_send_signal",
    ]
    column = _syscalls.COLUMN[machine]
    assert [numbers[name] for name in names] == [pair[column] for pair in _syscalls.SET_UP]
