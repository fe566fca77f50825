"""From raw image to model input: each step against a hand computation, and who may say what is done."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.sources import Preprocessing, normalised, plausible, preprocessing_for, sized

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photo(height=37, width=53, channels=3, seed=0):
    """A smooth picture with noise, `(H, W, C)` uint8."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 7 + k) + np.cos(y / 5 - k) for k in range(channels)]
    noise = np.random.default_rng(seed).normal(size=(height, width, channels))
    return np.clip(128 + 50 * np.stack(waves, -1) + 10 * noise, 0, 255).astype(np.uint8)


def how(shape=(None, 3, 8, 8), layout="NCHW", dtype="float32", metadata=None, folder=None, **flags):
    return preprocessing_for(
        input_shape=shape,
        input_layout=layout,
        input_dtype=dtype,
        metadata={} if metadata is None else {"geed.input": json.dumps(metadata)},
        model_folder=folder,
        flags=flags,
    )


# ---- sized -------------------------------------------------------------------------------------------------------


def test_known_image_by_hand():
    raw = np.array([[[0, 51, 102], [153, 204, 255]]], np.uint8)  # 1×2 RGB
    p = Preprocessing(1, 2, fit="none", mean=MEAN, std=STD)
    x = sized(raw, p)
    assert (x.shape, x.dtype) == ((3, 1, 2), np.float32)
    np.testing.assert_allclose(x[:, 0, :], [[0, 0.6], [0.2, 0.8], [0.4, 1]], atol=1e-7)
    expected = [
        [(v - m) / s for v in row] for row, m, s in zip([[0, 0.6], [0.2, 0.8], [0.4, 1]], MEAN, STD, strict=True)
    ]
    np.testing.assert_allclose(normalised(x, p)[:, 0, :], expected, atol=1e-6)


def test_colours_by_hand():
    raw = np.array([[[255, 0, 0]]], np.uint8)
    red = sized(raw, Preprocessing(1, 1, fit="none", colour="rgb")).ravel()
    blue_first = sized(raw, Preprocessing(1, 1, fit="none", colour="bgr")).ravel()
    grey = sized(raw, Preprocessing(1, 1, fit="none", colour="grey"))
    assert red.tolist() == [1, 0, 0]
    assert blue_first.tolist() == [0, 0, 1]
    assert grey.shape == (1, 1, 1)
    assert grey.item() == pytest.approx(0.299)
    for one in (np.full((1, 1), 51, np.uint8), np.full((1, 1, 1), 51, np.uint8)):
        np.testing.assert_allclose(sized(one, Preprocessing(1, 1, fit="none")).ravel(), [0.2] * 3, atol=1e-7)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (np.array([[0, 65535]], np.uint16), [0, 1]),
        (np.array([[False, True]]), [0, 1]),
        (np.array([[0.25, 0.75]]), [0.25, 0.75]),
        (np.array([[0.25, 0.75]], np.float16), [0.25, 0.75]),
        (np.array([[0, 1.0005]]), [0, 1]),
    ],
)
def test_dtypes_become_unit_floats(raw, expected):
    x = sized(raw, Preprocessing(1, 2, fit="none", colour="grey"))
    assert x.dtype == np.float32
    assert x.ravel().tolist() == expected


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (np.array([[0.0, 200.0]]), r"expected float pixels in 0\.\.1, got values from 0 to 200"),
        (np.array([[-1.0, 1.0]]), "got values from -1 to 1"),
        (np.array([[np.nan, 1.0]]), "expected float pixels"),
        (np.zeros((1, 2), np.int64), "got int64; convert them"),
        (np.zeros((3, 1, 2), np.uint8), r"expected an image \(H, W\), .* got shape \(3, 1, 2\)"),
        (np.zeros((0, 2), np.uint8), "expected an image"),
        (np.zeros((4, 4, 3), np.uint8), "expected an image of 1×2, got 4×4; --fit resize"),
    ],
)
def test_what_is_no_image_is_refused(raw, text):
    with pytest.raises(DataError, match=text):
        sized(raw, Preprocessing(1, 2, fit="none"))


