"""The command line as other programs rely on it: stdout is data, stderr is talk, exit codes 0, 1, 2, 3."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import onnx_nets as nets
import pytest
from click.testing import CliRunner
from click.testing import Result as Ran
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from geed_onnx.cli import main
from geed_onnx.results import from_json, read_results

COMMANDS = sorted(main.commands)
#: Every field that the design promises, with what it may hold.
PROMISED: dict[str, tuple[type, ...]] = {
    "schema": (str,),
    "model": (dict,),
    "data": (dict,),
    "group": (dict,),
    "tap": (dict,),
    "variant": (str,),
    "value": (float, type(None)),
    "low": (float, type(None)),
    "high": (float, type(None)),
    "level": (float,),
    "method": (str,),
    "samples": (int,),
    "optimum": (float, type(None)),
    "spread": (float, type(None)),
    "floor": (float, type(None)),
    "null": (float, type(None)),
    "calibrated": (float, type(None)),
    "calibrated_low": (float, type(None)),
    "calibrated_high": (float, type(None)),
    "per_element": (list, type(None)),
    "law_defect": (float,),
    "reason": (str, type(None)),
    "seed": (int,),
    "runtime": (dict,),
}
WITHIN = {
    "model": {"path", "sha256", "producer"},
    "data": {"uri", "fingerprint", "samples"},
    "group": {"name", "order"},
    "tap": {"name", "kind", "shape"},
    "runtime": {"provider"},
}


def run(*args: Any) -> Ran:
    return CliRunner().invoke(main, [str(a) for a in args], prog_name="geed-onnx")


def strict(line: str) -> dict[str, Any]:
    """Return one line of JSON that has no NaN and no Infinity in it."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    record = json.loads(line, parse_constant=refuse)
    assert isinstance(record, dict)
    return record


def measured(*args: Any) -> list[dict[str, Any]]:
    """Return the Results of a `measure --json` that ends well and has nothing to say."""
    result = run("measure", *args, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return [strict(line) for line in result.stdout.splitlines()]


def by_name(results: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["tap"]["name"], r["variant"]): r for r in results}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small models, arrays and pictures."""
    desk = tmp_path_factory.mktemp("desk")
    rng = np.random.default_rng(0)
    swaps = json.dumps([{"name": "latent", "kind": "vector", "action": "permute:1:1,2,3,0,5,6,7,4"}])
    models = {
        "cnn": nets.cnn(size=9, classes=3),
        "declared": nets.cnn(size=9, classes=3, metadata={"geed.taps": swaps}),
        "two": nets.two_inputs(),
        "twice": nets.two_inputs(images=2),
        "constant": nets.constant_features(),
        "resnet": nets.residual(size=8),
        "untold": untold(),
        "open": open_size(),
        "colons": colons(),
    }
    for name, model in models.items():
        onnx.save(model, desk / f"{name}.onnx")
    arrays = {
        "x9": rng.random((12, 1, 9, 9), dtype=np.float32),
        "x8": rng.random((12, 1, 8, 8), dtype=np.float32),
        "rgb8": rng.random((12, 3, 8, 8), dtype=np.float32),
        "x6": rng.random((12, 4, 6, 6), dtype=np.float32),
        "bytes": (rng.random((12, 9, 9)) * 255).astype(np.uint8),
        "gain": np.full((1, 1), 2, np.float32),
    }
    for name, array in arrays.items():
        np.save(desk / f"{name}.npy", array)
    np.savez(desk / "both.npz", first=arrays["x9"], second=arrays["x9"][::-1].copy())
    (desk / "pictures").mkdir()
    for i in range(6):
        Image.fromarray((rng.random((12, 14, 3)) * 255).astype(np.uint8)).save(desk / "pictures" / f"{i}.png")
    return desk


def untold() -> onnx.ModelProto:
    """A matrix over flattened images: nothing in it tells where their channels are."""
    net = nets.Net()
    net.add("Flatten", ["x"], "latent")
    net.add("MatMul", ["latent", net.weight("w", 4 * 6 * 6, 3)], "logits")
    return net.done([("x", ["N", 4, 6, 6])], [("logits", ["N", 3])])


def open_size() -> onnx.ModelProto:
    """A CNN that takes images of any size."""
    net = nets.Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], "conv", pads=[1] * 4)
    net.add("Relu", ["conv"], "map")
    net.add("GlobalAveragePool", ["map"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    return net.done([("x", ["N", 1, "H", "W"])], [("latent", ["N", 4])])


def colons() -> onnx.ModelProto:
    """A CNN whose latent is called `net/latent:0=a`, as TensorFlow's names are, and worse."""
    model = nets.cnn(size=9, classes=3)
    for node in model.graph.node:
        node.input[:] = ["net/latent:0=a" if i == "latent" else i for i in node.input]
        node.output[:] = ["net/latent:0=a" if o == "latent" else o for o in node.output]
    return model


