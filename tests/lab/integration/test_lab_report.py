"""The report in a real browser: it loads without errors, filters, sorts, opens rows, and runs no text."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from verl_lite.errors import DataError
from verl_lite.lab import score_file
from verl_lite.lab.report import (
    NOTHING,
    Correlations,
    Histogram,
    ReportOptions,
    collect,
    timeline_data,
    write_report,
)
from verl_lite.plugins import RewardsConfig
from verl_lite.plugins.records import RecordWriter, read_records, to_scored

Rows = list[dict[str, Any]]
Scored = Callable[[Rows], Path]

HOSTILE = [
    "<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "</script><script>window.hacked = 1</script>",
    "<!--<script>", "{{payload}} {{scripts}}", "javascript:window.hacked=1", "\u202eright to left", "a\x00b",
]  # fmt: skip


@pytest.fixture
def scored(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], tmp_path: Path
) -> Scored:
    def score(rows: Rows) -> Path:
        output = tmp_path / "scored.parquet"
        config = rewards(correct={"use": "exact"}, form={"use": "format", "weight": 0.1})
        score_file(rollout_file(rows), config, output=output)
        return output

    return score


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver_path:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1300,1000")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    yield started
    started.quit()


def open_report(driver: Any, path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get_log("browser")
    driver.get(path.as_uri())
    WebDriverWait(driver, 30).until(lambda d: d.execute_script("return document.body.dataset.ready") == "yes")
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def fill(driver: Any, identity: str, value: str) -> None:
    driver.execute_script(
        "const f = document.getElementById(arguments[0]); f.value = arguments[1];"
        "f.dispatchEvent(new Event('change')); browser.apply();",
        identity,
        value,
    )


def count(driver: Any) -> str:
    return str(driver.execute_script("return document.getElementById('count').textContent"))


def listed(driver: Any) -> list[str]:
    script = "return browser.shown.map((row) => browser.rows.id[row])"
    return list(driver.execute_script(script))


def test_rollouts_can_be_filtered_sorted_and_opened(
    driver: Any, scored: Scored, sums: Rows, tmp_path: Path
) -> None:
    sums[3] = {**sums[3], "id": "special", "completion": "needle in here"}
    open_report(driver, write_report(collect([scored(sums)]), tmp_path / "r.html"))
    assert count(driver) == "40 of 40 rollouts"
    fill(driver, "f-text", "NEEDLE")
    assert listed(driver) == ["special"]
    detail = driver.find_element("id", "detail").text
    assert "special" in detail
    assert driver.find_element("css selector", "#completion mark").text == "needle"
    fill(driver, "f-text", "")
    fill(driver, "f-component", "correct")
    fill(driver, "f-low", "1")
    assert count(driver) == "21 of 40 rollouts"
    fill(driver, "f-special", "disagrees")
    assert listed(driver) == []
    fill(driver, "f-low", "")
    assert listed(driver) == ["special"]
    fill(driver, "f-special", "varied")
    assert count(driver) == "28 of 40 rollouts"
    fill(driver, "f-special", "")
    fill(driver, "f-sort", "length")
    assert listed(driver)[0] == "special"
    driver.find_element("css selector", "#list .row:nth-child(2)").click()
    assert driver.find_element("css selector", "#detail h3").text == listed(driver)[1]


def test_the_best_and_worst_of_each_step_lead_to_their_rows(
    driver: Any, rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], tmp_path: Path
) -> None:
    answers = {1: ["3 or 4", "5", "\\boxed{2}"], 2: ["\\boxed{2}", "no <b>idea</b>", "8"]}
    run = tmp_path / "run"
    for step, texts in answers.items():
        rows = [
            {
                "prompt": "1+1=",
                "completion": text,
                "reference": "2",
                "group": f"g{step}",
                "id": f"{step}-{at}",
            }
            for at, text in enumerate(texts)
        ]
        output = tmp_path / "scored.parquet"
        config = rewards(
            correct={"use": "math"}, short={"use": "length", "weight": 0.1, "options": {"target": 1}}
        )
        score_file(rollout_file(rows), config, output=output, overwrite=True)
        with RecordWriter(run / "rollouts" / f"step_{step:06d}.parquet") as writer:
            writer.write([to_scored(record) for record in read_records(output)], step=step)
    (run / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    open_report(driver, write_report(collect([run]), tmp_path / "r.html"))
    lines = driver.find_elements("css selector", "#extremes tbody tr")
    cells = [[cell.text for cell in line.find_elements("css selector", "td")] for line in lines]
    assert [line[0] for line in cells] == ["1", "2"]
    assert [line[2] for line in cells] == ["1+1= → \\boxed{2}"] * 2
    assert cells[1][4] == "1+1= → no <b>idea</b>"
    fill(driver, "f-text", "5")
    driver.execute_script("arguments[0].click()", lines[1].find_elements("css selector", "button")[1])
    assert sorted(listed(driver)) == ["2-0", "2-1", "2-2"]
    assert driver.find_element("css selector", "#detail h3").text == "2-1"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_both_themes_are_readable(
    driver: Any, scored: Scored, sums: Rows, tmp_path: Path, theme: str
) -> None:
    open_report(driver, write_report(collect([scored(sums)]), tmp_path / "r.html"))
    driver.execute_script("setTheme(arguments[0])", theme)
    ink, page = driver.execute_script(
        "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
    )
    assert contrast(ink, page) > 7  # WCAG AAA for body text
    assert driver.save_screenshot(str(tmp_path / f"{theme}.png"))


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_nothing_in_a_rollout_can_run(driver: Any, scored: Scored, tmp_path: Path) -> None:
    rows = [{"prompt": text, "completion": text, "reference": text, "group": text} for text in HOSTILE]
    data = collect([scored(rows)], ReportOptions(title=HOSTILE[0] + "{{payload}}"))
    open_report(driver, write_report(data, tmp_path / "r.html"))
    for row in range(len(HOSTILE)):
        driver.execute_script("browser.open(arguments[0])", row)
        assert (
            driver.execute_script("return document.getElementById('completion').textContent") == HOSTILE[row]
        )
    assert driver.execute_script("return window.hacked") is None
    assert driver.execute_script("return document.querySelectorAll('script, img').length") == 2


def test_fifty_thousand_rollouts_stay_usable(driver: Any, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for index in range(50_000):
            text = f"step by step we get {index * 7} and so on. " * 5
            file.write(json.dumps({"group": f"g{index // 8}", "completion": text, "reference": "1"}) + "\n")
    open_report(driver, write_report(collect([path]), tmp_path / "r.html"))
    assert count(driver) == "50,000 of 50,000 rollouts"
    assert driver.execute_script("return document.querySelectorAll('.row').length") < 60
    driver.execute_script("const l = document.getElementById('list'); l.scrollTop = l.scrollHeight")
    driver.execute_script("browser.draw()")
    assert driver.execute_script("return document.querySelector('.row:last-child').dataset.row") == "49999"
    fill(driver, "f-text", "get 349993 and")
    assert listed(driver) == ["row-50000"]


def test_a_run_shows_its_curves_while_it_is_still_written(driver: Any, tmp_path: Path) -> None:
    run = tmp_path / "quick"
    run.mkdir()
    lines = [
        {
            "step": s,
            "reward/mean": s / 10,
            "policy/kl": 0.01 * s,
            "warning/flat": int(s in (3, 5, 6, 7)),
            "warning/entropy": int(s == 4),
        }
        for s in range(9)
    ]
    (run / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"step": 9, "rew'
    )
    (run / "config.yaml").write_text("steps: 9\n")
    event = {"event": "rollback", "step": 6, "to_step": 4, "rule": "reward_collapse", "why": "it fell"}
    (run / "events.jsonl").write_text(json.dumps(event) + "\n")
    open_report(driver, write_report(collect([run, run]), tmp_path / "r.html"))
    titles = [heading.text for heading in driver.find_elements("css selector", "#curves h3")]
    assert titles == ["Reward", "KL and mismatch"]
    said = [warning.text for warning in driver.find_elements("css selector", ".warning")]
    assert said == [
        "step 6: rollback to step 4, reward_collapse: it fell",
        "step 3: flat, see docs/monitors.md#flat",
        "step 4: entropy, see docs/monitors.md#entropy",
        "steps 5 to 7: flat, see docs/monitors.md#flat",
    ]
    assert len(driver.find_elements("css selector", "#curves canvas")) == 2


def test_a_warm_up_alone_shows_its_curves_and_its_answers(
    driver: Any, scored: Scored, sums: Rows, tmp_path: Path
) -> None:
    """Training and validation of a step are two lines of the file and one point of the curves."""
    run = tmp_path / "warm"
    (run / "sft_answers").mkdir(parents=True)
    shutil.copy(scored(sums), run / "sft_answers" / "step_000002.parquet")
    lines: Rows = [{"step": step, "sft/loss": 3.0 - step, "sft/grad_norm": 1.0} for step in (1, 2)]
    lines.append({"step": 2, "sft/validation_loss": 1.5, "sft/perplexity": 4.5, "sft/answers/format": 0.25})
    (run / "sft.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics = {"sft/perplexity": {"after": 4.5}}
    (run / "summary.json").write_text(json.dumps({"name": "warm", "metrics": metrics}))
    data = collect([run])
    assert data["runs"][0]["warm_up"]["sft/loss"] == [2.0, 1.0]
    assert data["runs"][0]["warm_up"]["sft/validation_loss"] == [None, 1.5]
    open_report(driver, write_report(data, tmp_path / "r.html"))
    titles = [heading.text for heading in driver.find_elements("css selector", "#warm-up h3")]
    assert titles == [
        "Loss in nats per token", "Perplexity on held-out rows", "Rewards of generated answers (mean)",
        "Gradient norm",
    ]  # fmt: skip
    legend = driver.find_element("css selector", "#warm-up .u-legend").text.split()
    assert legend == ["step2", "loss1", "validation_loss1.5"]  # the newest, as nothing is pointed at
    assert not driver.find_element("id", "curves").is_displayed()
    assert [c.text for c in driver.find_elements("css selector", "#overview td")] == [
        "sft/perplexity", "–", "4.5",
    ]  # fmt: skip
    assert count(driver) == "40 of 40 rollouts"


def test_a_reward_model_shows_its_accuracy_and_calibration(driver: Any, tmp_path: Path) -> None:
    run = tmp_path / "rm"
    run.mkdir()
    lines = [{"step": s, "train/loss": 0.7 / s, "train/accuracy": 0.5 + s / 20} for s in (1, 2, 3)]
    lines.append({"step": 3, "held_out/accuracy": 0.75, "held_out/calibration_error": 0.05})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bins = [
        {"low": low, "high": low + 0.1, "mean_score": low + 0.05, "share": share, "count": 10}
        for low, share in ((0.5, 0.4), (0.9, 1.0))
    ]
    (run / "calibration.json").write_text(json.dumps(bins))
    open_report(driver, write_report(collect([run]), tmp_path / "r.html"))
    titles = [heading.text for heading in driver.find_elements("css selector", "#curves h3")]
    assert titles == ["Accuracy", "Loss on preferences", "Calibration error"]
    points = driver.find_elements("css selector", "#calibration circle")
    said = [point.find_element("css selector", "title").get_attribute("textContent") for point in points]
    assert said == ["says 0.55, is right in 0.4 of 10", "says 0.95, is right in 1 of 10"]
    assert not driver.find_elements("css selector", "#overview .card")  # it has no rollouts to count


def _timeline(folder: Path, *lines: tuple[str, str, float, float, int]) -> Path:
    keys = ("worker", "stage", "start_s", "end_s", "step")
    folder.mkdir(exist_ok=True)
    text = "".join(json.dumps(dict(zip(keys, line, strict=True))) + "\n" for line in lines)
    (folder / "timeline.jsonl").write_text(text + '{"worker": "half a li', encoding="utf-8")
    return folder


def test_waiting_by_hand(tmp_path: Path) -> None:
    """Of 10 s the learner works 4 and waits 6: 5 while the others sample, 1 while nobody works."""
    folder = _timeline(
        tmp_path / "run",
        ("engine 0", "rollout", 100.0, 104.0, 1),
        ("engine 1", "rollout", 100.0, 105.0, 1),
        ("learner", "wait_rollouts", 100.0, 105.0, 1),
        ("learner", "update", 105.0, 109.0, 1),
        ("learner", "wait_rollouts", 109.0, 110.0, 2),
    )
    data = timeline_data(folder / "timeline.jsonl")
    assert data is not None
    rows = {row["worker"]: row for row in data["workers"]}
    assert rows["learner"]["stages"] == [("update", 0.4)]
    assert rows["learner"]["waited"] == pytest.approx(0.6)
    assert dict(rows["learner"]["for"]) == {"rollout": 0.5, NOTHING: 0.1}
    assert rows["engine 0"]["waited"] == pytest.approx(0.6)
    assert dict(rows["engine 0"]["for"]) == {"update": 0.4, "rollout": 0.1, NOTHING: 0.1}
    assert len(data["bars"]) == 5
    assert data["bars"][3] == ["learner", "update", 5.0, 9.0, 1]
    assert timeline_data(tmp_path / "none.jsonl") is None


def test_many_workers_share_lanes(tmp_path: Path) -> None:
    lines = [(f"rollouts {n}+1", "rollout", float(n), n + 1.5, n) for n in range(40)]
    data = timeline_data(_timeline(tmp_path / "run", *lines) / "timeline.jsonl")
    assert data is not None
    [row] = data["workers"]
    assert row["worker"] == "rollouts"
    assert row["stages"] == [("rollout", 1.0)]
    assert len(data["bars"]) == 8


def test_the_timeline_is_drawn_and_its_names_run_nowhere(driver: Any, tmp_path: Path) -> None:
    lines = [
        line
        for step, text in enumerate(HOSTILE)
        for line in (
            ("learner", "update", step * 10.0, step * 10.0 + 4, step),
            (text, text, step * 10.0 + 4, step * 10.0 + 9, step),
        )
    ]
    folder = _timeline(tmp_path / "run", *lines)
    (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n', encoding="utf-8")
    open_report(driver, write_report(collect([folder]), tmp_path / "r.html"))
    chart = driver.find_element("css selector", "#timeline svg.timeline")
    assert len(chart.find_elements("css selector", "rect")) == 2 * len(HOSTILE)
    cells = [cell.text for cell in driver.find_elements("css selector", "#timeline tbody tr td:first-child")]
    assert cells[:2] == ["learner", HOSTILE[0]]
    assert driver.execute_script("return window.hacked") is None


def evaluation(folder: Path, model: str, accuracy: float, scored: Path) -> Path:
    """The --out folder of an eval: measures of two data sets, samples of one, greedy answers of both."""
    folder.mkdir()
    share = {
        "name": "greedy accuracy",
        "value": accuracy,
        "low": 0.4,
        "high": 0.9,
        "count": 40,
        "is_share": True,
    }
    mean = {"name": "perplexity", "value": 3.25, "low": None, "high": None, "is_share": False}
    datasets = {name: {"measures": [share, mean], "prompts": {}} for name in ("sums", "words")}
    results = {"name": "quick", "model": model, "datasets": datasets}
    (folder / "results.json").write_text(json.dumps(results))
    for name in ("sums_samples", "sums_greedy", "words_greedy"):
        shutil.copy(scored, folder / f"{name}.parquet")
    return folder


def test_evaluations_stand_side_by_side(driver: Any, scored: Scored, sums: Rows, tmp_path: Path) -> None:
    records = scored(sums)
    folders = [
        evaluation(tmp_path / "before", "<b>sft</b>", 0.5, records),
        evaluation(tmp_path / "after", "rl", 0.75, records),
    ]
    open_report(driver, write_report(collect(folders), tmp_path / "r.html"))
    assert len(driver.find_elements("css selector", "#evaluations table")) == 2
    text = driver.find_element("id", "evaluations").text
    assert "50.0% (40.0% to 90.0%)" in text
    assert "75.0% (40.0% to 90.0%)" in text
    assert "before: <b>sft</b>; after: rl" in text
    assert count(driver) == "80 of 80 rollouts"
    assert driver.save_screenshot(str(tmp_path / "evaluations.png"))


def test_an_evaluation_s_data(scored: Scored, sums: Rows, tmp_path: Path) -> None:
    data = collect([evaluation(tmp_path / "before", "sft", 0.5, scored(sums))])
    (one,) = data["evaluations"]
    assert (one["name"], one["model"], list(one["datasets"])) == ("before", "sft", ["sums", "words"])
    assert one["datasets"]["sums"][1]["value"] == 3.25
    assert data["summary"]["num_rows"] == 80  # the samples of sums, the greedy answers of words
    assert data["runs"] == []
    (tmp_path / "before" / "results.json").write_text("[]")
    with pytest.raises(DataError, match="holds no results of an evaluation"):
        collect([tmp_path / "before"])


def test_a_finished_run_shows_before_and_after(driver: Any, tmp_path: Path) -> None:
    run = tmp_path / "quick"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    metrics = {"evaluation/accuracy": {"before": 0.55, "after": 0.995}}
    (run / "summary.json").write_text(json.dumps({"name": "quick", "steps": 1, "metrics": metrics}))
    open_report(driver, write_report(collect([run]), tmp_path / "r.html"))
    cells = [cell.text for cell in driver.find_elements("css selector", "#overview td")]
    assert cells == ["evaluation/accuracy", "0.55", "0.995"]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file of rollouts"):
        collect([tmp_path])


def test_more_rollouts_than_wanted_are_sampled_in_whole_groups(scored: Scored, sums: Rows) -> None:
    data = collect([scored(sums)], ReportOptions(max_rollouts=12))
    assert (data["summary"]["num_rows"], data["summary"]["num_shown"]) == (40, 12)
    groups = data["rollouts"]["group"]
    assert all(groups.count(group) == 4 for group in groups)


def test_histograms_by_hand() -> None:
    few, many = Histogram(), Histogram()
    for value in (1.0, 0.0, 1.0):
        few.add(value)
    for value in range(60):
        many.add(float(value))
    assert few.to_json() == {"bars": [[0.0, 0.0, 1], [1.0, 1.0, 2]]}
    assert [bar[2] for bar in many.to_json()["bars"]] == [2] * 30


def test_correlations_by_hand() -> None:
    tally = Correlations()
    for a, b in [(1.0, 2.0), (2.0, 4.0), (3.0, 6.0)]:
        tally.add({"a": a, "b": b, "constant": 1.0})
    found = {(pair["a"], pair["b"]): pair["r"] for pair in tally.to_json()}
    assert found["a", "b"] == pytest.approx(1.0)
    assert found["a", "constant"] is None
