"""A measurement cut into shares: the same lines to the last bit, a union with laws, and nothing lost in silence."""

from __future__ import annotations

import pickle
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import onnx_nets
import pytest
from engine_tools import SMALL_TAPS, Array, noise, saved, small_net, softmax
from PIL import Image

from geed_onnx import CallableSession
from geed_onnx.engine import (
    Measured,
    Partial,
    Plan,
    finish,
    measure_part,
    measure_plan,
    merge,
    notes_of,
    plan_of,
    rows_of,
)
from geed_onnx.errors import DataError, GeedError, MeasureError, OutOfMemory, UnknownName, UsageError
from geed_onnx.estimators import Change
from geed_onnx.requests import request_of
from geed_onnx.sources import Source, open_source

SHIPPED = Path(__file__).parents[1] / "models" / "shipped"


@pytest.fixture(scope="module")
def digits() -> Source:
    return open_source(str(SHIPPED / "digits-test.parquet"))


def planned(model: Any, data: Any, group: str = "C4", *, taps: Sequence[str] | None = None, **settings: Any) -> Plan:
    named = taps or (SMALL_TAPS if isinstance(model, CallableSession) else None)
    return plan_of(request_of(model, data, group, taps=named, provider="cpu", **settings))


def small(count: int = 20, group: str = "C4", **settings: Any) -> Plan:
    return planned(CallableSession(small_net), noise(count), group, **{"samples": "all", **settings})


def cut(plan: Plan, parts: int) -> list[Partial]:
    """Every share, as pickle brings it from another process, in a random order."""
    shares = [pickle.loads(pickle.dumps(measure_part(plan, part, parts))) for part in range(parts)]
    random.Random(parts).shuffle(shares)
    return shares


def said(measured: Sequence[Measured]) -> list[tuple[Any, ...]]:
    """Everything that comes of a measurement, to the last bit."""

    def bits(change: Change | None) -> tuple[Any, ...] | None:
        return change and (change.value.hex(), change.ids, change.changes.tobytes(), change.block.tobytes())

    return [
        (m.result.to_json(), m.deviations.ids, m.deviations.values.tobytes(), bits(m.tables.value),
         bits(m.tables.calibrated))
        for m in measured
    ]  # fmt: skip


def held(partial: Partial) -> dict[str, Any]:
    """Everything in a partial measurement, in an order of its own."""

    def table(d: Any) -> Any:
        return d and (d.ids, d.values.tobytes())

    def null(b: Any) -> Any:
        return b and [table(t) for t in (b.values, b.taken, b.lost, b.twice)]

    return {
        "of": (partial.of, partial.parts, partial.cut),
        "shares": sorted(partial.shares.items()),
        "images": (len(partial.images), partial.images.hexdigest()),
        "points": (len(partial.points), partial.points.hexdigest()),
        "skipped": sorted(partial.skipped.items()),
        "taps": [
            (
                name, tap.shape, tap.logits, sorted(tap.zero_channels.items()),
                sorted((i, y.tobytes()) for i, y in tap.spread.items()),
                [(table(c.sample), table(c.floor), null(c.null), c.contrast) for c in tap.cells],
            )
            for name, tap in partial.taps.items()
        ],
    }  # fmt: skip