def ask(desk: Path, model: str = "cnn", data: str = "x9.npy", group: str = "C4", samples: str = "6") -> list[Any]:
    return [desk / f"{model}.onnx", "--data", desk / data, "--group", group, "--samples", samples]


# --- help -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert result.stdout.startswith(f"Usage: geed-onnx {command} ")
    assert f"\n  geed-onnx {command}" in result.stdout
    assert run(command, "-h").stdout == result.stdout
    unexplained = [p.name for p in main.commands[command].params if isinstance(p, click.Option) and not p.help]
    assert unexplained == []


def test_the_commands_of_the_design_are_there() -> None:
    assert {"taps", "measure", "expose", "doctor", "list"} <= set(COMMANDS)
    shown = run("--help").stdout
    assert all(f"\n  {command} " in shown for command in COMMANDS)
    assert "..." not in shown.partition("Commands:")[2]  # no summary is cut


def test_without_a_command_the_help_is_talk() -> None:
    result = run()
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Commands:" in result.stderr


def test_the_version_is_the_packages() -> None:
    import geed_onnx

    assert run("--version").stdout.strip().endswith(geed_onnx.__version__)


# --- taps -------------------------------------------------------------------------------------------------------


def test_taps_as_json_names_what_can_be_tapped(desk: Path) -> None:
    result = run("taps", desk / "cnn.onnx", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    taps = {t["name"]: t for t in map(strict, result.stdout.splitlines())}
    assert list(taps) == ["conv1", "block1", "conv2", "block2", "pooled", "latent", "logits", "scores"]
    assert taps["block2"]["kind"] == "map"
    assert taps["block2"]["shape"] == [8, 5, 5]
    assert taps["block2"]["layout"] == "NCHW"
    assert taps["logits"]["kind"] == taps["scores"]["kind"] == "probability"
    assert [name for name, t in taps.items() if t["default"]] == ["block1", "block2", "latent", "scores"]
    measured_by_default = {r["tap"]["name"] for r in measured(*ask(desk))}
    assert measured_by_default == {name for name, t in taps.items() if t["default"]}
    assert {t["module"] for t in map(strict, run("taps", desk / "resnet.onnx", "--json").stdout.splitlines())} >= {
        "layer1",
        "layer2",
        "fc",
    }


def test_taps_as_a_table_marks_the_default_choice(desk: Path) -> None:
    result = run("taps", desk / "cnn.onnx")
    rows = {line.split("│")[2].strip(): line.split("│") for line in result.stdout.splitlines() if line.startswith("│")}
    assert rows["block1"][1].strip() == "●"
    assert rows["conv1"][1].strip() == ""
    assert rows["block2"][4].strip() == "8×5×5"
    assert "● measured where no --tap is given" in result.stdout


def test_a_size_closes_what_the_file_leaves_open(desk: Path) -> None:
    def shape(*more: str) -> list[int | None]:
        lines = run("taps", desk / "open.onnx", "--json", *more).stdout.splitlines()
        return next(t["shape"] for t in map(strict, lines) if t["name"] == "map")

    assert shape() == [4, None, None]
    assert shape("--size", "10x12") == [4, 10, 12]
    assert "not tried: the file leaves its size open; add --size HxW" in run("doctor", desk / "open.onnx").stdout
    assert "✓ running" in run("doctor", desk / "open.onnx", "--size", "10x12").stdout


# --- measure: the record ----------------------------------------------------------------------------------------


def test_json_is_one_strict_result_a_line_with_every_promised_field(desk: Path) -> None:
    results = measured(*ask(desk))
    assert [(r["tap"]["name"], r["variant"]) for r in results] == [
        ("block1", "channelwise"),
        ("block2", "channelwise"),
        ("latent", "latent-l2"),
        ("latent", "latent-cosine"),
        ("latent", "latent-cosine-bounded"),
        ("scores", "softmax"),
    ]
    for r in results:
        assert r["schema"] == "geed-result/1"
        for name, kinds in PROMISED.items():
            assert isinstance(r[name], kinds), name
        for name, keys in WITHIN.items():
            assert keys <= set(r[name]), name
        assert r["group"] == {"name": "C4", "order": 4}
        assert r["samples"] == r["data"]["samples"] == 6
        assert len(r["per_element"]) == 4
        assert r["low"] <= r["value"] <= r["high"]
        assert r["model"]["path"].endswith("cnn.onnx")
        assert len(r["model"]["sha256"]) == 64
        assert r["runtime"]["provider"].endswith("ExecutionProvider")
    block = by_name(results)["block2", "channelwise"]
    assert (block["optimum"], block["floor"], block["tap"]["shape"]) == (-1.0, -1.0, [8, 5, 5])


def test_the_file_holds_what_is_printed(desk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("older\n")
    printed = run("measure", *ask(desk), "--json", "-o", target)
    assert printed.exit_code == 0
    assert target.read_text(encoding="utf-8") == printed.stdout
    table = run("measure", *ask(desk), "-o", tmp_path / "second.jsonl")
    assert "block1" in table.stdout
    assert "schema" not in table.stdout
    assert list(read_results(tmp_path / "second.jsonl")) == [from_json(line) for line in printed.stdout.splitlines()]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "second.jsonl"]  # no temporary file stays


def test_a_measurement_that_fails_leaves_the_older_file(desk: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("older\n")
    assert run("measure", *ask(desk, samples="99"), "-o", target).exit_code == 1
    assert target.read_text() == "older\n"


def test_the_table_has_the_numbers_of_the_record(desk: Path) -> None:
    result = run("measure", *ask(desk))
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split() for line in result.stdout.splitlines()]
    for r in measured(*ask(desk)):
        [row] = [words for words in rows if words[:2] == [r["tap"]["name"], r["variant"]]]
        assert float(row[2]) == pytest.approx(r["value"], rel=2e-2, abs=6e-4)
    assert result.stdout.startswith(f"{desk / 'cnn.onnx'} · C4 · 6 images of {desk / 'x9.npy'}\n")


# --- measure: the options ---------------------------------------------------------------------------------------


def test_taps_by_name_kind_glob_and_module_path(desk: Path) -> None:
    def named(*specs: str, model: str = "cnn", data: str = "x9.npy") -> list[tuple[str, str]]:
        more = [word for spec in specs for word in ("--tap", spec)]
        return list(
            dict.fromkeys((r["tap"]["name"], r["tap"]["kind"]) for r in measured(*ask(desk, model, data), *more))
        )

    assert named("latent") == [("latent", "vector")]
    assert named("block*", "logits:vector") == [("block1", "map"), ("block2", "map"), ("logits", "vector")]
    assert named("block*:vector") == [("block1", "vector"), ("block2", "vector")]
    assert named("layer1", model="resnet", data="x8.npy") == [("layer1_out", "map")]
    assert named("net/latent:0=a", model="colons") == [("net/latent:0=a", "vector")]
    assert named("net/latent:0=a:probability", model="colons") == [("net/latent:0=a", "probability")]


def test_variants_by_name_and_in_general(desk: Path) -> None:
    results = measured(*ask(desk), "--variant", "softmax", "--variant", "map:pixels:relative-l2")
    assert [(r["tap"]["name"], r["variant"]) for r in results] == [
        ("block1", "map:pixels:relative-l2"),
        ("block2", "map:pixels:relative-l2"),
        ("scores", "softmax"),
    ]


def test_an_action_for_a_tap_whose_name_has_an_equals_sign(desk: Path) -> None:
    act = "net/latent:0=a=permute:1:1,2,3,0,5,6,7,4"
    [given, *_] = measured(*ask(desk, "colons"), "--tap", "net/latent:0=a", "--act", act)
    assert given["tap"]["action"] == "permute:1:1,2,3,0,5,6,7,4"
    assert given["tap"]["kernel"] == [0]
    [plain, *_] = measured(*ask(desk, "colons"), "--tap", "net/latent:0=a")
    assert plain["tap"]["action"] == "trivial"
    assert plain["tap"]["kernel"] == [0, 1, 2, 3]
    assert given["value"] != plain["value"]


def test_the_declared_action_is_used_unless_told_otherwise(desk: Path) -> None:
    def latent(*more: str) -> tuple[str, float]:
        r = by_name(measured(*ask(desk, "declared"), "--tap", "latent", *more))["latent", "latent-l2"]
        return r["tap"]["action"], r["value"]

    action = "permute:1:1,2,3,0,5,6,7,4"
    by_hand = by_name(measured(*ask(desk), "--tap", "latent", "--act", f"latent={action}"))["latent", "latent-l2"]
    naive = by_name(measured(*ask(desk), "--tap", "latent"))["latent", "latent-l2"]
    assert latent() == (action, by_hand["value"])
    assert latent("--no-declared-action") == ("trivial", naive["value"])
    assert latent("--act", "latent=roll:1:2")[0] == "roll:1:2"


def test_the_floor_of_invariance_is_measured_when_asked_for(desk: Path) -> None:
    plain = by_name(measured(*ask(desk, group="C8")))["latent", "latent-l2"]
    floored = by_name(measured(*ask(desk, group="C8"), "--floor"))["latent", "latent-l2"]
    assert (plain["floor_method"], plain["floor"]) == ("optimum", 0.0)
    assert floored["floor_method"] == "passes"
    assert floored["floor"] > 0
    assert floored["value"] == plain["value"]
    note = "* floor not measured (extra passes): add --floor"
    assert note in run("measure", *ask(desk, group="C8")).stdout
    assert note not in run("measure", *ask(desk, group="C8"), "--floor").stdout


def test_reference_samples(desk: Path) -> None:
    for count in (0, 3, 6):
        r = measured(*ask(desk), "--reference-samples", count)[0]
        assert r["reference_samples"] == count
        assert (r["null"] is None) == (count == 0)


def test_samples_seed_and_all(desk: Path) -> None:
    drawn, again, other = (measured(*ask(desk), "--seed", seed) for seed in (1, 1, 2))
    assert drawn == again
    assert drawn[0]["seed"] == 1
    assert drawn[0]["data"]["fingerprint"] != other[0]["data"]["fingerprint"]
    assert drawn[0]["value"] != other[0]["value"]
    everything = measured(*ask(desk, samples="all"))
    assert everything[0]["samples"] == 12
    assert everything[0]["value"] == measured(*ask(desk, samples="all"), "--seed", "5")[0]["value"]
    # fifty by default, and there are not as many
    result = run("measure", *ask(desk)[:-2])
    assert result.exit_code == 0
    assert result.stderr == "warning: 12 images: all there are (50 by default)\n"


def test_spread_samples(desk: Path) -> None:
    few, many = (by_name(measured(*ask(desk), "--spread-samples", n))["latent", "latent-l2"] for n in (3, 12))
    assert (few["spread_samples"], many["spread_samples"]) == (3, 12)
    assert few["spread"] != many["spread"]
    assert by_name(measured(*ask(desk)))["latent", "latent-l2"]["spread_samples"] == 12


def test_level(desk: Path) -> None:
    wide, narrow = (measured(*ask(desk), "--level", level)[0] for level in ("0.99", "0.5"))
    assert (wide["level"], narrow["level"]) == (0.99, 0.5)
    assert wide["low"] < narrow["low"] < narrow["value"] < narrow["high"] < wide["high"]
    assert "50 %" in run("measure", *ask(desk), "--level", "0.5").stdout


def test_batch_size_provider_and_threads(desk: Path) -> None:
    plain = measured(*ask(desk))
    for rows in (1, 3, 8):
        batched = measured(*ask(desk), "--batch-size", rows, "--provider", "cpu", "--threads", "1")
        assert [r["value"] for r in batched] == pytest.approx([r["value"] for r in plain], rel=1e-4, abs=1e-7)
        assert batched[0]["runtime"]["batch"] == rows
        assert batched[0]["runtime"]["provider"] == "CPUExecutionProvider"
        assert batched[0]["runtime"]["threads"] == 1


def test_mask(desk: Path) -> None:
    words = ("auto", "disc", "none")
    by_default, auto, disc, none = (
        measured(*ask(desk, group="C8"), *more) for more in ((), *(("--mask", w) for w in words))
    )
    assert (disc[0]["data"]["mask"], none[0]["data"]["mask"]) == ("disc", None)
    assert disc[0]["value"] < none[0]["value"]  # what a rotation brings in from outside no longer counts
    assert by_default == auto == disc  # some of its turns resample
    [exact], [whole] = (measured(*ask(desk, group="C4"), *more)[:1] for more in ((), ("--mask", "none")))
    assert exact == whole  # none does
    assert exact["data"]["mask"] is None


def test_preprocessing_of_a_folder_is_echoed_and_counts(desk: Path) -> None:
    start = ask(desk, data="pictures")
    plain = measured(*start)[0]
    assert plain["data"]["preprocessing"]["colour"] == "grey"
    flags = ["--size", "9x9", "--fit", "crop", "--resize", "11", "--colour", "grey", "--range", "0,255"]
    flags += ["--mean", "100", "--std", "50", "--resample", "bicubic"]
    result = run("measure", *start, *flags, "--json")
    assert result.exit_code == 0, result.output
    r = strict(result.stdout.splitlines()[0])
    how = r["data"]["preprocessing"]
    assert (how["height"], how["width"], how["fit"], how["resize"]) == (9, 9, "crop", 11)
    assert (how["range"], how["mean"], how["std"], how["resample"]) == ([0, 255], [100], [50], "bicubic")
    assert how["origin"] == "flags"
    assert r["value"] != plain["value"]


def test_flags_make_images_of_arrays(desk: Path) -> None:
    r = measured(*ask(desk, data="bytes.npy"), "--range", "0,1")[0]
    assert r["data"]["preprocessing"]["range"] == [0, 1]
    assert measured(*ask(desk))[0]["data"]["preprocessing"] == "as is"


def test_a_model_of_two_inputs(desk: Path) -> None:
    def latent(*more: Any) -> dict[str, Any]:
        return by_name(measured(*ask(desk, "two", "rgb8.npy"), *more, "--tap", "scaled"))["scaled", "latent-l2"]

    one, two = latent("--constant", "gain=1"), latent("--constant", "gain=2")
    assert two["spread"] == pytest.approx(2 * one["spread"], rel=1e-5)
    assert latent("--constant", f"gain={desk / 'gain.npy'}")["spread"] == two["spread"]
    start = ask(desk, "twice", "rgb8.npy")
    first = measured(*start, "--input", "image", "--constant", "image2=0", "--tap", "latent")
    second = measured(*start, "--input", "image2", "--constant", "image=0", "--tap", "latent")
    assert first[0]["value"] != second[0]["value"]


def test_a_layout_that_the_graph_does_not_tell_is_taken_from_the_user(desk: Path) -> None:
    start = [*ask(desk, "untold", "x6.npy", group="flip"), "--tap", "latent:vector"]
    there, here = (measured(*start, "--layout", layout)[0]["value"] for layout in ("NCHW", "NHWC"))
    assert there != here


def test_the_array_of_an_archive(desk: Path) -> None:
    start = ask(desk, data="both.npz", samples="6")
    first, second, plain = (
        measured(*start, "--column", "first"),
        measured(*start, "--column", "second"),
        measured(*ask(desk)),
    )
    assert first[0]["value"] == plain[0]["value"] != second[0]["value"]
    result = run("measure", *start)
    assert result.exit_code == 1
    assert "which array holds the images?" in result.stderr
    assert "name one with --column" in result.stderr


# --- measure: thresholds ----------------------------------------------------------------------------------------


def test_a_threshold_that_holds(desk: Path) -> None:
    result = run("measure", *ask(desk), "--fail-above", "softmax=1", "--fail-above", "latent-l2=5", "--json")
    assert (result.exit_code, result.stderr) == (0, "")


def test_a_threshold_that_is_crossed(desk: Path, tmp_path: Path) -> None:
    start = [*ask(desk), "--json", "-o", tmp_path / "out.jsonl"]
    result = run("measure", *start, "--fail-above", "channelwise=-0.999", "--fail-above", "softmax=1")
    assert result.exit_code == 3
    assert [strict(line)["variant"] for line in result.stdout.splitlines()].count("channelwise") == 2
    assert (tmp_path / "out.jsonl").read_text() == result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    first = strict(result.stdout.splitlines()[0])
    assert lines[0] == (
        f"crossed: channelwise of block1 is {first['value']:.6g} (at least {first['low']:.6g}), above -0.999"
    )


def test_noise_does_not_cross_a_threshold(desk: Path) -> None:
    r = by_name(measured(*ask(desk)))["latent", "latent-l2"]
    assert r["low"] < r["value"]
    within, below = (r["low"] + r["value"]) / 2, r["low"] - 1e-6
    assert run("measure", *ask(desk), "--fail-above", f"latent-l2={within}").exit_code == 0
    assert run("measure", *ask(desk), "--fail-above", f"latent-l2={below}").exit_code == 3
    # undecided is said, and closes the gate only where within is to be shown
    limit = ("--fail-above", f"latent-l2={within}")
    said = run("measure", *ask(desk), *limit, "--json").stderr
    assert said.startswith("undecided: latent-l2 of ")
    proven = run("measure", *ask(desk), *limit, "--prove", "--json")
    assert proven.exit_code == 3
    assert f"not shown to be within {within:g}" in proven.stderr
    # the other way round: the upper end is held against it
    for number, code in ((within, 0), (below, 0), (2 * r["high"], 3)):
        assert run("measure", *ask(desk), "--fail-below", f"latent-l2={number}").exit_code == code
    maps = run("measure", *ask(desk), "--fail-above", "channelwise=-0.999", "--family-wise").stderr.splitlines()
    # made anew from the tables that are at hand
    assert [line.split("; ")[1] for line in maps] == [
        "judged at 97.5 % among 2 cells (Holm)",
        "judged at 97.5 % among 2 cells (Holm)",
    ]
    for flag in ("--prove", "--family-wise"):
        alone = run("measure", *ask(desk), flag)
        assert alone.exit_code == 2
        assert alone.stderr == (f"error: {flag}: there is no limit to hold a value against; add --fail-above V=X\n")


def test_a_value_that_is_not_there_crosses_a_threshold(desk: Path) -> None:
    result = run("measure", *ask(desk, "constant", "x8.npy"), "--fail-above", "latent-l2=1000")
    assert result.exit_code == 3
    assert result.stderr.startswith("crossed: latent-l2 of latent has no value to hold against 1000: the spread M is 0")


# --- expose, doctor, list, demo ---------------------------------------------------------------------------------


def test_exposed_taps_are_outputs_for_any_onnx_tool(desk: Path, tmp_path: Path) -> None:
    import onnxruntime as ort

    target = tmp_path / "tapped.onnx"
    result = run("expose", desk / "cnn.onnx", "-o", target, "--tap", "block*", "--tap", "latent")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"wrote {target} with 3 tap(s) as outputs\n"
    onnx.checker.check_model(str(target), full_check=True)
    plain, tapped = (
        ort.InferenceSession(str(p), providers=["CPUExecutionProvider"]) for p in (desk / "cnn.onnx", target)
    )
    x = np.load(desk / "x9.npy")
    outputs = dict(zip([o.name for o in tapped.get_outputs()], tapped.run(None, {"x": x}), strict=True))
    assert set(outputs) == {"scores", "block1", "block2", "latent"}
    assert outputs["block2"].shape == (12, 8, 5, 5)
    assert np.allclose(outputs["block2"].mean(axis=(2, 3)), outputs["latent"], atol=1e-6)
    assert np.allclose(outputs["scores"], plain.run(None, {"x": x})[0], atol=1e-6)
    assert [p.name for p in tmp_path.iterdir()] == ["tapped.onnx"]


def test_doctor_says_what_works(desk: Path) -> None:
    result = run("doctor", desk / "cnn.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    topics = {line.split()[1] for line in result.stdout.splitlines()}
    assert topics >= {"file", "input", "layout", "range", "C4", "taps", "batch", "running", "noise", "exposing"}
    findings = [strict(line) for line in run("doctor", desk / "cnn.onnx", "--json").stdout.splitlines()]
    assert len(findings) == len(result.stdout.splitlines())
    assert {f["verdict"] for f in findings} <= {"ok", "note", "warning", "error"}
    assert {"topic": "batch", "verdict": "ok", "text": "free"} in findings


def test_doctor_finds_that_the_optimiser_computes_something_else(tmp_path: Path) -> None:
    """Zero padding is fused into a max pooling, whose own padding is minus infinity."""
    nodes = [
        helper.make_node("Neg", ["x"], ["negative"]),
        helper.make_node("Pad", ["negative", "pads", "zero"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["y"], kernel_shape=[3, 3], strides=[2, 2]),
    ]
    weights = [
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 2, s, s]) for n, s in (("x", 8), ("y", 4))]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], weights)
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    result = run("doctor", path, "--layout", "NCHW")
    assert result.exit_code == 0, result.output
    assert re.search(r"optimiser moves 'y' by \d", result.stdout)
    del graph.node[1]
    graph.node[1].input[0] = "negative"
    graph.node[1].attribute.append(helper.make_attribute("pads", [1, 1, 1, 1]))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    assert "optimising leaves the taps as they are" in run("doctor", path, "--layout", "NCHW").stdout


