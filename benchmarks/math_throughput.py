"""verify_math against Math-Verify on identical pairs: throughput, tail latency, hostile batches, memory.

    python benchmarks/math_throughput.py --math-verify-python VENV/bin/python

VENV holds math-verify 0.9.0 (`pip install "math-verify[antlr4_13_2]==0.9.0"`). Each side runs at its best
setting on two cores: Math-Verify in two warm worker processes, with its time-outs on their main threads;
ours in this process with its worker processes for what needs sympy (`verify_math_batch`). Pairs are new
in each repeat, so that no cache of either side has seen them. Without the option only ours is measured.

    python benchmarks/math_throughput.py --former-python VENV/bin/python

compares with another version of this project, installed in VENV: CPU time of single calls, in turn.
"""

import argparse
import json
import multiprocessing
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

Pair = tuple[str, str]  # response, reference
REPEATS = 3


def easy_pairs(rng: random.Random, count: int) -> list[Pair]:
    """Numbers and simple fractions in the usual wrappings; every fifth answer is wrong."""
    pairs = []
    for index in range(count):
        a, b = rng.randint(1, 99_999), rng.randint(2, 999)
        given = a + 1 if index % 5 == 0 else a
        wrappings = [
            (f"We add both numbers. The answer is \\boxed{{{given}}}.", f"{a}"),
            (f"So we get $\\boxed{{\\frac{{{given}}}{{{b}}}}}$.", f"\\frac{{{a}}}{{{b}}}"),
            (f"Step 1. Multiply.\n#### {given}.50", f"{a}.5"),
            (f"The answer is {given}/{b}.", f"\\frac{{{a}}}{{{b}}}"),
            (f"Adding up gives \\boxed{{{given:,}}}", f"{a}"),
        ]
        pairs.append(rng.choice(wrappings))
    return pairs


def hard_pairs(rng: random.Random, count: int) -> list[Pair]:
    """Symbolic answers that need more than arithmetic; every fourth answer is wrong."""
    pairs = []
    for index in range(count):
        a, b, c = rng.randint(2, 40), rng.randint(2, 40), rng.randint(2, 40)
        d = c + 1 if index % 4 == 0 else c
        kind = rng.randrange(10)
        reference, answer = (
            (f"(x+{a})(x-{b})+{c}", f"x^2+{a - b}x-{a * b}+{d}"),
            (f"\\frac{{{a}}}{{\\sqrt{{{b}}}+{c}}}", f"\\frac{{{a}}}{{{d}+\\sqrt{{{b}}}}}"),
            (f"\\sin^2({a}x)+{c}", f"{d}+1-\\cos^2({a}x)"),
            (f"\\frac{{x^2-{a * a}}}{{x-{a}}}+{c}y", f"x+{a}+{d}y"),
            (f"\\ln({a}^{{{b}}})+{c}", f"{b}\\ln {a}+{d}"),
            (f"e^{{{a}x+{b}}}+{c}", f"{d}+e^{{{b}}}e^{{{a}x}}"),
            (f"\\sqrt{{{a * a * b}}}+\\sqrt{{{c * c * b}}}", f"{a + d}\\sqrt{{{b}}}"),
            (f"(-\\infty,{a})\\cup({a + c},\\infty)", f"x<{a} \\text{{ or }} x>{a + d}"),
            (f"\\begin{{pmatrix}}{a}&{b}\\\\{c}&{a}\\end{{pmatrix}}",
             f"\\begin{{bmatrix}}{a}&{b}\\\\{d}&{2 * a}/2\\end{{bmatrix}}"),
            (f"y={a}x+{c}", f"{2 * a}x-2y+{2 * d}=0"),
        )[kind]  # fmt: skip
        pairs.append((f"Simplifying, we find that the answer is $\\boxed{{{answer}}}$.", reference))
    return pairs


HOSTILE = [
    "10^{10^{10}}", "(10^6)!", "\\binom{10^8}{5\\cdot 10^7}", "(x+y+z+w)^{200}",
    "\\frac{1}{1+" * 500 + "1" + "}" * 500, "(" * 1000 + "6" + ")" * 1000, "7" * 1_000_000,
    "\\{" + ",".join(map(str, range(3000))) + "\\}", "9**9**9**9",
    "((\\sin x+\\cos x+\\tan x)^{30}+\\sqrt{x+\\sqrt{x+\\sqrt{x}}})^{20}",
]  # fmt: skip


def hostile_pairs(rng: random.Random, count: int) -> list[Pair]:
    references = ["5", "x+1", "(x+1)^2", "\\sqrt{2}", "(1,2)"]
    return [
        (f"\\boxed{{{HOSTILE[i % len(HOSTILE)]}}}" + " " * i, rng.choice(references)) for i in range(count)
    ]


# the two sides


def run_math_verify(pairs: Sequence[Pair]) -> None:
    """Every pair in two warm worker processes; only called under the other interpreter."""
    first = ("\\boxed{1}", "1")
    fork = multiprocessing.get_context("fork")
    with fork.Pool(2, initializer=_math_verify_one, initargs=(first,)) as pool:
        pool.map(_math_verify_one, [first] * 8, chunksize=1)
        started = time.perf_counter()
        answers = pool.map(_math_verify_one, pairs, chunksize=8)
        print(json.dumps({"seconds": time.perf_counter() - started, "answers": answers}))


def _math_verify_one(pair: Pair) -> bool:
    from math_verify import parse, verify

    response, reference = pair
    return bool(verify(parse(f"${reference}$"), parse(response)))


def time_math_verify(python: str, pairs: Sequence[Pair]) -> tuple[float, list[bool]]:
    done = subprocess.run(
        [python, __file__, "--side"], input=json.dumps(pairs), capture_output=True, text=True, check=True
    )
    reply = json.loads(done.stdout.strip().splitlines()[-1])
    return reply["seconds"], reply["answers"]


