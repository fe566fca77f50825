"""The gallery: the worst images are those, their orbits, scores and feature maps are what the model really gives."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import oracle
import pytest
from engine_tools import saved
from gallery_tools import DIGITS, SHIPPED, digits, run_folder
from onnx_nets import Net, cnn, identity_map, two_inputs
from PIL import Image

from geed_onnx.actions import output_action
from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.estimators import Deviations
from geed_onnx.gallery import Gallery, Reopen, make_gallery
from geed_onnx.gallery.jobs import worst_element, worst_images
from geed_onnx.gallery.opening import class_names
from geed_onnx.gallery.pictures import element_names, pictures, shown_elements
from geed_onnx.groups import parse_group
from geed_onnx.requests import Data, Model
from geed_onnx.results import RESULTS, Collection, open_results, write_results
from geed_onnx.sources import Preprocessing

Array = np.ndarray[Any, Any]
CNN = SHIPPED / "digits-cnn.onnx"


def straight(model: Path, tap: str, x: Array) -> Array:
    """The tensor `tap` for rows x, from ONNX Runtime alone."""
    graph = onnx.load(str(model))
    if tap not in [o.name for o in graph.graph.output]:
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(tap))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    [found] = session.run([tap], {session.get_inputs()[0].name: x.astype(np.float32)})
    return np.asarray(found)


def noise_file(folder: Path, shape: tuple[int, ...], name: str = "x.npy") -> Path:
    path = folder / name
    np.save(path, np.random.default_rng(3).normal(size=shape).astype(np.float32))
    return path


def told(**facts: Any) -> Reopen:
    """A request with more than the result says."""

    def parts(kind: type) -> dict[str, Any]:
        return {f.name: facts[f.name] for f in fields(kind) if f.name in facts}

    return lambda result, asked: replace(
        asked,
        model=replace(asked.model, **parts(Model)),
        data=replace(asked.data, **{**parts(Data), "preprocessing": {}}),
    )


# --- what is shown is what the model gives ----------------------------------------------------------------------


@pytest.mark.parametrize("group", ["C4", "C8", "flip"])
def test_exhibits_equal_a_straight_line_computation(tmp_path: Path, group: str) -> None:
    collection = run_folder(tmp_path / "run", [CNN], DIGITS, [group], samples=12)
    shown = make_gallery(collection, limit=5)
    assert shown.reasons == ()
    assert [e.rank for e in shown.exhibits] == [1, 2, 3, 4, 5]

    members, images = oracle.elements(group), digits()
    [scores] = [r for r in collection.results if r.variant == "softmax"]
    ids = collection.tables(scores).deviations.ids  # type: ignore[union-attr]
    means = {}
    for name in ids:
        orbit = np.stack([oracle.move(g, images[name][None] / 255.0) for g in members])
        p = straight(CNN, "scores", orbit).astype(np.float64)
        p /= p.sum(axis=1, keepdims=True)
        rows = [oracle.kl(q, p.mean(axis=0)) for q in p]
        means[name] = float(np.mean(rows))
        for e in shown.exhibits:
            if e.image == name:
                np.testing.assert_allclose(e.per_element, rows, atol=1e-6)
                np.testing.assert_allclose(e.scores, p, atol=1e-5)  # type: ignore[arg-type]
                assert e.orbit is not None
                assert e.orbit.shape == (len(members), 29, 29)
                assert e.orbit.dtype == np.uint8
                assert np.abs(e.orbit - 255 * orbit[:, 0]).max() <= 0.5 + 1e-4
                assert e.predicted == tuple(p.argmax(axis=1))
                assert e.expected == (int(p[0].argmax()),) * len(members)
    worst = sorted(means, key=lambda i: -means[i])[:5]
    assert [e.image for e in shown.exhibits] == worst
    np.testing.assert_allclose([e.deviation for e in shown.exhibits], [means[i] for i in worst], atol=1e-6)
    np.testing.assert_allclose(shown.exhibits[0].average, np.mean(list(means.values())), atol=1e-6)
    assert shown.exhibits[0].optimum == 0.0
    assert shown.exhibits[0].samples == 12


def test_feature_maps_equal_a_straight_line_computation(tmp_path: Path) -> None:
    [maps] = make_gallery(run_folder(tmp_path / "run", [CNN], DIGITS, samples=6), channels=3).maps
    assert (maps.tap, maps.total, maps.averaged, maps.action) == ("block6", 64, 1, "pixels")
    x = digits()[maps.image] / 255.0
    f = [straight(CNN, "block6", np.rot90(x, g)[None, None])[0] for g in range(4)]
    per_element = [oracle.channelwise(f[g], np.rot90(f[0], g, axes=(1, 2))) for g in range(4)]
    assert maps.element == 1 + int(np.argmax(per_element[1:]))
    np.testing.assert_allclose(maps.deviation, per_element[maps.element], atol=1e-6)
    moved, after = np.rot90(f[0], maps.element, axes=(1, 2)), f[maps.element]
    cosines = np.array([oracle.cosine(a, b) for a, b in zip(after, moved, strict=True)])
    np.testing.assert_allclose(maps.cosines, np.sort(cosines)[:3], atol=1e-5)
    chosen = list(maps.channels)
    np.testing.assert_allclose(cosines[chosen], maps.cosines, atol=1e-5)
    for got, wanted in ((maps.before, f[0]), (maps.moved, moved), (maps.after, after)):
        np.testing.assert_allclose(got, wanted[chosen], atol=1e-5)
    np.testing.assert_allclose(maps.difference, (after - moved)[chosen], atol=1e-5)
    for i, c in enumerate(chosen):
        assert maps.low[i] == pytest.approx(min(f[0][c].min(), after[c].min()), abs=1e-5)
        assert maps.high[i] == pytest.approx(max(f[0][c].max(), after[c].max()), abs=1e-5)
    assert maps.images is not None
    np.testing.assert_array_equal(maps.images, np.rint(255 * np.stack([x, np.rot90(x, maps.element)])))


def test_the_channel_action_that_a_file_declares_is_used(tmp_path: Path) -> None:
    model = SHIPPED / "digits-c8cnn.onnx"
    run = run_folder(tmp_path / "run", [model], DIGITS, samples=3)
    [maps] = make_gallery(run, channels=200).maps
    assert "fields" in maps.action
    assert np.abs(maps.difference).max() < 1e-4 * np.abs(maps.after).max()
    assert min(maps.cosines) > 1 - 1e-6
    # the same by the oracle's own reading of the declaration, and not by moving pixels alone
    taps = json.loads(next(p.value for p in onnx.load(str(model)).metadata_props if p.key == "geed.taps"))
    [declaration] = [t["action"] for t in taps if t["name"] == maps.tap]
    before, moved = np.empty_like(maps.before), np.empty_like(maps.moved)
    before[list(maps.channels)], moved[list(maps.channels)] = maps.before, maps.moved
    quarter = oracle.elements("C8")[2 * maps.element]
    np.testing.assert_allclose(oracle.declared(declaration)(quarter, before), moved, atol=1e-6)
    assert np.abs(np.rot90(before, maps.element, axes=(1, 2)) - moved).max() > 0.1


def test_an_action_that_was_declined_is_not_used_again(tmp_path: Path) -> None:
    run = run_folder(
        tmp_path / "run", [SHIPPED / "digits-c8cnn.onnx"], DIGITS, samples=3, options={"declared_action": False}
    )
    [maps] = make_gallery(run).maps
    assert maps.action == "pixels"
    np.testing.assert_array_equal(np.rot90(maps.before, maps.element, axes=(1, 2)), maps.moved)


def test_an_exactly_equivariant_function_has_no_difference(tmp_path: Path) -> None:
    path = saved(identity_map(3, 8), tmp_path)
    shown = make_gallery(run_folder(tmp_path / "run", [path], noise_file(tmp_path, (5, 3, 8, 8)), ["D4"]))
    assert not shown.maps[0].difference.any()
    assert shown.maps[0].element != 0
    assert shown.maps[0].cosines == (1.0, 1.0, 1.0)
    assert [e.kind for e in shown.exhibits] == ["map"] * 4
    assert all(e.scores is None and e.predicted is None and e.deviation == -1.0 for e in shown.exhibits)


def test_an_action_in_words_is_read_from_the_result(tmp_path: Path) -> None:
    # flipping the image exchanges classes 0 and 1, as --act said
    path = saved(cnn(8, classes=3), tmp_path)
    data = noise_file(tmp_path, (6, 1, 8, 8))
    acts = {"scores": "permute:1:1,0,2", "block2": "pixels+permute:1:1,0,2,3,4,5,6,7"}
    run = run_folder(
        tmp_path / "run", [path], data, ["flip"], options={"taps": ["block2", "scores"], "acts": acts}, samples=6
    )
    shown = make_gallery(run)
    assert shown.reasons == ()
    x = np.load(data)
    for e in shown.exhibits:
        p = straight(Path(path), "scores", np.stack([x[int(e.image)], x[int(e.image)][..., ::-1]]))
        assert e.expected == (int(p[0].argmax()), int(p[0][[1, 0, 2]].argmax()))
        assert e.per_element[1] == pytest.approx(oracle.kl(p[1], p[0][[1, 0, 2]]), abs=1e-6)
    [maps] = shown.maps
    f = straight(Path(path), "block2", x[int(maps.image)][None])[0]
    moved = f[[1, 0, *range(2, 8)], :, ::-1]
    np.testing.assert_allclose(maps.moved, moved[list(maps.channels)], atol=1e-6)


def test_f_hat_is_a_mean_over_the_kernel(tmp_path: Path) -> None:
    path = saved(cnn(8), tmp_path)
    options = {"taps": ["block1"], "variants": ["map:trivial:l2"]}
    data = noise_file(tmp_path, (4, 1, 8, 8))
    [maps] = make_gallery(run_folder(tmp_path / "run", [path], data, ["C4"], options=options)).maps
    x = np.load(data)[int(maps.image), 0]
    f = np.stack([straight(Path(path), "block1", np.rot90(x, g)[None, None])[0] for g in range(4)])
    assert maps.averaged == 4
    np.testing.assert_allclose(maps.before, f.mean(axis=0)[list(maps.channels)], atol=1e-5)
    np.testing.assert_allclose(maps.after, f[maps.element][list(maps.channels)], atol=1e-5)


# --- every kind of input ----------------------------------------------------------------------------------------


def test_a_keras_model_is_shown_with_its_channels_first(tmp_path: Path) -> None:
    model = SHIPPED / "digits-cnn-keras.onnx"
    shown = make_gallery(run_folder(tmp_path / "run", [model], DIGITS, samples=4), channels=2)
    assert shown.reasons == ()
    [maps] = shown.maps
    x = digits()[maps.image] / 255.0
    f = straight(model, maps.tap, np.rot90(x, maps.element)[None, :, :, None])[0]
    np.testing.assert_allclose(maps.after, np.moveaxis(f, -1, 0)[list(maps.channels)], atol=1e-5)
    np.testing.assert_array_equal(shown.exhibits[0].orbit[0], digits()[shown.exhibits[0].image])  # type: ignore[index]


@pytest.mark.parametrize("model", ["digits-cnn-int8", "digits-mlp", "digits-cnn-flax"])
def test_every_kind_of_shipped_model_repeats_what_was_measured(tmp_path: Path, model: str) -> None:
    shown = make_gallery(run_folder(tmp_path / "run", [SHIPPED / f"{model}.onnx"], DIGITS, ["C8"]))
    assert len(shown.exhibits) == 4
    without = ("digits-mlp · C8: no feature maps: no map of at least 4×4 was measured",)
    assert shown.reasons == (without if model == "digits-mlp" else ())


@pytest.mark.parametrize(("channels", "pixels"), [(1, (8, 8)), (2, (8, 8)), (3, (8, 8, 3)), (5, (8, 8))])
def test_arrays_used_as_they_are_are_scaled_and_it_is_said(
    tmp_path: Path, channels: int, pixels: tuple[int, ...]
) -> None:
    path = saved(identity_map(channels, 8), tmp_path)
    data = noise_file(tmp_path, (4, channels, 8, 8))
    [exhibit, *_] = make_gallery(run_folder(tmp_path / "run", [path], data)).exhibits
    x = np.load(data)[int(exhibit.image)].astype(np.float64)
    planes = x if channels in (1, 3) else x.mean(axis=0, keepdims=True)
    scaled = np.rint(255 * (planes - planes.min()) / (planes.max() - planes.min()))
    assert exhibit.orbit is not None
    assert exhibit.orbit.shape == (4, *pixels)
    np.testing.assert_array_equal(exhibit.orbit[0], np.moveaxis(scaled, 0, -1) if channels == 3 else scaled[0])
    said = [f"arrays are shown from {planes.min():.4g} (black) to {planes.max():.4g} (white)"]
    assert exhibit.notes == tuple([f"the mean of {channels} channels"] * (channels in (2, 5)) + said)


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_colours_are_shown_in_the_eyes_order(tmp_path: Path, colour: str) -> None:
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    path = saved(identity_map(3, 8), tmp_path)
    run = run_folder(
        tmp_path / "run", [path], tmp_path / "images", samples=3, options={"preprocessing": {"colour": colour}}
    )
    [exhibit, *_] = make_gallery(run).exhibits
    with Image.open(tmp_path / "images" / exhibit.image) as image:
        np.testing.assert_array_equal(exhibit.orbit[0], np.asarray(image))  # type: ignore[index]
        np.testing.assert_array_equal(exhibit.orbit[1], np.rot90(np.asarray(image)))  # type: ignore[index]


def test_preprocessing_is_followed_as_the_result_says(tmp_path: Path) -> None:
    flags = {"fit": "pad", "size": "8x8", "range": "-1,1", "mean": "0.1", "resample": "nearest"}
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    path = saved(cnn(8), tmp_path)
    run = run_folder(
        tmp_path / "run", [path], tmp_path / "images", samples=3, mask="disc", options={"preprocessing": flags}
    )
    shown = make_gallery(run)
    assert shown.reasons == ()
    assert len(shown.exhibits) == 3
    assert not shown.exhibits[0].orbit[:, 0, 0].any()  # type: ignore[index]  # outside the disc
    other = make_gallery(run, reopen=told(preprocessing={**flags, "fit": "resize"}))
    assert other.exhibits == ()
    assert "would not be prepared as they were when measured: fit 'resize' for 'pad'" in other.reasons[0]


def test_an_input_that_is_no_image_has_scores_and_no_pictures(tmp_path: Path) -> None:
    net = Net()
    net.add("Gemm", ["x", net.weight("w", 4, 3, scale=1), net.weight("b", 3)], "logits")
    path = saved(net.done([("x", ["N", 4])], [("logits", ["N", 3])]), tmp_path)
    data = noise_file(tmp_path, (5, 4))
    run = run_folder(tmp_path / "run", [path], data, ["S4@channel"], options={"input": "x"})
    shown = make_gallery(run, reopen=told(input="x"))
    [exhibit, *_] = shown.exhibits
    assert exhibit.orbit is None
    assert exhibit.notes == ("the model's input is no image, so there are no pictures",)
    assert exhibit.scores is not None
    assert exhibit.scores.shape == (24, 3)
    np.testing.assert_allclose(exhibit.scores.sum(axis=1), 1)


def test_a_large_group_is_shown_in_part_with_its_worst_element(tmp_path: Path) -> None:
    shown = make_gallery(run_folder(tmp_path / "run", [CNN], DIGITS, ["C60"]), limit=1)
    [exhibit] = shown.exhibits
    assert len(exhibit.shown) == 24
    assert exhibit.orbit is not None
    assert len(exhibit.orbit) == 24
    assert {0, worst_element(exhibit.per_element)} <= set(exhibit.shown)
    assert exhibit.notes == ("24 of 60 elements are shown, the worst among them",)
    assert len(exhibit.per_element) == len(exhibit.elements) == len(exhibit.scores) == 60  # type: ignore[arg-type]
    # the map's own worst element, which need not be among those
    [maps] = shown.maps
    [row] = [r for r in open_results(tmp_path / "run").results if r.tap["name"] == maps.tap]
    table = open_results(tmp_path / "run").tables(row).deviations  # type: ignore[union-attr]
    assert maps.element == worst_element(table.values[table.ids.index(exhibit.image)])


# --- which models, taps and images ------------------------------------------------------------------------------


def test_images_are_ranked_by_the_latent_where_there_are_no_scores(tmp_path: Path) -> None:
    path = saved(cnn(8), tmp_path)
    data = noise_file(tmp_path, (6, 1, 8, 8))
    run = run_folder(tmp_path / "run", [path], data, samples=6, options={"taps": ["block1", "block2", "latent:vector"]})
    shown = make_gallery(run, tap="block1")
    assert {(e.tap, e.variant) for e in shown.exhibits} == {("latent", "latent-l2")}
    assert [m.tap for m in shown.maps] == ["block1"]
    assert [m.tap for m in make_gallery(run, tap="block2:map").maps] == ["block2"]
    f = straight(Path(path), "latent", np.concatenate([np.rot90(np.load(data), g, axes=(2, 3)) for g in range(4)]))
    f = f.reshape(4, 6, -1)
    means = np.linalg.norm(f - f.mean(axis=0), axis=2).mean(axis=0)
    assert [int(e.image) for e in shown.exhibits] == list(np.argsort(-means))
    np.testing.assert_allclose([e.deviation for e in shown.exhibits], -np.sort(-means), atol=1e-5)


def test_ties_are_broken_by_id_and_the_identity_is_never_the_worst() -> None:
    table = Deviations(("a", "b", "c", "d"), np.array([[0, 1.0], [0, 3.0], [0, 3.0], [0, 0.0]]))
    assert worst_images(table, 3) == ("b", "c", "a")
    assert worst_images(table, 9) == ("b", "c", "a", "d")
    assert worst_element([5.0, 1.0, 2.0, 2.0]) == 2
    assert worst_element([0.0]) == 0


def test_of_training_runs_the_last_checkpoints_are_shown(tmp_path: Path) -> None:
    path = saved(identity_map(1, 4), tmp_path)
    names = ["a0", "a9", "b5", "b2"]
    run = run_folder(tmp_path / "run", [path] * 4, noise_file(tmp_path, (2, 1, 4, 4)), ["C4"], samples=2, names=names)
    steps = {name: {"family": "f", "seed": name[0], "step": int(name[1])} for name in names}
    told = tuple(replace(r, model={**r.model, **steps[r.label]}) for r in run.results)
    shown = make_gallery(replace(run, results=told), models=2, limit=1)
    assert [e.model for e in shown.exhibits] == ["a9", "b5"]
    assert shown.reasons == ("the first 2 of 4 models are shown; left out: a0, b2",)


def test_models_and_groups_beyond_the_limits_are_named(tmp_path: Path) -> None:
    path = saved(identity_map(1, 4), tmp_path)
    names = ["a", "b", "c"]
    run = run_folder(
        tmp_path / "run", [path] * 3, noise_file(tmp_path, (2, 1, 4, 4)), ["C4", "flip", "C2"], samples=2, names=names
    )
    shown = make_gallery(run, models=2, limit=1)
    assert shown.reasons == (
        "the first 2 of 3 models are shown; left out: c",
        "4 of 6 pairs of model and group are shown; left out: a · C2, b · C2",
    )
    assert [(e.model, e.group) for e in shown.exhibits] == [("a", "C4"), ("a", "flip"), ("b", "C4"), ("b", "flip")]


def test_numbers_and_names_that_cannot_be_meant(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [CNN], DIGITS, samples=2)
    for word in ("limit", "models", "channels"):
        with pytest.raises(UsageError, match=f"{word} must be at least 1, not 0"):
            make_gallery(run, **{word: 0})  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="unknown tap 'blok6': did you mean 'block6'"):
        make_gallery(run, tap="blok6")
    latent = make_gallery(run, tap="latent")
    assert latent.maps == ()
    assert latent.reasons == ("digits-cnn · C4: no feature maps: no map of the name 'latent' was measured",)


def test_elements_are_named_by_what_they_do() -> None:
    assert element_names(parse_group("D4"))[:6] == ("0°", "90°", "180°", "270°", "flip", "flip, 90°")
    assert element_names(parse_group("flip-ud")) == ("as it is", "flip up-down")
    assert element_names(parse_group("T2")) == ("as it is", "right 1/2", "down 1/2", "down 1/2, right 1/2")
    assert element_names(parse_group("C7"))[1] == "51.43°"
    assert element_names(parse_group("S3@channel"))[:2] == ("as it is", "channels 0 2 1")
    for name in ("C8", "D8", "T3x2", "S4@channel", "flipxflip-ud", "C4xS3@channel"):
        names = element_names(parse_group(name))
        assert len(set(names)) == len(names), name


def test_some_of_many_elements() -> None:
    assert shown_elements(8, [3], 24) == tuple(range(8))
    some = shown_elements(100, [57], 10)
    assert len(some) == len(set(some)) == 10
    assert {0, 57} <= set(some)
    assert max(np.diff([*some, 100])) <= 20


def test_a_constant_array_is_black() -> None:
    found, notes = pictures(np.full((2, 1, 3, 3), 7.0), None)
    assert not found.any()
    assert "from 7 (black) to 7 (white)" in notes[0]
    bright, none = pictures(np.full((1, 1, 2, 2), 1.5), Preprocessing(2, 2, colour="grey"))
    assert (bright == 255).all()
    assert none == ()


# --- what is not what was measured is not shown -----------------------------------------------------------------


def copied(tmp_path: Path) -> tuple[Collection, Path, Path]:
    model, data = tmp_path / "net.onnx", tmp_path / "images"
    shutil.copy(CNN, model)
    data.mkdir()
    for name, pixels in list(digits().items())[:5]:
        Image.fromarray(pixels).save(data / f"{name}.png")
    return run_folder(tmp_path / "run", [model], data, samples=5, names=["net"]), model, data


def refused(gallery: Gallery, *words: str) -> None:
    assert gallery.exhibits == ()
    assert gallery.maps == ()
    [reason] = gallery.reasons
    for word in ("net · C4: ", *words):
        assert word in reason


def test_a_model_that_is_gone_or_another_is_not_shown(tmp_path: Path) -> None:
    run, model, _ = copied(tmp_path)
    assert len(make_gallery(run).exhibits) == 5
    elsewhere = tmp_path / "elsewhere.onnx"
    model.rename(elsewhere)
    refused(make_gallery(run), "net.onnx")
    assert len(make_gallery(run, reopen=told(path=str(elsewhere))).exhibits) == 5
    shutil.copy(SHIPPED / "digits-cnn-untrained.onnx", model)
    refused(make_gallery(run), "is not the file that was measured", "SHA-256", "measure it again")
    model.write_bytes(b"no model")
    refused(make_gallery(run), "net.onnx")


def test_images_that_are_gone_or_others_are_not_shown(tmp_path: Path) -> None:
    run, _, data = copied(tmp_path)
    [first, second, *_] = sorted(data.iterdir())
    kept = first.read_bytes()
    pixels = np.asarray(Image.open(first)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(first)
    refused(make_gallery(run), "these are not the images that were measured", "fingerprint")
    first.write_bytes(kept)
    second.rename(tmp_path / "away.png")
    refused(make_gallery(run), "1 of the 5 images that were measured are not there any more", "bring them back")
    # more images than there were do no harm
    (tmp_path / "away.png").rename(second)
    Image.fromarray(pixels).save(data / "zz-new.png")
    assert len(make_gallery(run).exhibits) == 5
    moved = tmp_path / "moved"
    data.rename(moved)
    refused(make_gallery(run), "images")
    assert len(make_gallery(run, reopen=told(source=str(moved))).exhibits) == 5


def test_deviations_that_do_not_repeat_are_not_shown(tmp_path: Path) -> None:
    path, data = saved(two_inputs(), tmp_path), noise_file(tmp_path, (4, 3, 8, 8))
    run = run_folder(
        tmp_path / "run", [path], data, names=["net"], constants={"gain": np.float32(2)}, options={"input": "image"}
    )
    refused(make_gallery(run), "inputs")
    known = told(input="image", constants={"gain": np.float32(2)})
    assert len(make_gallery(run, reopen=known).exhibits) == 4
    wrong = told(input="image", constants={"gain": np.float32(5)})
    refused(make_gallery(run, reopen=wrong), "does not give what was measured", "--constant")


def test_an_action_that_cannot_be_told_leaves_the_maps_out(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [CNN], DIGITS, samples=3)
    changed = [
        replace(r, tap={**r.tap, "action": "fields(C4: 16 regular)"}) if r.tap["name"] == "block6" else r
        for r in run.results
    ]
    write_results(tmp_path / "run" / RESULTS, changed)
    shown = make_gallery(open_results(tmp_path / "run"))
    assert len(shown.exhibits) == 3
    assert shown.maps == ()
    assert "'fields(C4: 16 regular)' that was measured cannot be told from the file" in shown.reasons[0]


def test_results_without_tables_and_without_values(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [CNN], DIGITS, samples=2)
    write_results(tmp_path / "plain.jsonl", run.results)
    heard: list[str] = []
    plain = make_gallery(open_results(tmp_path / "plain.jsonl"), notify=heard.append)
    assert plain.exhibits == ()
    assert "deviations by image were not kept" in plain.reasons[0]
    assert heard == list(plain.reasons)
    failed = [replace(r, value=None, failed=True, reason="no", tap={"name": "*"}) for r in run.results]
    assert make_gallery(replace(run, results=tuple(failed))) == Gallery()
    assert make_gallery(replace(run, results=())) == Gallery()


def test_lines_that_others_wrote_do_no_harm(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", [CNN], DIGITS, samples=2)

    def altered(**fields: Any) -> Gallery:
        return make_gallery(replace(run, results=tuple(replace(r, **fields) for r in run.results)))

    data = dict(run.results[0].data)
    assert altered(data={}) == Gallery()
    assert altered(group={"name": 3}) == Gallery()
    assert "size that the images were brought to" in altered(data={**data, "preprocessing": {"fit": "pad"}}).reasons[0]
    assert "unknown group 'Q8'" in altered(group={"name": "Q8", "order": 8}).reasons[0]
    assert "of another group than C8" in altered(group={"name": "C8", "order": 8}).reasons[0]
    assert "unknown variant" in altered(variant="nonsense").reasons[0]
    gone = altered(model={"path": None, "sha256": None, "producer": "python", "name": "digits-cnn"})
    assert "measured from Python" in gone.reasons[0]


# --- what a result does not say ---------------------------------------------------------------------------------


def test_columns_and_bad_images_as_the_measurement_was_told(tmp_path: Path) -> None:
    path = saved(cnn(8), tmp_path)
    rng = np.random.default_rng(1)
    some = rng.normal(size=(2, 5, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "two.npz", a=some[0], b=some[1])
    run = run_folder(tmp_path / "run", [path], tmp_path / "two.npz", names=["net"], options={"column": "b"})
    refused(make_gallery(run), "--column")
    assert len(make_gallery(run, reopen=told(column="b")).exhibits) == 4
    refused(make_gallery(run, reopen=told(column="a")), "not the images that were measured")


def test_a_sample_that_left_images_out_is_found_again(tmp_path: Path) -> None:
    run, model, data = copied(tmp_path)
    (data / "bad.png").write_bytes(b"no image")
    run = run_folder(tmp_path / "run", [model], data, samples=6, names=["net"], options={"skip_bad": True})
    assert run.results[0].samples == 5
    assert len(make_gallery(run, reopen=told(skip_bad=True)).exhibits) == 5
    everything = run_folder(
        tmp_path / "run", [model], data, samples="all", names=["net"], options={"skip_bad": True}, seed=4
    )
    assert len(make_gallery(everything, reopen=told(skip_bad=True)).exhibits) == 5


def test_class_names_come_from_the_file_or_beside_it(tmp_path: Path) -> None:
    three = ("cat", "dog", "eel")
    assert class_names({"names": "{0: 'cat', 1: 'dog', 2: 'eel'}"}, tmp_path, 3) == three
    assert class_names({"classes": '["cat", "dog", "eel"]'}, tmp_path, 3) == three
    assert class_names({"id2label": '{"0": "cat", "1": "dog", "2": "eel"}'}, tmp_path, 3) == three
    assert class_names({"names": "{0: 'cat'}"}, tmp_path, 3) is None
    for odd in ("__import__('os')", "[[[", "5", "{0: [1], 1: 2, 2: 3}", "[" * 100_000):
        assert class_names({"names": odd}, tmp_path, 3) is None
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "cat", "1": "dog", "2": "eel"}}))
    assert class_names({}, tmp_path, 3) == three
    assert class_names({}, tmp_path, 4) is None
    (tmp_path / "config.json").write_text("no json")
    assert class_names({}, tmp_path, 3) is None


def test_data_are_read_once_for_all_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [CNN, SHIPPED / "digits-cnn-untrained.onnx", SHIPPED / "digits-cnn-keras.onnx"]
    run = run_folder(tmp_path / "run", models, DIGITS, ["C4", "flip"])
    from geed_onnx.gallery import opening

    calls: list[int] = []
    inner = opening._images
    monkeypatch.setattr(opening, "_images", lambda *a: (calls.append(1), inner(*a))[1])
    assert len(make_gallery(run).exhibits) == 3 * 2 * 4
    assert len(calls) == 1


def test_the_bound_action_is_the_engines() -> None:
    # a guard of the tests above: what they call pixels is what the engine binds
    action = output_action("pixels", parse_group("C4"), (2, 5, 5))
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 5))
    np.testing.assert_array_equal(action(1, x)[0], np.rot90(x[0], 1, axes=(1, 2)))
