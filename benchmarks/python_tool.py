"""Calls per second of the tool `python` in persistent interpreters, beside one run of a program per call.

    python benchmarks/python_tool.py [--seconds 5]

Both use the same sandbox, its native backend, with as many workers as cores. A call of a program has to
run the calls before it again to have their variables; here it does not, so the ratio is the smallest.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable

from verl_lite.plugins.environments.builtin.python import Python, PythonOptions
from verl_lite.sandbox import Limits, Sandbox, Status

CODE = "total = sum(n * n for n in range(100))\nprint(total)"


def rate(call: Callable[[], None], seconds: float) -> float:
    """Calls per second of one thread."""
    call()  # starts what has to be started
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        call()
        count += 1
    return count / (time.perf_counter() - began)


def together(calls: list[Callable[[], None]], seconds: float) -> float:
    """Calls per second of all threads together."""
    rates = [0.0] * len(calls)

    def measure(index: int) -> None:
        rates[index] = rate(calls[index], seconds)

    threads = [threading.Thread(target=measure, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(rates)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=5.0)
    seconds = parser.parse_args().seconds
    cores = len(os.sched_getaffinity(0))
    tool = Python(PythonOptions(interpreters=cores))
    interpreters = [tool.open() for _ in range(cores)]

    def persistent(number: int) -> Callable[[], None]:
        def call() -> None:
            assert interpreters[number](CODE) == "328350\n"

        return call

    kept = together([persistent(number) for number in range(cores)], seconds)
    for interpreter in interpreters:
        interpreter.close()
    tool.close()
    with Sandbox(workers=cores) as sandbox:

        def one_run() -> None:
            assert sandbox.run_python(CODE, limits=Limits(wall_s=10)).status is Status.OK

        runs = together([one_run] * cores, seconds)
    print(f"{cores} cores, {seconds:g} s each")
    print(f"persistent interpreters  {kept:8.0f} calls/s")
    print(f"one run per call         {runs:8.0f} calls/s")
    print(f"ratio                    {kept / runs:8.1f}")


if __name__ == "__main__":
    main()
