"""`geed-onnx compare` on the shipped networks: fp32 and int8, PyTorch and Keras; folders, files, models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_nets as nets
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from comparison_tools import DATA, SHIPPED, Row, cell, failed, folder, measured, model, random_raw

from geed_onnx.cli import main
from geed_onnx.comparisons import compare, participants_of
from geed_onnx.reports.comparison import print_comparisons
from geed_onnx.results import read_results, write_results

NAMES = ("digits-cnn", "digits-cnn-int8", "digits-cnn-keras-copied", "digits-cnn-keras", "digits-mlp")
CNN, INT8, KERAS = (SHIPPED / f"{name}.onnx" for name in NAMES[:3])
NOW = ("--data", DATA, "--group", "C4", "--samples", 6)


def run(*args: Any) -> Ran:
    return CliRunner().invoke(main, ["compare", *(str(a) for a in args)], prog_name="geed-onnx")


def lines(*args: Any, code: int = 0) -> list[dict[str, Any]]:
    ran = run(*args, "--json")
    assert ran.exit_code == code, ran.output
    return [json.loads(line, parse_constant=lambda word: pytest.fail(word)) for line in ran.stdout.splitlines()]


def refused(*args: Any, code: int) -> str:
    ran = run(*args)
    assert ran.exit_code == code, ran.output
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def on_a_scale(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines but that of raw latent-cosine, whose optimum is each network's own −1/M: it has no difference."""
    [moving] = [line for line in found if line["variant"] == "latent-cosine"]
    assert (moving["difference"], moving["equivalent"], moving["on"]) == (None, None, "calibrated")
    assert "the optimum of latent-cosine moves with each network's own spread M" in moving["reason"]
    return [line for line in found if line is not moving]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    return {name: measured(name) for name in NAMES}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, rows: dict[str, list[Row]]) -> Path:
    """`all`: five models in one folder; `fp32`, `int8`: one each; `fp32.jsonl`: without tables."""
    where = tmp_path_factory.mktemp("runs")
    folder(where / "all", [row for name in NAMES for row in rows[name]])
    folder(where / "fp32", rows["digits-cnn"])
    folder(where / "int8", rows["digits-cnn-int8"])
    write_results(where / "fp32.jsonl", [r for r, _ in rows["digits-cnn"]])
    return where


# ---- what is compared ------------------------------------------------------------------------------------------


def test_fp32_and_int8_from_their_runs(runs: Path, rows: dict[str, list[Row]]) -> None:
    found = lines(runs / "fp32", runs / "int8")
    assert len(found) == len(rows["digits-cnn"]) == 10
    for line, (a, _), (b, _) in zip(found, rows["digits-cnn"], rows["digits-cnn-int8"], strict=True):
        assert line["schema"] == "geed-comparison/1"
        assert (line["a"]["name"], line["b"]["name"]) == ("digits-cnn", "digits-cnn-int8")
        assert line["a"]["sha256"] == a.model["sha256"]
        assert (line["tap_a"]["name"], line["tap_b"]["name"]) == (a.tap["name"], a.tap["name"])
        assert (line["value_a"], line["value_b"]) == (a.value, b.value)
        assert line["aligned_by"] == "name"
        if line not in on_a_scale(found):
            continue
        assert (line["on"], line["paired"]) == ("value", True)
        assert a.value is not None
        assert b.value is not None
        assert line["difference"] == a.value - b.value
        assert line["low"] < line["difference"] < line["high"]
        assert line["calibrated_difference"] == pytest.approx(line["calibrated_a"] - line["calibrated_b"])
        assert line["verdict"] in ("different", "undecided")
        # pairing is what makes so small a difference visible at all
        assert line["high"] - line["low"] < 0.5 * (line["value_a_high"] - line["value_a_low"])


def test_models_measured_now_give_what_their_runs_give(runs: Path) -> None:
    now = lines(CNN, INT8, *NOW)
    then = lines(runs / "fp32", runs / "int8")
    names = {"a", "b"}
    assert [{k: v for k, v in x.items() if k not in names} for x in now] == [
        {k: v for k, v in x.items() if k not in names} for x in then
    ]
    assert (now[0]["a"]["name"], now[0]["a"]["path"]) == (str(CNN), str(CNN))
    mixed = lines(runs / "fp32", INT8, *NOW)
    assert [x["low"] for x in mixed] == [x["low"] for x in now]


