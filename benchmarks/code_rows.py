"""Are rows like HumanEval's and MBPP's judged right? Their own solution must pass, `return None` must not.

    python benchmarks/code_rows.py

The tasks are of our own making: a function, inputs, and random inputs for the "+" shapes. Each becomes a
row of HumanEval, HumanEval+, MBPP, MBPP sanitized, MBPP+ and of EvalPlus' release, with the checks these
data sets have. Tests that trust the program are refused.
"""

import argparse
import ast
import copy
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from verl_lite.sandbox import Sandbox
from verl_lite.verifiers.code import CodeOptions, Submission, load_tests, verify_programs

NUMBERS = "[r.randint(-50, 50) for _ in range(r.randint(1, 12))]"
WORD = "''.join(r.choice('abcdeABC 12') for _ in range(r.randint(0, 15)))"
WORDS = f"[{WORD} for _ in range(r.randint(0, 6))]"
FLOATS = "[r.uniform(-9, 9) for _ in range(r.randint(1, 8))]"
GRID = "[[r.randint(0, 9) for _ in range(3)] for _ in range(r.randint(1, 4))]"
# ruff: noqa: E501  a program per line
# (arguments as an expression of the random generator r, source)
TASKS: tuple[tuple[str, str], ...] = (
    (NUMBERS, "def total(xs):\n    return sum(xs)\n"),
    (NUMBERS, "def extremes(xs):\n    return (min(xs), max(xs))\n"),
    (NUMBERS, "def running(xs):\n    out, s = [], 0\n    for x in xs:\n        s += x\n        out.append(s)\n    return out\n"),
    (NUMBERS, "def evens(xs):\n    return [x for x in xs if x % 2 == 0]\n"),
    (NUMBERS, "def counted(xs):\n    out = {}\n    for x in xs:\n        out[x] = out.get(x, 0) + 1\n    return out\n"),
    (NUMBERS, "def distinct(xs):\n    return set(xs)\n"),
    (NUMBERS, "def is_sorted(xs):\n    return all(a <= b for a, b in zip(xs, xs[1:]))\n"),
    (NUMBERS, "def second(xs):\n    u = sorted(set(xs))\n    return u[-2] if len(u) > 1 else -1\n"),
    (NUMBERS, "def mean(xs):\n    return sum(xs) / len(xs)\n"),
    (NUMBERS, "def spread(xs):\n    m = sum(xs) / len(xs)\n    return (sum((x - m) ** 2 for x in xs) / len(xs)) ** 0.5\n"),
    (NUMBERS, "def best_sum(xs):\n    best = here = xs[0]\n    for x in xs[1:]:\n        here = max(x, here + x)\n        best = max(best, here)\n    return best\n"),
    (NUMBERS, "def pairs(xs):\n    return [(a, b) for a, b in zip(xs, xs[1:])]\n"),
    (NUMBERS, "def halves(xs):\n    k = len(xs) // 2\n    return xs[:k], xs[k:]\n"),
    (NUMBERS, "def ranks(xs):\n    order = sorted(set(xs))\n    return [order.index(x) for x in xs]\n"),
    (NUMBERS, "from collections import Counter\ndef common(xs):\n    return Counter(xs).most_common(1)[0][1]\n"),
    (NUMBERS, "import heapq\ndef smallest(xs):\n    return heapq.nsmallest(3, xs)\n"),
    (NUMBERS, "def signs(xs):\n    return ''.join('+' if x > 0 else '-' if x < 0 else '0' for x in xs)\n"),
    (f"{NUMBERS}, r.randint(1, 4)", "def rotate(xs, k):\n    k %= len(xs)\n    return xs[-k:] + xs[:-k]\n"),
    (f"{NUMBERS}, r.randint(1, 4)", "def chunks(xs, n):\n    return [xs[i:i + n] for i in range(0, len(xs), n)]\n"),
    (f"{NUMBERS}, r.randint(-20, 20)", "def near(xs, t):\n    return min(xs, key=lambda x: (abs(x - t), x))\n"),
    ("r.randint(0, 300)", "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n"),
    ("r.randint(2, 4000)", "def factors(n):\n    out, d = [], 2\n    while d * d <= n:\n        while n % d == 0:\n            out.append(d)\n            n //= d\n        d += 1\n    return out + [n] if n > 1 else out\n"),
    ("r.randint(0, 10**6)", "def digits(n):\n    return sum(int(c) for c in str(n))\n"),
    ("r.randint(0, 3000)", "def roman(n):\n    out = ''\n    for v, s in ((1000, 'M'), (900, 'CM'), (500, 'D'), (400, 'CD'), (100, 'C'), (90, 'XC'), (50, 'L'), (40, 'XL'), (10, 'X'), (9, 'IX'), (5, 'V'), (4, 'IV'), (1, 'I')):\n        while n >= v:\n            out += s\n            n -= v\n    return out\n"),
    ("r.randint(1, 200), r.randint(1, 200)", "import math\ndef lcm(a, b):\n    return a * b // math.gcd(a, b)\n"),
    ("r.uniform(0.1, 9), r.uniform(0.1, 9)", "import math\ndef hypotenuse(a, b):\n    return math.sqrt(a * a + b * b)\n"),
    ("r.uniform(-9, 9)", "import math\ndef parts(x):\n    return (x - math.floor(x), math.floor(x))\n"),
    ("r.uniform(1, 99), r.randint(1, 9)", "def growth(x, n):\n    return [x * 1.05 ** i for i in range(n)]\n"),
    (FLOATS, "def scaled(xs):\n    top = max(abs(x) for x in xs)\n    return [x / top for x in xs]\n"),
    (FLOATS, "def closest(xs):\n    xs = sorted(xs)\n    return min((b - a for a, b in zip(xs, xs[1:])), default=0.0)\n"),
    (WORD, "def reverse(s):\n    return s[::-1]\n"),
    (WORD, "def vowels(s):\n    return sum(c in 'aeiouAEIOU' for c in s)\n"),
    (WORD, "def swapped(s):\n    return s.swapcase()\n"),
    (WORD, "def is_palindrome(s):\n    return s == s[::-1]\n"),
    (WORD, "def letters(s):\n    return {c: s.count(c) for c in set(s)}\n"),
    (WORD, "import re\ndef numbers(s):\n    return [int(x) for x in re.findall('[0-9]+', s)]\n"),
    (WORD, "def encoded(s):\n    out = []\n    for c in s:\n        if out and out[-1][0] == c:\n            out[-1] = (c, out[-1][1] + 1)\n        else:\n            out.append((c, 1))\n    return out\n"),
    (WORDS, "def longest(ws):\n    return max(ws, key=len, default='')\n"),
    (WORDS, "def lengths(ws):\n    return {w: len(w) for w in ws}\n"),
    (WORDS, "from collections import defaultdict\ndef grouped(ws):\n    out = defaultdict(list)\n    for w in ws:\n        out[len(w)].append(w)\n    return out\n"),
    (WORDS, "def joined(ws):\n    return '-'.join(sorted(ws))\n"),
    (GRID, "def transposed(g):\n    return [list(row) for row in zip(*g)]\n"),
    (GRID, "def row_sums(g):\n    return list(map(sum, g))\n"),
    (GRID, "def flat(g):\n    return tuple(x for row in g for x in row)\n"),
)  # fmt: skip
CHECKS = """import numpy as np
from math import inf

def is_floats(x) -> bool:
    if isinstance(x, float):
        return True
    if isinstance(x, (list, tuple)) and x:
        return all(isinstance(i, float) for i in x)
    if isinstance(x, np.ndarray):
        return x.dtype == np.float64 or x.dtype == np.float32
    return False

def assertion(out, exp, atol):
    exact_match = out == exp
    if atol == 0 and is_floats(exp):
        atol = 1e-6
    if not exact_match and atol != 0:
        assert type(out) == type(exp)
        if isinstance(exp, (list, tuple)):
            assert len(out) == len(exp)
        assert np.allclose(out, exp, rtol=1e-07, atol=atol)
    else:
        assert exact_match, f"out: {out}, exp: {exp}"

"""
LOOP = "for i, (inp, exp) in enumerate(zip(inputs, results)):\n    assertion({}(*inp), exp, 0)\n"


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    head: str  # imports and the line of the `def`
    body: str
    source: str
    base: list[list[Any]]
    plus: list[list[Any]]
    results: list[Any]  # of base and plus


