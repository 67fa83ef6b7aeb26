"""The report's rollout browser in Chromium: filters, links, keys, columns, changes, export."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from verl_lite.plugins import Rollout
from verl_lite.plugins.records import Record, RecordWriter, read_records, to_scored

Rows = list[dict[str, Any]]
Scored = Callable[..., Path]
Page = Any


def type_into(page: Page, identity: str, text: str) -> None:
    field = page.driver.find_element("id", identity)
    field.clear()
    field.send_keys(text)


def test_rollouts_can_be_searched_filtered_sorted_and_opened(
    report: Page, scored: Scored, sums: Rows
) -> None:
    sums[3] = {**sums[3], "id": "special", "completion": "needle in here"}
    report.open(scored(sums))
    assert report.count() == "40 of 40 rollouts"
    type_into(report, "f-text", "NEEDLE")
    report.wait("return document.getElementById('count').textContent === '1 of 40 rollouts'")
    assert report.listed() == ["special"]
    assert report.text("#row-id") == "special"
    assert report.text("#completion mark.hit") == "needle"
    for typed, count in (("needle in", 1), ("needle in a", 0), ("needle", 1), ("special", 1)):
        assert report.go(text=typed).count() == f"{count} of 40 rollouts", typed
    report.click("#f-clear")
    type_into(report, "f-where", "correct == 1")
    report.wait("return document.getElementById('count').textContent === '21 of 40 rollouts'")
    assert report.go(where="label != (correct >= 0.5)").listed() == ["special"]
    assert report.go(where="group.spread > 0").count() == "28 of 40 rollouts"
    assert report.go(where="", sort="-characters").listed()[0] == "special"
    second = report.listed()[1]
    report.click(f"#option-{report.run('return report.browser.shown[1]')}")
    assert report.text("#row-id") == second


def test_the_list_shows_question_answer_and_outcome(report: Page, scored: Scored, tmp_path: Path) -> None:
    rows = [
        {"prompt": "What is 1+1?", "completion": "It is \\boxed{3}.", "reference": "2", "id": "wrong"},
        {
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "And 2+2?"}],
            "completion": "\\boxed{4}",
            "reference": "4",
            "id": "right",
            "finish_reason": "length",
        },
    ]
    boxed = {"use": "format", "weight": 0.25, "options": {"pattern": "boxed"}}
    report.open(scored(rows, correct={"use": "math"}, boxed=boxed))
    first, second = report.all("#list .row")
    assert first.split("\n") == ["0.25", "What is 1+1?", "wrong", "3", "of 2", "another number"]
    assert second.split("\n") == ["1.25", "And 2+2?", "right", "4", "of 4", "cut"]
    colours = report.run(
        "return [...document.querySelectorAll('#list .value')].map((node) => node.className)"
    )
    assert colours == ["value low", "value high"]  # the verdict's, not the reward's sign


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("reward > 0.5", "bd"),
        ("reward >= 0.5 and not finish == 'length'", "bc"),
        ("reward < 0.2 or dropped != null", "ae"),
        ('completion contains "WAIT"', "b"),
        (r'completion matches "\d{2,}"', "cd"),
        ("(reward + 1) * 2 - 1 == 3", "d"),
        ("-reward < -0.5", "bd"),
        ("length(completion) > 8", "bc"),
        ("words(completion) == 1", "ad"),
        ("abs(reward - 1) < 0.001", "d"),
        ("round(reward) == 1", "bcd"),
        ("finish == null", "abce"),
        ("`odd name` == 'x`y'", "c"),
        ("```ticks``` == 1 || reward = 0", "ae"),
        ("flag", "b"),
        ("flag == 1 && true", "b"),
        ("text_number == 18", "a"),
        ("text_number < 5", ""),  # a text is no number: no order, and no row
        ("missing_in_most > 0", "e"),
        ("not (missing_in_most > 0)", "abcd"),
        ("", "abcde"),
    ],
)  # fmt: skip
def test_filters_by_hand(report: Page, filter_page: Path, expression: str, ids: str) -> None:
    """The rows of each filter were worked out from the five rows of `filter_page` by hand."""
    script = """const {test} = report.parseExpression(arguments[0], report.rows);
        return [0, 1, 2, 3, 4].filter(test).map((row) => report.rows.get("id", row)).join("")"""
    if report.driver.current_url.split("#")[0] != filter_page.as_uri():
        report.load(filter_page)
        report.driver.execute_async_script("report.rows.loadAll().then(arguments[0])")
    assert report.run(script, expression) == ids


@pytest.fixture(scope="module")
def filter_page(tmp_path_factory: pytest.TempPathFactory, page_of: Callable[..., Path]) -> Path:
    columns: list[dict[str, Any]] = [
        {"text_number": "18", "``": 0},
        {"flag": True, "text_number": "4"},
        {"odd name": "x`y"},
        {},
        {"missing_in_most": 2, "`ticks`": 1},
    ]
    texts = ["short", "Wait a moment", "it is 12 or 34", "100", ""]
    rewards = [0.0, 0.75, 0.5, 1.0, None]
    records = [
        Record(
            rollout=Rollout(
                completion=texts[at], id="abcde"[at], group="g", columns=columns[at],
                finish_reason="length" if at == 3 else "",
            ),
            reward=rewards[at],
            dropped_because="error in correct" if at == 4 else "",
        )
        for at in range(5)
    ]  # fmt: skip
    return page_of(records, tmp_path_factory.mktemp("filters") / "r.html")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("rewrad > 1", "there is no column rewrad; did you mean reward?"),
        ("nothing_like_it", "there is no column nothing_like_it; the button Columns lists all "),
        ("reward >", "the filter ends too early"),
        ("reward > 1 1", "did not expect 1 at character 12"),
        ("(reward > 1", "expected ) at the end"),
        ("reward > #", "cannot read # at character 10"),
        ('completion matches "("', "Invalid regular expression"),
        ("completion matches reward", "matches needs a pattern in quotes"),
        ("(" * 3999, "the filter"),
        ("a" * 4001, "the filter has 4001 characters; at most 4000 are read"),
        ("constructor", "there is no column constructor"),
        ("__proto__.x == 1", "there is no column __proto__.x"),
        ("alert(1)", "there is no column alert"),
        ('"unclosed', 'cannot read "unclosed at character 1'),
    ],
)
def test_a_filter_that_cannot_be_read_says_why_and_keeps_the_rows(
    report: Page, filter_page: Path, expression: str, message: str
) -> None:
    if report.driver.current_url.split("#")[0] != filter_page.as_uri():
        report.load(filter_page)
    report.go(where="")
    report.go(where=expression)
    assert report.text("#problem").startswith(message)
    assert len(report.listed()) == 5
    assert report.go(where="").text("#problem") == ""


def test_every_number_of_the_first_screen_leads_to_its_rows(
    report: Page, scored: Scored, sums: Rows, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from verl_lite.plugins import reward\n\n\n@reward('mine')\ndef mine(rollout):\n"
        "    if rollout.completion == '7':\n        raise KeyError('gold')\n"
        "    return rollout.completion == '6'\n"
    )
    mine = {"use": f"{tmp_path}/mine.py:mine", "weight": 0.1}
    gated = {"use": "length", "weight": 0.0, "when": "correct > 0"}
    records = scored(sums, correct={"use": "exact"}, mine=mine, gated=gated)
    report.open(records)
    assert report.all(".tile h2") == [
        "Mean reward", "Groups without variance", "Failed scores", "Disagrees with the label",
    ]  # fmt: skip
    links = report.driver.find_elements("css selector", ".tile a")
    for index in range(len(links)):
        report.click("#f-clear")
        link = report.driver.find_elements("css selector", ".tile a")[index]
        said = link.get_attribute("aria-label") or link.text
        report.run(
            "arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))", link
        )
        report.wait("return document.getElementById('f-where').value !== ''")
        if index == 0:  # the mean reward, of the rows that have one
            rewarded = report.run("return report.head.summary.num_rewarded")
            assert report.count() == f"{rewarded} of 40 rollouts"
            continue
        count = int(
            "".join(c for c in (said.split(": ")[-1] if "row" in said else said.split(" ")[0]) if c.isdigit())
        )
        shown = len(report.listed())
        groups = report.run(
            "return new Set(report.browser.shown.map((row) => report.rows.groupStart[row])).size"
        )
        assert count in (shown, groups, round(1000 * groups / 10)), said
        assert shown > 0, said
    assert "KeyError" in report.text("#tiles")
    assert "not run" not in report.text("#tiles")  # a reward that its gate left out has not failed


def test_bars_cells_and_slow_rows_lead_to_their_rows(report: Page, scored: Scored, sums: Rows) -> None:
    short = {"use": "length", "weight": 0.1}
    report.open(scored(sums, correct={"use": "exact"}, short=short), address="#view=charts")
    assert report.all("#charts h2") == [
        "Distributions",
        "Agreement with labels",
        "Correlations",
        "Slowest rows",
    ]
    links = report.run("""return [...document.querySelectorAll("#charts a")].map((link) => {
        const address = new URLSearchParams((link.href.baseVal ?? link.href).split("#")[1]);
        const {test} = report.parseExpression(address.get("where") ?? "", report.rows);
        const rows = Array.from({length: report.rows.size}, (_, row) => row).filter(test).length;
        const said = link.getAttribute("aria-label") ?? link.textContent;
        return [link.closest(".part").id, said, rows, address.get("row")];
    })""")
    parts = {part for part, *_ in links}
    assert parts == {
        f"part-{name}" for name in ("distributions", "agreement-with-labels", "correlations", "slowest-rows")
    }
    for part, said, rows, row in links:
        if part == "part-slowest-rows":
            assert row is not None
        elif part == "part-correlations":
            assert rows < 40, said
        elif ": " in said:  # a bar says how many rows it has
            assert said.split(": ")[1] == ("1 row" if rows == 1 else f"{rows} rows")
        elif said.isdigit():
            assert rows == int(said)


def test_an_address_shows_the_same_again_and_back_goes_back(report: Page, scored: Scored, sums: Rows) -> None:
    records = scored(sums)
    report.open(records, address="#where=correct+%3D%3D+1&sort=-reward&row=7&pane=group&show=text")
    assert report.count() == "22 of 40 rollouts"
    assert report.run("return document.getElementById('f-where').value") == "correct == 1"
    assert report.text("#detail h3") == "Group g1"
    assert len(report.all(".sample")) == 4
    report.run("location.hash = '#where=correct+%3D%3D+0'")
    report.wait("return document.getElementById('count').textContent === '18 of 40 rollouts'")
    report.driver.back()
    report.wait("return document.getElementById('count').textContent === '22 of 40 rollouts'")
    report.load(report.path, "#where=no_column&row=-5&view=nowhere&columns=%7B&sort=nothing&pane=x&show=y")
    assert "there is no column no_column" in report.text("#problem")
    assert report.count() == "40 of 40 rollouts"  # a filter that cannot be read hides nothing


def test_everything_works_by_keys(report: Page, scored: Scored, sums: Rows) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    report.open(scored(sums))

    def press(*keys: str) -> None:
        ActionChains(report.driver).send_keys(*keys).perform()
        report.wait("return report.browser.detail.row === report.browser.chosen()")

    press("j", "j", "k")
    assert report.text("#row-id") == "row-2"
    press("l")
    assert report.text("#row-id") == "row-3"
    press("h", "g")
    report.wait("return document.querySelectorAll('.sample').length === 4")
    press("g", "t")
    report.wait("return document.querySelector('#completion').tagName === 'PRE'")
    press("f", *"correct == 0")
    report.wait("return document.getElementById('count').textContent === '18 of 40 rollouts'")
    press(Keys.ESCAPE, Keys.ARROW_DOWN)
    assert report.text("#row-id") == report.listed()[1]
    press(Keys.END)
    assert report.text("#row-id") == report.listed()[-1]
    ActionChains(report.driver).send_keys("?").perform()
    assert "side by side" in report.text("#help")
    ActionChains(report.driver).send_keys(Keys.ESCAPE).perform()
    names = report.run(
        "return [...document.querySelectorAll('input, select, button')].filter((n) => n.offsetParent)"
        ".map((n) => n.labels?.[0]?.innerText || n.getAttribute('aria-label') || n.innerText)"
    )
    assert len(names) > 10
    assert all(name.strip() for name in names)
    report.click("#f-text")
    assert report.run("return getComputedStyle(document.activeElement).outlineWidth") == "2px"


def test_every_column_is_shown_counted_and_filtered(report: Page, scored: Scored, sums: Rows) -> None:
    for at, row in enumerate(sums):
        row |= {
            "source": "ab"[at % 2],
            "size": at,
            "nested": {"deep": [at % 4]},
            "reward": None,
            "step": None,
        }
    report.open(scored(sums))
    report.click("#f-columns")
    names = [name.rsplit(" ", 1)[0] for name in report.all("#columns summary")]
    assert {"source", "size", "nested", "correct.reason", "group.mean", "characters"} <= set(names)
    opened = names.index("source")
    report.run("document.querySelectorAll('#columns details')[arguments[0]].open = true", opened)
    report.wait("return document.querySelectorAll('#columns .levels li').length === 2")
    report.click("#columns .levels a")
    report.wait("return document.getElementById('count').textContent === '20 of 40 rollouts'")
    assert report.go(where='nested contains "[3]"').count() == "10 of 40 rollouts"
    report.go(where="", layout="table")
    heads = report.run("return [...document.querySelectorAll('#heads button')].map((n) => n.textContent)")
    assert set(heads) >= {"source", "size", "nested", "completion"}
    report.run("[...document.querySelectorAll('#heads button')].find((b) => b.innerText === 'size').click()")
    report.wait("return report.rows.get('size', report.browser.shown[0]) === 39")


def test_distributions_and_correlations_by_hand(report: Page, filter_page: Path) -> None:
    report.load(filter_page)
    assert report.run("return report.histogram([1, 0, 1])") == [[0, 0, 1], [1, 1, 2]]
    bars = report.run("return report.histogram(Array.from({length: 60}, (_, at) => at))")
    assert [bar[2] for bar in bars] == [2] * 30
    assert [bars[0][0], bars[-1][1]] == [0, 59]
    correlation = """const columns = arguments;
        const rows = {size: columns[0].length, reader: (at) => (row) => columns[at][row]};
        return report.correlation(rows, 0, 1).r"""
    for first, second, expected in (
        ([1, 2, 3], [2, 4, 6], 1.0), ([1, 2, 3], [3, 2, 1], -1.0), ([1, 1], [0, 1], None),
        ([1, 2, 3, 4], [1, 3, 2, 4], 0.8), ([1, 2, 3, None], [2, 4, 6, 100], 1.0),
        ([0.1, 0.1, 0.1], [1, 2, 3], None),
    ):  # fmt: skip
        found = report.run(correlation, first, second)
        assert found == (None if expected is None else pytest.approx(expected))


def test_a_group_s_samples_stand_side_by_side(report: Page, scored: Scored, sums: Rows) -> None:
    report.open(scored(sums), address="#row=5&pane=group")
    tops = report.run(
        "return [...document.querySelectorAll('.sample')].map((n) => n.getBoundingClientRect().top)"
    )
    assert len(tops) == 4
    assert len(set(tops)) == 1
    assert report.text(".sample.chosen h4").startswith("row-6")
    report.click(".sample:nth-child(4) h4 a")
    report.wait("return report.browser.detail.row === 7")
    assert report.text("#row-id") == "row-8"


def test_against_shows_rows_before_and_after(report: Page, scored: Scored, sums: Rows) -> None:
    before = scored(sums, "before.parquet", correct={"use": "exact"})
    sums[0] = {**sums[0], "reference": "no"}
    # the same completions, of which one has another reference now: it falls from 1 to 0
    after = scored(sums, "after.parquet", correct={"use": "exact"})
    report.open(after, against=str(before))
    assert "Changed rewards\n1" in report.text("#tiles")
    report.go(where="reward < before.reward")
    assert report.listed() == ["row-1"]
    assert "was 1" in report.text("#list .row")
    assert report.all("#detail .changed") == [
        "1 → 0",
        "1 → 0",
        " → ".join(["–", report.text("#detail td[colspan]").split(" → ")[1]]),
    ]
    report.go(where="before.group.spread == 0 and group.spread > 0")
    assert len(report.listed()) == 4
    report.run("location.hash = '#view=charts'")
    report.wait("return document.body.dataset.view === 'charts'")
    assert "lost all variance" in report.text("#part-what-changes")


def test_the_export_is_a_file_that_scores_again(
    report: Page, scored: Scored, sums: Rows, tmp_path: Path, driver: Any
) -> None:
    for at, row in enumerate(sums):
        row |= {"size": at, "nested": {"deep": [at]}, "odd`name": "x"}
    records = scored(sums)
    report.open(records, address="#where=correct+%3D%3D+1")
    driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path / "out")}
    )
    report.click("#f-export")
    deadline = time.monotonic() + 60
    while not (found := list((tmp_path / "out").glob("*.jsonl"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    [saved] = found
    wanted = {one.rollout.id: one for one in read_records(records) if one.components["correct"].value == 1.0}
    got = list(read_records(saved))
    assert len(got) == len(wanted) == 22
    for one in got:
        expected = wanted[one.rollout.id]
        assert one.rollout == expected.rollout
        assert (one.reward, one.advantage) == (expected.reward, expected.advantage)
        for name, score in one.components.items():
            latency_s = expected.components[name].latency_s
            assert score.latency_s == pytest.approx(latency_s, abs=1e-6)
            assert replace(score, latency_s=latency_s) == expected.components[name]


def test_fifty_thousand_rollouts_open_and_filter(report: Page, tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for index in range(50_000):
            text = f"step by step we get {index * 7} and so on. " * 5
            file.write(json.dumps({"group": f"g{index // 8}", "completion": text, "reference": "1"}) + "\n")
    report.open(path)
    assert report.count() == "50,000 of 50,000 rollouts"
    assert report.run("return document.querySelectorAll('.row').length") < 60
    report.run(
        "const l = document.getElementById('list'); l.scrollTop = l.scrollHeight; report.browser.list.draw()"
    )
    assert report.run("return document.querySelector('.row:last-child').dataset.row") == "49999"
    assert report.go(text="get 349993 and").listed() == ["row-50000"]
    assert report.go(text="", where='completion contains "we get 70 and"').listed() == ["row-11"]
    assert report.go(where='group == "g12" and sample > 3').count() == "4 of 50,000 rollouts"


def test_a_row_of_the_best_and_the_worst_of_a_step_is_a_link(
    report: Page, scored: Scored, tmp_path: Path
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
        output = scored(
            rows, correct={"use": "math"}, short={"use": "length", "weight": 0.1, "options": {"target": 1}}
        )
        with RecordWriter(run / "rollouts" / f"step_{step:06d}.parquet") as writer:
            writer.write([to_scored(one) for one in read_records(output)], step=step)
    (run / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
    report.open(run, address="#view=training")
    part = "#part-best-and-worst-of-each-step"
    assert report.all(f"{part} td:first-child") == ["1", "2"]
    assert [cell.split()[1] for cell in report.all(f"{part} tr:last-child a")] == ["2-0", "2-1"]
    report.click(f"{part} tr:last-child td:last-child a")
    report.wait(
        "return document.body.dataset.view === 'rollouts'"
        " && report.browser.detail.row === report.browser.chosen()"
    )
    assert sorted(report.listed()) == ["2-0", "2-1", "2-2"]
    assert report.text("#row-id") == "2-1"
