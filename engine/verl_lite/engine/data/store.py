"""A sequence of rows that is not in memory: pickled into a temporary file, read back one by one."""

import pickle
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import Generic, TypeVar, overload

IN_MEMORY_BYTES = 64 << 20  # a smaller store never touches the disk

Item = TypeVar("Item")


class RowStore(Sequence[Item], Generic[Item]):
    """What `items` yields, in order. Uses 8 bytes of memory per item beyond `in_memory_bytes`.

    `notes` are what the user should know of the rows. Threads may share it.
    """

    def __init__(self, items: Iterable[Item], *, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        self.notes: list[str] = []
        self._lock = Lock()
        self._file = SpooledTemporaryFile(max_size=in_memory_bytes)  # noqa: SIM115 - lives as long as this
        weakref.finalize(self, self._file.close)
        self._starts = array("Q", [0])
        for item in items:
            self._file.write(pickle.dumps(item, protocol=pickle.HIGHEST_PROTOCOL))
            self._starts.append(self._file.tell())

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[Item]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...
    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        at = range(len(self))[index]
        with self._lock:
            self._file.seek(self._starts[at])
            content = self._file.read(self._starts[at + 1] - self._starts[at])
        item: Item = pickle.loads(content)
        return item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]