# ── the same bits ────────────────────────────────────────────────────────────────────────────────────────────────────
SETTINGS: list[dict[str, Any]] = [
    {"samples": 40},
    {"samples": 24, "floor": True, "mask": "disc", "reference_samples": 5, "spread_samples": 44},
    {"samples": 9, "reference_samples": 1, "spread_samples": 5},
    {"samples": 11, "reference_samples": 0, "batch_size": 3},
    {"samples": "all", "batch_size": 64},
    {"samples": "all", "reference_samples": 35, "floor": True, "batch_size": 12},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("group", ["C4", "C8"])
def test_lines_and_tables_are_the_same_in_any_number_of_parts(group: str, settings: dict[str, Any]) -> None:
    plan = small(47, group, **settings)
    whole = said(measure_plan(plan))
    assert len(whole) == 5
    for parts in (1, 2, 3, 7, 60):
        assert said(finish(plan, reduce(merge, cut(plan, parts)))) == whole, parts


# the Flax file gives other last bits for a batch of one image than for one of several
@pytest.mark.parametrize("model", ["digits-cnn", "digits-cnn-flax", "digits-c8cnn", "digits-cnn-int8"])
def test_an_onnx_file_gives_the_same_lines_in_parts_that_others_opened(model: str, digits: Source) -> None:
    path = str(SHIPPED / f"{model}.onnx")
    settings = {"samples": 37, "floor": True, "batch_size": 12, "reference_samples": 7, "spread_samples": 50}
    whole = said(measure_plan(planned(path, digits, "C8", **settings)))
    for parts in (2, 5):
        shares = [measure_part(planned(path, digits, "C8", **settings), part, parts) for part in range(parts)]
        assert said(finish(planned(path, digits, "C8", **settings), reduce(merge, shares[::-1]))) == whole


@pytest.mark.parametrize("reference_samples", [1, 4, 5, 6, 16])
def test_no_bit_depends_on_the_number_of_threads(reference_samples: int, digits: Source) -> None:
    def run(threads: int) -> list[tuple[Any, ...]]:
        plan = planned(str(SHIPPED / "digits-cnn-flax.onnx"), digits, "flip", threads=threads, samples=17,
                       reference_samples=reference_samples)  # fmt: skip
        return [(m.result.value, m.result.null, m.deviations.values.tobytes()) for m in measure_plan(plan)]

    assert run(1) == run(2) == run(5)


def test_the_decision_on_logits_is_the_first_images_in_every_part() -> None:
    """Only the first images show that the tap holds logits: a part that looked at its own would take probabilities."""

    def scores(x: Array) -> dict[str, Array]:
        z = np.stack([x[:, 0, i, :4].sum(axis=1) for i in range(3)], axis=1).astype(np.float64)
        bright = x[:, 0].max(axis=(1, 2)) > 5
        return {"scores": np.where(bright[:, None], z, softmax(z))}

    def bright(first: bool) -> Plan:
        images = noise(64)  # four blocks of 16, run two images at a time
        order = planned(CallableSession(scores), images, "flip", taps=["scores:probability"], samples="all").indices
        images[list(order[:2] if first else order[-2:])] *= 10
        return planned(CallableSession(scores), images, "flip", taps=["scores:probability"], samples="all",
                       batch_size=4)  # fmt: skip

    plan = bright(first=True)
    whole = said(measure_plan(plan))
    assert measure_plan(plan)[0].result.logits is True
    assert said(finish(plan, reduce(merge, cut(plan, 4)))) == whole

    plan = bright(first=False)
    match = f"sums to 1 for the first images, but not for all of '{plan.indices[-2]}'"
    with pytest.raises(MeasureError, match=match) as one:
        measure_plan(plan)
    with pytest.raises(MeasureError) as other:
        measure_part(plan, 3, 4)
    assert str(one.value) == str(other.value)


def folder(path: Path, count: int, bad: Sequence[int]) -> str:
    path.mkdir()
    for i, image in enumerate(noise(count, 8)):
        name = path / f"{i:02d}.png"
        if i in bad:
            name.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
        else:
            Image.fromarray((255 * image[0]).astype(np.uint8)).save(name)
    return str(path)


@pytest.mark.parametrize("samples", ["all", 12])
@pytest.mark.parametrize("reference", [2, 4, 16])
def test_images_that_are_left_out_leave_the_lines_the_same(tmp_path: Path, samples: Any, reference: int) -> None:
    net = saved(onnx_nets.cnn(8, (3, 4), 5), tmp_path)
    data = folder(tmp_path / "holes", 23, (0, 1, 5, 9, 10, 22))

    def plan() -> Plan:
        return planned(net, data, "C4", skip_bad=True, samples=samples, reference_samples=reference, batch_size=8)

    whole = said(measure_plan(plan()))
    for parts in (2, 3, 9):
        shares = [measure_part(plan(), part, parts) for part in range(parts)]
        assert said(finish(plan(), reduce(merge, shares))) == whole, parts
    if samples == "all":
        left = [f"{i:02d}.png" for i in plan().indices if i in (0, 1, 5, 9, 10, 22)]  # in the order of reading
        assert f'"skipped 6 unreadable image(s): {", ".join(left[:5])}"' in whole[0][0]


def test_what_is_said_to_be_left_out_is_of_this_sample(tmp_path: Path) -> None:
    """A source that serves several measurements remembers what every one of them met."""
    net = saved(onnx_nets.cnn(8, (3, 4), 5), tmp_path)
    plan = planned(net, folder(tmp_path / "holes", 12, (3, 7)), "C4", skip_bad=True, samples="all", spread_samples=2)

    def skipped(plan: Plan) -> set[str]:
        return {n for m in measure_plan(plan) for n in m.result.notes if "skipped" in n}

    left = [f"{i:02d}.png" for i in plan.indices if i in (3, 7)]
    assert skipped(plan) == {f"skipped 2 unreadable image(s): {', '.join(left)}"}
    assert skipped(replace(plan, indices=(7, 0, 1, 2), references=((7, 0, 1, 2),))) == {
        "skipped 1 unreadable image(s): 07.png"
    }
    assert skipped(replace(plan, indices=(0, 1, 2), references=())) == set()


# ── the union ────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("seed", range(5))
def test_merge_is_commutative_associative_and_a_union(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    plan = small(rng.randint(3, 40), rng.choice(["C4", "C8", "flip"]), reference_samples=rng.choice([0, 1, 3, 16]),
                 spread_samples=rng.choice([2, None]), floor=True, batch_size=rng.choice([8, 16, None]),
                 samples=rng.choice([3, "all"]))  # fmt: skip
    shares = cut(plan, rng.randint(2, 9))
    for a, b in combinations(shares, 2):
        assert held(merge(a, b)) == held(merge(b, a))
    for a in shares:
        assert held(merge(a, a)) == held(a)
    whole = held(reduce(merge, shares))
    for _ in range(4):
        heap = rng.sample(shares, len(shares))
        while len(heap) > 1:  # any tree, and any share twice
            a, b = heap.pop(rng.randrange(len(heap))), heap.pop(rng.randrange(len(heap)))
            heap.append(merge(a, b))
            heap += [b] if rng.random() < 0.2 else []
        assert held(heap[0]) == whole
    assert reduce(merge, shares).missing == ()


def test_no_image_is_run_twice_and_none_is_left_out() -> None:
    class Counting:
        def __init__(self) -> None:
            self.session, self.rows = CallableSession(small_net), list[bytes]()
            self.facts = self.session.facts

        def run(self, x: Array) -> dict[str, Array]:
            self.rows += [row.tobytes() for row in x]
            return self.session.run(x)

    session = Counting()
    plan = planned(session, noise(50), "C8", taps=SMALL_TAPS, samples=40, spread_samples=45, batch_size=16,
                   reference_samples=20)  # fmt: skip
    session.rows.clear()
    measure_plan(plan)
    one = sorted(session.rows)
    # the first two images run once more before all, to settle what every share must agree on
    assert len(one) == rows_of(plan) + 2
    assert sorted(Counter(one).values()) == [1] * (rows_of(plan) - 2) + [2, 2]
    for parts in (2, 5):
        session.rows.clear()
        sizes = [len(measure_part(plan, part, parts).images) for part in range(parts)]
        assert sum(sizes) == 40
        assert len(session.rows) == len(one) + 2 * (parts - 1)
        assert set(session.rows) == set(one)


@pytest.mark.parametrize("count", [33, 64, 200])
@pytest.mark.parametrize("parts", [2, 3, 4, 6])
@pytest.mark.parametrize("reference", [None, 16, 0])
def test_shares_are_even_but_for_one_piece(count: int, parts: int, reference: int | None) -> None:
    plan = planned(CallableSession(lambda x: {"map": x}), noise(count), "C2", taps=["map:map"], samples="all",
                   batch_size=8, reference_samples=reference)  # fmt: skip
    shares = [measure_part(plan, part, parts) for part in range(parts)]
    sizes = [len(share.images) for share in shares]
    assert sum(sizes) == count
    # each end of a share is off by half a piece at most: a block, or a micro-batch of 8 / |C2| images
    largest = max(4, *map(len, plan.references)) if plan.references else 4
    assert max(abs(size - count / parts) for size in sizes) <= largest
    blocks = [{str(i) for i in block} for block in plan.references]
    for share in shares:  # whole blocks: a broken orbit needs all of its block
        null = next(iter(share.taps.values())).cells[0].null
        mine = set(null.ids) if null else set()
        assert mine == set().union(*(b for b in blocks if b <= mine))


def test_every_part_tells_its_own_progress() -> None:
    plan = small(60, "C4", samples=50, batch_size=8)  # three blocks
    for part in range(3):
        calls: list[tuple[int, int]] = []
        measure_part(plan, part, 3, progress=lambda done, total, calls=calls: calls.append((done, total)))  # type: ignore[misc]
        own = len(measure_part(plan, part, 3).images)
        assert calls[-1][0] == calls[-1][1] >= 4 * own + 2  # the rest are spread points
        assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_memory_does_not_grow_with_a_share() -> None:
    def wide(x: Array) -> dict[str, Array]:
        return {"map": np.repeat(x, 48, axis=1), "latent": x.reshape(len(x), -1)[:, :16]}

    images = noise(600, 12)

    def peak(samples: int) -> int:
        plan = planned(CallableSession(wide), images, "C4", taps=["map:map", "latent:vector"], samples=samples,
                       batch_size=32)  # fmt: skip
        tracemalloc.start()
        try:
            measure_part(plan, 1, 2)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(20)  # what is cached for good
    few, many = peak(50), peak(600)
    # the 275 further images come to 30 MB of activations
    assert many - few < 8e6, (few, many)


# ── nothing is lost in silence ───────────────────────────────────────────────────────────────────────────────────────
def test_a_part_that_did_not_come_is_named() -> None:
    plan = small()
    shares = cut(plan, 4)
    some = reduce(merge, [s for s in shares if 1 not in s.shares])
    assert some.missing == (1,)
    with pytest.raises(MeasureError, match=r"of the 4 parts of this measurement, 1 \(counted from 0\) did not come"):
        finish(plan, some)


@pytest.mark.parametrize(("part", "parts"), [(-1, 2), (2, 2), (0, 0), (1, 1)])
def test_there_is_no_such_part(part: int, parts: int) -> None:
    with pytest.raises(UsageError, match=f"there is no part {part} of {parts}: parts are counted from 0"):
        measure_part(small(4), part, parts)


def altered(partial: Partial, **changes: Any) -> Partial:
    """The partial with something changed in its first tap's first cell, or in the tap itself."""
    name, tap = next(iter(partial.taps.items()))
    cell = tap.cells[0]
    if "values" in changes:
        cell = replace(cell, sample=replace(cell.sample, values=changes.pop("values")(cell.sample.values)))
    for level in ("null", "contrast"):
        if level in changes:
            cell = replace(cell, **{level: changes.pop(level)(getattr(cell, level))})
    tap = replace(tap, cells=(cell, *tap.cells[1:]), **{k: v(getattr(tap, k)) for k, v in changes.items()})
    return replace(partial, taps={**partial.taps, name: tap})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"values": lambda v: v + 1e-12}, "image '0' occurs twice with different deviations"),
        (
            {"null": lambda b: replace(b, values=replace(b.values, values=b.values.values * 2))},
            "image '0' occurs twice with different deviations",
        ),
        ({"contrast": lambda c: c + 1}, "the contrast of the reference images came twice and differ"),
        ({"shape": lambda s: (*s, 1)}, "a tap's shape must not depend on the image"),
        ({"logits": lambda b: not b}, "shares of two measurements, of different variants or kinds"),
        ({"zero_channels": lambda z: {**z, "3": 99}}, "image '3' came twice with different values"),
    ],
)
def test_two_values_for_one_image_are_refused(changes: dict[str, Callable[[Any], Any]], text: str) -> None:
    partial = measure_part(small(6), 0, 1)
    with pytest.raises(MeasureError, match=text):
        merge(partial, altered(partial, **changes))
    with pytest.raises(MeasureError, match=text):
        merge(altered(partial, **changes), partial)


