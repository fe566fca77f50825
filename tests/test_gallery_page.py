"""The gallery as HTML: whole, escaped, self-contained, and its pictures are the arrays they stand for."""

from __future__ import annotations

import base64
import io
import re
import string
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_tools import saved
from gallery_tools import DIGITS, SHIPPED, run_folder
from onnx_nets import Net, identity_map
from PIL import Image

from geed_onnx.gallery import Exhibit, FeatureMaps, Gallery, make_gallery
from geed_onnx.reports.page.gallery import render_gallery, top_classes
from geed_onnx.reports.page.gallery_pictures import MOST, diverging, photograph, sequential

Array = np.ndarray[Any, Any]
VOID = {"img", "br", "line", "circle", "polyline", "meta", "input"}
#: As names of models, images, tensors and classes: what would run, break out of a tag or an attribute, or move text.
HOSTILE = (
    "<script>window.__hit = 1</script>",
    '"><img src=x onerror="window.__hit = 1">',
    "' onmouseover='window.__hit = 1",
    "</style></svg><b>",
    "{{7*7}}${7*7}",
    "a\u2028b\u202ec\x1b[2J",
    "lone \udcff",
)


class Page(HTMLParser):
    """Reads HTML strictly: every element is closed where it belongs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, tag
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def page(gallery: Gallery) -> Page:
    return Page("".join(s.html for s in render_gallery(gallery)))


def decoded(src: str | None) -> Array:
    assert src is not None
    kind, _, text = src.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
        return np.asarray(image.convert("RGBA") if "transparency" in image.info else image.convert("RGB"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("gallery")
    models = [SHIPPED / f"{name}.onnx" for name in ("digits-cnn", "digits-c8cnn", "digits-mlp")]
    return make_gallery(run_folder(folder, models, DIGITS, ["C8"], samples=12))


def named(name: str, count: int = 3) -> Exhibit:
    scores = np.full((2, count), 0.1)
    scores[0, 0] = scores[1, 1] = 0.8
    return Exhibit(
        model=name, data=name, group="flip", tap=name, kind="probability", variant="softmax", image=name, rank=1,
        samples=9, deviation=0.25, average=0.125, optimum=0.0, elements=("as it is", "flip"),
        per_element=np.array([0.1, 0.4]), shown=(0, 1), orbit=np.arange(32, dtype=np.uint8).reshape(2, 4, 4),
        scores=scores, expected=(0, 0), classes=tuple(f"{name}{i}" for i in range(count)), notes=(name,),
    )  # fmt: skip


def maps_of(planes: Array, name: str = "tap") -> FeatureMaps:
    before, moved, after = planes.astype(np.float32)
    high = tuple(float(planes[:, i].max()) for i in range(planes.shape[1]))
    low = tuple(float(planes[:, i].min()) for i in range(planes.shape[1]))
    return FeatureMaps(
        model=name, data=name, group="C4", tap=name, variant="channelwise", image=name, element=1, element_name="90°",
        deviation=-0.5, optimum=-1.0, action=name, averaged=1, total=9, channels=tuple(range(len(before))),
        before=before, moved=moved, after=after, difference=after - moved, low=low, high=high, images=None,
        cosines=(0.5,) * len(before),
    )  # fmt: skip


# --- whole and self-contained -----------------------------------------------------------------------------------


def test_the_sections_are_whole_and_hold_everything(shown: Gallery) -> None:
    sections = render_gallery(shown)
    assert [s.id for s in sections] == ["gallery-images", "gallery-maps"]
    assert all(set(s.id) <= {*string.ascii_letters, *string.digits, "-"} for s in sections)
    for s in sections:
        Page(s.html)
    found = page(shown)
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert len(ids) == len(set(ids))
    # 3 models × 6 images × 8 elements; x, gx and 4 channels × 4 columns for each of the two that have maps
    assert len(found.all("img")) == 3 * 6 * 8 + 2 * (2 + 4 * 4)
    assert all(a.get("alt") for a in found.all("img"))
    for e in shown.exhibits:
        assert e.image in found.text
        assert f"{e.deviation:.3f}" in found.text
    assert len(found.all("table")) == len(shown.exhibits)
    assert "no feature maps: no map of at least 4×4 was measured" in found.text


def test_two_runs_with_models_of_one_name_stay_apart(shown: Gallery) -> None:
    some = shown.exhibits[:2]
    found = page(Gallery((*some, *some)))
    ids = [a["id"] for _, a in found.elements if "id" in a]
    assert len(ids) == len(set(ids)) == 2 * 4
    assert len([a for a in found.all("details") if a["class"] == "gx-job"]) == 2


def test_nothing_is_fetched_and_nothing_runs(shown: Gallery) -> None:
    html = "".join(s.html for s in render_gallery(shown))
    assert not re.search(r"https?:|//|url\(|@import|<script|<link|<iframe", re.sub(r'src="data:[^"]*"', "", html))
    for tag, attributes in Page(html).elements:
        assert not [a for a in attributes if a.startswith("on") or a in ("href", "srcset")], tag
    assert len(html) < 400_000


def test_orbits_on_the_page_are_the_orbits(shown: Gallery) -> None:
    images = page(shown).all("img")
    first = shown.exhibits[0]
    assert first.orbit is not None
    for attributes, pixels in zip(images, first.orbit, strict=False):
        np.testing.assert_array_equal(decoded(attributes["src"])[..., 0], pixels)
        assert (attributes["width"], attributes["height"]) == ("87", "87")
        assert "gx-exact" in str(attributes["class"])


def test_every_number_of_the_chart_stands_in_the_table(shown: Gallery) -> None:
    e = shown.exhibits[-1]
    assert e.scores is not None
    found = page(Gallery((e,)))
    for c in top_classes(e):
        assert f"p(class {c})" in found.text
        for g in e.shown:
            value = float(e.scores[g, c])
            assert (f"{value:.3f}" if value >= 1e-3 else f"{value:.2e}") in found.text
    # to the last digit for sorting and for the CSV
    held = [float(str(a["data-value"])) for a in found.all("td") if "data-value" in a]
    wanted = [[e.per_element[g], *(e.scores[g, c] for c in top_classes(e))] for g in e.shown]
    assert held == [float(v) for row in wanted for v in row]
    lines = [a["points"] for a in found.all("polyline")]
    assert len(lines) == len(top_classes(e))
    # drawn from the lowest class to the highest: the last line is the highest
    ys = [float(p.split(",")[1]) for p in str(lines[-1]).split()]
    top = e.scores[list(e.shown), top_classes(e)[0]]
    np.testing.assert_allclose((max(ys) - np.array(ys)) / 72, top - top.min(), atol=2e-3)


def test_classes_that_change_are_marked_in_words_too() -> None:
    found = page(Gallery((named("n"),)))
    assert [a["title"] for t, a in found.elements if t == "span" and "title" in a] == ["n0", "n1, expected n0"]
    assert "≠ n1" in found.text
    assert "1 change of class" in found.text
    shares = [a["style"] for t, a in found.elements if "gx-deviation" in str(a.get("class"))]
    assert shares == ["--share:25%", "--share:100%"]


def test_classes_that_play_no_part_are_not_drawn() -> None:
    e = named("n", 30)
    scores = np.full((2, 30), 0.001)
    scores[:, 7] = 0.9
    scores[1, 4] = 0.08
    assert top_classes(Exhibit(**{**vars(e), "scores": scores})) == (7, 4)


def test_an_equivariant_network_is_said_to_deviate_nowhere(tmp_path: Path) -> None:
    path = saved(identity_map(1, 8), tmp_path)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32))
    found = page(make_gallery(run_folder(tmp_path / "run", [path], tmp_path / "x.npy", samples=3)))
    assert "No image deviates by more than rounding." in found.text
    assert "arrays are shown from" in found.text
    assert {a["style"] for t, a in found.elements if "gx-deviation" in str(a.get("class"))} == {"--share:0%"}
    assert found.all("svg") == []


# --- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_whatever_they_hold(name: str) -> None:
    maps = maps_of(np.random.default_rng(0).random((3, 2, 5, 5)), name)
    gallery = Gallery((named(name),), (maps,), (name,))
    plain = page(Gallery((named("n"),), (maps_of(np.random.default_rng(0).random((3, 2, 5, 5)), "n"),), ("n",)))
    found = page(gallery)
    # the same elements with the same attributes: names changed texts and nothing else
    assert [(t, set(a)) for t, a in found.elements] == [(t, set(a)) for t, a in plain.elements]
    html = "".join(s.html for s in render_gallery(gallery))
    html.encode("utf-8")
    assert not set(html) & {"\u2028", "\u202e", "\x1b"}
    visible = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert found.text.count(visible) >= 10


def test_hostile_names_in_files_reach_the_page_as_text(tmp_path: Path) -> None:
    tap = "<script>window.__hit=1</script>"
    net = Net()
    net.add("Conv", ["x", net.weight("w", 4, 1, 3, 3)], tap, pads=[1] * 4)
    net.add("Relu", [tap], "relu")
    net.add("GlobalAveragePool", ["relu"], "pooled")
    net.add("Flatten", ["pooled"], "latent")
    net.add("Gemm", ["latent", net.weight("wc", 4, 2)], '"><svg onload=1>')
    ports = [("x", ["N", 1, 8, 8])], [('"><svg onload=1>', ["N", 2])]
    model = net.done(*ports, metadata={"names": "{0: '<b>bold</b>', 1: '<i>'}"})
    onnx.save(model, str(tmp_path / "net.onnx"))
    (tmp_path / "images").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"<img src=x onerror=hit>{i}.png")
    run = run_folder(
        tmp_path / "run", [tmp_path / "net.onnx"], tmp_path / "images", samples=3, names=["<u>net</u>"],
        options={"taps": [f"{tap}:map", '"><svg onload=1>:probability']},
    )  # fmt: skip
    gallery = make_gallery(run)
    assert len(gallery.exhibits) == 3
    found = page(gallery)
    assert {t for t, _ in found.elements} & {"script", "b", "i", "u"} == set()
    assert len(found.all("svg")) == sum(1 + len(top_classes(e)) for e in gallery.exhibits)
    for text in ("<img src=x onerror=hit>", "<u>net</u>", "<b>bold</b>", '"><svg onload=1>', tap):
        assert text in found.text


# --- pictures ---------------------------------------------------------------------------------------------------


def test_a_photograph_is_shrunk_and_small() -> None:
    y, x = np.mgrid[:300, :200]
    noise = np.random.default_rng(0).normal(0, 8, (300, 200, 3))
    photo = np.clip(np.stack([x, y / 2, 255 - x], axis=-1) + noise, 0, 255).astype(np.uint8)
    found = photograph(photo)
    assert (found.width, found.height, found.exact) == (round(200 * MOST / 300), MOST, False)
    assert found.src.startswith("data:image/jpeg")
    assert len(found.src) < 8000
    middle = decoded(found.src)[56, 37].astype(int)
    assert np.abs(middle - [100, 75, 155]).max() < 16


def test_a_small_colour_picture_is_kept_to_the_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 7, 3), dtype=np.uint8)
    found = photograph(pixels)
    np.testing.assert_array_equal(decoded(found.src), pixels)
    assert (found.width, found.height, found.exact) == (56, 80, True)


def test_values_are_dark_to_light_on_the_scale_they_share() -> None:
    values = np.linspace(-1, 3, 50).reshape(5, 10)
    light = decoded(sequential(values, -1, 3).src).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light.ravel()) > 0).all()
    np.testing.assert_array_equal(decoded(sequential(values, -1, 3).src)[0, 0], [0x44, 0x01, 0x54])
    np.testing.assert_array_equal(decoded(sequential(values, -1, 3).src)[-1, -1], [0xFD, 0xE7, 0x25])
    half = decoded(sequential(values, -1, 7).src)
    assert tuple(half[-1, -1]) != (0xFD, 0xE7, 0x25)
    assert len(np.unique(decoded(sequential(np.zeros((4, 4)), 0, 0).src))) <= 3


def test_no_difference_is_transparent_and_signs_are_told_apart() -> None:
    found = decoded(diverging(np.array([[-2.0, -1.0, 0.0, 1.0, 2.0]]), 2.0).src)
    assert found.shape == (1, 5, 4)
    np.testing.assert_allclose(found[0, :, 3], [255, 128, 0, 128, 255], atol=1)
    assert found[0, 0, 2] > found[0, 0, 0]
    assert found[0, 4, 0] > found[0, 4, 2]
    nothing = decoded(diverging(np.zeros((3, 3)), 0.0).src)
    assert not nothing[..., 3].any()


def test_a_large_map_is_thinned_to_values_that_are_there() -> None:
    plane = np.random.default_rng(0).random((300, 300))
    found = sequential(plane, 0, 1)
    assert max(found.width, found.height) <= MOST
    whole = {tuple(c) for row in (plane[i : i + 100, j : j + 100] for i in (0, 100, 200) for j in (0, 100, 200))
             for c in decoded(sequential(row, 0, 1).src).reshape(-1, 3)}  # fmt: skip
    assert {tuple(c) for c in decoded(found.src).reshape(-1, 3)} <= whole


def test_the_columns_of_a_channel_share_one_scale() -> None:
    planes = np.zeros((3, 1, 4, 4))
    planes[0, 0, 0, 0], planes[2, 0, 1, 1], planes[2, 0, 2, 2] = 1.0, 4.0, 1.0
    before, moved, after, difference = (decoded(a["src"]) for a in page(Gallery((), (maps_of(planes),))).all("img"))
    assert tuple(after[1, 1]) == (0xFD, 0xE7, 0x25)
    assert tuple(before[0, 0]) != (0xFD, 0xE7, 0x25)
    assert len(np.unique(moved.reshape(-1, 3), axis=0)) == 1
    assert difference[1, 1, 3] == 255
    assert difference[2, 2, 3] == pytest.approx(255 / 4, abs=2)
    assert not difference[0, 0, 3]


def test_nothing_to_show_and_nothing_to_say() -> None:
    assert render_gallery(Gallery()) == []
    [section] = render_gallery(Gallery(reasons=("the <model> is gone",)))
    assert section.id == "gallery-images"
    assert "Not shown" in Page(section.html).text
    assert "the <model> is gone" in Page(section.html).text
    [maps] = render_gallery(Gallery(maps=(maps_of(np.ones((3, 1, 5, 5))),)))
    assert maps.id == "gallery-maps"
    assert maps.html.startswith("<style>")
