"""The report's page in Chromium: how long until it is there, and how long a filter takes, by rows.

    python benchmarks/report_page.py

Needs chromium and chromedriver. The rollouts are made up: problems of arithmetic in words with answers of
some 800 characters, 8 samples per prompt, scored by two rewards. Times are of the page itself
(performance.now): from the start of loading until tiles, list and the first row are drawn; until all texts
are read; and the median of 5 runs of every filter, from the new state until the list is drawn, with the
processor's time of the page's main thread, which other work on the machine does not lengthen. "Typed on" is
the search for a text that was searched for without its last letters.
"""

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from verl_lite.lab.report import ReportOptions, collect, write_report
from verl_lite.plugins import Rollout
from verl_lite.plugins.records import Record, RecordWriter, StoredScore, to_scored

WORDS = "the each has costs and gives then buys eggs apples total price twice half remaining more".split()
FILTERS = {
    "a number": {"where": "reward > 0.5 and characters < 900"},
    "a group": {"where": "group.spread == 0"},
    "a reason": {"where": 'correct.reason contains "number"'},
    "a text anywhere": {"text": "apples twice half"},
    "the same, typed on": {"text": "apples twice half remaining"},
    "a rare text anywhere": {"text": "answer is 7777"},
    "a text of the completion": {"where": 'completion contains "answer is 77"'},
    "a regular expression": {"where": r'completion matches "answer is 7\\d+$"'},
    "sorted by reward": {"sort": "-reward"},
    "all rows again": {},
}
APPLY = """const [changes, done] = arguments;
const {state, browser} = report;
const start = performance.now();
Object.assign(state.current, {text: "", where: "", sort: "", row: ""}, changes);
browser.orders.clear();
browser.apply().then(() => {
    document.body.offsetHeight;
    done([performance.now() - start, browser.shown.length]);
});"""


def rollouts(num_rows: int, rng: random.Random) -> list[Record]:
    records = []
    for at in range(num_rows):
        if at % 8 == 0:
            prompt = " ".join(rng.choices(WORDS, k=40)) + "?"
        answer = rng.randrange(10_000)
        is_right = rng.random() < 0.4
        words = (rng.choice(WORDS) if rng.random() < 0.8 else str(rng.randrange(1000)) for _ in range(150))
        correct = StoredScore(
            value=float(is_right), outcome="ok", reason="" if is_right else "another number",
            details={"extracted": str(answer)}, contribution=float(is_right), latency_s=rng.random() / 1000,
        )  # fmt: skip
        form = StoredScore(value=1.0, outcome="ok", weight=0.1, contribution=0.1, latency_s=1e-5)
        rollout = Rollout(
            completion=f"{' '.join(words)} so the answer is {answer}",
            prompt=[{"role": "user", "content": prompt}],
            reference=str(answer if is_right else answer + 1), id=f"row-{at}", group=f"g{at // 8}",
            columns={"source": rng.choice(["one", "two", "three"]), "difficulty": rng.random()},
        )  # fmt: skip
        scores = {"correct": correct, "form": form}
        records.append(Record(rollout=rollout, row=at + 1, reward=0.1 + is_right, components=scores))
    return records


def driver() -> Any:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for flag in ("headless", "no-sandbox", "disable-gpu", "window-size=1400,1000"):
        options.add_argument(f"--{flag}")
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    started.set_script_timeout(120)
    return started


def measure(browser: Any, page: Path) -> dict[str, str]:
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(
        lambda d: d.execute_script("return document.body.dataset.ready === 'yes'")
    )
    times = {name: browser.execute_script(f"return performance.getEntriesByName('{name}')[0].startTime")
             for name in ("first-contentful-paint", "ready")}  # fmt: skip
    browser.execute_async_script("report.rows.loadAll().then(arguments[0])")
    times["all texts read"] = browser.execute_script("return performance.now()")
    found = {name: f"{value:.0f} ms" for name, value in times.items()}
    browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    before: dict[str, str] = {}
    for name, changes in FILTERS.items():
        runs = []
        for _ in range(5):
            if name.endswith("typed on"):
                browser.execute_async_script(APPLY, before)
            begin = cpu_s(browser)
            runs.append([*browser.execute_async_script(APPLY, changes), cpu_s(browser) - begin])
        wall, cpu = (statistics.median(run[at] for run in runs) for at in (0, 2))
        found[f"filter: {name}"] = f"{wall:5.0f} ms {cpu * 1000:5.0f} ms of CPU ({runs[0][1]:,} rows)"
        before = changes
    return found


def cpu_s(browser: Any) -> float:
    """The processor's time that the page's main thread has used."""
    metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(one["value"] for one in metrics if one["name"] == "TaskDuration")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--keep", type=Path, help="a folder for the pages")
    arguments = parser.parse_args()
    browser = driver()
    try:
        for num_rows in arguments.rows:
            with tempfile.TemporaryDirectory() as folder:
                records = Path(folder) / "r.parquet"
                with RecordWriter(records) as writer:
                    writer.write([to_scored(one) for one in rollouts(num_rows, random.Random(0))])
                started = time.perf_counter()
                page = (arguments.keep or Path(folder)) / f"report-{num_rows}.html"
                write_report(collect([records], ReportOptions()), page)
                print(f"\n{num_rows:,} rollouts: written in {time.perf_counter() - started:.1f} s, "
                      f"{page.stat().st_size / 1e6:.1f} MB")  # fmt: skip
                for name, value in measure(browser, page).items():
                    print(f"{name:32} {value}")
    finally:
        browser.quit()


if __name__ == "__main__":
    main()