def test_other_features_for_one_spread_point_are_refused() -> None:
    partial = measure_part(small(6), 0, 1)
    latent = partial.taps["latent"]
    other = replace(latent, spread={**latent.spread, "2": latent.spread["2"] + 1})
    with pytest.raises(MeasureError, match="tap 'latent': spread point '2' came twice with different values"):
        merge(partial, replace(partial, taps={**partial.taps, "latent": other}))


def test_other_images_under_one_id_are_refused() -> None:
    one, images = small(6), noise(6)
    images[4] += 1
    other = planned(CallableSession(small_net), images, samples="all")
    with pytest.raises(DataError, match="two different images have the same id '4'"):
        merge(measure_part(one, 0, 1), measure_part(other, 0, 1))


@pytest.mark.parametrize("other", [{"seed": 1}, {"group": "C8"}, {"samples": 5}, {"variants": ["latent-l2"]}])
def test_shares_of_two_measurements_do_not_merge(other: dict[str, Any]) -> None:
    session, images = CallableSession(small_net), noise(12)
    a, b = (planned(session, images, **{"samples": 6, **more}) for more in ({}, other))
    with pytest.raises(MeasureError, match="shares of two measurements do not merge: their model, sample, group"):
        merge(measure_part(a, 0, 2), measure_part(b, 1, 2))
    with pytest.raises(MeasureError, match="finish with the plan that was measured"):
        finish(b, measure_part(a, 0, 1))
    with pytest.raises(MeasureError, match="one of 3 parts do not merge: cut it once"):
        merge(measure_part(a, 0, 2), measure_part(a, 1, 3))


