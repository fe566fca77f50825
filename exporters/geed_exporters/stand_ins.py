"""Stand-ins for packages that a framework imports at its top and that an exporter has no use for."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class StandIn(ModuleType):
    """A module in which any name is there: a class that nothing is an instance of, and that says `why` when called."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name)
        self.why = why
        self.__path__: list[str] = []
        # importlib.util.find_spec raises where a loaded module has none
        self.__spec__ = ModuleSpec(name, None, is_package=True)

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        said = f"{self.__name__}.{name}: {self.why}"

        def missing(self: Any, *args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(said)

        return type(name, (), {"__init__": missing})


def stand_in(names: Iterable[str], why: str, given: Mapping[str, Any] | None = None) -> None:
    """Put stand-ins under dotted names, and under those of the packages above them, into what is imported.

    `given` are names that each of them holds as they are.
    """
    for name in names:
        parts = name.split(".")
        for depth in range(1, len(parts) + 1):
            path, parent = ".".join(parts[:depth]), ".".join(parts[: depth - 1])
            module = sys.modules.setdefault(path, StandIn(path, why))
            vars(module).update(given or {})
            if parent:
                setattr(sys.modules[parent], parts[depth - 1], module)
