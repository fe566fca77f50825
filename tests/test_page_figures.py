"""Static figures: which files there are, that they are the same each time, and that names stay names."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from page_results import before, collection, failed, many, result, untrained

from geed_onnx.errors import UsageError
from geed_onnx.reports.figures import View, write_figures
from geed_onnx.reports.figures.families import family_drawings
from geed_onnx.reports.figures.networks import DRAWINGS
from geed_onnx.reports.means import family_means
from geed_onnx.reports.page.contents import contents_of
from geed_onnx.results import Result

pytest.importorskip("matplotlib")


def names(paths: list[Path]) -> list[str]:
    return sorted(p.name for p in paths)


def test_one_set_for_each_group_and_images(tmp_path: Path) -> None:
    rows = [result(tap=t, group=g, order=n) for g, n in (("C4", 4), ("D4", 8)) for t in ("a", "b")]
    found = write_figures(collection(*rows), tmp_path / "new" / "folder")
    assert names(found) == sorted(
        f"{what}-{group}-images.{kind}"
        for what in ("depth", "depth-raw", "profile", "side-by-side")
        for group in ("C4", "D4")
        for kind in ("png", "svg")
    )
    for path in found:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert path.read_bytes().startswith(b"\x89PNG")


def test_training_curves_where_there_are_steps(tmp_path: Path) -> None:
    rows = [result(name=f"{s}@{k}", path=f"{s}{k}", family="f", model_seed=s, step=k) for s in (0, 1) for k in (1, 2)]
    assert "training-C4-images.svg" in names(write_figures(collection(*rows), tmp_path))


# --- families ---------------------------------------------------------------------------------------------------


def family(name: str, steps: tuple[int | None, ...] = (None,), **more: Any) -> list[Result]:
    """Three models of a family at some steps, with numbers of their own."""
    rng = np.random.default_rng(len(name) + len(str(more)))
    found = []
    for step in steps:
        for seed in range(3):
            value = float(rng.uniform(-0.9, -0.2))
            at = "" if step is None else f"@{step}"
            facts = {"name": f"{name} {seed}{at}", "path": f"{name}-{seed}{at}.onnx", "family": name}
            numbers = {"value": value, "calibrated": value + 0.95}
            found.append(result(**{**facts, "model_seed": seed, "step": step, **numbers, **more}))
    return found


def drawn(rows: list[Result], *kinds: str) -> list[str]:
    """The names of the figures of families, of these kinds."""
    found = [d.name for d in family_drawings(contents_of(rows))]
    assert len(set(found)) == len(found)
    return [name for name in found if not kinds or name.startswith(kinds)]


def test_training_is_drawn_for_every_tap_and_variant_with_several_steps() -> None:
    rows = []
    for tap, variant in (("a", "channelwise"), ("b", "channelwise"), ("b", "map:pixels:l2")):
        rows += family("cnn", (0, 100), tap=tap, variant=variant) + family("c8", (0, 100), tap=tap, variant=variant)
    rows += family("cnn", (100,), tap="c") + family("cnn", (None,), tap="d")
    assert drawn(rows) == [
        "training-channelwise-a-C4-images",
        "training-channelwise-b-C4-images",
        "training-map-pixels-l2-b-C4-images",
    ]


def test_data_sets_are_drawn_beside_one_another() -> None:
    rows = []
    for images in ("digits.parquet", "letters.parquet"):
        rows += family("cnn", data=images) + family("c8", data=images)
    assert drawn(rows) == ["data-channelwise-block1-C4"]
    more = family("cnn", data="digits.parquet", group="D4", order=8)  # of one data set only
    assert drawn([*rows, *more]) == ["data-channelwise-block1-C4"]
    other = [r for images in ("digits.parquet", "letters.parquet") for r in family("cnn", data=images, samples=20)]
    assert drawn([*rows, *other], "data") == [
        "data-channelwise-block1-C4-8-images",
        "data-channelwise-block1-C4-20-images",
    ]


def test_numbers_of_images_and_of_points_of_m_are_axes() -> None:
    rows = [r for n in (10, 50, 1000) for r in family("cnn", samples=n)]
    assert drawn(rows) == ["samples-channelwise-block1-C4-images"]
    latent = {"tap": "latent", "kind": "vector", "variant": "latent-l2"}
    rows = [r for n in (5, 50) for r in family("cnn", spread_samples=n, **latent)] + family("cnn")
    assert drawn(rows) == ["spread-latent-l2-latent-C4-images"]


def test_two_numbers_of_points_of_m_do_not_mix_in_bars() -> None:
    latent = {"tap": "latent", "kind": "vector", "variant": "latent-l2"}
    both = [r for n in (5, 50) for r in family("cnn", spread_samples=n, data="digits", **latent)]
    rows = [*both, *family("cnn", spread_samples=50, data="letters", **latent)]
    assert drawn(rows, "data") == ["data-latent-l2-latent-C4-M-over-50"]
    # fewer points because there are fewer images: one number a data set, so there is nothing to mix
    rows = [r for d, n in (("digits", 200), ("small", 90)) for r in family("cnn", spread_samples=n, data=d, **latent)]
    assert drawn(rows) == ["data-latent-l2-latent-C4"]


def test_of_several_steps_the_last_that_most_data_sets_have_is_drawn() -> None:
    rows = family("cnn", (0, 100, 200), data="digits") + family("cnn", (100,), data="letters")
    rows += family("c8", (None, 300), data="digits") + family("c8", (None, 300), data="letters")
    [found] = [d for d in family_drawings(contents_of(rows)) if d.name.startswith("data")]
    axes = found.draw().axes
    assert [t.get_text() for t in axes[-1].get_legend().get_texts()] == ["cnn, step 100", "c8"]


@pytest.mark.parametrize(
    "rows",
    [[], [result()], family("cnn"), family("cnn", (5,)), [failed(name="gone"), failed(name="went")],
     family("cnn", (1, 2), value=None, calibrated=None, low=None, high=None, per_element=None, reason="none"),
     family("cnn", (1,)) + family("c8", (2,)), many(3, 2, 2)],
)  # fmt: skip
def test_nothing_is_drawn_without_data(rows: list[Result]) -> None:
    assert drawn(rows) == []


def test_what_is_drawn_are_the_means_with_their_intervals() -> None:
    rows = family("cnn", (0, 100, 200)) + family("c8", (0, 100, 200))
    [drawing] = family_drawings(contents_of(rows))
    raw, calibrated = drawing.draw().axes
    for axes, on in ((raw, "value"), (calibrated, "calibrated")):
        for line, band, name in zip(axes.lines, axes.collections, ("cnn", "c8"), strict=False):
            means = [m.estimate for m in family_means(rows) if (m.family, m.on) == (name, on)]
            assert line.get_label() == name
            assert line.get_xdata().tolist() == [0, 100, 200]
            assert line.get_ydata().tolist() == [e.value for e in means if e]
            corners = {(float(x), float(y)) for x, y in band.get_paths()[0].vertices}
            assert {(x, e.low) for x, e in zip((0, 100, 200), means, strict=True) if e} <= corners
            assert {(x, e.high) for x, e in zip((0, 100, 200), means, strict=True) if e} <= corners


def test_the_interval_of_a_family_says_that_it_is_over_models_alone() -> None:
    several = family("cnn", (0, 100))
    said = "over the models of a family, which all saw the same images; it says nothing of other images"
    [drawing] = family_drawings(contents_of(several))
    assert drawing.draw().get_supxlabel() == f"band: {said}"
    [bars] = family_drawings(contents_of([r for d in "xy" for r in family("cnn", data=d)]))
    assert bars.draw().get_supxlabel() == f"error bar: {said}"
    alone = [result(name=f"solo {s}", path=f"solo-{s}.onnx", family="solo", model_seed=0, step=s) for s in (0, 100)]
    [drawing] = family_drawings(contents_of(several + alone))
    assert drawing.draw().get_supxlabel() == f"band: {said}; of a single model over images"
    [drawing] = family_drawings(contents_of(alone))
    assert drawing.draw().get_supxlabel() == ""


def profile(*rows: Result) -> Any:
    return DRAWINGS["profile"](View(contents_of(rows), 0))


def test_bars_by_element_stand_at_one_where_unrelated_images_do() -> None:
    [axes] = profile(untrained()).axes
    # the identity, at which nothing can deviate, has no bar
    assert [(round(bar.get_x() + bar.get_width() / 2), bar.get_height()) for bar in axes.patches] == [(1, 1.0)]
    assert [line.get_ydata()[0] for line in axes.lines] == [0.0, 1.0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0°", "flip"]


def test_the_ring_by_element_is_broken_where_there_is_nothing_to_compare_with() -> None:
    [axes] = profile(untrained(8, "C8")).axes
    values, floor, null = (line.get_ydata() for line in axes.lines)
    assert np.array_equal(np.isnan(values), [True, *[False] * 7, True])
    assert values[1:8].tolist() == [1.0] * 7
    assert (set(floor), set(null)) == ({0.0}, {1.0})


def test_results_without_levels_by_element_are_drawn_raw_and_that_is_said() -> None:
    old, new = before(untrained()), untrained(path="new.onnx", name="new")
    first, second = profile(old, new).axes
    assert [bar.get_height() for bar in first.patches] == [0.0, 0.5]
    # the null over all elements is half of what unrelated images have at the flip: it is no line here
    assert not first.lines
    assert "above the optimum, not calibrated" in first.get_title()
    assert [bar.get_height() for bar in second.patches] == [1.0]
    assert second.get_title() == "new"


def test_bars_stand_on_the_optimum_and_hold_the_means() -> None:
    rows = family("cnn", data="digits") + family("c8", data="digits") + family("cnn", data="letters")
    [drawing] = family_drawings(contents_of(rows))
    for axes, on, base in zip(drawing.draw().axes, ("value", "calibrated"), (-1.0, 0.0), strict=True):
        tops = [bar.get_y() + bar.get_height() for bar in axes.patches]
        assert {bar.get_y() for bar in axes.patches} == {base}
        means = {(m.family, m.data): m.estimate.value for m in family_means(rows) if m.on == on and m.estimate}
        assert tops == pytest.approx([means[k] for k in (("cnn", "digits"), ("cnn", "letters"), ("c8", "digits"))])
        assert [t.get_text() for t in axes.get_xticklabels()] == ["digits", "letters"]


def test_one_side_is_drawn_where_nothing_is_calibrated() -> None:
    rows = [replace(r, calibrated=None, reason="blind") for r in family("cnn", (1, 2))]
    [drawing] = family_drawings(contents_of(rows))
    assert len(drawing.draw().axes) == 1


def test_lines_and_bars_differ_without_their_colours() -> None:
    """Eight families are told apart by dashes and marks, or by hatches; a ninth is left out, and that is said."""
    names = [f"family {i}" for i in range(9)]
    [curves] = family_drawings(contents_of([r for n in names for r in family(n, (1, 2))]))
    axes = curves.draw().axes[0]
    assert len({(str(line.get_linestyle()), line.get_marker(), str(line._dash_pattern)) for line in axes.lines}) == 8
    assert axes.get_title(loc="left").endswith("(the first 8 of 9 families)")
    [bars] = family_drawings(contents_of([r for n in names for d in "xy" for r in family(n, data=d)]))
    assert len({bar.get_hatch() for bar in bars.draw().axes[0].patches}) == 8


def test_figures_of_families_are_the_same_each_time(tmp_path: Path) -> None:
    rows = family("cnn", (0, 1), data="digits") + family("cnn", (1,), data="letters")
    rows += family("$x_1$ \udc80 漢", (0, 1), data="digits")
    one, two = (write_figures(collection(*rows), tmp_path / n) for n in "ab")
    assert [p.name for p in one] == [p.name for p in two]
    assert {"training-channelwise-block1-C4-digits.svg", "data-channelwise-block1-C4.png"} <= {p.name for p in one}
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


def test_the_same_results_make_the_same_files(tmp_path: Path) -> None:
    rows = many(2, 2, 1)
    one, two = (write_figures(collection(*rows), tmp_path / n) for n in "ab")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]


@pytest.mark.parametrize(
    "rows",
    [[], [failed()], [result(value=None, calibrated=None, per_element=None, reason="r")], [result(calibrated=None)],
     [result(low=None, high=None, calibrated_low=None, calibrated_high=None)], [result(floor=None, null=None)],
     [result(order=1, group="C1")], [result(value=-1.0, low=-1.0, high=-1.0, per_element=(-1.0,) * 4)]],
)  # fmt: skip
def test_whatever_there_is_draws(tmp_path: Path, rows: list[object]) -> None:
    write_figures(collection(*rows), tmp_path)  # type: ignore[arg-type]


def test_names_are_neither_paths_nor_formulas(tmp_path: Path) -> None:
    evil = "../$\\frac{1}$ <b> 漢字 \udc80\n" + "x" * 300
    rows = [
        result(name=evil, path=evil, tap=evil, variant=evil, data=evil, group=evil),
        result(data=evil + "2", group=evil),
    ]
    found = write_figures(collection(*rows), tmp_path)
    assert {p.parent for p in found} == {tmp_path}
    assert all(p.name.replace("-", "").replace(".", "").replace("_", "").isalnum() and len(p.name) < 90 for p in found)
    assert len(set(found)) == len(found) > 8
    svg = next(p for p in found if p.suffix == ".svg")
    ElementTree.parse(svg)


def test_the_matrix_holds_the_calibrated_values() -> None:
    rows = many(3, 2, 2)
    view = View(contents_of(rows), 0)
    assert view.lines == [0, 1, 2]
    cells = {
        (c.entity, view.contents.slots[s].label, c.variant): c.reading.calibrated for (_, s, _), c in view.cells.items()
    }
    assert cells == {(int(str(r.model["name"])[6:]), r.tap["name"], r.variant): r.calibrated for r in rows}
    assert np.array_equal(view.slots, [0, 1])


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'geed-onnx\[figures\]'"):
        write_figures(collection(result()), tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write figures to"):
        write_figures(collection(result()), tmp_path / "file")
