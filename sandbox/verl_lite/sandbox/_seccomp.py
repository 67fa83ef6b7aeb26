"""The seccomp filter: an allow-list in classic BPF, for x86_64 and aarch64.

A call that is not allowed fails with EPERM. A call through another architecture's entry point
(int 0x80, x32) kills the process, since its numbers mean other calls. Shared anonymous memory is in no
process's resident set once it is unmapped where it was written, so the supervisor is asked about each
mapping of it (`_questions`); where nobody can be asked, it is refused. Without namespaces the filters stand
in for them: the supervisor is also asked about new processes and about signals, and what reaches other
processes or files of the same user is refused.
"""

import struct

from verl_lite.sandbox import _kernel, _syscalls

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
_ALLOW, _KILL, _ERRNO, _ASK = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000
_EPERM, _ENOSYS = 1, 38
# Offsets in struct seccomp_data, low halves.
_NUMBER, _ARCH, _ARG0, _ARG1, _ARG2, _ARG3 = 0, 4, 16, 24, 32, 40

# CLONE_PARENT makes the child the fork server's: the kernel would wait for it before it ends the namespace.
_REFUSED_FLAGS = (
    0x8000  # CLONE_PARENT
    | _kernel.CLONE_NEWNS
    | _kernel.CLONE_NEWUTS
    | _kernel.CLONE_NEWIPC
    | _kernel.CLONE_NEWUSER
    | _kernel.CLONE_NEWPID
    | _kernel.CLONE_NEWNET
    | 0x02000000  # CLONE_NEWCGROUP
)
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET = 1, 1, 5
_SHARED, _SHARED_ANONYMOUS = 0x01, 0x21  # MAP_SHARED, and with MAP_ANONYMOUS
_F_SETPIPE_SZ = 1031
# Signals from descriptors, and leases of files: F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY;
# FIOSETOWN, SIOCSPGRP.
_F_OWNERS, _IO_OWNERS = (8, 10, 15, 1024, 1026), (0x8901, 0x8902)
_SOL_SOCKET, _BUFFER_SIZES = 1, (7, 8, 32, 33)  # SO_SNDBUF, SO_RCVBUF, and what forces them
# PDEATHSIG, GET/SET_DUMPABLE, SET/GET_NAME, GET_SECCOMP, CAPBSET_READ, TIMERSLACK, GET_NO_NEW_PRIVS,
# SET_VMA (names of malloc's areas): what libraries use and what affects only the caller.
_PRCTL_OPTIONS = (1, 2, 3, 4, 15, 16, 21, 23, 29, 30, 39, 0x53564D41)
_PRCTL_WITHOUT_NAMESPACES = _PRCTL_OPTIONS[1:3] + _PRCTL_OPTIONS[4:]  # dies with its parent