def test_resize_is_pillows_antialiased_one():
    raw = photo()
    got = sized(raw, Preprocessing(16, 20))
    expected = np.asarray(Image.fromarray(raw).resize((20, 16), Image.Resampling.BILINEAR), np.float32) / 255
    np.testing.assert_array_equal(got, np.moveaxis(expected, -1, 0))
    # floats keep their precision: Pillow's two roundings to 8 bits (rows, columns) apart, and not rounded themselves
    floats = sized(raw / np.float64(255), Preprocessing(16, 20))
    assert 0 < np.abs(floats - got).max() <= 1 / 255 + 1e-6
    assert np.abs(floats * 255 - np.rint(floats * 255)).max() > 0.1


def test_halving_an_even_grid_by_box_is_the_mean_of_fours():
    raw = photo(8, 6).astype(np.float32) / 255
    expected = raw.reshape(4, 2, 3, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(sized(raw, Preprocessing(4, 3, resample="box")), np.moveaxis(expected, -1, 0), atol=1e-6)


@pytest.mark.parametrize("resample", ["bicubic", "lanczos"])
def test_overshoot_is_held_within_the_unit_interval(resample):
    step = np.zeros((8, 8), np.float32)
    step[:, 4:] = 1
    x = sized(step, Preprocessing(21, 21, colour="grey", resample=resample))
    assert (x.min(), x.max()) == (0, 1)


def test_crop_fills_the_frame_and_keeps_the_centre():
    raw = photo(30, 50)
    np.testing.assert_array_equal(
        sized(raw, Preprocessing(30, 30, fit="crop")), np.moveaxis(raw[:, 10:40] / np.float32(255), -1, 0)
    )
    np.testing.assert_array_equal(
        sized(raw, Preprocessing(20, 10, fit="crop", resize=30)),
        np.moveaxis(raw[5:25, 20:30] / np.float32(255), -1, 0),
    )
    small = Image.fromarray(raw).resize((33, 20), Image.Resampling.BILINEAR)  # 50·20/30 = 33.3, rounded down
    np.testing.assert_array_equal(
        sized(raw, Preprocessing(16, 16, fit="crop", resize=20)),
        np.moveaxis(np.asarray(small)[2:18, 8:24] / np.float32(255), -1, 0),
    )
    both = Image.fromarray(raw).resize((24, 20), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        sized(raw, Preprocessing(16, 16, fit="crop", resize=(20, 24))),
        np.moveaxis(np.asarray(both)[2:18, 4:20] / np.float32(255), -1, 0),
    )


def test_pad_keeps_the_whole_image_and_adds_black():
    x = sized(np.full((10, 20), 255, np.uint8), Preprocessing(8, 8, fit="pad", colour="grey"))[0]
    expected = np.zeros((8, 8))
    expected[2:6] = 1
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("fit", ["resize", "crop", "pad"])
@pytest.mark.parametrize("colour", ["grey", "rgb", "bgr"])
@pytest.mark.parametrize("raw", [photo(1, 9), photo(64, 3, 1), photo(7, 7)[:, :, 0], photo(5, 90) / 255.0])
def test_every_image_comes_to_the_models_size(fit, colour, raw):
    p = Preprocessing(7, 5, fit=fit, colour=colour)
    x = sized(raw, p)
    assert x.shape == (p.channels, 7, 5)
    assert x.dtype == np.float32
    assert x.min() >= 0
    assert x.max() <= 1


# ---- normalised --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("lead", [(), (2,), (2, 4)])
def test_normalised_by_hand_for_any_leading_axes(layout, dtype, lead):
    x = np.random.default_rng(0).random((*lead, 3, 4, 5), dtype=np.float32)
    before = x.copy()
    p = Preprocessing(4, 5, range=(-1, 3), mean=MEAN, std=STD, layout=layout, dtype=dtype)
    y = normalised(x, p)
    expected = (x.astype(np.float64) * 4 - 1 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    if layout == "NHWC":
        expected = np.moveaxis(expected, -3, -1)
    assert y.dtype == np.dtype(dtype)
    assert y.flags.c_contiguous
    np.testing.assert_allclose(
        y, expected, rtol=2e-3 if dtype == "float16" else 2e-6, atol=1e-3 if dtype == "float16" else 1e-5
    )
    np.testing.assert_array_equal(x, before)


def test_integer_inputs_are_rounded_and_held():
    p = Preprocessing(1, 2, colour="grey", range=(0, 255), dtype="uint8")
    assert normalised(np.array([[[0.5, 1.0]]]), p).ravel().tolist() == [128, 255]
    p = Preprocessing(1, 2, colour="grey", range=(-128, 130), dtype="int8")
    assert normalised(np.array([[[0.0, 1.0]]]), p).ravel().tolist() == [-128, 127]
    with pytest.raises(DataError, match=r"expected images \(…, 1, H, W\), got shape \(2, 1, 2\)"):
        normalised(np.zeros((2, 1, 2)), p)


def test_an_8_bit_image_survives_both_steps():
    raw = photo()
    p = Preprocessing(37, 53, fit="none", range=(0, 255), dtype="uint8", layout="NHWC")
    np.testing.assert_array_equal(normalised(sized(raw, p), p), raw)


# ---- Preprocessing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"height": 0}, DataError, "at least 1×1"),
        ({"resize": 0}, DataError, "at least 1×1"),
        ({"std": (0.0,)}, DataError, "std must not be 0"),
        ({"mean": (1.0, 2.0)}, DataError, "mean has 2 numbers; expected 1, or one for each of 3"),
        ({"range": (1.0, 1.0)}, DataError, "two different numbers"),
        ({"mean": (math.nan,)}, DataError, "finite"),
        ({"fit": "krop"}, UnknownName, r"unknown fit 'krop': did you mean 'crop'\?"),
        ({"colour": "rbg"}, UnknownName, "did you mean"),
        ({"layout": "CHWN"}, UnknownName, "unknown layout"),
        ({"resample": "cubic"}, UnknownName, "did you mean 'bicubic'"),
        ({"dtype": "bfloat16"}, UnknownName, "did you mean 'float16'"),
    ],
)
def test_fields_that_cannot_be_meant(fields, error, text):
    with pytest.raises(error, match=text):
        Preprocessing(**{"height": 8, "width": 8, **fields})


