"""How often the reward `process` objects to worked solutions that people wrote and checked.

    python benchmarks/process_false_alarms.py ANSWERS.jsonl...    rows with an "answer", as in GSM8K

Every equation that is read and does not hold is counted; the first ones are printed, to be judged by eye.
"""

import json
import re
import sys
import time
from pathlib import Path

from verl_lite.plugins.builtin import equations_in

SHOWN = 10


def main(paths: list[str]) -> None:
    answers = [json.loads(line)["answer"] for path in paths for line in Path(path).read_text().splitlines()]
    for name, texts in (
        ("as they are", answers),
        ("without <<annotations>>", [re.sub(r"<<.*?>>", "", answer) for answer in answers]),
    ):
        began_s = time.process_time()
        lines = [line for text in texts for line in text.split("\n")]
        found = [(equation, line) for line in lines for equation in equations_in(line)]
        wrong = [(equation, line) for equation, line in found if not equation.holds]
        print(
            f"{name}: {len(texts)} solutions, {len(found)} equations, {len(wrong)} do not hold "
            f"({len(wrong) / len(found):.2%}), {time.process_time() - began_s:.2f} s of CPU"
        )
        for equation, line in wrong[:SHOWN]:
            print(f"    {equation.text}    in: {line[:100]}")


if __name__ == "__main__":
    main(sys.argv[1:])