def test_pytorch_and_its_copy_in_keras_are_equivalent(rows: dict[str, list[Row]]) -> None:
    """The copy computes the same in NHWC: every tap's map comes as C, H, W, and nothing differs by 1e-4."""
    assert {r.tap["layout"] for r, _ in rows["digits-cnn-keras-copied"] if r.tap["kind"] == "map"} == {"NHWC"}
    found = lines(CNN, KERAS, *NOW, "--within", 1e-4)
    assert len(found) == 10
    for line in on_a_scale(found):
        assert line["equivalent"] is True
        assert line["verdict"] in ("equivalent", "different but equivalent")
        assert abs(line["difference"]) < 1e-6
        assert line["tap_a"]["shape"] == line["tap_b"]["shape"]


def test_a_class_that_never_changed_in_a_sample_shows_no_equivalence() -> None:
    """Of all images 1 − 0.025^(1/20) = 16.8 % may change their class all the same, and 300 images tell a difference."""
    asked = ("--data", DATA, "--group", "C4", "--samples", 20, "--tap", "scores:probability")
    variant = ("--variant", "probability:trivial:disagreement")
    [line] = lines(CNN, KERAS, *asked, *variant, "--within", 0.02, code=3)
    share = 1 - 0.025 ** (1 / 20)
    assert (line["difference"], line["low"], line["high"]) == (0.0, pytest.approx(-share), pytest.approx(share))
    assert (line["verdict"], line["equivalent"]) == ("undecided", False)
    assert (
        line["method"] == "paired by image: no variance among 20 images: up to 16.8 % of all images may be unlike them"
    )
    [line] = lines(CNN, KERAS, *asked, *variant, "--within", 0.17)
    assert (line["verdict"], line["equivalent"]) == ("equivalent", True)


def test_a_model_against_itself(runs: Path) -> None:
    for pair in ((runs / "fp32", runs / "fp32"), (CNN, CNN), (runs / "fp32.jsonl", runs / "fp32")):
        for line in lines(*pair, "--within", 1e-12, *(NOW if pair[0] == CNN else ())):
            assert (line["difference"], line["low"], line["high"]) == (0.0, 0.0, 0.0)
            assert (line["verdict"], line["equivalent"]) == ("equivalent", True)


def test_the_other_way_round(runs: Path) -> None:
    forth = lines(runs / "fp32", runs / "int8", "--within", 0.001, code=3)
    back = lines(runs / "int8", runs / "fp32", "--within", 0.001, code=3)
    for x, y in zip(on_a_scale(forth), on_a_scale(back), strict=True):
        assert x["difference"] == -y["difference"]
        assert (x["low"], x["high"]) == pytest.approx((-y["high"], -y["low"]), rel=1e-9)
        assert x["verdict"] == y["verdict"]
    assert {x["verdict"] for x in forth} >= {"different", "different but equivalent"}


def test_taps_of_other_names_meet_by_depth(runs: Path) -> None:
    found = lines(runs / "all", "--reference", "digits-cnn", "--models", "digits-cnn", "--models", "digits-mlp")
    assert {(x["tap_a"]["name"], x["tap_b"]["name"], x["aligned_by"]) for x in found} == {
        ("latent", "mlp.hidden_2", "depth"),
        ("scores", "probabilities", "depth"),
    }
    ran = run(runs / "all", "--models", "digits-cnn", "--models", "digits-mlp", "--align", "name")
    assert ran.exit_code == 1
    assert "no tap and variant in common by name; --align depth pairs them by depth" in ran.stderr


def test_every_model_of_a_folder_is_held_against_the_reference(runs: Path) -> None:
    found = lines(runs / "all", "--variant", "softmax")
    assert [(x["a"]["name"], x["b"]["name"]) for x in found] == [("digits-cnn", n) for n in NAMES[1:]]
    found = lines(runs / "all", "--variant", "softmax", "--models", "*keras*", "--reference", "digits-cnn-keras")
    assert [(x["a"]["name"], x["b"]["name"]) for x in found] == [("digits-cnn-keras", "digits-cnn-keras-copied")]
    found = lines(runs / "fp32", runs / "all", "--by-name", "--tap", "lat*")
    assert {(x["a"]["name"], x["b"]["name"], x["tap_a"]["name"]) for x in found} == {
        ("digits-cnn", "digits-cnn", "latent")
    }
    assert len(found) == 3