def test_doctor_says_what_does_not(desk: Path) -> None:
    result = run("doctor", desk / "untold.onnx")
    assert result.exit_code == 1
    assert "✗ layout     not known from the graph: add --layout NCHW or --layout NHWC" in result.stdout
    assert run("doctor", desk / "untold.onnx", "--layout", "NCHW").exit_code == 0
    result = run("doctor", desk / "two.onnx", "--json")
    assert result.exit_code == 1
    errors = [f for f in map(strict, result.stdout.splitlines()) if f["verdict"] == "error"]
    assert any("--constant gain=VALUE" in f["text"] for f in errors)
    assert run("doctor", desk / "two.onnx", "--constant", "gain=1").exit_code == 0


@pytest.mark.parametrize(
    ("topic", "names"),
    [
        ("groups", {"C<n>", "D<n>", "flip", "flip-ud"}),
        ("variants", {"channelwise", "latent-l2", "latent-cosine", "latent-cosine-bounded", "softmax"}),
        ("distances", {"l2", "cosine", "channelwise-cosine", "kl", "jensen-shannon"}),
        ("actions", {"trivial", "pixels", "permute", "roll"}),
        ("normalisers", {"none", "spread-l2"}),
        ("sources", {"array", "folder"}),
        ("sessions", {"onnxruntime"}),
        ("providers", {"auto", "cpu"}),
    ],
)
def test_list_names_what_can_be_named(topic: str, names: set[str]) -> None:
    result = run("list", topic)
    assert (result.exit_code, result.stderr) == (0, "")
    plain = {line.split()[0] for line in result.stdout.splitlines()}
    assert names <= plain
    records = [strict(line) for line in run("list", topic, "--json").stdout.splitlines()]
    assert {r["name"].split()[0] for r in records} == plain
    assert all(set(r) == {"name", "about"} for r in records)
    assert topic == "providers" or all(r["about"] for r in records)