def test_json_echo():
    p = how(size="8x8", range="0,255", mean=[1, 2, 3])
    echo = json.loads(json.dumps(p.to_json()))
    assert echo["height"] == 8
    assert echo["range"] == [0, 255]
    assert echo["mean"] == [1, 2, 3]
    assert echo["origin"] == "flags"
    assert set(echo) == set(Preprocessing.__dataclass_fields__)


# ---- who says so -------------------------------------------------------------------------------------------------


def test_assumed_from_the_input():
    p = how()
    assert (p.height, p.width, p.colour, p.layout, p.range, p.mean, p.std) == (8, 8, "rgb", "NCHW", (0, 1), (0,), (1,))
    assert p.origin == "assumed"
    assert any("RGB order assumed" in note for note in p.notes)
    assert any("0..1 assumed; --range" in note for note in p.notes)
    p = how((1, 9, 7, 1), "NHWC", "tensor(float16)")
    assert (p.height, p.width, p.colour, p.dtype) == (9, 7, "grey", "float16")
    assert any("luma" in note for note in p.notes)


def test_metadata_over_the_rest_and_flags_over_metadata(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [9, 9, 9], "image_std": [9, 9, 9]}')
    stated = {"layout": "NCHW", "size": [8, 8], "value range": [0, 255], "mean": list(MEAN), "std": 2, "name": "x"}
    p = how(metadata=stated, folder=tmp_path, layout=None)
    assert (p.origin, p.range, p.mean, p.std, p.layout) == ("metadata geed.input", (0, 255), MEAN, (2,), "NCHW")
    p = how(metadata={**stated, "color": "BGR"}, std="0.5,0.5,0.25", fit="crop", range=None)
    assert (p.origin, p.mean, p.std, p.fit, p.colour) == (
        "flags over metadata geed.input",
        MEAN,
        (0.5, 0.5, 0.25),
        "crop",
        "bgr",
    )
    for key in ("range", "value_range"):
        assert how(metadata={key: [-1, 1]}).range == (-1, 1)