def test_shares_that_were_cut_in_another_way_do_not_merge() -> None:
    """A machine with less memory would take smaller micro-batches, and so other images for its own."""

    def tight(x: Array) -> dict[str, Array]:
        if len(x) > 1:
            raise OutOfMemory("too much")
        return small_net(x)

    images = noise(30)
    roomy, narrow = (planned(CallableSession(f), images, samples="all") for f in (small_net, tight))
    with pytest.raises(MeasureError, match=r"so that images would be missing: .* give one --batch-size"):
        merge(measure_part(roomy, 0, 2), measure_part(narrow, 1, 2))


def test_memory_that_runs_out_in_one_part_is_said_and_moves_no_number() -> None:
    def tight(x: Array) -> dict[str, Array]:
        if len(x) > 10:
            raise OutOfMemory("too much")
        return small_net(x)

    images = noise(60)
    roomy, narrow = (planned(CallableSession(f), images, samples="all", batch_size=16) for f in (small_net, tight))
    whole = measure_plan(roomy)
    shares = [measure_part(narrow if part == 1 else roomy, part, 3) for part in range(3)]
    found = finish(roomy, reduce(merge, shares))
    assert [m.result.value for m in found] == [m.result.value for m in whole]
    assert [m.deviations for m in found] == [m.deviations for m in whole]
    # four images at a time, whose f(x) ran ahead: 4 · 3 rows
    assert found[0].result.runtime["batch"] == 6
    assert whole[0].result.runtime["batch"] == 16
    assert "out of memory with 12 rows a pass: went on with 6" in found[0].result.notes