def test_what_list_names_can_be_measured(desk: Path) -> None:
    names = [line.split()[0] for line in run("list", "variants").stdout.splitlines()]
    more = [word for name in names if ":" not in name for word in ("--variant", name)]
    assert {r["variant"] for r in measured(*ask(desk), *more)} == {n for n in names if ":" not in n}


def test_the_demo_measures_every_shipped_model_and_tells_their_story() -> None:
    result = run("demo", "--samples", "4", "--group", "C4")
    assert result.exit_code == 0, result.output
    assert result.stdout.count(" · C4 · 4 images of ") == 2
    for words in ("How to read it: ", "One architecture and recipe in three frameworks", "equivariant by construction"):
        assert words in result.stdout
    for heading in ("calibrated: 0 as equivariant as the grid allows", "raw: -1 is equivariant for maps"):
        table = result.stdout.split(heading)[1]
        rows = [line.split() for line in table.splitlines()[3:12]]
        assert [row[0] for row in rows] == ["PyTorch"] * 4 + ["Keras", "Flax", "scikit-learn", "escnn", "escnn"]
    found = [strict(line) for line in run("demo", "--samples", "4", "--group", "C4", "--json").stdout.splitlines()]
    shipped = {p.name for p in (Path(__file__).parents[1] / "models" / "shipped").glob("*.onnx")}
    assert {Path(r["model"]["path"]).name for r in found} == shipped
    assert run("demo", "--samples", "4", "--group", "C4", "--full").stdout.count(" · C4 · 4 images of ") == 9