def test_groups_of_other_order_are_compared_calibrated(runs: Path, tmp_path: Path) -> None:
    eight = folder(tmp_path / "c2", measured("digits-cnn", "C2"))
    found = lines(runs / "fp32", eight)
    assert len(found) == 10
    for line in found:
        assert line["on"] == "calibrated"
        assert (line["difference"], line["group"]["name"], line["group_b"]["name"]) == (None, "C4", "C2")
        assert "different groups, C4 (order 4) and C2 (order 2)" in line["reason"]
        assert line["calibrated_difference"] is not None or line["calibrated_reason"]
    assert sum(line["calibrated_difference"] is not None for line in found) >= 8
    ran = run(runs / "fp32", eight)
    assert "raw values are not comparable: different groups, C4 (order 4) and C2 (order 2)" in ran.stdout
    assert "calibrated" in ran.stdout


def test_files_without_tables_say_so(runs: Path) -> None:
    found = lines(runs / "fp32.jsonl", runs / "int8")
    paired = lines(runs / "fp32", runs / "int8")
    for x, y in zip(on_a_scale(found), on_a_scale(paired), strict=True):
        assert not x["paired"]
        assert "MOVER" in x["method"]
        assert x["difference"] == y["difference"]
        assert x["high"] - x["low"] > y["high"] - y["low"]
    assert "unpaired: MOVER" in run(runs / "fp32.jsonl", runs / "int8").stdout


def test_taps_are_asked_of_the_models_that_have_them(runs: Path) -> None:
    mixed = lines(runs / "fp32", SHIPPED / "digits-mlp.onnx", *NOW, "--tap", "latent")
    assert {(x["tap_a"]["name"], x["tap_b"]["name"]) for x in mixed} == {("latent", "mlp.hidden_2")}
    found = lines(CNN, SHIPPED / "digits-mlp.onnx", *NOW, "--tap", "latent", "--tap", "mlp.hidden_2")
    assert {(x["tap_a"]["name"], x["tap_b"]["name"]) for x in found} == {("latent", "mlp.hidden_2")}
    said = refused(CNN, INT8, *NOW, "--tap", "latent", "--tap", "latemt", code=2)
    assert "unknown tap 'latemt': did you mean 'latent'" in said
    said = refused(CNN, SHIPPED / "digits-mlp.onnx", *NOW, "--tap", "block1", code=2)
    assert "digits-mlp.onnx: unknown tap 'block1'" in said


# ---- verdict, output -------------------------------------------------------------------------------------------


def test_the_exit_code_says_whether_all_are_equivalent(runs: Path) -> None:
    assert run(runs / "fp32", runs / "int8", "--within", 0.5).exit_code == 0
    ran = run(runs / "fp32", runs / "int8", "--within", 1e-6)
    assert ran.exit_code == 3
    assert ran.stdout.count("channelwise") == 6
    said = ran.stderr.splitlines()
    assert len(said) == 9  # raw latent-cosine has no scale to be equivalent on
    assert said[0].startswith("crossed: channelwise of block1, digits-cnn − digits-cnn-int8: ")
    assert said[0].endswith("not shown to lie within ±1e-06")
    ran = run(runs / "fp32", runs / "int8", "--within", 1e-9, "--on", "calibrated", "--tap", "block1")
    assert ran.stderr.endswith("not shown to lie within ±1e-09 (calibrated)\n")
    many = run(runs / "all", "--within", 1e-12)
    assert many.exit_code == 3
    assert many.stderr.splitlines()[-1] == "crossed: and 20 more"


def test_lines_go_to_a_file_too(runs: Path, tmp_path: Path) -> None:
    ran = run(runs / "fp32", runs / "int8", "--json", "-o", tmp_path / "c.jsonl")
    assert (tmp_path / "c.jsonl").read_text(encoding="utf-8") == ran.stdout
    assert "there is no folder" in refused(runs / "fp32", runs / "int8", "-o", tmp_path / "x" / "c.jsonl", code=2)


def test_the_table(runs: Path) -> None:
    ran = run(runs / "fp32", runs / "int8", "--within", 0.01)
    said = ran.stdout
    assert said.splitlines()[:3] == ["A  digits-cnn", "B  digits-cnn-int8", f"C4 · 6 images of {DATA}"]
    for word in ("tap", "variant", "A − B", "95 %", "verdict", "block6", "latent-cosine-bounded", "softmax"):
        assert word in said
    assert "intervals paired by image: jackknife over images" in said
    assert "A − B above 0: A is less equivariant; equivalent: the interval lies within ±0.01" in said


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_no_number_is_cut_on_any_terminal(width: int, rows: dict[str, list[Row]], capsys: Any) -> None:
    pair = tuple(participants_of([model(*rows[n], name=n) for n in ("digits-cnn", "digits-cnn-int8")]))
    found = compare([pair], within=0.01).rows  # type: ignore[list-item]
    print_comparisons(found, width=width)
    said = capsys.readouterr().out
    assert "…" not in said
    for row in found:
        d = row.judged.difference
        assert d is not None
        assert (f"{d:.3f}" if abs(d) >= 1e-3 else f"{d:.2e}") in said
    table = [line for line in said.splitlines() if "channelwise" in line]
    assert len(table) == 6
    assert all(len(line) <= width for line in table)
    assert ("left out for want of width" in said) == (width < 120)


