"""`geed-onnx report`: what it reads, what it writes, what it says, how it ends."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from page_results import failed, result, run_folder

from geed_onnx.cli import main
from geed_onnx.engine import measure_request
from geed_onnx.requests import request_of
from geed_onnx.results import DEVIATIONS, JACKKNIFE, write_results, write_tables

SHIPPED = Path(__file__).resolve().parents[1] / "models" / "shipped"
LIMIT = '[[thresholds]]\nvariant = "channelwise"\nabove = {}\n'


def report(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def data(page: Path) -> Any:
    [found] = re.findall(r'id="geed-data">(.*?)</script>', page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return json.loads(found)


def test_a_folder_becomes_a_page(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [result(), result(tap="block2")], 'title = "Belt"\n')
    done = report(folder, "-o", tmp_path / "page.html", "--no-gallery")
    assert (done.exit_code, done.stdout) == (0, "")
    assert re.fullmatch(r"page: .*page\.html \(\d\.\d MB\)\n", done.stderr)
    assert "<h1>Belt</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(data(tmp_path / "page.html")["cells"]["entity"]) == 2


def test_several_files_stand_side_by_side(tmp_path: Path) -> None:
    for name in ("fp32", "int8"):
        write_results(tmp_path / f"{name}.jsonl", [result(path=f"{name}.onnx")])
    done = report(
        tmp_path / "fp32.jsonl", tmp_path / "int8.jsonl", "-o", tmp_path / "p.html", "--no-gallery", "--title", "Both"
    )
    assert done.exit_code == 0
    assert [e["label"] for e in data(tmp_path / "p.html")["entities"]] == ["fp32", "int8"]
    assert "<h1>Both</h1>" in (tmp_path / "p.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("above", "said"), [(0.0, "✓ The threshold holds."), (-0.9, "✕ 1 of 1 threshold is crossed.")])
def test_thresholds_of_the_suite_are_judged_and_the_exit_code_is_0(tmp_path: Path, above: float, said: str) -> None:
    folder = run_folder(tmp_path / "run", [result()], LIMIT.format(above))
    done = report(folder, "-o", tmp_path / "page.html", "--no-gallery")
    assert done.exit_code == 0
    assert said in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_given_limits_come_beside_the_suites(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [result()], LIMIT.format(0.0))
    done = report(folder, "-o", tmp_path / "page.html", "--no-gallery", "--fail-above", "calibrated:channelwise=0.1")
    assert done.exit_code == 0
    assert "✕ 1 of 2 thresholds is crossed." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_relative_limit_is_held_against_the_baseline(tmp_path: Path) -> None:
    write_results(tmp_path / "old.jsonl", [result(value=-0.9, low=-0.91, high=-0.89)])
    write_results(tmp_path / "new.jsonl", [result(value=-0.3, low=-0.31, high=-0.29)])
    done = report(tmp_path / "new.jsonl", "-o", tmp_path / "p.html", "--no-gallery", "--fail-above", "channelwise=+5%",
                  "--baseline", tmp_path / "old.jsonl")  # fmt: skip
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert done.exit_code == 0
    assert "✕ 1 of 1 threshold is crossed." in text
    assert "channelwise at most 5 % worse than the baseline" in text


def test_thresholds_that_cannot_be_judged_are_said_and_keep_no_page_back(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [result()], '[[thresholds]]\nvariant = "softmax"\nabove = 1.0\n')
    done = report(folder, "-o", tmp_path / "page.html", "--no-gallery")
    assert done.exit_code == 0
    assert "warning: the thresholds could not be judged: " in done.stderr
    assert "Thresholds could not be judged." in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_means_over_families_are_written_one_a_line(tmp_path: Path) -> None:
    rows = [result(name=f"a{s}", path=f"a{s}", family="a", model_seed=s, value=-0.5 - 0.1 * s) for s in range(3)]
    folder = run_folder(tmp_path / "run", rows)
    done = report(folder, "-o", tmp_path / "page.html", "--no-gallery", "--means", tmp_path / "means.jsonl")
    assert done.exit_code == 0
    assert f"means: {tmp_path / 'means.jsonl'}\n" in done.stderr
    value, calibrated = map(json.loads, (tmp_path / "means.jsonl").read_text(encoding="utf-8").splitlines())
    assert (value["family"], value["on"], value["models"]) == ("a", "value", 3)
    assert value["value"] == pytest.approx(-0.6)
    assert calibrated["on"] == "calibrated"


def test_parts_of_a_value_are_columns_of_the_csv(tmp_path: Path) -> None:
    parts = {"exact": {"elements": [0, 2], "value": -0.9}, "resampled": {"elements": [1, 3], "value": -0.5}}
    for name, given in (("run", parts), ("old", None), ("odd", {"exact": 3}), ("worse", [1])):
        folder = run_folder(tmp_path / name, [result(parts=given)])
        assert report(folder, "-o", tmp_path / f"{name}.html", "--no-gallery").exit_code == 0
        columns = {c["key"]: c["values"] for c in data(tmp_path / f"{name}.html")["columns"]}
        assert (columns["exact"], columns["resampled"]) == (([-0.9], [-0.5]) if given is parts else ([None], [None]))


def test_figures_are_written_and_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = run_folder(tmp_path / "run", [result(), failed(name="gone")])
    done = report(folder, "-o", tmp_path / "page.html", "--no-gallery", "--figures", tmp_path / "figures")
    assert done.exit_code == 0
    assert "figure: " in done.stderr
    assert (tmp_path / "figures" / "depth-C4-images.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["gone", "-o", "p.html"],
            1,
            "error: no such file or folder: 'gone'; expected a run's folder or a .jsonl file",
        ),
        (["empty", "-o", "p.html"], 1, "error: 'empty' holds no results.jsonl"),
        (["no.jsonl", "-o", "p.html"], 1, "error: no.jsonl, line 1: expected a line of JSON (a Result), got 'hello'"),
        (
            ["r.jsonl", "-o", "gone/p.html"],
            2,
            "error: cannot write the page to 'gone/p.html': there is no folder 'gone'",
        ),
        (["r.jsonl", "-o", "empty"], 2, "error: cannot write the page to 'empty': it is a folder"),
        (["r.jsonl"], 2, "error: missing option '-o'"),
        (["-o", "p.html"], 2, "error: missing argument 'DIR|FILE.jsonl…'"),
        (["r.jsonl", "-o", "p.html", "--fail-above", "softmax"], 2, "error: --fail-above 'softmax'"),
        (["r.jsonl", "-o", "p.html", "--fail-above", "softmax=1"], 2, "error: "),
        (["r.jsonl", "-o", "p.html", "--baseline", "gone"], 1, "error: no such file or folder: 'gone'"),
        (["r.jsonl", "-o", "p.html", "--means", "gone/m.jsonl"], 2, "error: cannot write the means to 'gone/m.jsonl'"),
        (["r.jsonl", "-o", "p.html", "--figures", "r.jsonl"], 2, "error: cannot write figures to 'r.jsonl'"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.jsonl").write_text("hello\n", encoding="utf-8")
    write_results(tmp_path / "r.jsonl", [result()])
    done = report(*arguments)
    assert done.exit_code == code
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "p.html").exists()


def test_the_gallery_of_a_real_run_is_on_its_page(tmp_path: Path) -> None:
    model, data = str(SHIPPED / "digits-cnn.onnx"), str(SHIPPED / "digits-test.parquet")
    found = measure_request(request_of(model, data, "C4", samples=4, provider="cpu"))
    rows = [(replace(m.result, model={**m.result.model, "name": "digits"}), m.tables) for m in found]
    folder = run_folder(tmp_path / "run", [r for r, _ in rows])
    write_tables(rows, folder / DEVIATIONS, folder / JACKKNIFE)
    done = report(folder, "-o", tmp_path / "page.html")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<section id="gallery-images">' in text
    assert '<section id="gallery-maps">' in text
    assert text.count("data:image/png") > 4
    assert len(text) < 5e6
    done = report(folder, "-o", tmp_path / "page.html", "--tap", "blok1")
    assert done.exit_code == 2
    assert "did you mean 'block1'" in done.stderr


def test_a_model_that_is_gone_leaves_the_page_without_pictures(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", [result()])
    done = report(folder, "-o", tmp_path / "page.html")
    assert done.exit_code == 0
    assert "warning: gallery: " in done.stderr
    assert (tmp_path / "page.html").is_file()