@pytest.mark.parametrize(
    "text", ["no json", "[1]", '{"range": [0]}', '{"size": "big"}', '{"mean": {"a": 1}}', '{"std": [0]}']
)
def test_metadata_that_cannot_be_understood(text):
    with pytest.raises(DataError, match=r"geed\.input"):
        preprocessing_for(
            input_shape=(1, 3, 8, 8),
            input_layout="NCHW",
            input_dtype="float32",
            metadata={"geed.input": text},
            model_folder=None,
            flags={},
        )


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"layout": None}, r"layout .*\(\?, 3, 8, 8\).* add --layout NCHW or --layout NHWC"),
        ({"shape": (1, 3, None, None)}, r"any size \(input shape \(1, 3, \?, \?\)\); add --size HxW"),
        ({"shape": (1, 3, None, 8)}, "add --size"),
        ({"shape": (1, 784)}, "expected a model input of 4 axes for images, got 2"),
        ({"shape": (1, 12, 8, 8)}, "has 12 channels .*; images give 1 or 3: give arrays"),
        ({"size": "16x16"}, "flags: size 16×16 does not fit .* expected 8×8: give --size 8x8"),
        ({"metadata": {"size": 16}}, "metadata geed.input: size 16×16 does not fit"),
        ({"colour": "grey"}, "colour grey has 1 channel.* has 3"),
        ({"dtype": "int8"}, "input is int8, .* add --range LOW,HIGH, or give arrays"),
        ({"dtype": "tensor(int64)"}, "input is int64"),
        ({"metadata": {"mean": [1, 2]}}, "metadata geed.input: mean has 2 numbers"),
        ({"metadata": {"fit": "squash"}}, "metadata geed.input: unknown fit 'squash'"),
        (
            {"shape": (1, None, 8, 8), "metadata": {"mean": [1, 2, 3]}, "colour": "grey"},
            "mean is declared for 3 channels; add --mean",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit(keywords, text):
    layout = keywords.pop("layout", "NCHW")
    with pytest.raises(DataError, match=text) as caught:
        how(layout=layout, **keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"size": "8by8"}, "--size '8by8' cannot be read .* --size 224x224"),
        ({"size": "1x2x3"}, "--size"),
        ({"range": "1"}, r"--range '1' cannot be read \(expected two numbers\)"),
        ({"mean": "a"}, "--mean 'a' cannot be read"),
        ({"colr": "rgb"}, r"unknown preprocessing flag 'colr': did you mean 'colour'\?"),
        ({"fit": "croop"}, "did you mean 'crop'"),
    ],
)
def test_flags_that_cannot_be_read(flags, text):
    with pytest.raises(UsageError, match=text):
        how(**flags)


def test_flags_as_text_and_as_values():
    a = how((1, 3, None, None), size="9x7", range="-1, 1", mean="0.5", colour="BGR", resize="12", fit="crop")
    b = how((1, 3, None, None), size=(9, 7), range=(-1, 1), mean=0.5, colour="bgr", resize=12, fit="crop")
    assert a == b
    assert (a.height, a.width, a.range, a.mean, a.colour, a.resize) == (9, 7, (-1, 1), (0.5,), "bgr", 12)
    assert how((1, 1, None, None), size=28, colour="gray").colour == "grey"


def test_uint8_inputs_get_0_to_255():
    p = how((1, 8, 8, 3), "NHWC", "uint8")
    assert (p.range, p.dtype) == ((0, 255), "uint8")
    assert how(dtype="int8", range="-128,127").range == (-128, 127)


def test_free_channel_axis():
    p = how((None, None, 8, 8))
    assert p.colour == "rgb"
    assert any("3 assumed; --colour" in note for note in p.notes)
    assert how((None, None, 8, 8), metadata={"mean": [1, 2, 3]}).colour == "rgb"
    assert how((None, None, 8, 8), colour="grey").channels == 1


