"""Names to entries, with "did you mean"; third parties add entries through entry points `geed_onnx.<registry>`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from geed_onnx.errors import UnknownName, UsageError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from name to entry that is filled by registration and, once, from installed entry points.

    >>> colours: Registry[int] = Registry("colours", "colour")
    >>> colours.register("red", 1)
    1
    >>> colours["red"], list(colours)
    (1, ['red'])
    """

    def __init__(self, group: str, noun: str) -> None:
        self.group, self.noun = group, noun
        self._entries: dict[str, T] = {}
        self._scanned = False

    def register(self, name: str, entry: T) -> T:
        """Add `entry` under `name`; a name is given once.

        Raises
        ------
        UsageError
            If the name is taken.
        """
        if name in self._entries:
            raise UsageError(f"{self.noun} {name!r} is registered already; choose another name")
        self._entries[name] = entry
        return entry

    def registers(self, name: str) -> Callable[[T], T]:
        """Return the decorator form of `register`."""
        return lambda entry: self.register(name, entry)

    def _scan(self) -> None:
        # lazily, and once: reading the installed distributions costs milliseconds that `--help` need not pay
        if not self._scanned:
            self._scanned = True
            for point in entry_points(group=f"geed_onnx.{self.group}"):
                if point.name not in self._entries:
                    self._entries[point.name] = point.load()

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            self._scan()
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.noun, name, self._entries) from None

    def get(self, name: str, default: Any = None) -> Any:
        """Return the entry, or `default` for an unknown name (Mapping's own waits for a KeyError)."""
        try:
            return self[name]
        except UnknownName:
            return default

    def __contains__(self, name: object) -> bool:
        self._scan()
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        self._scan()
        return iter(self._entries)

    def __len__(self) -> int:
        self._scan()
        return len(self._entries)