_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ABOVE, _JUMP_ANY_BIT, _AND = 0x15, 0x35, 0x25, 0x45, 0x54


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Ranges of consecutive numbers: a few comparisons instead of one per call.

    >>> _ranges([1, 2, 3, 7])
    [(1, 3), (7, 7)]
    """
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def _checked_call(number: int, body: list[bytes]) -> list[bytes]:
    """`body` decides about call `number` and always returns; other numbers skip it. -1: there is no call."""
    if number < 0:
        return []
    return [_instruction(_JUMP_EQUAL, number, 0, len(body)), *body]


_RETURN_ALLOW = _instruction(_RETURN, _ALLOW)
_RETURN_ASK = _instruction(_RETURN, _ASK)
_RETURN_KILL = _instruction(_RETURN, _KILL)
_RETURN_EPERM = _instruction(_RETURN, _ERRNO | _EPERM)
_RETURN_ENOSYS = _instruction(_RETURN, _ERRNO | _ENOSYS)
_RETURN_NOTHING_DONE = _instruction(_RETURN, _ERRNO)  # the caller sees success


def _equals(offset: int, values: tuple[int, ...], *, then: bytes, otherwise: bytes) -> list[bytes]:
    """`then` when the argument at `offset` is one of `values`."""
    tests = [_instruction(_JUMP_EQUAL, v, len(values) - i, 0) for i, v in enumerate(values)]
    return [_instruction(_LOAD, offset), *tests, otherwise, then]


def _one_of(offset: int, values: tuple[int, ...]) -> list[bytes]:
    return _equals(offset, values, then=_RETURN_ALLOW, otherwise=_RETURN_EPERM)


def _none_of(offset: int, values: tuple[int, ...]) -> list[bytes]:
    return _equals(offset, values, then=_RETURN_EPERM, otherwise=_RETURN_ALLOW)


def _refuse_if(offset: int, test: int, value: int) -> list[bytes]:
    """EPERM when the argument at `offset` passes the `test` against `value`, else allow."""
    return [_instruction(_LOAD, offset), _instruction(test, value, 0, 1), _RETURN_EPERM, _RETURN_ALLOW]


_CLONE_BODY = _refuse_if(_ARG0, _JUMP_ANY_BIT, _REFUSED_FLAGS)
# Streams of the UNIX family only: a datagram socket from socketpair could still send to other addresses.
_SOCKET_BODY = [
    _instruction(_LOAD, _ARG0),
    _instruction(_JUMP_EQUAL, _AF_UNIX, 0, 4),
    _instruction(_LOAD, _ARG1),
    _instruction(_AND, 0xF),
    _instruction(_JUMP_EQUAL, _SOCK_STREAM, 2, 0),
    _instruction(_JUMP_EQUAL, _SOCK_SEQPACKET, 1, 0),
    _RETURN_EPERM,
    _RETURN_ALLOW,
]
# What a buffer holds is in no process's memory; its default size is all it gets.
_SETSOCKOPT_BODY = [
    _instruction(_LOAD, _ARG1),
    _instruction(_JUMP_EQUAL, _SOL_SOCKET, 0, len(_BUFFER_SIZES) + 1),
    *_equals(_ARG2, _BUFFER_SIZES, then=_RETURN_NOTHING_DONE, otherwise=_RETURN_ALLOW),
]
_FCNTL_BODY = _refuse_if(_ARG1, _JUMP_EQUAL, _F_SETPIPE_SZ)


def _mmap_body(flags: int, decision: bytes) -> list[bytes]:
    return [
        _instruction(_LOAD, _ARG3),
        _instruction(_AND, flags),
        _instruction(_JUMP_EQUAL, flags, 0, 1),
        decision,
        _RETURN_ALLOW,
    ]


def _start(machine: str) -> list[bytes]:
    if machine not in _ARCHITECTURE:
        raise ValueError(f"no seccomp filter for {machine!r}: known are {', '.join(_ARCHITECTURE)}")
    return [
        _instruction(_LOAD, _ARCH),
        _instruction(_JUMP_EQUAL, _ARCHITECTURE[machine], 1, 0),
        _RETURN_KILL,
        _instruction(_LOAD, _NUMBER),
        _instruction(_JUMP_AT_LEAST, _X32_BIT, 0, 1),
        _RETURN_KILL,
    ]


def server_filter(machine: str = _kernel.MACHINE, *, namespaces: bool = True) -> bytes:
    """The allow-list plus what the fork server itself needs; installed once, by the fork server.

    On installation the kernel evaluates a filter for every system call, which takes about a third of
    a millisecond. So runs inherit this long filter, and each adds only `run_filter`. Raises ValueError
    for a machine whose call numbers we do not know.
    """
    start = _start(machine)
    column = _syscalls.COLUMN[machine]
    allowed = {*_syscalls.allowed_numbers(machine), *(numbers[column] for numbers in _syscalls.SET_UP)}
    allowed |= {numbers[column] for numbers in (_syscalls.CLONE, _syscalls.PRCTL)}
    counted = _SHARED_ANONYMOUS
    if not namespaces:
        asked = [numbers[column] for numbers in (*_syscalls.FORKS, *_syscalls.SIGNALS)]
        for number in asked:
            start += _checked_call(number, [_RETURN_ASK])
        allowed -= set(asked)
        # A shared file that is unlinked is in no folder and in no process: its mappings are counted too.
        counted = _SHARED
    return b"".join(start) + _allow_list(machine, sorted(allowed), _mmap_body(counted, _RETURN_ASK))


def _allow_list(machine: str, numbers: list[int], mmap_body: list[bytes]) -> bytes:
    program: list[bytes] = []
    column = _syscalls.COLUMN[machine]
    for first, last in _ranges(numbers):
        program.append(_instruction(_JUMP_AT_LEAST, first, 0, 2))
        program.append(_instruction(_JUMP_ABOVE, last, 1, 0))
        program.append(_RETURN_ALLOW)
    for call, body in (
        (_syscalls.MMAP, mmap_body),
        (_syscalls.FCNTL, _FCNTL_BODY),
        (_syscalls.SOCKET, _SOCKET_BODY),
        (_syscalls.SOCKETPAIR, _SOCKET_BODY),
        (_syscalls.SETSOCKOPT, _SETSOCKOPT_BODY),
        (_syscalls.CLONE3, [_RETURN_ENOSYS]),
    ):
        program += _checked_call(call[column], body)
    program.append(_RETURN_EPERM)
    return b"".join(program)


def _checks_of_a_run(machine: str) -> list[bytes]:
    column = _syscalls.COLUMN[machine]
    return [
        *_checked_call(_syscalls.CLONE[column], _CLONE_BODY),
        *_checked_call(_syscalls.PRCTL[column], _one_of(_ARG0, _PRCTL_OPTIONS)),
    ]


def strict_filter(machine: str = _kernel.MACHINE) -> bytes:
    """Both filters in one, for a program started by another launcher (bubblewrap)."""
    program = b"".join([*_start(machine), *_checks_of_a_run(machine)])
    return program + _allow_list(
        machine, _syscalls.allowed_numbers(machine), _mmap_body(_SHARED_ANONYMOUS, _RETURN_EPERM)
    )


def run_filter(machine: str = _kernel.MACHINE, *, namespaces: bool = True, own_user: bool = True) -> bytes:
    """Denies what only the fork server needed. Both filters apply, and the stricter wins.

    `own_user` says whether nothing but the sandbox belongs to the user of a run.
    """
    program = _start(machine)
    column = _syscalls.COLUMN[machine]
    for numbers in _syscalls.SET_UP:
        program += _checked_call(numbers[column], [_RETURN_EPERM])
    if not namespaces:
        program += _checks_without_namespaces(column, own_user=own_user)
    return b"".join([*program, *_checks_of_a_run(machine), _RETURN_ALLOW])


def _checks_without_namespaces(column: int, *, own_user: bool) -> list[bytes]:
    """Refuse what would reach processes, sockets and files outside of the run."""
    # To hide from the run's other processes is not needed, for none has a /proc; the supervisor has to see.
    hidden_already = [
        _instruction(_LOAD, _ARG0),
        _instruction(_JUMP_EQUAL, _kernel.PR_SET_DUMPABLE, 0, 1),
        _RETURN_NOTHING_DONE,
    ]
    itself = [_instruction(_LOAD, _ARG1), _instruction(_JUMP_EQUAL, 0, 1, 0), _RETURN_EPERM]
    checks = [
        *((call, [_RETURN_EPERM]) for call in _syscalls.WITH_ADDRESSES),  # pairs are made by another call
        (_syscalls.PRCTL, [*hidden_already, *_one_of(_ARG0, _PRCTL_WITHOUT_NAMESPACES)]),
        (_syscalls.FCNTL, _none_of(_ARG1, (_F_SETPIPE_SZ, *_F_OWNERS))),
        (_syscalls.IOCTL, _none_of(_ARG1, _IO_OWNERS)),
        (_syscalls.SETPRIORITY, [*itself, *_one_of(_ARG0, (0,))]),
        *((call, _one_of(_ARG0, (0,))) for call in _syscalls.ON_ONESELF),
        *((call, [_RETURN_EPERM]) for call in _syscalls.BY_OWNERS if not own_user),
    ]
    return [part for call, body in checks for part in _checked_call(call[column], body)]
