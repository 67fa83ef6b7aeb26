"""Compiled languages: compiled once per program, within the compiler's own limits, and nothing inherited."""

import fcntl
import os
import threading
import time
from collections.abc import Callable

import pytest

from verl_lite.sandbox import Limits, Result, Sandbox, Status

Run = Callable[..., Result]
ADD_ONE = {
    "python": "print(int(input()) + 1)",
    "bash": "read x; echo $((x + 1))",
    "c": '#include <stdio.h>\nint main(){int x;scanf("%d",&x);printf("%d\\n",x+1);}',
    "cpp": "#include <iostream>\nint main(){int x;std::cin>>x;std::cout<<x+1<<std::endl;}",
    "go": 'package main\nimport "fmt"\nfunc main(){var x int;fmt.Scan(&x);fmt.Println(x+1)}',
    "java": (
        "import java.util.Scanner;\npublic class Solution {\n public static void main(String[] a) {\n"
        "  System.out.println(new Scanner(System.in).nextInt() + 1);\n }\n}"
    ),
    "javascript": "console.log(parseInt(require('fs').readFileSync(0)) + 1)",
    "rust": (
        "use std::io;\nfn main(){let mut s=String::new();io::stdin().read_line(&mut s).unwrap();"
        'println!("{}", s.trim().parse::<i32>().unwrap()+1);}'
    ),
    "typescript": (
        "const x: number = parseInt(require('fs').readFileSync(0, 'utf8')); console.log(x + 1 as number)"
    ),
}
BROKEN = {
    "c": "int main() {",
    "cpp": "int main() {",
    "go": "package main\nfunc main() {",
    "java": "class Main {",
    "rust": "fn main() {",
    "typescript": "const x: = 1 +",
}
FAILING = {"python": "print(1 / 0)", "bash": "exit 5", "javascript": "throw new Error('x')"}
MACRO_BOMB = "\n".join(
    [
        "#define A0 1,",
        *(f"#define A{i + 1} A{i} A{i}" for i in range(28)),
        "int a[] = {A28 0};",
        "int main(){}",
    ]
)


@pytest.mark.parametrize("language", ADD_ONE)
def test_a_program_reads_stdin_and_is_compiled_once(
    language: str, run_language: Run, bubblewrap: Sandbox
) -> None:
    first = run_language(language, ADD_ONE[language], stdin="41\n")
    assert (first.status, first.stdout) == (Status.OK, b"42\n"), first
    results = [bubblewrap.run(language, ADD_ONE[language], stdin=f"{i}\n") for i in range(3)]
    assert [result.stdout for result in results] == [b"1\n", b"2\n", b"3\n"]


@pytest.mark.parametrize("language", FAILING)
def test_a_program_that_fails(language: str, run_language: Run) -> None:
    assert run_language(language, FAILING[language]).status is Status.ERROR


@pytest.mark.parametrize("language", BROKEN)
def test_a_program_that_does_not_compile(language: str, run_language: Run) -> None:
    result = run_language(language, BROKEN[language])
    assert result.status is Status.ERROR
    assert result.message.startswith("the compiler: exit code")
    assert result.stderr


def test_many_threads_share_one_compilation(bubblewrap: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    if "c" not in bubblewrap._backend.languages:
        pytest.skip("no C compiler")
    compilations = []
    programs = bubblewrap._backend._programs  # type: ignore[attr-defined]
    plain = programs._compile
    monkeypatch.setattr(programs, "_compile", lambda request: compilations.append(1) or plain(request))
    source = ADD_ONE["c"] + f"// {time.monotonic()}"
    outputs: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: outputs.append(bubblewrap.run("c", source, stdin="1").stdout))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outputs == [b"2\n"] * 6
    assert compilations == [1]


def test_a_compiler_is_stopped_at_its_own_memory(run_language: Run) -> None:
    limits = Limits(memory_mb=64, compile_memory_mb=256)
    result = run_language("cpp", MACRO_BOMB, limits=limits)
    assert result.status is Status.MEMORY, result
    assert "compile_memory_mb=256" in result.message


def test_a_compiler_is_stopped_at_its_own_time(run_language: Run) -> None:
    slow = "template<int N> struct F { enum { v = F<N-1>::v + F<N-2>::v + N % 7 }; };\n" + "\n".join(
        f"int f{i}[] = {{{','.join('1' for _ in range(200))}}};" for i in range(20_000)
    )
    result = run_language("cpp", slow + "\nint main(){}", limits=Limits(compile_wall_s=0.2))
    assert result.status is Status.TIMEOUT, result
    assert "compile_wall_s=0.2" in result.message


def test_nothing_open_here_is_open_there(bubblewrap: Sandbox) -> None:
    """Also what a library opened without close-on-exec, at whatever number."""
    reading, writing = os.pipe()
    kept = [fcntl.fcntl(writing, fcntl.F_DUPFD, number) for number in (20, 40, 700, 3000)]
    try:
        listed = bubblewrap.run("bash", "ls /proc/self/fd")
        assert listed.stdout.split() == [b"0", b"1", b"2", b"3", b"4"], listed  # 4: the folder that ls reads
        for number in (*kept, writing):
            assert bubblewrap.run("bash", f"echo x >&{number}").status is Status.ERROR
    finally:
        for number in (*kept, reading, writing):
            os.close(number)


def test_devices_cannot_be_filled(bubblewrap: Sandbox) -> None:
    """/dev was a file system of its own, as large as the machine's memory."""
    program = (
        "for i in 1 2 3; do head -c 1000000 /dev/zero > /dev/f$i || echo held; done\n"
        "head -c 30000000 /dev/urandom > /dev/shm/a; head -c 30000000 /dev/urandom > b\ndu -cm /tmp | tail -1"
    )
    result = bubblewrap.run("bash", program, limits=Limits(disk_mb=16, file_size_mb=64))
    assert result.stdout.split()[:3] == [b"held"] * 3, result
    assert int(result.stdout.split()[3]) <= 16