def make_task(arguments: str, source: str, *, plus: int, rng: random.Random) -> Task:
    node = next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef))
    lines = source.splitlines(keepends=True)
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    inputs = [list(eval(f"({arguments},)", {"r": rng})) for _ in range(4 + plus)]
    results = [namespace[node.name](*copy.deepcopy(given)) for given in inputs]
    results = [dict(result) if isinstance(result, dict) else result for result in results]
    head, body = "".join(lines[: node.lineno]), "".join(lines[node.lineno :])
    return Task(node.name, head, body, source, inputs[:4], inputs[4:], results)


def calls(task: Task) -> list[str]:
    pairs = zip(task.base, task.results, strict=False)
    return [f"assert {task.name}({', '.join(map(repr, given))}) == {want!r}" for given, want in pairs]


def close_calls(task: Task) -> list[str]:
    """MBPP sanitized compares floats with math.isclose."""
    pairs = list(zip(task.base, task.results, strict=False))
    if not all(isinstance(want, float) for _, want in pairs):
        return calls(task)
    written = [(f"{task.name}({', '.join(map(repr, given))})", want) for given, want in pairs]
    return [f"assert math.isclose({call}, {want!r}, rel_tol=0.001)" for call, want in written]


def humaneval(task: Task) -> dict[str, Any]:
    lines = "".join(f"    {line}\n" for line in calls(task)).replace(f"{task.name}(", "candidate(")
    prompt = f'{task.head}    """See the name."""\n'
    return {
        "prompt": prompt,
        "entry_point": task.name,
        "test": f"METADATA = {{}}\n\ndef check(candidate):\n{lines}",
    }


