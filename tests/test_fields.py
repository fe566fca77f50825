"""Channel actions that a file declares: steerable networks read as exact, and everything that may be wrong."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import oracle
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from test_oracle import SEED, close, drawn, pictures

from geed_onnx import measure
from geed_onnx.actions import parse_declared
from geed_onnx.actions.fields import embedding
from geed_onnx.cli import main
from geed_onnx.errors import ActionError, GeedError
from geed_onnx.groups import parse_group

Array = np.ndarray[Any, Any]
C4_REGULAR = {"group": "C4", "fields": [{"type": "regular", "count": 2}]}
ONE_FIELD = {"group": "C4", "fields": [{"type": "regular"}]}
#: a plane turned by a quarter, and the regular representation of C4 seen in that basis and back: an irreducible field
ROTATION = [[0.0, -1.0], [1.0, 0.0]]


def moved_filter(w: Array, quarters: int, mirrored: bool) -> Array:
    return np.rot90(w[:, ::-1] if mirrored else w, quarters)


def steerable(group: str, size: int = 9, seed: int = 0) -> onnx.ModelProto:
    """A lifting layer whose output channels are regular fields by construction, and what other fields come of them.

    `regular` (fields of C4 or D4), `trivial` (their mean), `quotient` (means over half-turns), `irreducible` (a plane
    of each field of C4), `latent` (the mean over pixels of `regular`), `scores` (softmax over one field of it).
    """
    rng = np.random.default_rng(seed)
    order, fields = (4, 2) if group == "C4" else (8, 1)
    filters = [rng.normal(size=(5, 5)) for _ in range(fields)]
    weights = np.stack([moved_filter(w, k % 4, k >= 4) for w in filters for k in range(order)])[:, None]
    mean, half, plane = (np.zeros((rows, fields * order)) for rows in (fields, fields * order // 2, 2 * fields))
    for f in range(fields):
        for k in range(order):
            mean[f, f * order + k] = 1 / order
            # cosets of {1, r²}, in the order of their least elements: {0, 2}, {1, 3} and, in D4, {4, 6}, {5, 7}
            half[f * order // 2 + k % 2 + 2 * (k // 4), f * order + k] = 1 / 2
            if group == "C4":  # (cos, sin) of the element's angle: turns as a vector does
                plane[2 * f : 2 * f + 2, f * order + k] = math.cos(k * math.pi / 2), math.sin(k * math.pi / 2)
    consts = {"w": weights, "m": mean[..., None, None], "h": half[..., None, None], "p": plane[..., None, None]}
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["lifted"], pads=[2, 2, 2, 2]),
        helper.make_node("Relu", ["lifted"], ["regular"]),
        helper.make_node("Conv", ["regular", "m"], ["trivial"]),
        helper.make_node("Conv", ["regular", "h"], ["quotient"]),
        helper.make_node("Conv", ["regular", "p"], ["irreducible"]),
        helper.make_node("ReduceMean", ["regular"], ["latent"], axes=[2, 3], keepdims=0),
        helper.make_node("Softmax", ["latent"], ["scores"], axis=1),
    ]
    shapes: dict[str, list[Any]] = {
        "regular": ["N", fields * order, size, size],
        "trivial": ["N", fields, size, size],
        "quotient": ["N", fields * order // 2, size, size],
        "irreducible": ["N", 2 * fields, size, size],
        "latent": ["N", fields * order],
        "scores": ["N", fields * order],
    }
    graph = helper.make_graph(
        nodes,
        "steerable",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, size, size])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()],
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in consts.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def declarations(group: str) -> dict[str, dict[str, Any]]:
    count = 2 if group == "C4" else 1
    found: dict[str, dict[str, Any]] = {
        "regular": {"group": group, "fields": [{"type": "regular", "count": count}]},
        "trivial": {"group": group, "fields": [{"type": "trivial", "count": count}]},
        "quotient": {"group": group, "fields": [{"type": "quotient", "subgroup": [0, 2], "count": count}]},
        "latent": {"group": group, "fields": [{"type": "regular", "count": count}]},
        "scores": {"group": group, "fields": [{"type": "regular", "count": count}]},
    }
    if group == "C4":
        found["irreducible"] = {
            "group": "C4",
            "fields": [{"type": "matrix", "generators": [ROTATION], "count": count}],
        }
    return found


KINDS = {
    "regular": "map",
    "trivial": "map",
    "quotient": "map",
    "irreducible": "map",
    "latent": "vector",
    "scores": "probability",
}


def declaring(model: onnx.ModelProto, actions: dict[str, Any], path: Path) -> str:
    taps = [
        {"name": n, "kind": KINDS.get(n), "layout": "NCHW" if KINDS.get(n) == "map" else None, "action": a}
        for n, a in actions.items()
    ]
    copied = copy.deepcopy(model)
    del copied.metadata_props[:]
    helper.set_model_props(copied, {"geed.schema": "1", "geed.taps": json.dumps(taps)})
    onnx.save(copied, str(path))
    return str(path)


def test_what_is_made_of_regular_fields_is_exactly_equivariant(tmp_path: Path) -> None:
    for group in ("C4", "D4"):
        actions = declarations(group)
        path = declaring(steerable(group), actions, tmp_path / f"{group}.onnx")
        images = pictures(6, 9, 9)
        subgroups = {"C4": ["C2", "C4"], "D4": ["C4", "D4", "flip", "flip-ud", "flipxflip-ud", "D2"]}[group]
        for part in subgroups:
            exact = {(r.tap["name"], r.variant): r for r in measure(path, images, part, samples="all")}
            assert {n for n, _ in exact} == set(actions)
            for (name, variant), r in exact.items():
                assert r.value is not None
                assert r.optimum is not None
                # f̂ = f(x): M is the scale of latent values, so they are held against it
                assert r.value == pytest.approx(r.optimum, abs=2e-5), (group, part, name, variant)
                assert r.law_defect == 0
        naive = {
            (r.tap["name"], r.variant): r for r in measure(path, images, group, samples="all", declared_action=False)
        }
        for name in ("regular", "quotient"):
            assert naive[name, "channelwise"].value > -0.95  # type: ignore[operator]
            assert naive[name, "channelwise"].tap["action"] == "pixels"
        assert naive["trivial", "channelwise"].value == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize(
    ("group", "declared"),
    [
        ("C8", {"group": "C8", "fields": [{"type": "regular"}]}),
        ("C4", {"group": "C8", "fields": [{"type": "regular"}], "order": [3, 1, 4, 0, 5, 7, 2, 6]}),
        ("C8", {"group": "C8", "fields": [{"type": "quotient", "subgroup": [0, 4], "count": 2}]}),
        ("C8", {"group": "C8", "fields": [{"type": "matrix", "count": 3, "generators": [[[0.6, -0.8], [0.8, 0.6]]]},
                                          {"type": "trivial", "count": 2}]}),
        ("D4", {"group": "D4", "fields": [{"type": "regular"}]}),
        ("D4", {"group": "D4", "fields": [{"type": "matrix", "generators": [ROTATION, [[1, 0], [0, -1]]]},
                                          {"type": "quotient", "subgroup": [0, 4], "count": 1},
                                          {"type": "permutation", "generators": [[1, 0], [0, 1]]}]}),
        ("C8", {"group": "C8", "fields": [{"type": "regular"}], "pixels": False}),
    ],
)  # fmt: skip
def test_every_number_is_the_oracle_s(group: str, declared: dict[str, Any], mask: bool, tmp_path: Path) -> None:
    declared = copy.deepcopy(declared)
    for f in declared["fields"]:
        if f["type"] == "matrix" and group == "C8":
            a = math.cos(math.pi / 4)
            f["generators"] = [[[a, -a], [a, a]]]
    net = steerable("D4", seed=3)
    path = declaring(net, {"regular": declared}, tmp_path / "net.onnx")
    images = pictures(10, 9, 9)
    [result] = measure(
        path,
        images,
        group,
        samples=5,
        reference_samples=4,
        spread_samples=6,
        seed=SEED,
        mask="disc" if mask else "none",
    )
    expected = oracle.geed(
        oracle.Network(net, ["regular"]), list(images.astype(np.float64)), group, "regular", "channelwise",
        sample=drawn(5, 10), seed=SEED, action=oracle.declared(declared, mask), reference=4, mask=mask,
        pixels=declared.get("pixels", True),
    )  # fmt: skip
    for name in ("value", "optimum", "floor", "null"):
        close(name, getattr(result, name), getattr(expected, name), 1e-5)
    assert result.per_element is not None
    np.testing.assert_allclose(result.per_element, expected.per_element, atol=1e-5)
    assert result.tap["kernel"] == expected.kernel


def test_the_command_line_reads_declared_fields_and_measures_naively_when_told(tmp_path: Path) -> None:
    path = declaring(steerable("C4"), declarations("C4"), tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", pictures(5, 9, 9))
    ask = ["measure", path, "--data", str(tmp_path / "x.npy"), "--group", "C4", "--samples", "all", "--json"]
    by_declaration = CliRunner().invoke(main, ask)
    assert by_declaration.exit_code == 0, by_declaration.output
    lines = [json.loads(line) for line in by_declaration.stdout.splitlines()]
    first = next(r for r in lines if r["tap"]["name"] == "regular")
    assert first["tap"]["action"] == "pixels+fields(C4: 2 regular)"
    assert first["tap"]["kernel"] == [0]
    assert first["value"] == pytest.approx(-1, abs=1e-6)
    naive = CliRunner().invoke(main, [*ask, "--no-declared-action"])
    first = next(r for r in map(json.loads, naive.stdout.splitlines()) if r["tap"]["name"] == "regular")
    assert first["tap"]["action"] == "pixels"
    assert first["value"] > -0.95
    by_hand = CliRunner().invoke(main, [*ask, "--act", "regular=pixels+regular:1"])
    first = next(r for r in map(json.loads, by_hand.stdout.splitlines()) if r["tap"]["name"] == "regular")
    assert first["tap"]["action"] == "pixels+regular:1"
    assert first["value"] == pytest.approx(-1, abs=1e-6)
    listed = CliRunner().invoke(main, ["taps", path])
    assert "moves by fields(C4: 2 regular)" in listed.stdout
    first = json.loads(CliRunner().invoke(main, ["taps", path, "--json"]).stdout.splitlines()[0])
    assert (first["name"], first["action"]) == ("lifted", None)
    diagnosis = CliRunner().invoke(main, ["doctor", path])
    assert "regular: fields(C4: 2 regular), declared in geed.taps" in diagnosis.stdout


def test_actions_can_be_given_as_fields_in_python() -> None:
    images = pictures(4, 6, 6)

    def lifted(x: Array) -> dict[str, Array]:
        return {"map": np.concatenate([np.rot90(x * np.arange(1, 7)[:, None], k, axes=(2, 3)) for k in range(4)], 1)}

    # rot90^k (D · x): no regular field, for D does not commute with turns
    [wrong] = measure(
        lifted, images, "C4", samples="all", actions={"map": C4_REGULAR | {"fields": [{"type": "regular"}]}}
    )
    assert wrong.value is not None
    assert wrong.value > -0.99

    def weighted(x: Array) -> dict[str, Array]:
        turned = [np.rot90(np.rot90(x, -k, axes=(2, 3)) * np.arange(1, 7)[:, None], k, axes=(2, 3)) for k in range(4)]
        return {"map": np.concatenate(turned, 1)}

    [right] = measure(
        weighted, images, "C4", samples="all", actions={"map": {"group": "C4", "fields": [{"type": "regular"}]}}
    )
    assert right.value == pytest.approx(-1, abs=1e-9)


def test_the_elements_of_a_part_are_found_by_what_they_do_to_a_picture() -> None:
    d4 = parse_group("D4")
    assert embedding(parse_group("C2"), d4) == (0, 2)
    assert embedding(parse_group("flip"), d4) == (0, 4)
    assert embedding(parse_group("flip-ud"), d4) == (0, 6)
    assert embedding(parse_group("flipxflip-ud"), d4) == (0, 6, 4, 2)
    assert embedding(d4, d4) == tuple(range(8))
    for name in ("C8", "D8", "T2", "S3@channel", "D3"):
        with pytest.raises(ActionError, match=rf"D4 moves the channels.* of {name} does: measure with D4 or a part"):
            embedding(parse_group(name), d4)


# ---- what may be wrong ---------------------------------------------------------------------------------------------


def c4(fields: Any) -> dict[str, Any]:
    return {"group": "C4", "fields": fields}


BAD: dict[str, tuple[Any, str]] = {
    "no object": (["C4"], "expected text as --act takes it, or an object with group and fields"),
    "a number": (7, "or an object with group and fields, got 7"),
    "no group": ({"fields": [{"type": "regular"}]}, 'expected "group" as text'),
    "no such group": ({"group": "K4", "fields": [{"type": "regular"}]}, "unknown group 'K4'"),
    "a huge group": ({"group": "C99999", "fields": [{"type": "regular"}]}, "at most 1024"),
    "no fields": ({"group": "C4"}, 'expected "fields", a list that is not empty, got None'),
    "empty fields": (c4([]), "a list that is not empty"),
    "a misspelt key": ({"group": "C4", "feilds": [], "fields": [{"type": "regular"}]}, "'feilds' is not understood"),
    "a field of no type": (
        {"group": "C4", "fields": [{"count": 4}]},
        'field 0: expected an object with "type" trivial',
    ),
    "a type that is a list": (c4([{"type": []}]), "expected an object with"),
    "a field of another type": (c4([{"type": "spin"}]), "quotient, permutation, matrix, got"),
    "a field that is text": (c4(["regular"]), "field 0: expected an object"),
    "a field with more": (
        {"group": "C4", "fields": [{"type": "regular", "subgroup": [0]}]},
        "'subgroup' is not underst",
    ),
    "no count": (
        {"group": "C4", "fields": [{"type": "regular", "count": 0}]},
        'expected "count", a whole number from 1',
    ),
    "a count that is true": (c4([{"type": "regular", "count": True}]), "got True"),
    "a count beyond memory": (c4([{"type": "regular", "count": 10**12}]), "whole number from 1"),
    "too many channels": ({"group": "C64", "fields": [{"type": "regular", "count": 10**6}]}, "at most 1048576 are"),
    "no subgroup": (c4([{"type": "quotient"}]), '"subgroup" None is no subgroup of C4'),
    "another subgroup": (c4([{"type": "quotient", "subgroup": [0, 1]}]), "is no subgroup of C4"),
    "a subgroup outside": (c4([{"type": "quotient", "subgroup": [0, 9]}]), "is no subgroup"),
    "too few generators": (
        {"group": "D4", "fields": [{"type": "permutation", "generators": [[1, 0]]}]},
        "one permutation for each of the 2 generator(s) of D4",
    ),
    "no permutation": (
        {"group": "C4", "fields": [{"type": "permutation", "generators": [[0, 0]]}]},
        "[0, 0] is no permutation of 0, 1",
    ),
    "a permutation of fractions": (
        {"group": "C4", "fields": [{"type": "permutation", "generators": [[0.0, 1.0]]}]},
        "is no permutation",
    ),
    "permutations of two lengths": (
        {"group": "D4", "fields": [{"type": "permutation", "generators": [[1, 0], [0, 1, 2]]}]},
        "all of one length",
    ),
    "a permutation that breaks the law": (
        {"group": "C4", "fields": [{"type": "permutation", "generators": [[1, 2, 0]]}]},
        "field 0 (permutation) is no action of C4",
    ),
    "a matrix that breaks the law": (
        {"group": "C4", "fields": [{"type": "regular"}, {"type": "matrix", "generators": [[[0.6, -0.8], [0.8, 0.6]]]}]},
        "field 1 (matrix) is no representation of C4: ρ(g)ρ(h) differs from ρ(gh) by",
    ),
    "a matrix of zeros": (
        {"group": "C4", "fields": [{"type": "matrix", "generators": [[[0, 0], [0, 0]]]}]},
        "is no representation of C4",
    ),
    "a ragged matrix": (
        {"group": "C4", "fields": [{"type": "matrix", "generators": [[[1], [1, 2]]]}]},
        "square matrices",
    ),
    "a matrix of words": (c4([{"type": "matrix", "generators": [[["a"]]]}]), "square matrices"),
    "a matrix that is none": (c4([{"type": "matrix", "generators": [3]}]), "square matrices"),
    "a matrix with NaN": (
        {"group": "C4", "fields": [{"type": "matrix", "generators": [[[float("nan")]]]}]},
        "square matrices of finite numbers",
    ),
    "an order of another length": (
        {"group": "C4", "fields": [{"type": "regular"}], "order": [0, 1, 2]},
        '"order" must hold each of 0..3 once (the fields are 4 channels)',
    ),
    "an order with repeats": (ONE_FIELD | {"order": [0, 1, 2, 2]}, "0..3 once"),
    "pixels in words": ({"group": "C4", "fields": [{"type": "regular"}], "pixels": "yes"}, '"pixels" true or false'),
}


@pytest.mark.parametrize("case", BAD)
def test_a_declaration_that_cannot_be_meant_is_refused_before_any_pass(case: str, tmp_path: Path) -> None:
    declaration, says = BAD[case]
    with pytest.raises(ActionError) as caught:
        parse_declared(declaration)
    assert says in str(caught.value)
    path = declaring(steerable("C4"), {"regular": declaration}, tmp_path / "net.onnx")
    np.save(tmp_path / "x.npy", pictures(4, 9, 9))
    ask = ["measure", path, "--data", str(tmp_path / "x.npy"), "--group", "C4", "--samples", "all", "--json"]
    refused = CliRunner().invoke(main, ask)
    assert refused.exit_code == 1, refused.output
    [line] = refused.stderr.splitlines()
    assert line.startswith("error: the action that the file declares for 'regular' cannot be used: ")
    assert says in line
    assert "--no-declared-action" in line
    assert CliRunner().invoke(main, [*ask, "--no-declared-action"]).exit_code == 0
    diagnosis = CliRunner().invoke(main, ["doctor", path])
    assert says in diagnosis.stdout
    assert diagnosis.exit_code == 1


@pytest.mark.parametrize(
    ("group", "tap", "declaration", "says"),
    [
        ("C4", "regular", {"group": "C4", "fields": [{"type": "regular", "count": 3}]},
         "tap 'regular': the declared fields(C4: 3 regular) are 12 channels, but the tap has 8 (shape (batch, 8,"),
        ("C8", "regular", C4_REGULAR, "tap 'regular': the file declares how C4 moves the channels, which does not tell"
         " what element 1 of C8 does: measure with C4 or a part of it"),
        ("flip", "regular", C4_REGULAR, "element 1 of flip does"),
        ("C4", "latent", C4_REGULAR | {"pixels": True}, "are to move pixels, but the tap is (batch, 8) and has none"),
        ("C4", "latent", ONE_FIELD, "are 4 channels, but the tap has 8"),
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_is_refused(
    group: str, tap: str, declaration: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = declaring(steerable("C4"), {tap: declaration}, tmp_path / "net.onnx")
    with pytest.raises(ActionError) as caught:
        measure(path, pictures(4, 9, 9), group, samples="all")
    assert says in str(caught.value)
    assert "--no-declared-action" in str(caught.value)
    assert measure(path, pictures(4, 9, 9), group, samples="all", declared_action=False)


def test_doctor_finds_fields_that_do_not_fill_the_channels(tmp_path: Path) -> None:
    path = declaring(steerable("C4"), {"regular": declarations("D4")["regular"]}, tmp_path / "net.onnx")
    assert "fields(D4: 1 regular), declared" in CliRunner().invoke(main, ["doctor", path]).stdout
    path = declaring(
        steerable("C4"), {"regular": {"group": "C4", "fields": [{"type": "trivial"}]}}, tmp_path / "b.onnx"
    )
    result = CliRunner().invoke(main, ["doctor", path])
    assert "are 1 channels, but the tap has 8" in result.stdout
    assert result.exit_code == 1


def test_regular_on_the_command_line_needs_whole_fields() -> None:
    with pytest.raises(ActionError, match="axis 1 holds 6 entries, which is no multiple of the 4 elements of C4"):
        measure(lambda x: {"map": np.repeat(x, 6, 1)}, pictures(3, 5, 5), "C4", samples="all",
                actions={"map": "pixels+regular:1"})  # fmt: skip
    with pytest.raises(GeedError, match="expected regular:AXIS with a whole number"):
        measure(lambda x: {"map": x}, pictures(3, 5, 5), "C4", samples="all", actions={"map": "regular:c"})
