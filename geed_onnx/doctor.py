"""What will or will not work with a file, and why: findings in words, from the graph and from a few real passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from geed_onnx.actions import Declared
from geed_onnx.engine.opening import runtime_options
from geed_onnx.engine.targets import declared_action
from geed_onnx.errors import GeedError
from geed_onnx.requests import Model, Runtime
from geed_onnx.sessions import RuntimeOptions, Session, available_providers, open_session
from geed_onnx.sources import declared_input, preprocessing_for

if TYPE_CHECKING:
    from geed_onnx.taps import Graph, Port, Tap

Array = npt.NDArray[Any]
Verdict = Literal["ok", "note", "warning", "error"]
#: How much exposing taps may move an output, relative to its largest value, before it is a warning.
EXPOSING_TOLERANCE = 1e-4
#: The same for optimising the graph, which folds and reorders sums in earnest.
OPTIMISING_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    topic: str
    verdict: Verdict
    text: str


def examine(graph: Graph, model: Model, runtime: Runtime) -> list[Finding]:
    """Return the findings about a file; one with the verdict `error` means it cannot be measured as it is."""
    from geed_onnx.taps import choose_taps, image_input

    findings = list(_file(graph))
    findings += _installation()
    try:
        port = image_input(graph, model.input)
    except GeedError as error:
        return [*findings, Finding("input", "error", str(error))]
    findings += _input(graph, port, model.layout)
    findings += _centre(graph, port)
    taps = choose_taps(graph, input=port.name)
    findings += _taps(taps)
    findings += _running(graph, port, taps, runtime_options(model, runtime))
    return findings


def _file(graph: Graph) -> Iterator[Finding]:
    from geed_onnx.taps import declaration_problems

    size = graph.path.stat().st_size if graph.path.exists() else 0
    weights = f", {len(graph.external)} file(s) of external weights" if graph.external else ""
    producer = graph.producer or "an unnamed producer"
    yield Finding("file", "ok", f"{producer}, opset {graph.opset}, IR {graph.ir}, {size:,} bytes{weights}")
    declared = [k for k in graph.metadata if k.startswith("geed.")]
    yield Finding("metadata", "ok" if declared else "note", ", ".join(declared) or "no geed.* metadata (not needed)")
    for problem in declaration_problems(graph):
        yield Finding("metadata", "warning", problem)


def _installation() -> Iterator[Finding]:
    have = {name for name in ("onnxruntime", "onnxruntime-gpu") if _installed(name)}
    if len(have) == 2:
        yield Finding(
            "install",
            "warning",
            "onnxruntime and onnxruntime-gpu are both installed and own the same folder, so that either may be half"
            " overwritten: pip uninstall both, then install one",
        )
    yield Finding("install", "ok", f"ONNX Runtime with providers {', '.join(available_providers())}")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _input(graph: Graph, port: Port, layout: str | None) -> Iterator[Finding]:
    shape = "×".join(str(d) if d is not None else "?" for d in port.shape)
    yield Finding("input", "ok", f"{port.name!r}: {shape} {port.dtype}")
    if len(port.shape) == 4:
        if port.layout:
            yield Finding("layout", "ok", f"{port.layout}, known from the graph")
        elif layout:
            yield Finding("layout", "note", f"{layout}, as given: the graph does not tell")
        else:
            yield Finding("layout", "error", "not known from the graph: add --layout NCHW or --layout NHWC")
    else:
        yield Finding("layout", "note", "no image: only groups on an axis (S<n>@<axis>) can act on it")
    if "geed.input" in graph.metadata:
        try:
            declared_input(graph.metadata)
        except GeedError as error:
            yield Finding("range", "error", str(error))
        else:
            yield Finding("range", "ok", f"declared in geed.input: {graph.metadata['geed.input'][:200]}")
    elif (graph.path.parent / "preprocessor_config.json").is_file():
        try:
            _follow_config(graph, port, layout)
        except GeedError as error:
            yield Finding("range", "error", str(error))
        else:
            yield Finding("range", "ok", "declared in preprocessor_config.json beside the file")
    else:
        yield Finding(
            "range",
            "warning",
            "the file does not say which values it expects: images are given as 0..1 unless --range, --mean, --std say"
            " otherwise; arrays are used as they are",
        )
    others = [p for p in graph.inputs if p.name != port.name]
    if others:
        names = ", ".join(f"{p.name} {p.dtype}{list(p.shape)}" for p in others)
        yield Finding("inputs", "note", f"the group acts on {port.name!r}; give the others with --constant: {names}")


def _follow_config(graph: Graph, port: Port, layout: str | None) -> None:
    """Read the preprocessor_config.json beside the file as a measurement would; raises what that would raise."""
    known = layout or port.layout
    if len(port.shape) != 4 or known is None:
        return
    channel = 3 if known == "NHWC" else 1
    # any size will do where the file leaves it open
    sides = (d if isinstance(d, int) else None if i in (0, channel) else 224 for i, d in enumerate(port.shape))
    preprocessing_for(
        input_shape=tuple(sides),
        input_layout=known,
        input_dtype=port.dtype,
        metadata=graph.metadata,
        model_folder=graph.path.parent,
        flags={},
    )


def _centre(graph: Graph, port: Port) -> Iterator[Finding]:
    from geed_onnx.taps import lost_centre

    obstacles = lost_centre(graph, input=port.name)
    if not obstacles:
        yield Finding("C4", "ok", "no stride, padding or resizing loses the centre: exact C4 equivariance is possible")
    for obstacle in obstacles[:8]:
        size = "×".join(str(d) if d is not None else "?" for d in obstacle.size)
        better = f"; exact at {', '.join(map(str, obstacle.exact_sizes))}" if obstacle.exact_sizes else ""
        yield Finding("C4", "note", f"{obstacle.op} {obstacle.tensor!r} on {size}: {obstacle.why}{better}")
    if len(obstacles) > 8:
        yield Finding("C4", "note", f"… and {len(obstacles) - 8} more places")


def _taps(taps: tuple[Tap, ...]) -> Iterator[Finding]:
    for role, plural in (("stage", "stage ends"), ("latent", "latent"), ("scores", "scores")):
        names = [t.name for t in taps if t.role == role]
        verdict: Verdict = "ok" if names else "note"
        yield Finding(
            "taps", verdict, f"{plural}: {', '.join(names) or 'none found in the graph; name one with --tap'}"
        )
    for tap in taps:
        if tap.action is not None:
            yield _action(tap)
        for flag in tap.flags:
            yield Finding("taps", "warning" if "folded" in flag else "note", f"{tap.name}: {flag}")
    if not taps:
        yield Finding("taps", "error", "nothing to measure was found in the graph: name tensors with --tap")


def _action(tap: Tap) -> Finding:
    """Say whether the action that the file declares for a tap is one, and fits its channels."""
    try:
        declared = declared_action(tap.name, tap.action)
    except GeedError as error:
        return Finding("action", "error", str(error))
    if isinstance(declared, Declared) and tap.shape[0] not in (None, declared.width):
        return Finding(
            "action",
            "error",
            f"{tap.name}: the declared {declared} are {declared.width} channels, but the tap has {tap.shape[0]}; export"
            " the model again, or measure naively with --no-declared-action",
        )
    return Finding("action", "ok", f"{tap.name}: {declared}, declared in geed.taps")


def _running(graph: Graph, port: Port, taps: tuple[Tap, ...], options: RuntimeOptions) -> Iterator[Finding]:
    from geed_onnx.taps import list_taps

    shape = [d if isinstance(d, int) else 0 for d in port.shape]
    if port.name in graph.sizes:
        shape = list(graph.sizes[port.name])
    if 0 in shape[1:]:
        yield Finding("running", "note", "not tried: the file leaves its size open; add --size HxW")
        return
    x = _noise((4, *shape[1:]), port.dtype)
    outputs = [t for t in list_taps(graph, input=port.name) if t.name in {o.name for o in graph.outputs}]
    both = list({t.name: t for t in (*outputs, *taps)}.values())
    try:
        session = open_session(graph, both, port, options)
        tapped, again = session.run(x), session.run(x)
    except GeedError as error:
        yield Finding("running", "error", str(error))
        return
    facts = session.facts
    how: Verdict = "ok" if facts.batching != "looped" else "note"
    yield Finding(
        "batch",
        how,
        {"dynamic": "free", "rewritten": "fixed in the file, made free and verified"}.get(
            facts.batching, "; ".join(facts.notes) or "run image by image"
        ),
    )
    yield Finding("running", "ok", f"runs on {facts.provider} with {facts.threads} thread(s)")
    noise = max((_change(tapped[n], again[n]) for n in tapped), default=0.0)
    yield Finding(
        "noise",
        "ok" if noise == 0 else "note" if noise < EXPOSING_TOLERANCE else "warning",
        "two runs give the same bits" if noise == 0 else f"two runs differ by up to {noise:.2g} (relative)",
    )
    bad = [n for n, y in tapped.items() if not np.isfinite(y).all()]
    if bad:
        yield Finding("values", "warning", f"NaN or Inf on noise images in {', '.join(bad)}")
    yield from _exposing(graph, outputs, port, options, x, tapped)
    yield from _optimising(graph, both, port, options, x, tapped)


def _optimising(
    graph: Graph, taps: list[Tap], port: Port, options: RuntimeOptions, x: Array, tapped: dict[str, Array]
) -> Iterator[Finding]:
    """Compare with the graph as it is written: ONNX Runtime's rewriting should change rounding only."""
    try:
        plain = open_session(graph, taps, port, replace(options, optimise=False)).run(x)
    except GeedError as error:  # some kernels exist in fused form only
        yield Finding("optimising", "note", f"not compared with the graph as it is written: {error}")
        return
    moved = {n: _change(tapped[n], plain[n]) for n in plain}
    worst = max(moved, key=lambda n: moved[n], default="")
    if worst and moved[worst] > OPTIMISING_TOLERANCE:
        yield Finding(
            "optimising",
            "warning",
            f"ONNX Runtime's optimiser moves {worst!r} by {moved[worst]:.2g} (relative): it runs another function than"
            " the file states (zero padding before a max pooling, fused into it, is a known cause). What is measured"
            " is what it runs; compare with another version of ONNX Runtime",
        )
    elif worst:
        yield Finding("optimising", "ok", f"optimising leaves the taps as they are, to {moved[worst]:.2g} (relative)")


