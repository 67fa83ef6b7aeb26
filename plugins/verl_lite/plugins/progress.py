"""How far long work is. The code that does it says so, and whoever watches shows it; by default nobody does.

>>> @contextmanager
... def watcher(what, total):
...     yield lambda done: print(f"{what}: {done} of {total}")
>>> with watched_by(watcher):
...     kept = list(counted(["a", "b"], "reading", total=2))
reading: 1 of 2
reading: 1 of 2
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

Item = TypeVar("Item")
Advance = Callable[[int], None]  # called with how many more are done
Watcher = Callable[[str, int | None], AbstractContextManager[Advance]]  # of a stage and its total, if known


@contextmanager
def _nobody(what: str, total: int | None) -> Iterator[Advance]:
    yield lambda done: None


_watcher: Watcher = _nobody


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Show the stages that this process goes through meanwhile with `watcher`."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before


@contextmanager
def stage(what: str, *, total: int | None = None) -> Iterator[Advance]:
    """One stage of long work, of `total` parts where that is known."""
    with _watcher(what, total) as advance:
        yield advance


def counted(
    items: Iterable[Item], what: str, *, total: int | None = None, size: Callable[[Item], int] = lambda _: 1
) -> Generator[Item, None, None]:
    """`items`, as a stage of their own; each counts `size` when the next one is asked for."""
    with stage(what, total=total) as advance:
        for item in items:
            yield item
            advance(size(item))


def bar_columns(console: "Console") -> list["str | ProgressColumn"]:
    """A bar per stage: its name, what is done and of how much, the seconds passed and left.

    Without colours nothing is drawn for what is left, so brackets show how long the bar is.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn, TimeRemainingColumn

    bar: list[str | ProgressColumn] = [BarColumn(20)]
    if console.no_color or console.color_system is None:
        bar = ["[", *bar, "]"]
    return [
        "{task.description}",
        *bar,
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        "so far,",
        TimeRemainingColumn(),
        "left",
    ]