def test_the_demo_reads_the_steerable_network_naively_where_its_group_does_not_tell() -> None:
    result = run("demo", "--samples", "4", "--group", "flip")
    assert result.exit_code == 0, result.output
    assert "escnn C8-CNN, read naively" in result.stdout
    assert "equivariant by construction" not in result.stdout


# --- real processes ---------------------------------------------------------------------------------------------


def process(*args: Any, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "geed_onnx", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, **more)


def test_streams_and_exit_codes_of_a_real_process(desk: Path) -> None:
    fine = process("measure", *ask(desk), "--json")
    assert (fine.returncode, fine.stderr) == (0, "")
    assert len([strict(line) for line in fine.stdout.splitlines()]) == 6
    crossed = process("measure", *ask(desk), "--json", "--fail-above", "channelwise=-1")
    assert (crossed.returncode, crossed.stdout) == (3, fine.stdout)
    assert crossed.stderr.startswith("crossed: ")
    failed = process("measure", *ask(desk, samples="99"), "--json")
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (1, "", 1)
    assert failed.stderr.startswith("error: ")
    unmeant = process("measure", *ask(desk), "--jsom")
    assert (unmeant.returncode, unmeant.stdout) == (2, "")
    assert unmeant.stderr.startswith("error: no such option '--jsom': did you mean '--json'?")