def test_names_of_other_people_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    odd = "\x1b[31m[red]x\n<script>"
    a = folder(tmp_path / "a", [cell(random_raw(1), odd, tap=odd, variant="vector:trivial:l2", fingerprint=odd)])
    b = folder(tmp_path / "b", [cell(random_raw(2), "b", tap=odd, variant="vector:trivial:l2", fingerprint=odd)])
    ran = run(a, b, "--within", 1e-9)
    assert ran.exit_code == 3
    for said in (ran.stdout, ran.stderr):
        assert "\x1b" not in said
        assert "\\x1b[31m[red]x\\n<script>" in said
    assert json.loads(run(a, b, "--json").stdout)["tap_a"]["name"] == odd


# ---- what is refused -------------------------------------------------------------------------------------------


def test_who_is_not_there(runs: Path, tmp_path: Path) -> None:
    assert "no such file or folder: 'none'" in refused("none", runs / "fp32", code=1)
    assert "holds no results.jsonl" in refused(tmp_path, runs / "fp32", code=1)
    assert "none.onnx" in refused(CNN, "none.onnx", *NOW, code=1)
    assert "missing argument" in refused(code=2)
    assert "there is only 'digits-cnn' to compare" in refused(runs / "fp32", code=2)
    assert "there is only 'digits-mlp' to compare" in refused(runs / "all", "--models", "*mlp", code=2)
    assert "unknown model 'digits-cn': did you mean 'digits-cnn'" in refused(
        runs / "all", "--models", "digits-cn", code=2
    )
    assert "unknown reference 'digits-cn': did you mean" in refused(runs / "all", "--reference", "digits-cn", code=2)
    assert "none of the models has a family" in refused(runs / "all", "--families", code=2)
    assert "--by-name compares the models of one run with" in refused(runs / "all", "--by-name", code=2)


def test_unlike_data(runs: Path, tmp_path: Path) -> None:
    other = folder(tmp_path / "other", measured("digits-cnn-int8", samples=5))
    said = refused(runs / "fp32", other, code=1)
    assert "were not measured on the same images: number of images 6 and 5, fingerprint" in said
    other = folder(tmp_path / "seed", measured("digits-cnn-int8", seed=1))
    assert "seed 0 and 1" in refused(runs / "fp32", other, code=1)
    said = refused(runs / "fp32", INT8, "--data", DATA, "--group", "C4", "--samples", 4, code=1)
    assert "number of images 6 and 4" in said


@pytest.mark.parametrize("delta", ["-0.1", "0", "nan"])
def test_a_margin_that_cannot_be_meant(delta: str, runs: Path) -> None:
    said = refused(runs / "fp32", runs / "int8", "--within", delta, code=2)
    assert "the margin of equivalence must be a positive number" in said


def test_words_that_are_not_known(runs: Path) -> None:
    two = (runs / "fp32", runs / "int8")
    assert "unknown word 'dept': did you mean 'depth'" in refused(*two, "--align", "dept", code=2)
    assert "unknown word 'calibratd': did you mean 'calibrated'" in refused(*two, "--on", "calibratd", code=2)
    assert "unknown tap 'block7': did you mean" in refused(*two, "--tap", "block7", code=2)
    assert "unknown variant 'softmx': did you mean 'softmax'" in refused(*two, "--variant", "softmx", code=2)
    assert "no such option '--witin': did you mean '--within'" in refused(*two, "--witin", "1", code=2)
    assert "above 0.5" in refused(*two, "--within", "0.1", "--level", "0.3", code=2)


def test_measuring_options_need_a_model(runs: Path) -> None:
    said = refused(runs / "fp32", runs / "int8", "--samples", 3, "--data", "x", code=2)
    assert "--data, --samples: for models that are measured now, but none of" in said
    assert "is a model and is measured now: add --data and --group" in refused(CNN, INT8, code=2)
    assert "add --group" in refused(CNN, INT8, "--data", DATA, code=2)
    assert "unknown group" in refused(CNN, INT8, "--data", DATA, "--group", "Z9", code=2)