# ---- preprocessor_config.json ------------------------------------------------------------------------------------


def configured(tmp_path, config, side=224, **flags):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    return how((None, 3, side, side), folder=tmp_path, **flags)


def test_vit_by_hand(tmp_path):
    config = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.25, 0.5],
        "image_processor_type": "ViTImageProcessor",
        "resample": 2,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": 224, "width": 224},
    }
    p = configured(tmp_path, config)
    assert (p.origin, p.fit, p.range, p.resample) == ("preprocessor_config.json", "resize", (0, 1), "bilinear")
    raw = photo(60, 80)
    resized = np.asarray(Image.fromarray(raw).resize((224, 224), Image.Resampling.BILINEAR), np.float64)
    expected = (resized / 255 - 0.5) / [0.5, 0.25, 0.5]
    np.testing.assert_allclose(normalised(sized(raw, p), p), np.moveaxis(expected, -1, 0), atol=1e-6)
    assert configured(tmp_path, {**config, "size": 224}) == p


def test_clip_crop_by_hand(tmp_path):
    config = {
        "crop_size": {"height": 24, "width": 24},
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "image_mean": [0.48, 0.45, 0.4],
        "image_std": [0.26, 0.26, 0.27],
        "resample": 3,
        "size": {"shortest_edge": 32},
        "image_processor_type": "CLIPImageProcessor",
    }
    p = configured(tmp_path, config, side=24)
    raw = photo(64, 100)
    resized = np.asarray(Image.fromarray(raw).resize((50, 32), Image.Resampling.BICUBIC), np.float64)[4:28, 13:37]
    expected = (resized / 255 - config["image_mean"]) / config["image_std"]
    np.testing.assert_allclose(normalised(sized(raw, p), p), np.moveaxis(expected, -1, 0), atol=1e-6)
    old = {**config, "size": 32, "crop_size": 24, "feature_extractor_type": "CLIPFeatureExtractor"}
    del old["image_processor_type"]
    assert configured(tmp_path, old, side=24) == p


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        (
            {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"},
            ("crop", 256),
        ),
        (
            {"size": {"shortest_edge": 384}, "crop_pct": 0.875, "image_processor_type": "ConvNextImageProcessor"},
            ("resize", None),
        ),
        ({"size": {"height": 256, "width": 256}, "do_center_crop": True, "crop_size": 224}, ("crop", (256, 256))),
        (
            {"size": 224, "do_center_crop": True, "crop_size": 224, "image_processor_type": "LevitImageProcessor"},
            ("crop", 256),
        ),
        ({"size": {"shortest_edge": 224}, "do_center_crop": False}, ("crop", None)),
        ({"size": {"height": 224, "width": 224}, "do_resize": False}, ("resize", None)),
    ],
)
def test_geometries(tmp_path, config, fields):
    side = 384 if config["size"] == {"shortest_edge": 384} else 224
    p = configured(tmp_path, config, side=side)
    assert (p.fit, p.resize, p.height, p.width) == (*fields, side, side)


def test_values_of_other_processors(tmp_path):
    assert configured(tmp_path, {"do_rescale": False}).range == (0, 255)
    assert configured(tmp_path, {"rescale_factor": 1 / 127.5, "rescale_offset": True}).range == (-1, 1)
    p = configured(tmp_path, {"image_mean": [0, 0, 0], "image_std": [0.5, 0.5, 0.5], "include_top": True})
    assert p.std == (0.25, 0.25, 0.25)
    p = configured(tmp_path, {"do_normalize": False, "image_mean": [5, 5, 5], "do_flip_channel_order": True})
    assert (p.mean, p.colour) == ((0,), "bgr")
    assert configured(tmp_path, {"image_processor": {"do_rescale": False}}).range == (0, 255)


def test_config_of_another_resolution_gives_way_to_the_model(tmp_path):
    p = configured(tmp_path, {"size": {"height": 224, "width": 224}}, side=256)
    assert (p.height, p.width) == (256, 256)
    assert any("says 224×224, the model takes 256×256" in note for note in p.notes)


