"""The worker processes: deadlines hold in any thread and process, and the caller stays small."""

import asyncio
import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from verl_lite.verifiers import MathOptions, Outcome, verify_math, verify_math_batch
from verl_lite.verifiers.math import pool
from verl_lite.verifiers.math.answers.grammar import parse_answer
from verl_lite.verifiers.math.expressions import Expr

Alive = Callable[[Iterable[int]], set[int]]

PROVED = ("\\boxed{\\sqrt[3]{2+\\sqrt{5}}+\\sqrt[3]{2-\\sqrt{5}}}", "1")  # only sympy settles this one


def tree(text: str) -> Expr:
    parsed = parse_answer(text)
    assert isinstance(parsed, Expr), parsed
    return parsed


@pytest.fixture(autouse=True, scope="module")
def _started() -> None:
    pool.wait_until_ready(60)


def test_a_question_beyond_the_deadline_is_killed_and_the_next_one_is_answered() -> None:
    reply = pool.ask("equal", tree("(x+y+z+w)^{90}"), tree("(x+y+z+w)^{89}"), timeout_s=0.3)
    assert reply.status == "timeout"
    after = pool.ask("equal", tree("\\sqrt{3+2\\sqrt{2}}"), tree("1+\\sqrt{2}"), timeout_s=20)
    assert (after.status, after.answer) == ("ok", True)


def test_a_fork_server_that_dies_with_its_workers_is_replaced() -> None:
    pool.wait_until_ready(60)
    current = pool._current()
    assert current.server is not None
    for process in [current.server, *current.workers.values()]:
        assert process.pid is not None
        os.kill(process.pid, 9)
    reply = pool.ask("equal", tree("x+x"), tree("2x"), timeout_s=60)
    assert (reply.status, reply.answer) == ("ok", True)


def test_trees_beyond_the_caps_are_refused_inside_the_worker() -> None:
    for text in ("10^{10^{10}}", "(10^6)!", "\\binom{10^8}{5}"):
        reply = pool.ask("equal", tree(text), tree("x"), timeout_s=20)
        assert reply.status == "refused", text


def test_threads_share_the_workers() -> None:
    pairs = [
        (f"\\boxed{{\\sqrt[3]{{2+\\sqrt{{5}}}}+\\sqrt[3]{{2-\\sqrt{{5}}}}+{n}}}", f"{n + 1}")
        for n in range(6)
    ]
    options = MathOptions(timeout_s=60)
    with ThreadPoolExecutor(6) as threads:
        verdicts = list(threads.map(lambda pair: verify_math(*pair, options=options), pairs))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.CORRECT] * 6
    assert {verdict.matched_by for verdict in verdicts} == {"symbolic"}


def test_it_works_from_an_event_loop_without_blocking_it() -> None:
    async def main() -> int:
        ticks = 0
        task = asyncio.create_task(asyncio.to_thread(verify_math, *PROVED, options=MathOptions(timeout_s=60)))
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert (await task).outcome is Outcome.CORRECT
        return ticks

    assert asyncio.run(main()) >= 1


def _in_child(queue: "multiprocessing.Queue[str]") -> None:
    queue.put(verify_math(*PROVED, options=MathOptions(timeout_s=60)).outcome.value)


def test_a_forked_child_gets_workers_of_its_own() -> None:
    assert verify_math(*PROVED, options=MathOptions(timeout_s=60)).outcome is Outcome.CORRECT
    context = multiprocessing.get_context("fork")
    queue: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    assert queue.get(timeout=120) == "correct"
    child.join(30)
    assert child.exitcode == 0
    assert verify_math(*PROVED, options=MathOptions(timeout_s=60)).outcome is Outcome.CORRECT


def test_hostile_pairs_cost_a_batch_at_most_one_deadline() -> None:
    slow = "(\\sin x + \\cos x)^{40} + \\sqrt{x+\\sqrt{x+\\sqrt{x+1}}}"
    hostile = [
        (f"\\boxed{{{slow} - {n} + {n}\\cos^2(y) + {n}\\sin^2(y)}}", f"{slow} + 0\\cdot y") for n in range(24)
    ]
    easy = [(f"\\boxed{{{n}}}", str(n)) for n in range(300)]
    options = MathOptions(timeout_s=2.0)
    started = time.monotonic()
    verdicts = verify_math_batch(easy + hostile, options=options)
    assert time.monotonic() - started < 15  # one question after another would take two workers 24 s
    assert all(verdict.outcome is Outcome.CORRECT for verdict in verdicts[:300])


def test_the_caller_imports_no_sympy_and_stays_small() -> None:
    # VmHWM and not ru_maxrss, which a new process takes over from the one that started it.
    source = (
        "import sys\n"
        "from pathlib import Path\n"
        "from verl_lite.verifiers import verify_math, MathOptions\n"
        "verify_math(chr(92) + 'boxed{7' + '7' * 10**6 + '}', '5')\n"
        "verify_math('500 cm', '5 m')\n"
        "verify_math('x^2 = 25', 'x = 5', options=MathOptions(timeout_s=60))\n"
        "peak_kb = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"
        "print('sympy' in sys.modules, int(peak_kb) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=200
    )
    has_sympy, peak_mb = done.stdout.split()
    assert has_sympy == "False"
    assert int(peak_mb) < 300


def test_workers_end_with_their_process(alive: Alive) -> None:
    source = (
        "from verl_lite.verifiers.math import pool\n"
        "pool.wait_until_ready(60)\n"
        "current = pool._current()\n"
        "print(current.server.pid, *(worker.pid for worker in current.workers.values()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=200
    )
    pids = [int(word) for word in done.stdout.split()]
    assert pids
    deadline = time.monotonic() + 60
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pids)


def test_no_thread_is_left_behind() -> None:
    verify_math_batch([("\\boxed{x^2=25}", "x=5")])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("verify-math")]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0