def test_parts_on_two_providers_are_no_measurement() -> None:
    plan = small(40)  # two blocks
    a, b = measure_part(plan, 0, 2), measure_part(plan, 1, 2)
    ((number, conditions),) = b.shares.items()
    facts = replace(conditions.facts, provider="CUDAExecutionProvider")
    other = replace(b, shares={number: replace(conditions, facts=facts)})
    with pytest.raises(MeasureError, match=r"ran on different providers \(CUDAExecutionProvider, python:callable\)"):
        finish(plan, merge(a, other))
    facts = replace(conditions.facts, threads=7)
    slower = merge(a, replace(b, shares={number: replace(conditions, facts=facts)}))
    assert "its images were shared out among sessions that differ: threads 1 and 7" in notes_of(plan, slower)
    assert all(m.result.value is not None for m in finish(plan, slower))


def test_nan_in_a_part_names_the_image() -> None:
    def broken(x: Array) -> dict[str, Array]:
        out = small_net(x)
        out["latent"][x[:, 0].max(axis=(1, 2)) > 5] = np.nan
        return out

    images = noise(40)
    last = small(40).references[1][-1]  # the second block's
    images[last] *= 10
    plan = planned(CallableSession(broken), images, samples="all", batch_size=8)
    assert measure_part(plan, 0, 2).shares
    with pytest.raises(MeasureError, match=f"tap 'latent' holds NaN for image '{last}'"):
        measure_part(plan, 1, 2)


def test_a_cell_without_an_action_keeps_its_reason_in_parts(tmp_path: Path) -> None:
    net = onnx_nets.Net()
    net.add("Conv", ["x", net.weight("w", 2, 1, 3, 3)], "wide", pads=[1, 0, 1, 0])
    net.add("Relu", ["wide"], "map")
    net.add("GlobalAveragePool", ["map"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    net.add("Gemm", ["latent", net.weight("wc", 2, 3)], "logits")
    path = saved(net.done([("x", ["N", 1, 8, 8])], [("logits", ["N", 3])]), tmp_path)
    plan = planned(path, noise(30), "C4", samples="all", batch_size=8)
    whole = measure_plan(plan)
    assert any(m.result.value is None and "tap " in str(m.result.reason) for m in whole)
    assert said(finish(plan, reduce(merge, cut(plan, 3)))) == said(whole)


# ── errors from elsewhere ────────────────────────────────────────────────────────────────────────────────────────────
def every_error(kind: type[GeedError] = GeedError) -> set[type[GeedError]]:
    return {kind}.union(*(every_error(k) for k in kind.__subclasses__()))


@pytest.mark.parametrize(
    "kind", sorted({k for k in every_error() if k.__module__ == "geed_onnx.errors"}, key=lambda k: k.__name__)
)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_every_error_comes_through_pickle_as_it_is(kind: type[GeedError], protocol: int) -> None:
    error = GeedError.__new__(kind, "a text", 3)  # whatever its own class asks for to be made
    error.where = "here"  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert (again.args, vars(again), str(again)) == (error.args, vars(error), str(error))


def test_an_unknown_name_from_another_process_still_knows_its_name() -> None:
    error = UnknownName("tap", "latant", ["latent", "scores"], "a hint")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "unknown tap 'latant': did you mean 'latent'?; a hint"
    assert (again.what, again.name, again.exit_code) == ("tap", "latant", 2)