def humaneval_plus(task: Task) -> dict[str, Any]:
    data = f"    inputs = {task.base + task.plus!r}\n    results = {task.results!r}\n"
    loop = "".join(f"    {line}\n" for line in LOOP.format("candidate").splitlines())
    return {**humaneval(task), "test": f"{CHECKS}def check(candidate):\n{data}{loop}"}


def mbpp(task: Task) -> dict[str, Any]:
    return {"text": "See the name.", "code": task.source, "test_list": calls(task), "test_setup_code": ""}


def mbpp_sanitized(task: Task) -> dict[str, Any]:
    return {
        "prompt": "...",
        "code": task.source,
        "test_imports": ["import math"],
        "test_list": close_calls(task),
    }


def mbpp_plus(task: Task) -> dict[str, Any]:
    data = f"inputs = {task.base + task.plus!r}\nresults = {task.results!r}\n"
    return {**mbpp_sanitized(task), "test": f"{CHECKS}{data}{LOOP.format(task.name)}"}


def evalplus(task: Task) -> dict[str, Any]:
    prompt = str(humaneval(task)["prompt"])
    inputs = {"base_input": task.base, "plus_input": json.dumps(task.plus), "atol": 0}
    return {"prompt": prompt, "entry_point": task.name, "canonical_solution": task.body, **inputs}


SHAPES: dict[str, Callable[[Task], dict[str, Any]]] = {
    "HumanEval": humaneval, "HumanEval+": humaneval_plus, "MBPP": mbpp, "MBPP sanitized": mbpp_sanitized,
    "MBPP+": mbpp_plus, "EvalPlus release": evalplus,
}  # fmt: skip


def grade(
    tasks: Sequence[Task], shape: str, program: Callable[[Task], str], sandbox: Sandbox
) -> Counter[str]:
    given = []
    for task in tasks:
        loaded = load_tests(SHAPES[shape](task))
        options = CodeOptions(prelude=loaded.prelude, continues=loaded.continues, trusting_tests="refuse")
        given.append(Submission(response=program(task), tests=loaded.tests, options=options))
    verdicts = verify_programs(given, sandbox=sandbox)
    for task, verdict in zip(tasks, verdicts, strict=True):
        if program(task) == task.source and not verdict.is_correct:
            print(f"  {shape}, {task.name}: {verdict.outcome.value}: {verdict.reason[:160]}")
    return Counter(verdict.outcome.value for verdict in verdicts)


def time_cases(cases: int, sandbox: Sandbox) -> float:
    """Seconds for one HumanEval+ row with so many cases."""
    head, body = "def add(a, b):\n", "    return a + b\n"
    inputs = [[n, 1] for n in range(cases)]
    task = Task("add", head, body, head + body, inputs[:1], inputs[1:], [n + 1 for n in range(cases)])
    started = time.monotonic()
    found = grade([task], "HumanEval+", lambda task: task.source, sandbox)
    assert found == {"correct": 1}
    return time.monotonic() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plus", type=int, default=500, help="random inputs per task for the + shapes")
    arguments = parser.parse_args()
    rng = random.Random(0)
    tasks = [make_task(given, source, plus=arguments.plus, rng=rng) for given, source in TASKS]
    programs: dict[str, Callable[[Task], str]] = {
        "its own solution": lambda task: task.source,
        "return None": lambda task: f"{task.head}    return None\n",
        "the first result": lambda task: f"{task.head}    return {task.results[0]!r}\n",
    }
    print(f"{len(tasks)} tasks, {4 + arguments.plus} inputs each in the + shapes")
    print(f"{'shape':18} " + " ".join(f"{name:>24}" for name in programs) + f" {'s':>6}")
    with Sandbox() as sandbox:
        for shape in SHAPES:
            started = time.monotonic()
            found = [grade(tasks, shape, program, sandbox) for program in programs.values()]
            cells = [f"{counts['correct']} of {len(tasks)} correct" for counts in found]
            print(
                f"{shape:18} "
                + " ".join(f"{cell:>24}" for cell in cells)
                + f" {time.monotonic() - started:6.1f}"
            )
        for cases in (100, 1000, 5000):
            print(f"one row of HumanEval+ with {cases} cases: {time_cases(cases, sandbox):.2f} s")


if __name__ == "__main__":
    main()