def test_damaged_files(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "int8", tmp_path / "int8")
    path = tmp_path / "int8" / "jackknife.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot read" in refused(runs / "fp32", tmp_path / "int8", code=1)
    results = tmp_path / "int8" / "results.jsonl"
    results.write_text(results.read_text(encoding="utf-8")[:500], encoding="utf-8")
    said = refused(runs / "fp32", tmp_path / "int8", code=1)
    assert "results.jsonl, line 1: expected a line of JSON" in said
    (tmp_path / "empty.jsonl").touch()
    assert "there are no results in it" in refused(runs / "fp32", tmp_path / "empty.jsonl", code=1)


def test_failed_cells(runs: Path, rows: dict[str, list[Row]], tmp_path: Path) -> None:
    uri = rows["digits-cnn"][0][0].data["uri"]
    broken = failed("digits-broken", data={"uri": uri, "fingerprint": None, "samples": 0})
    some = folder(tmp_path / "some", [*rows["digits-cnn"], broken])
    found = lines(some, "--within", 0.1, code=3)
    assert len(found) == 10
    for line in found:
        assert (line["difference"], line["verdict"], line["equivalent"]) == (None, None, False)
        assert line["reason"] == "digits-broken failed: the file is truncated"
    said = run(some, "--within", 0.1)
    assert "(1) digits-broken failed: the file is truncated" in said.stdout
    assert said.stderr.startswith(
        "crossed: channelwise of block1, digits-cnn − digits-broken: no difference, not shown"
    )


def test_families_from_a_folder(tmp_path: Path) -> None:
    seeds = [
        cell(random_raw(10 * s + f, shift=f / 10), f"{name}-{s}", model={"family": name, "seed": s})
        for f, name in enumerate(("plain", "augmented"))
        for s in range(3)
    ]
    where = folder(tmp_path / "families", seeds)
    [line] = lines(where, "--families")
    assert (line["a"]["name"], line["a"]["models"]) == ("plain", ["plain-0", "plain-1", "plain-2"])
    assert (line["models_a"], line["models_b"], line["paired"]) == (3, 3, True)
    shared = "the models share their images, so it says nothing of other images"
    assert line["method"] == f"Student t over 3 seeds, paired by seed; {shared}"
    assert line["value_a"] == pytest.approx(np.mean([r.value for r, _ in seeds[:3]]))
    said = run(where, "--families").stdout
    assert said.splitlines()[:2] == ["A  plain, 3 models", "B  augmented, 3 models"]
    assert f"intervals Student t over 3 seeds, paired by seed; {shared}" in said
    [wide] = lines(where, "--families", "--image-component")
    assert wide["method"] == "Student t over 3 seeds, paired by seed, and jackknife over images"
    assert wide["difference"] == line["difference"]
    assert wide["value_a_high"] >= line["value_a_high"]
    said = refused(where, where, "--image-component", code=2)
    assert said == "error: --image-component is of intervals over models: add --families\n"
    (where / "jackknife.parquet").unlink()
    said = refused(where, "--families", "--image-component", code=2)
    assert "--image-component: there are no tables of leave-one-out changes of plain-0 beside" in said


def test_results_are_read_and_not_touched(runs: Path) -> None:
    before = (runs / "fp32" / "results.jsonl").read_bytes()
    lines(runs / "fp32", runs / "int8")
    assert (runs / "fp32" / "results.jsonl").read_bytes() == before
    assert len(list(read_results(runs / "fp32" / "results.jsonl"))) == 10


def test_arrays_and_acts_as_measure_takes_them(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 1)):
        onnx.save(nets.cnn(size=9, classes=3, seed=seed), tmp_path / f"{name}.onnx")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((8, 1, 9, 9), dtype=np.float32))
    found = lines(
        tmp_path / "one.onnx", tmp_path / "two.onnx", "--data", tmp_path / "x.npy", "--group", "C4", "--samples", "all",
        "--act", "latent=permute:1:1,2,3,0,5,6,7,4", "--variant", "latent-l2", "--level", "0.9", "--provider", "cpu",
    )  # fmt: skip
    assert [(x["tap_a"]["name"], x["level"], x["samples"]) for x in found] == [("latent", 0.9, 8)]
    assert "permute" in found[0]["tap_a"]["action"]