def test_flags_over_the_config(tmp_path):
    p = configured(tmp_path, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, range="0,255")
    assert (p.origin, p.range, p.mean) == ("flags over preprocessor_config.json", (0, 255), (0.5,) * 3)


def test_config_above_a_folder_called_onnx(tmp_path):
    (tmp_path / "onnx").mkdir()
    (tmp_path / "preprocessor_config.json").write_text('{"do_rescale": false}')
    assert how(folder=tmp_path / "onnx").range == (0, 255)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no JSON object"),
        ('{"size": {"longest_edge": 8}}', r"has a size of \['longest_edge'\], which is not followed; give --size"),
        ('{"do_normalize": true}', "has no image_mean and image_std; give --mean and --std"),
        ('{"size": {"height": "tall", "width": 3}}', "cannot be understood"),
        ('{"do_resize": false, "crop_size": 8}', "crops without resizing"),
    ],
)
def test_damaged_configs(tmp_path, text, error):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(DataError, match=error):
        how(folder=tmp_path)


# ---- plausible ---------------------------------------------------------------------------------------------------

STATED = {"geed.input": json.dumps({"range": [0, 1], "mean": MEAN, "std": STD})}
UNIT = {"geed.input": json.dumps({"range": [0, 1]})}
BYTES = {"geed.input": json.dumps({"range": [0, 255]})}


@pytest.fixture
def pixels():
    """(4, 3, 16, 16) float32, whole numbers 0..255"""
    return np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16)).astype(np.float32)


def test_right_inputs_give_no_warning(pixels):
    normal = (pixels / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert plausible(pixels / 255, None, {}) == ()
    assert plausible(pixels / 255, how(), {}) == ()
    assert plausible(pixels / 255, None, UNIT) == ()
    assert plausible(pixels, None, BYTES) == ()
    assert plausible(pixels.astype(np.uint8), None, {}) == ()
    assert plausible(normal, None, STATED) == ()
    assert plausible(normal, how(mean=MEAN, std=STD), {}) == ()
    assert plausible(np.rint(pixels / 255), None, {}) == ()  # black and white drawings


def test_wrong_inputs_are_told(pixels):
    for x, p, metadata, text in (
        (pixels, None, {}, "look like raw pixels; most networks expect 0..1"),
        (pixels, how(), {}, "look like raw pixels; most networks"),
        (pixels * 257, None, {}, "unusually large"),
        (
            pixels,
            None,
            UNIT,
            "values 0..255 are given to a model declared for 0..1 (metadata geed.input); these look like raw",
        ),
        (pixels, None, STATED, "declared for -2.118..2.64"),
        (pixels, how(range="0,1"), {}, "declared for 0..1 (flags)"),
        (pixels / 255, None, BYTES, "declared for 0..255 (metadata geed.input); multiply by 255"),
        (pixels / 255, None, STATED, "not normalised?"),
        (0.5 + pixels * 1e-6, None, UNIT, "hardly any contrast"),
    ):
        warnings = plausible(x, p, metadata)
        assert len(warnings) == 1, (warnings, text)
        assert text in warnings[0]
    flat = pixels / 255
    flat[1] = 0.3
    assert plausible(flat, None, {}) == ("1 of 4 images are constant: nothing in them can be turned or moved",)
    assert "4 of 4" in plausible(np.zeros_like(flat), None, UNIT)[0]
    flat[0, 0, 0, 0] = np.nan
    assert plausible(flat, None, {}) == ("the model is given NaN or Inf",)
    assert plausible(flat[:0], None, {}) == ()
    with pytest.raises(DataError, match=r"geed\.input"):
        plausible(pixels, None, {"geed.input": "{"})


# ---- the import --------------------------------------------------------------------------------------------------


def test_import_loads_nothing_heavy():
    heavy = ("PIL", "datasets", "pyarrow", "onnx", "pandas")
    code = f"import sys, geed_onnx.sources; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "[]"
