"""Names to entries with "did you mean", and the error tree with its exit codes."""

from __future__ import annotations

import doctest
import importlib
import inspect
from dataclasses import dataclass
from typing import Any

import pytest

from geed_onnx import errors, registry
from geed_onnx.actions import actions
from geed_onnx.distances import distances
from geed_onnx.errors import GeedError, UnknownName, UsageError, suggestion
from geed_onnx.estimators import normalisers
from geed_onnx.groups import groups
from geed_onnx.registry import Registry
from geed_onnx.variants import variants

REGISTRIES: dict[str, Registry[Any]] = {
    "actions": actions,
    "distances": distances,
    "groups": groups,
    "normalisers": normalisers,
    "variants": variants,
}
ERRORS = {n: c for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, Exception)}
every_registry = pytest.mark.parametrize("name", REGISTRIES)

# ---- every registry ------------------------------------------------------------------------------------------------


@every_registry
def test_a_registry_is_a_mapping(name: str) -> None:
    entries = REGISTRIES[name]
    assert entries.group == name  # the entry points `geed_onnx.<registry>` are those of its module's name
    assert len(entries) == len(list(entries)) == len(set(entries)) > 0
    assert dict(entries.items()) == {key: entries[key] for key in entries}
    assert all(key in entries for key in entries)
    assert "no such entry" not in entries
    assert entries.get("no such entry") is None


@every_registry
def test_a_slip_of_the_pen_is_answered_with_the_name(name: str) -> None:
    entries = REGISTRIES[name]
    for key in entries:
        slip = key[:-1] if len(key) > 2 else key.swapcase()
        if slip in entries or slip == key:
            continue
        with pytest.raises(UnknownName) as caught:
            entries[slip]
        assert str(caught.value).startswith(f"unknown {entries.noun} {slip!r}: did you mean ")
        if len(key) > 4:
            assert repr(key) in str(caught.value)


@every_registry
def test_a_name_like_none_is_answered_with_the_list(name: str) -> None:
    entries = REGISTRIES[name]
    with pytest.raises(UnknownName) as caught:
        entries["~~~~~~~~"]
    assert f"unknown {entries.noun} '~~~~~~~~'; known: " in str(caught.value)
    assert all(key in str(caught.value) for key in sorted(entries)[:12])


@every_registry
def test_a_taken_name_is_refused(name: str) -> None:
    entries = REGISTRIES[name]
    key = next(iter(entries))
    with pytest.raises(UsageError, match="is registered already; choose another name"):
        entries.register(key, entries[key])


# ---- a registry of one's own ---------------------------------------------------------------------------------------


@dataclass
class Point:
    """An entry point as `importlib.metadata` hands it out."""

    name: str
    value: object
    loads: int = 0

    def load(self) -> object:
        self.loads += 1
        return self.value


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = {}
    monkeypatch.setattr(registry, "entry_points", lambda group: points.setdefault(group, []))
    return points


def test_registration_returns_the_entry_and_works_as_a_decorator(installed: dict[str, list[Point]]) -> None:
    colours: Registry[object] = Registry("colours", "colour")
    assert colours.register("red", 1) == 1

    @colours.registers("blue")
    def blue() -> int:
        return 2

    assert blue() == 2
    assert colours["blue"] is blue
    assert list(colours) == ["red", "blue"]
    with pytest.raises(UsageError, match="colour 'red' is registered already"):
        colours.register("red", 3)
    assert colours["red"] == 1


def test_third_parties_add_entries_through_entry_points(installed: dict[str, list[Point]]) -> None:
    green, red = Point("green", 5), Point("red", 9)
    installed["geed_onnx.colours"] = [green, red]
    colours: Registry[object] = Registry("colours", "colour")
    colours.register("red", 1)
    assert colours["red"] == 1
    assert green.loads == 0  # what is known is answered without a look at the installed distributions
    assert colours["green"] == 5
    assert sorted(colours) == ["green", "red"]
    assert colours["red"] == 1  # one's own entry is not replaced
    assert (green.loads, red.loads) == (1, 0)
    with pytest.raises(UnknownName, match="unknown colour 'gren': did you mean 'green'"):
        colours["gren"]