def time_ours(pairs: Sequence[Pair]) -> tuple[float, list[bool]]:
    from verl_lite.verifiers import verify_math_batch

    started = time.perf_counter()
    verdicts = verify_math_batch(pairs)
    return time.perf_counter() - started, [verdict.is_correct for verdict in verdicts]


# another version of this project

CPU_PAIRS = {"easy": (easy_pairs, 12_000), "hard": (hard_pairs, 400)}
CPU_REPEATS = 5


def print_pairs_per_cpu_second(name: str, seed: int) -> None:
    """Single calls in this process, after some pairs that are not counted."""
    from verl_lite.verifiers import verify_math
    from verl_lite.verifiers.math import warm_up

    warm_up(120)
    make, count = CPU_PAIRS[name]
    for response, reference in make(random.Random(1000), 300):
        verify_math(response, reference)
    pairs = make(random.Random(seed), count)
    started = time.process_time()
    for response, reference in pairs:
        verify_math(response, reference)
    print(count / (time.process_time() - started))


def compare_versions(former: str) -> None:
    """The version under `former` and this one in turn, each repeat in a process of its own."""
    for name in CPU_PAIRS:
        figures: dict[str, list[float]] = {former: [], sys.executable: []}
        for seed in range(CPU_REPEATS):
            for python, found in figures.items():
                command = [python, __file__, "--cpu", name, str(seed)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found.append(float(done.stdout))
        before, after = (statistics.median(found) for found in figures.values())
        ratio = after / before
        print(f"{name:5} pairs/CPU s   former {before:7,.0f}   this {after:7,.0f}   ratio {ratio:.2f}")


# the report


def compare_throughput(
    name: str, make: Callable[[random.Random, int], list[Pair]], count: int, python: str
) -> None:
    """Median pairs per second of each side over REPEATS sets of new pairs."""
    ours, theirs, agree = [], [], 0
    for seed in range(REPEATS):
        pairs = make(random.Random(seed), count)
        seconds, answers = time_ours(pairs)
        ours.append(count / seconds)
        if python:
            seconds, others = time_math_verify(python, pairs)
            theirs.append(count / seconds)
            agree += sum(a == b for a, b in zip(answers, others, strict=True))
    line = f"{name:14} ours {statistics.median(ours):10,.0f} pairs/s"
    if python:
        ratio = statistics.median(ours) / statistics.median(theirs)
        line += f"   Math-Verify {statistics.median(theirs):8,.0f} pairs/s   ratio {ratio:6.1f}   "
        line += f"same verdict on {agree} of {REPEATS * count}"
    print(line)


def report_latency() -> None:
    from verl_lite.verifiers import verify_math

    pairs = easy_pairs(random.Random(91), 500) + hard_pairs(random.Random(92), 500)
    seconds = []
    for response, reference in pairs:
        started = time.perf_counter()
        verify_math(response, reference)
        seconds.append(time.perf_counter() - started)
    seconds.sort()
    at = [1000 * seconds[int(share * len(seconds))] for share in (0.5, 0.99)]
    slowest = 1000 * seconds[-1]
    print(f"one call       p50 {at[0]:.2f} ms   p99 {at[1]:.2f} ms   max {slowest:.1f} ms   (1,000 calls)")


def report_hostile() -> None:
    from verl_lite.verifiers import MathOptions, verify_math

    honest = easy_pairs(random.Random(71), 700) + hard_pairs(random.Random(72), 300)
    mixed = easy_pairs(random.Random(73), 700) + hard_pairs(random.Random(74), 290)
    mixed += hostile_pairs(random.Random(75), 10)
    random.Random(76).shuffle(mixed)
    without, _ = time_ours(honest)
    with_hostile, _ = time_ours(mixed)
    deadline_s = MathOptions().timeout_s
    print(f"1,000 pairs    {without:.2f} s, with 1% hostile {with_hostile:.2f} s (deadline {deadline_s:g} s)")
    slowest = 0.0
    for response, reference in hostile_pairs(random.Random(77), 50):
        started = time.perf_counter()
        verdict = verify_math(response, reference)
        slowest = max(slowest, time.perf_counter() - started)
        assert not verdict.is_correct, response[:60]
    limit_s = deadline_s + 0.5
    print(f"hostile alone  slowest of 50 single calls {slowest:.2f} s (limit {limit_s:g} s), none accepted")


def report_memory() -> None:
    from verl_lite.verifiers import verify_math

    verify_math("\\boxed{500 cm}", "5 m")  # loads the units library
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"memory         caller's peak {peak_mb:.0f} MB; sympy loaded in the caller: {'sympy' in sys.modules}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--math-verify-python", default="", help="a Python that has math-verify 0.9.0")
    parser.add_argument("--easy", type=int, default=4000)
    parser.add_argument("--hard", type=int, default=200)
    parser.add_argument("--former-python", default="", help="a Python with another version of this project")
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--cpu", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cpu:
        print_pairs_per_cpu_second(args.cpu[0], int(args.cpu[1]))
        return
    if args.former_python:
        compare_versions(args.former_python)
        return
    if args.side:
        run_math_verify([tuple(pair) for pair in json.load(sys.stdin)])
        return
    from verl_lite.verifiers.math import warm_up

    warm_up(120)
    report_memory()
    compare_throughput("easy", easy_pairs, args.easy, args.math_verify_python)
    compare_throughput("hard symbolic", hard_pairs, args.hard, args.math_verify_python)
    report_latency()
    report_hostile()
    report_memory()


if __name__ == "__main__":
    main()
