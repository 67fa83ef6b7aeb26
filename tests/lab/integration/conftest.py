"""A headless browser, and the report's page in it."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from verl_lite.lab import score_file
from verl_lite.lab.report import collect, write_report
from verl_lite.lab.report.columns import Group, page_rows
from verl_lite.plugins import RewardsConfig, Rollout
from verl_lite.plugins.records import Record


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver_path:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-background-networking", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.add_argument("--window-size=1400,1000")
    options.add_experimental_option(
        "prefs", {"download.default_directory": str(tmp_path_factory.mktemp("saved"))}
    )
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    yield started
    started.quit()


class Page:
    """The report in a browser; every call waits until the rows on the page are those asked for."""

    def __init__(self, driver: Any, folder: Path) -> None:
        self.driver = driver
        self.path = folder / "report.html"

    def open(self, *sources: Path, address: str = "", **options: Any) -> "Page":
        from verl_lite.lab.report import ReportOptions

        return self.load(write_report(collect(sources, ReportOptions(**options)), self.path), address)

    def load(self, path: Path, address: str = "") -> "Page":
        self.driver.get_log("browser")
        self.driver.get("about:blank")  # an address that differs by its hash alone would not load again
        self.driver.get(path.as_uri() + address)
        self.wait("return document.body.dataset.ready === 'yes'")
        assert self.errors() == []
        return self

    def errors(self) -> list[str]:
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] == "SEVERE"]

    def wait(self, script: str, *arguments: Any) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 30, poll_frequency=0.03).until(
            lambda d: d.execute_script(script, *arguments)
        )

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def go(self, **state: str) -> "Page":
        """The page with that state, as by its controls."""
        self.run("report.state.go(arguments[0]); window.applied = report.browser?.apply()", state)
        self.driver.execute_async_script("Promise.resolve(window.applied).then(arguments[0])")
        return self

    def all(self, selector: str) -> list[str]:
        return [node.text for node in self.driver.find_elements("css selector", selector)]

    def text(self, selector: str) -> str:
        return str(self.driver.find_element("css selector", selector).text)

    def click(self, selector: str) -> "Page":
        """Click it; if the page draws its list anew in between, its successor."""
        from selenium.common.exceptions import StaleElementReferenceException

        for _ in range(20):
            try:
                node = self.driver.find_element("css selector", selector)
                self.run("arguments[0].scrollIntoView({block: 'center'})", node)
                node.click()
                return self
            except StaleElementReferenceException:
                continue
        raise AssertionError(f"{selector} is drawn anew without end")

    def listed(self) -> list[str]:
        return list(self.run("return report.browser.shown.map((row) => report.rows.get('id', row))"))

    def count(self) -> str:
        return self.text("#count")

    def picture(self, path: Path, *, width: int, height: int, theme: str = "light") -> None:
        """A screenshot at that size and with that wish for colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        wish = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})
        self.wait("return document.documentElement.dataset.theme === arguments[0]", theme)
        assert self.driver.save_screenshot(str(path))

    def reset(self) -> None:
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture
def report(driver: Any, tmp_path: Path) -> Iterator[Page]:
    page = Page(driver, tmp_path)
    yield page
    page.reset()


@pytest.fixture
def scored(
    rewards: Callable[..., RewardsConfig], rollout_file: Callable[..., Path], tmp_path: Path
) -> Callable[..., Path]:
    """Score rows, by default with `exact` and `format`, and return the records."""

    def score(rows: list[Mapping[str, Any]], name: str = "scored.parquet", **components: Any) -> Path:
        usual = {"correct": {"use": "exact"}, "form": {"use": "format", "weight": 0.1}}
        config = rewards(**(components or usual))
        path = rollout_file([dict(json.loads(json.dumps(row))) for row in rows])
        score_file(path, config, output=tmp_path / name, overwrite=True)
        return tmp_path / name

    return score


def _record(number: int, completion: str, **changes: Any) -> Record:
    """A record of group g<number // 4>; rollout's fields and record's own are told apart by their names."""
    own = {name: changes.pop(name) for name in list(changes) if name in Record.__dataclass_fields__}
    rollout = Rollout(completion=completion, id=f"row-{number}", group=f"g{number // 4}", **changes)
    return Record(rollout=rollout, row=number + 1, **{"reward": 0.0, **own})


def _page_of(records: list[Record], path: Path, **more: Any) -> Path:
    """The page of these records alone."""
    groups: dict[str, list[Record]] = {}
    for one in records:
        groups.setdefault(one.rollout.group, []).append(one)
    columns, blocks = page_rows([Group(rows=rows) for rows in groups.values()], None)
    summary = {"num_rows": len(records), "num_groups": len(groups), "num_flat": 0, "num_dropped": 0}
    summary |= {"num_shown": len(records), "num_rewarded": len(records), "mean_reward": 0.5}
    summary |= {"failed": {}, "labels": {}, "primary": ""}
    components = {name: name for one in records for name in one.components}
    data: Any = {
        "title": "made", "source": "made", "summary": summary, "components": components, "columns": columns,
        "blocks": blocks, "token_texts": {}, "diff": None, "runs": [], "evaluations": [], **more,
    }  # fmt: skip
    return write_report(data, path)


@pytest.fixture(scope="session")
def record() -> Callable[..., Record]:
    return _record


@pytest.fixture(scope="session")
def page_of() -> Callable[..., Path]:
    return _page_of