#: What takes longer to import than a user wants to wait for help.
HEAVY = ("numpy", "scipy", "onnx", "onnxruntime", "datasets", "pyarrow", "pandas", "PIL", "pydantic", "fsspec",
         "jinja2", "rich.console", "matplotlib", "ray", "mlflow",
         "multiprocessing")  # fmt: skip


def loaded_by(*command: str) -> set[str]:
    """The heavy ones among the modules that a Python process had loaded when it ended."""
    told = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    done = subprocess.run([sys.executable, "-c", told + command[0], *command[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], *([name, "--help"] for name in sorted(main.commands))], ids=" ".join
)
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    """What makes it quick; how quick it is, benchmarks/startup.py says."""
    assert loaded_by("from geed_onnx.__main__ import main; main()", *args) == set()


@pytest.mark.parametrize("module", ["geed_onnx", "geed_onnx.cli", "geed_onnx.__main__"])
def test_importing_the_package_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise on this system")
def test_a_reader_that_has_seen_enough(desk: Path) -> None:
    for args in (["taps", desk / "cnn.onnx", "--json"], ["measure", *ask(desk), "--json"], ["list", "groups"]):
        read, write = os.pipe()
        os.close(read)  # the reader is gone before the first line
        done = subprocess.run(
            [sys.executable, "-m", "geed_onnx", *map(str, args)], stdout=write, stderr=subprocess.PIPE, timeout=120
        )
        os.close(write)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise on this system")
