"""Static figures: which files there are, that they are the same each time, and that names stay names."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from page_results import collection, failed, many, result

from geed_onnx.errors import UsageError
from geed_onnx.reports.figures import View, write_figures
from geed_onnx.reports.page.contents import contents_of

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