@pytest.mark.parametrize("look", [len, list, lambda r: "green" in r, lambda r: r.get("green"), dict])
def test_every_way_of_looking_finds_them(look: Any, installed: dict[str, list[Point]]) -> None:
    installed["geed_onnx.colours"] = [Point("green", 5)]
    colours: Registry[object] = Registry("colours", "colour")
    assert look(colours) in (1, ["green"], True, 5, {"green": 5})


def test_the_distributions_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(registry, "entry_points", lambda group: calls.append(group) or [])
    colours: Registry[int] = Registry("colours", "colour")
    assert calls == []
    for _ in range(3):
        assert len(colours) == 0
        assert "red" not in colours
    assert calls == ["geed_onnx.colours"]


# ---- suggestions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known", "says"),
    [
        ("chanelwise", ["channelwise", "softmax"], ": did you mean 'channelwise'?"),
        ("SOFTMAX", ["channelwise", "softmax"], ": did you mean 'softmax'?"),
        ("latent-l3", ["latent-l2", "latent-l1"], ": did you mean 'latent-l2' or 'latent-l1'?"),
        ("zzz", ["b", "a", "a"], "; known: a, b"),
        ("zzz", [], ""),
        ("", ["a"], "; known: a"),
        ("zzz", [f"n{i:02}" for i in range(12)], "; known: " + ", ".join(f"n{i:02}" for i in range(12))),
        (
            "zzz",
            [f"n{i:02}" for i in range(13)],
            "; known: " + ", ".join(f"n{i:02}" for i in range(12)) + ", … (13 in all)",
        ),
    ],
)
def test_suggestion(name: str, known: list[str], says: str) -> None:
    assert suggestion(name, known) == says


def test_no_more_than_three_are_suggested() -> None:
    text = suggestion("tap", [f"tap{i}" for i in range(9)])
    assert text.count("'tap") == 3
    assert suggestion("tap", [f"tap{i}" for i in range(9)], most=1).count("'tap") == 1


def test_unknown_name_says_what_it_is_of_and_where_to_look() -> None:
    error = UnknownName("tap", "rel1", ["relu1"], "see geed-onnx taps")
    assert str(error) == "unknown tap 'rel1': did you mean 'relu1'?; see geed-onnx taps"
    assert (error.what, error.name) == ("tap", "rel1")
    assert str(UnknownName("tap", "x", [])) == "unknown tap 'x'"


# ---- the tree ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ERRORS)
def test_every_error_is_in_the_tree_with_an_exit_code(name: str) -> None:
    error = ERRORS[name]
    assert issubclass(error, GeedError)
    assert error.exit_code == (2 if issubclass(error, UsageError) else 1)
    assert error.__doc__
    assert name in str(errors.__doc__)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """Indentation in the module's docstring is inheritance."""
    drawn: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in str(errors.__doc__).splitlines():
        bare = line.lstrip(" │├└─")
        word = bare.split(" ")[0]
        if word not in ERRORS:
            continue
        depth = len(line) - len(bare)
        path = [(d, w) for d, w in path if d < depth]
        drawn[word] = path[-1][1] if path else "Exception"
        path.append((depth, word))
    assert drawn == {name: error.__bases__[0].__name__ for name, error in ERRORS.items()}


def test_errors_are_ordinary_exceptions() -> None:
    with pytest.raises(GeedError, match="what came"):
        raise errors.ModelError("what came")


# ---- the examples in the docstrings --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["registry", "groups", "actions", "distances"])
def test_the_examples_in_the_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"geed_onnx.{name}"))
    assert found.attempted > 0
    assert found.failed == 0