def test_a_reader_that_goes_away_does_not_hide_a_crossed_threshold(desk: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    args = ["measure", *map(str, ask(desk)), "--json", "--fail-above", "channelwise=-1"]
    done = subprocess.run(
        [sys.executable, "-m", "geed_onnx", *args], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(write)
    assert done.returncode == 3
    assert done.stderr.startswith("crossed: channelwise of block1")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_is_shown_on_a_terminal_only(desk: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "geed_onnx", "measure", *map(str, ask(desk)), "--json"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment)
    os.close(theirs)
    out, _ = child.communicate(timeout=120)
    seen = b""
    try:
        while piece := os.read(ours, 65536):
            seen += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert child.returncode == 0
    assert b"forward passes" in seen
    assert b"forward passes" not in out
    assert len([strict(line) for line in out.decode().splitlines()]) == 6
    assert "forward passes" not in process("measure", *ask(desk), "--json").stderr


def test_data_are_utf8_whatever_the_locale_says(desk: Path, tmp_path: Path) -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    table = process("measure", *ask(desk), env=ascii_only)
    assert (table.returncode, table.stderr) == (0, "")
    assert " · C4 · " in table.stdout
    assert "●" in process("taps", desk / "cnn.onnx", env=ascii_only).stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only there are file names any bytes")
def test_a_path_that_is_no_text(desk: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/mod\xe9l.onnx")
    Path(path).write_bytes((desk / "cnn.onnx").read_bytes())
    target = tmp_path / "out.jsonl"
    done = process("measure", path, *ask(desk)[1:], "--json", "-o", target)
    assert (done.returncode, done.stderr) == (0, "")
    assert {strict(line)["model"]["path"] for line in done.stdout.splitlines()} == {path}
    assert {r.model["path"] for r in read_results(target)} == {path}
    missing = process("taps", os.fsdecode(b"mod\xe9l"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("error: no such file: mod\\udce9l")


def test_doctor_warns_where_both_distributions_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from geed_onnx import doctor

    monkeypatch.setattr(doctor, "_installed", lambda name: True)
    texts = [f.text for f in doctor._installation() if f.verdict == "warning"]
    assert len(texts) == 1
    assert "onnxruntime and onnxruntime-gpu are both installed" in texts[0]
    monkeypatch.setattr(doctor, "_installed", lambda name: name == "onnxruntime")
    assert not [f for f in doctor._installation() if f.verdict == "warning"]


def test_tables_beside_the_results_make_comparisons_paired(tmp_path: Path) -> None:
    onnx.save(nets.cnn(size=12), str(tmp_path / "net.onnx"))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((9, 1, 12, 12)).astype(np.float32))
    request = ("measure", tmp_path / "net.onnx", "--data", tmp_path / "x.npy", "--group", "C4", "--samples", 8)
    assert run(*request, "-o", tmp_path / "r.jsonl", "--tables").exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("r.")) == [
        "r.deviations.parquet",
        "r.jackknife.parquet",
        "r.jsonl",
    ]
    compared = run("compare", tmp_path / "r.jsonl", tmp_path / "r.jsonl", "--json")
    assert compared.exit_code == 0, compared.output
    rows = [json.loads(line) for line in compared.stdout.splitlines()]
    assert rows
    assert all(r["paired"] and r["difference"] == 0 for r in rows if r["difference"] is not None)
    refused = run(*request, "--tables")
    assert refused.exit_code == 2
    assert "add -o FILE.jsonl" in refused.stderr
