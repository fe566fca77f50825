"""Whether two numbers may be held against one another, raw or calibrated, and what is worth noting if they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from geed_onnx.errors import GeedError
from geed_onnx.results import Result
from geed_onnx.variants import parse_variant

#: Of the preprocessing, what belongs to the file's format and not to what the model sees.
FORMAT = ("layout", "dtype", "notes", "origin")


def raw_problem(a: Result, b: Result) -> str | None:
    """Return why the raw values of two cells of one variant are not comparable, or None where they are.

    The raw value depends on what is compared with what: on the group, the mask and the interpolation, on the width of
    the features, on the kernel that f̂ is taken over, and for a value whose optimum is relative to M on the network.
    """
    if a.key is not None and a.key == b.key:
        return None  # one measurement
    if a.group["name"] != b.group["name"]:
        return f"raw values are not comparable: different groups, {_group(a)} and {_group(b)}"
    if a.data.get("mask") != b.data.get("mask"):
        said = [f"mask {r.data['mask']}" if r.data.get("mask") else "no mask" for r in (a, b)]
        return f"raw values are not comparable: {said[0]} and {said[1]}"
    if a.interpolation != b.interpolation:
        return f"raw values are not comparable: {a.interpolation} and {b.interpolation} interpolation"
    if (shapes := _unlike_shapes(a, b)) is not None:
        return f"raw values are not comparable: {shapes}"
    one, other = a.tap.get("kernel"), b.tap.get("kernel")
    if one is not None and other is not None and one != other:
        return (
            f"raw values are not comparable: f̂ is a mean over {len(one)} and over {len(other)} elements,"
            f" because the group acts on the taps as {a.tap.get('action')} and as {b.tap.get('action')}"
        )
    if optimum_moves(a.variant):
        return (
            f"raw values are not comparable: the optimum of {a.variant} moves with each network's own spread M; use"
            " latent-cosine-bounded or the calibrated value"
        )
    return None


def calibrated_problem(a: Result, b: Result) -> str | None:
    """Return why the calibrated values of two cells are not comparable, or None where they are."""
    methods = {a.floor_method, b.floor_method}
    if methods == {"optimum", "passes"}:
        return "calibrated values are not comparable: the floor was measured for one only; measure both with --floor"
    return None


def notes_on(a: Result, b: Result, names: tuple[str, str]) -> Iterator[str]:
    """Yield what differs between two measurements without forbidding the comparison."""
    both = f"{names[0]} and {names[1]}"
    one, other = a.data.get("preprocessing"), b.data.get("preprocessing")
    if differ := list(_differences(one, other)):
        yield f"{both} are given their images differently: {'; '.join(differ)}"
    providers = [r.runtime.get("provider") for r in (a, b)]
    if providers[0] != providers[1]:
        yield f"{both} ran on different providers: {providers[0]} and {providers[1]}"
    methods = {a.floor_method, b.floor_method}
    if len(methods) == 2 and "optimum" in methods and "passes" not in methods:
        yield (
            f"{both}: where the floor was not measured (--floor) the optimum stands in for it, and the calibrated value"
            " holds what resampling costs"
        )


def _differences(one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in dict.fromkeys((*one, *other)):
            if name not in FORMAT and one.get(name) != other.get(name):
                yield f"{name} {one.get(name)} and {other.get(name)}"
    elif one != other:
        yield " and ".join("prepared" if isinstance(some, Mapping) else str(some) for some in (one, other))


def _group(r: Result) -> str:
    return f"{r.group['name']} (order {r.group.get('order')})"


def _unlike_shapes(a: Result, b: Result) -> str | None:
    one, other = (list(r.tap.get("shape") or ()) for r in (a, b))
    if one == other:
        return None
    # a mean over channels can be held against one over fewer or more of them, as long as each is of the same grid
    if len(one) == len(other) == 3 and one[1:] == other[1:] and _by_channel(a.variant):
        return None
    what = {"map": "maps of different size", "vector": "latents of different width"}.get(str(a.tap.get("kind")))
    return f"{what or 'different numbers of classes'}, {_shape(one)} and {_shape(other)}"


def _by_channel(variant: str) -> bool:
    try:
        return parse_variant(variant).m.per_channel is not None
    except GeedError:  # a variant that is not installed here
        return False


def optimum_moves(variant: str) -> bool:
    """Say whether the raw values of a variant have no scale that two networks share."""
    try:
        return parse_variant(variant).optimum_moves
    except GeedError:  # a variant that is not installed here
        return False


def _shape(shape: list[Any]) -> str:
    return "×".join(str(d) for d in shape) or "none"