def _exposing(
    graph: Graph, outputs: list[Tap], port: Port, options: RuntimeOptions, x: Array, tapped: dict[str, Array]
) -> Iterator[Finding]:
    if not outputs:
        return
    alone: Session = open_session(graph, outputs, port, options)
    plain = alone.run(x)
    change = max(_change(tapped[n], plain[n]) for n in plain)
    if change == 0:
        yield Finding("exposing", "ok", "drawing off the taps leaves the outputs as they are, to the last bit")
    else:
        verdict: Verdict = "ok" if change < EXPOSING_TOLERANCE else "warning"
        yield Finding("exposing", verdict, f"drawing off the taps moves the outputs by {change:.2g} (relative)")


def _noise(shape: tuple[int, ...], dtype: str) -> Array:
    rng = np.random.default_rng(0)
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        bounds = np.iinfo(kind)
        integers: Array = rng.integers(bounds.min, bounds.max, size=shape, dtype=kind, endpoint=True)
        return integers
    return rng.random(shape).astype(kind)


def _change(a: Array, b: Array) -> float:
    with np.errstate(invalid="ignore"):
        largest = float(np.nanmax(np.abs(b.astype(np.float64)), initial=0.0))
        gap = float(np.nanmax(np.abs(a.astype(np.float64) - b), initial=0.0))
    return gap / largest if largest > 0 else gap
