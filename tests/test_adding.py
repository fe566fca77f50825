"""What `docs/architecture.md` says under "Where do I add …": each is done here, in a few lines, by what is public."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from engine_tools import measured, noise, small_net
from onnx_nets import Net

from geed_exporters import Export, InputSpec, TapEntry, write
from geed_exporters import Source as Origin
from geed_onnx import Result, read_results, write_results
from geed_onnx.cli.main import main
from geed_onnx.distances import Distance, distances
from geed_onnx.groups import Family, Motion, groups, reflection
from geed_onnx.sources import Form, Options, sources
from geed_onnx.variants import Variant, variants

Array = np.ndarray


@pytest.fixture(autouse=True)
def registries_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (groups, distances, variants, sources):
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def listed(what: str) -> str:
    return CliRunner().invoke(main, ["list", what], catch_exceptions=False).output


def test_a_group() -> None:
    def half_turn(_: object) -> object:
        return reflection("half-turn", Motion(turn=Fraction(1, 2)))

    groups.register("half-turn", Family("half-turn", half_turn, "upside down", ("half-turn",)))
    results = measured(small_net, noise(6), "half-turn")
    assert [r.value for r in results] == [r.value for r in measured(small_net, noise(6), "C2")]
    assert "upside down" in listed("groups")


def test_a_variant() -> None:
    def largest(a: Array, b: Array) -> Array:
        return np.abs(a - b).reshape(len(a), -1).max(axis=1).astype(np.float64)

    laws = frozenset({"symmetric", "metric", "definite"})
    distances.register("largest", Distance("largest", largest, 0.0, np.inf, ("map",), laws, "max |a − b|"))
    variants.register("worst-pixel", Variant("worst-pixel", "map", "pixels", "largest", "none", "the worst pixel"))
    (equivariant,) = measured(lambda x: {"map": x * x}, noise(6), "C4", variants=["worst-pixel"])
    (result,) = measured(small_net, noise(6), "C4", taps=["map"], variants=["worst-pixel"])
    assert equivariant.value == 0.0 < result.value
    assert "the worst pixel" in listed("variants")


@dataclass
class Stripes:
    """`stripes:N`: pictures of stripes, each finer than the one before."""

    uri: str
    size: int
    as_is: bool = True
    skipped: Mapping[str, str] = field(default_factory=dict)

    def items(self, indices: Sequence[int] | None = None) -> Iterator[tuple[str, Array]]:
        for i in range(self.size) if indices is None else indices:
            yield f"stripes-{i}", np.sin(np.arange(64) * (i + 1) / 9).reshape(1, 8, 8).astype(np.float32)


def test_a_source() -> None:
    def opened(uri: str, options: Options) -> Stripes:
        return Stripes(uri, int(uri.removeprefix("stripes:")))

    sources.register("stripes", Form(lambda uri: uri.startswith("stripes:"), opened, "stripes:N"))
    (result, *_) = measured(small_net, "stripes:7", "C4")
    assert (result.data["uri"], result.samples) == ("stripes:7", 7)
    assert "stripes:N" in listed("sources")


def test_an_exporter(tmp_path: Path) -> None:
    net = Net()
    net.add("Relu", ["x"], "act")
    export = Export(
        net.done([("x", ["N", 1, 8, 8])], [("act", ["N", 1, 8, 8])]),
        InputSpec("x", (1, 8, 8), "NCHW"),
        (TapEntry("act", "map", "NCHW", "model.act"),),
        Origin("numpy", np.__version__, "relu", "none"),
        reference=lambda x: {"act": np.maximum(x, 0)},
    )
    path = write(export, tmp_path / "net.onnx").path
    (result,) = measured(str(path), noise(6), "C4")
    assert (result.tap["name"], result.value) == ("act", pytest.approx(-1.0))


def test_a_report(tmp_path: Path) -> None:
    def csv(results: Sequence[Result]) -> str:
        return "\n".join(f"{r.tap['name']},{r.variant},{r.value}" for r in results)

    results = measured(small_net, noise(6), "C4")
    write_results(tmp_path / "r.jsonl", results)
    assert csv(read_results(tmp_path / "r.jsonl")) == csv(results)
    assert csv(results).startswith("map,channelwise,-0.")
