"""What is said of a model and its images is read one way, whoever says it; what cannot be meant is said in words."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Any, Literal, get_args, get_type_hints

import click
import numpy as np
import pytest
from click.testing import CliRunner

from geed_exporters import InputSpec
from geed_exporters.facts import (
    CHANNELS,
    COMMAND_LINE,
    FITS,
    NOTHING,
    READERS,
    RESAMPLES,
    Facts,
    channels_of,
    facts_of,
    input_spec,
    over,
    read_facts,
)
from geed_exporters.options import Job, exporter, opset_option
from geed_onnx.cli.door import Door
from geed_onnx.errors import UnknownName, UsageError
from geed_onnx.sources import preprocessing

WHOSE = "net.py:build"
IMAGE = Facts(size=(4, 6), channels=3)

# ---- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("size", "224x160", (224, 160)),
        ("size", "224X160", (224, 160)),
        ("size", "224×160", (224, 160)),
        ("size", "224", (224, 224)),
        ("size", 7, (7, 7)),
        ("size", (7, 9), (7, 9)),
        ("size", [7, 9], (7, 9)),
        ("size", np.array([7, 9]), (7, 9)),
        ("channels", "12", 12),
        ("channels", np.int64(2), 2),
        ("colour", "bgr", "bgr"),
        ("range", "0,255", (0.0, 255.0)),
        ("range", "-1, 1", (-1.0, 1.0)),
        ("range", (1, 0), (1.0, 0.0)),  # white on black
        ("mean", "0.5", (0.5,)),
        ("mean", "0.5,0.25,-1e-1", (0.5, 0.25, -0.1)),
        ("mean", 0, (0.0,)),
        ("mean", np.array([0.5, 0.25, 1.0], np.float32), (0.5, 0.25, 1.0)),
        ("std", [0.5, 2], (0.5, 2.0)),
        ("fit", "crop", "crop"),
        ("resize", "256", 256),
        ("resample", "lanczos", "lanczos"),
        ("input", "picture", "picture"),
        ("blocks", "blocks.*", ("blocks.*",)),
        ("blocks", ["a", "b?"], ("a", "b?")),
        ("latent", "pool", "pool"),
        ("scores", "fc", "fc"),
        ("scores", "", ""),
        ("scores", False, ""),
        ("weights", {"seed": 0}, {"seed": 0}),
        ("notes", "made for a test", ("made for a test",)),
        ("actions", {"pool": {"trivial": 8}}, {"pool": {"trivial": 8}}),
    ],
)
def test_each_fact_is_read_from_values_and_from_text(key: str, given: Any, read: Any) -> None:
    for whose in (WHOSE, COMMAND_LINE):
        facts = read_facts({key: given}, whose)
        found = getattr(facts, key)
        assert found == read
        assert type(found) is type(read)
        assert replace(facts, **{key: None}) == NOTHING


@pytest.mark.parametrize(
    ("key", "given"),
    [
        *(("size", bad) for bad in ("15x", "x15", "0x5", "5x0", "-5", "1.5", "huge", "", "1x2x3", "²")),
        *(("size", bad) for bad in (0, 7.5, (1, 2, 3), (), (7.0, 9), True, {"height": 3}, object())),
        *(("channels", bad) for bad in (0, -1, "0", "three", "", 1.0, True, (3,))),
        *(("colour", bad) for bad in ("rbg", "RGB", "", 3)),
        *(("range", bad) for bad in ("255", "0,1,2", "0,0", "0,inf", "a,b", "", 255, (1, 1), (0, 1, 2), (True, False))),
        *(("mean", bad) for bad in ("half", "0.5,", "nan", "", (), (None,), object(), float("inf"), True)),
        *(("std", bad) for bad in ("0", "1,0,1", "half", (), 0, (0.5, 0.0))),
        *(("fit", bad) for bad in ("squash", "", 1)),
        *(("resize", bad) for bad in (0, "0", "256x256", 1.5, (256, 256))),
        *(("resample", bad) for bad in ("cubic", 2)),
        *((key, bad) for key in ("input", "latent") for bad in ("", 3, ("a",))),
        *(("scores", bad) for bad in (True, 3, ["fc"])),
        *((key, bad) for key in ("blocks", "notes") for bad in (3, [3], object())),
        *(("weights", bad) for bad in (object(), {"a": object()}, np.zeros(3))),
        *(("actions", bad) for bad in ("trivial", {3: "trivial"}, {"pool": object()}, ["pool"])),
    ],
)
def test_each_value_that_cannot_be_meant_is_named(key: str, given: Any) -> None:
    expected = READERS[key][1]
    for whose, named in ((WHOSE, f"{WHOSE}: {key}"), (COMMAND_LINE, f"--{key}")):
        with pytest.raises(UsageError) as caught:
            read_facts({key: given}, whose)
        message = str(caught.value)
        assert message.startswith(f"{named}: expected {expected}, got ")
        assert "\n" not in message
        if isinstance(given, (str, int, float, tuple)):
            assert message.endswith(f"got {given!r}")
        assert len(message) < len(named) + len(expected) + 110


def test_the_texts_as_they_are_read() -> None:
    for given, says in (
        (
            {"size": "15x"},
            "net.py:build: size: expected height and width in pixels, 224x224 or (224, 224), or one number for a"
            " square, got '15x'",
        ),
        ({"colour": "rbg"}, "net.py:build: colour: expected grey, rgb or bgr, got 'rbg'"),
        ({"fit": "squash"}, "net.py:build: fit: expected resize, crop, pad or none, got 'squash'"),
    ):
        with pytest.raises(UsageError, match=f"^{re.escape(says)}$"):
            read_facts(given, WHOSE)


def test_a_word_that_is_no_fact_says_what_is_near() -> None:
    near = r"^unknown fact 'sise': did you mean 'size' or 'resize'\?; given by net\.py:build$"
    with pytest.raises(UnknownName, match=near):
        read_facts({"sise": 3}, WHOSE)
    with pytest.raises(UnknownName, match=r"^unknown fact '3'"):
        read_facts({3: 3}, WHOSE)


def test_what_is_no_dict_is_refused() -> None:
    for given in (8, None, [("size", 8)], "size"):
        with pytest.raises(UsageError, match=r"^net\.py:build: expected a dict of facts \(size, channels, .*\), got "):
            read_facts(given, WHOSE)


def test_none_says_nothing() -> None:
    assert read_facts({}, WHOSE) == read_facts(dict.fromkeys(READERS), WHOSE) == NOTHING


def test_the_words_are_those_of_what_reads_the_file() -> None:
    assert list(READERS) == [f.name for f in fields(Facts)]
    assert (FITS, RESAMPLES, tuple(CHANNELS)) == (preprocessing.FITS, preprocessing.RESAMPLES, preprocessing.COLOURS)
    hints = get_type_hints(Facts)
    for key, words in (("fit", FITS), ("colour", tuple(CHANNELS))):
        assert get_args(get_args(hints[key])[0]) == words


# ---- agreement -----------------------------------------------------------------------------------------------------

CLASHES: list[tuple[dict[str, Any], str]] = [
    ({"colour": "grey", "channels": 3}, "colour: expected 1 channel for grey, got 3"),
    ({"colour": "rgb", "channels": 1}, "colour: expected 3 channels for rgb, got 1"),
    ({"colour": "bgr", "channels": 4}, "colour: expected 3 channels for bgr, got 4"),
    ({"mean": (0.5, 0.5), "channels": 3}, "mean: expected 1 number or 3, one a channel, got 2"),
    ({"std": (0.5, 0.5), "colour": "rgb"}, "std: expected 1 number or 3, one a channel, got 2"),
    ({"mean": (0.5, 0.5, 0.5), "colour": "grey"}, "mean: expected 1 number, got 3"),
    (
        {"resize": 8, "fit": "pad"},
        "resize: expected with fit 'crop' only (what an image is resized to before its centre is cut out), got 8 with"
        " fit 'pad'",
    ),
]


@pytest.mark.parametrize(("said", "says"), CLASHES)
def test_facts_that_contradict_one_another(said: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"^net.py:build: {re.escape(says)}$"):
        read_facts(said, WHOSE)
    with pytest.raises(UsageError, match=f"^--{re.escape(says)}$"):
        read_facts(said, COMMAND_LINE)
    # and where each comes from another source
    (first, one), (second, other) = said.items()
    both = over(read_facts({first: one}, WHOSE), read_facts({second: other}, COMMAND_LINE))
    if second != "fit":  # another fit takes the resize of the former with it
        with pytest.raises(UsageError, match=f"^net.py:build: {re.escape(says)}$"):
            input_spec(replace(both, size=(4, 4)), layout="NCHW", whose=WHOSE)


def test_facts_that_agree() -> None:
    for said in (
        {"colour": "grey", "channels": 1, "mean": 0.5},
        {"colour": "rgb", "mean": (1, 2, 3), "std": 2},
        {"channels": 5, "mean": (1, 2, 3, 4, 5)},
        {"mean": (1, 2)},  # of how many channels, is not known yet
        {"resize": 8, "fit": "crop"},
        {"resize": 8},
    ):
        assert read_facts(said, WHOSE) != NOTHING


# ---- one over the other --------------------------------------------------------------------------------------------


def test_what_is_said_stands_over_what_was_known() -> None:
    base = Facts(size=(4, 6), channels=3, mean=(0.5,), blocks=("a",), scores="fc", weights="random")
    assert over(base, NOTHING) == over(NOTHING, base) == base
    more = Facts(mean=(0.25, 0.5, 1.0), std=(2.0,), scores="", channels=1)
    assert over(base, more) == replace(base, mean=(0.25, 0.5, 1.0), std=(2.0,), scores="", channels=1)
    one, two, three = Facts(channels=1, fit="pad"), Facts(channels=2, latent="a"), Facts(latent="b", range=(0, 1))
    assert over(over(one, two), three) == over(one, over(two, three))


@pytest.mark.parametrize(
    ("base", "more", "resize"),
    [
        (Facts(size=(224, 224), fit="crop", resize=256), Facts(size=(64, 64)), None),
        (Facts(size=(224, 224), fit="crop", resize=256), Facts(size=(224, 224)), 256),
        (Facts(size=(224, 224), fit="crop", resize=256), Facts(size=(64, 64), resize=72), 72),
        (Facts(size=(224, 224), fit="crop", resize=256), Facts(fit="resize"), None),
        (Facts(size=(224, 224), fit="crop", resize=256), Facts(mean=(0.5,)), 256),
        (Facts(fit="crop", resize=256), Facts(size=(224, 224)), 256),
        (Facts(resize=256), Facts(fit="crop"), 256),
        (Facts(resize=256), Facts(fit="pad"), None),
    ],
)
def test_the_resize_before_a_crop_goes_with_its_size_and_fit(base: Facts, more: Facts, resize: int | None) -> None:
    assert over(base, more).resize == resize


# ---- the input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (3, 4, 6)), ("NHWC", (4, 6, 3))])
def test_the_shape_follows_the_layout(layout: Literal["NCHW", "NHWC"], shape: tuple[int, ...]) -> None:
    assert input_spec(IMAGE, layout=layout) == InputSpec("image", shape, layout)
    full = Facts(
        size=(4, 6),
        colour="bgr",
        range=(0.0, 255.0),
        mean=(1.0, 2.0, 3.0),
        std=(1.0,),
        fit="crop",
        resize=8,
        resample="bicubic",
        input="picture",
        blocks=("a",),
        weights="random",
    )
    spec = input_spec(full, layout=layout, name="x")
    assert spec == InputSpec(
        "picture", shape, layout, "bgr", (0.0, 255.0), (1.0, 2.0, 3.0), (1.0,), "crop", 8, "bicubic"
    )
    assert input_spec(IMAGE, layout=layout, name="x").name == "x"
    assert facts_of(spec) == replace(full, channels=3, blocks=None, weights=None)
    assert input_spec(facts_of(spec), layout=layout) == spec


def test_channels_follow_from_the_colour() -> None:
    assert [channels_of(Facts(colour=c)) for c in ("grey", "rgb", "bgr", None)] == [1, 3, 3, None]  # type: ignore[arg-type]
    assert channels_of(Facts(channels=2)) == 2
    assert input_spec(Facts(size=(4, 6), colour="grey"), layout="NCHW").shape == (1, 4, 6)


def test_a_size_or_channels_that_nobody_tells_are_asked_for() -> None:
    with pytest.raises(
        UsageError,
        match=r"^net\.py:build: the size of its images is not known; give --size HxW, or let the factory return"
        r' \(model, \{"size": \(H, W\)\}\)$',
    ):
        input_spec(Facts(channels=3), layout="NCHW", whose=WHOSE)
    with pytest.raises(
        UsageError,
        match=r"^the model: the number of channels of its images is not known; give --channels N or --colour, or let"
        r' the factory return \(model, \{"channels": N\}\)$',
    ):
        input_spec(Facts(size=(4, 6)), layout="NHWC")


# ---- the options ---------------------------------------------------------------------------------------------------


@click.group(cls=Door)
def group() -> None:
    """A door of one command."""


@exporter("command", click.Option(["--own"]), opset_option(1, 2, default=1))
def command(model: str, image: Facts, own: str | None) -> Job:
    """Say what was read."""
    click.echo(f"{own} {image!r}", err=True)
    return Job(list, NotImplemented)


group.add_command(command)


def test_a_command_receives_its_options_read() -> None:
    flags = ["--size", "4x6", "--colour", "rgb", "--range", "0,255", "--mean", "-1,2,3", "--std", "2", "--own", "o"]
    expected = Facts((4, 6), None, "rgb", (0.0, 255.0), (-1.0, 2.0, 3.0), (2.0,))
    done = CliRunner().invoke(group, ["command", "net", "--list", *flags])
    assert done.stderr == f"o {expected!r}\n"
    assert CliRunner().invoke(group, ["command", "net", "--list"]).stderr == f"None {NOTHING!r}\n"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--size", "15x"], "--size: expected height and width in pixels"),
        (["--channels", "0"], "--channels: expected a whole number from 1, got '0'"),
        (["--colour", "red"], "--colour: expected grey, rgb or bgr, got 'red'"),
        (["--range", "255"], "--range: expected two different numbers"),
        (["--mean", "half"], "--mean: expected a number, or one a channel"),
        (["--std", "1,0,1"], "--std: expected a number, or one a channel, 0.5,0.5,0.5 or (0.5, 0.5, 0.5), and none"),
        (["--colour", "grey", "--channels", "3"], "--colour: expected 1 channel for grey, got 3"),
    ],
)
def test_an_option_that_cannot_be_meant_is_one_line_and_a_usage_error(flags: list[str], says: str) -> None:
    done = CliRunner().invoke(group, ["command", "net", "--list", *flags])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1
