"""The annotation page in a real browser: keys, clicks, saving, going on, and who may talk to it."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from verl_lite.errors import ConfigError
from verl_lite.lab.preferences import (
    AnnotationPage,
    AnnotationStore,
    Candidates,
    read_candidates,
    read_preferences,
)

HOSTILE = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


def candidates(tmp_path: Path, *groups: list[str]) -> list[Candidates]:
    path = tmp_path / "rollouts.jsonl"
    rows = [
        {"group": f"g{at}", "prompt": f"question {at}", "completion": text}
        for at, texts in enumerate(groups)
        for text in texts
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_candidates(path))


@contextmanager
def served(path: Path, items: list[Candidates], annotator: str = "ann") -> Iterator[AnnotationPage]:
    store = AnnotationStore(path, items, annotator=annotator)
    with AnnotationPage(store) as page:
        thread = Thread(target=page.serve)
        thread.start()
        try:
            yield page
        finally:
            page.stop()
            thread.join()
            store.close()


class Browser:
    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def open(self, url: str) -> None:
        self._driver.get("about:blank")
        self._driver.get_log("browser")
        self._driver.get(url)
        self.wait(lambda: self.ready != "")

    @property
    def ready(self) -> str:
        return str(self._driver.execute_script("return document.body.dataset.ready || ''"))

    def wait(self, condition: Callable[[], bool]) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self._driver, 20, poll_frequency=0.05).until(lambda _: condition())

    def press(self, keys: str) -> None:
        self._driver.find_element("tag name", "body").send_keys(keys)

    def cards(self) -> list[str]:
        return [card.text for card in self._driver.find_elements("css selector", ".card .text")]

    def place_of(self, text: str) -> str:
        return str(self.cards().index(text) + 1)

    def text(self, identity: str) -> str:
        return str(self._driver.find_element("id", identity).text)


@pytest.fixture
def browser(driver: Any) -> Browser:
    return Browser(driver)


def test_pairs_by_key_by_click_and_as_ties_saved_at_once(
    browser: Browser, driver: Any, tmp_path: Path
) -> None:
    output = tmp_path / "p.jsonl"
    items = candidates(tmp_path, ["good", "bad"], ["left", "right"], ["same", "equal"], ["last", "one"])
    with served(output, items) as page:
        browser.open(page.url)
        assert browser.text("prompt") == "user\nquestion 0"
        assert browser.text("count") == "0 of 4"
        browser.press(browser.place_of("good"))
        browser.wait(lambda: browser.ready == items[1].id)
        assert list(next(read_preferences(output)).ranks) == [1, 2]  # on disk before the page goes on
        place = browser.place_of("right")
        driver.find_element("css selector", f".card:nth-child({place})").click()
        browser.wait(lambda: browser.ready == items[2].id)
        browser.press("=")
        browser.wait(lambda: browser.ready == items[3].id)
    assert [list(row.ranks) for row in read_preferences(output)] == [[1, 2], [2, 1], [1, 1]]
    rows = list(read_preferences(output))
    assert {(row.source, row.annotator) for row in rows} == {("human", "ann")}
    with served(output, items) as page:  # goes on where it was
        browser.open(page.url)
        assert browser.ready == items[3].id
        assert browser.text("count") == "3 of 4"
        browser.press("\ue003")  # Backspace: the last one again
        browser.wait(lambda: browser.ready == items[2].id)
        browser.press(browser.place_of("equal"))
        browser.wait(lambda: browser.ready == items[3].id)
        browser.press("1")
        browser.wait(lambda: browser.ready == "done")
        assert browser.text("done").startswith("All done")
    found = {row.id: list(row.ranks) for row in read_preferences(output)}
    assert found[items[2].id] == [2, 1]
    assert len(found) == 4


def test_ranking_four_with_a_tie(browser: Browser, tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    items = candidates(tmp_path, ["a", "b", "c", "d"])
    with served(output, items) as page:
        browser.open(page.url)
        browser.press(browser.place_of("c") + "\ue007")  # Enter too early keeps nothing
        assert not output.exists()
        browser.press(browser.place_of("a") + "=" + browser.place_of("d") + browser.place_of("b"))
        browser.press("\ue007")
        browser.wait(lambda: browser.ready == "done")
    (row,) = read_preferences(output)
    assert dict(zip(row.completions, row.ranks, strict=True)) == {"c": 1, "a": 2, "d": 2, "b": 3}
    assert sorted(row.columns["shown_order"]) == [0, 1, 2, 3]


def test_two_annotators_share_a_file_one_after_the_other(browser: Browser, tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    items = candidates(tmp_path, ["good", "bad"])
    for annotator in ("ann", "ben"):
        with served(output, items, annotator) as page:
            browser.open(page.url)
            browser.press("1")
            browser.wait(lambda: browser.ready == "done")
    assert [row.annotator for row in read_preferences(output)] == ["ann", "ben"]
    with served(output, items), pytest.raises(ConfigError, match="is being written by another page"):
        AnnotationStore(output, items, annotator="cem")


def test_nothing_in_a_completion_can_run(browser: Browser, driver: Any, tmp_path: Path) -> None:
    with served(tmp_path / "p.jsonl", candidates(tmp_path, [HOSTILE, "fine"])) as page:
        browser.open(page.url)
        assert HOSTILE in browser.cards()
        assert driver.execute_script("return window.hacked") is None
        assert [e for e in driver.get_log("browser") if e["level"] == "SEVERE"] == []


def status(url: str, *, body: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(
        url, data=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_only_the_holder_of_the_token_is_answered(tmp_path: Path) -> None:
    output = tmp_path / "p.jsonl"
    items = candidates(tmp_path, ["good", "bad"])
    judgement = json.dumps({"id": items[0].id, "ranks": [1, 2]}).encode()
    with served(output, items) as page:
        base = page.url.split("#")[0]
        assert base.startswith("http://127.0.0.1:")
        assert status(base) == 200
        assert status(base + "state") == 403
        assert status(base + "state", X_Token="guess") == 403
        assert status(base + "judge", body=judgement) == 403
        assert status(base + "state", X_Token=page.token, Host="evil.example") == 403
        assert status(base, Host="evil.example") == 403
        assert status(base + "elsewhere", X_Token=page.token) == 404
        for wrong in (b"{}", b"no json", b'{"id": "nobody", "ranks": [1, 2]}'):
            assert status(base + "judge", body=wrong, X_Token=page.token) == 400
        for ranks in ([1], [1, 3], [0, 1], [1, 2, 3]):
            wrong = json.dumps({"id": items[0].id, "ranks": ranks}).encode()
            assert status(base + "judge", body=wrong, X_Token=page.token) == 400
        assert not output.exists()
        assert status(base + "judge", body=judgement, X_Token=page.token) == 200
    assert len(list(read_preferences(output))) == 1
