"""Arrays and folders: what is read, what is refused and in which words, and what a sample is."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from geed_onnx.errors import DataError, UnknownName, UsageError
from geed_onnx.sources import (
    Fingerprint,
    Form,
    as_images,
    draw,
    fingerprint,
    open_source,
    sources,
)

SHARED = Path(__file__).parents[2] / "shared" / "data"


def picture(value: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.fromarray(np.full((*size, 3), value, np.uint8))


def read(uri: Path | str, indices=None, **options):
    return list(open_source(str(uri), **options).items(indices))


# ---- arrays ------------------------------------------------------------------------------------------------------


def test_npy_rows_are_used_as_they_are(tmp_path):
    x = np.arange(5 * 2 * 3, dtype=np.int16).reshape(5, 2, 3)
    np.save(tmp_path / "x.npy", x)
    source = open_source(str(tmp_path / "x.npy"))
    assert (source.uri, source.as_is, source.size) == (str(tmp_path / "x.npy"), True, 5)
    pairs = list(source.items([3, 0]))
    assert [name for name, _ in pairs] == ["3", "0"]
    np.testing.assert_array_equal(pairs[0][1], x[3])
    assert pairs[0][1].dtype == np.int16
    assert pairs[0][1].flags.writeable
    assert len(list(source.items())) == 5


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_stored_and_compressed_give_the_same(tmp_path, save):
    x = np.random.default_rng(0).normal(size=(7, 3, 4)).astype(np.float32)
    save(tmp_path / "x.npz", images=x, y=np.arange(7), ids=np.array([f"im{i}" for i in range(7)]))
    pairs = read(tmp_path / "x.npz", [6, 1])
    assert [name for name, _ in pairs] == ["im6", "im1"]
    np.testing.assert_array_equal(np.stack([a for _, a in pairs]), x[[6, 1]])


def test_fortran_order_is_followed(tmp_path):
    x = np.asfortranarray(np.arange(24.0).reshape(4, 3, 2))
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(read(tmp_path / "x.npy", [2])[0][1], x[2])


def test_npz_array_is_chosen_by_name_then_by_rank(tmp_path):
    a, b = np.zeros((2, 3)), np.ones((2, 3))
    np.savez(tmp_path / "x.npz", x=a, other=b)
    assert read(tmp_path / "x.npz")[0][1].sum() == 0
    assert read(tmp_path / "x.npz", column="other")[0][1].sum() == 3
    np.savez(tmp_path / "one.npz", data=b, y=np.arange(2))
    assert read(tmp_path / "one.npz")[0][1].sum() == 3
    np.savez(tmp_path / "two.npz", first=a, second=b, y=np.arange(2))
    with pytest.raises(DataError, match=r"It holds first \(2, 3\), second \(2, 3\), y \(2,\); name one with --column"):
        read(tmp_path / "two.npz")
    with pytest.raises(UnknownName, match=r"unknown array 'secnd': did you mean 'second'\?"):
        read(tmp_path / "two.npz", column="secnd")


def test_objects_and_pickles_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    np.savez(tmp_path / "o.npz", x=np.array([{"a": 1}, None]))
    (tmp_path / "p.npy").write_bytes(b"\x80\x04\x95\x00")
    for name in ("o.npy", "o.npz"):
        with pytest.raises(DataError, match=r"pickled Python objects .* never loaded"):
            read(tmp_path / name)
    with pytest.raises(DataError, match="holds a pickle, which is never loaded"):
        read(tmp_path / "p.npy")


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.arange(4.0), r"at least 2 axes, images first, not shape \(4,\)"),
        (np.zeros((0, 3, 3)), r"the array is empty, shape \(0, 3, 3\)"),
        (np.zeros((3, 0)), "the array is empty"),
        (np.array([["a", "b"]]), "expected an array of numbers"),
        (np.zeros((2, 2), complex), "expected an array of numbers"),
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path, array, text):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=text):
        read(tmp_path / "x.npy")
    np.savez(tmp_path / "x.npz", x=array)
    with pytest.raises(DataError, match=text):
        read(tmp_path / "x.npz")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_inf_name_the_image(tmp_path, bad):
    x = np.zeros((4, 2, 2), np.float32)
    x[2, 1, 1] = bad
    np.savez(tmp_path / "x.npz", x=x, id=np.array([10, 11, 12, 13]))
    source = open_source(str(tmp_path / "x.npz"))
    assert len(list(source.items([0, 1, 3]))) == 3
    with pytest.raises(DataError, match="image '12' holds NaN or Inf"):
        list(source.items())


def test_ids_must_fit_and_be_unique(tmp_path):
    x = np.zeros((3, 2, 2))
    for ids, text in (
        (np.arange(2), "2 ids for 3 images"),
        (np.array(["a", "b", "a"]), "the id 'a' is there 2 times"),
        (np.zeros((3, 2)), "expected ids as one axis"),
    ):
        np.savez(tmp_path / "x.npz", x=x, id=ids)
        with pytest.raises(DataError, match=text):
            read(tmp_path / "x.npz")


def test_damaged_array_files(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 9)))
    whole = (tmp_path / "x.npy").read_bytes()
    np.savez(tmp_path / "x.npz", x=np.zeros((9, 9)))
    packed = (tmp_path / "x.npz").read_bytes()
    np.savez_compressed(tmp_path / "z.npz", x=np.random.default_rng(0).normal(size=(99, 99)))
    deflated = bytearray((tmp_path / "z.npz").read_bytes())
    deflated[2000:2100] = b"\0" * 100
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    for name, content, text in (
        ("cut.npy", whole[:-40], r"truncated: the header promises shape \(9, 9\) of float64, 648 bytes, but 608"),
        ("head.npy", whole[:40], "damaged .npy header"),
        ("text.npy", b"hello, world", "not a .npy array"),
        ("cut.npz", packed[:200], "not a whole .npz file"),
        ("hole.npz", bytes(deflated), "damaged or truncated"),
        ("text.npz", (tmp_path / "text.npz").read_bytes(), "not a .npy array"),
        ("empty.npz", b"", r"is empty \(0 bytes\)"),
        ("empty.npy", b"", r"is empty \(0 bytes\)"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=text) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_scratch_of_a_compressed_npz_goes_with_the_source(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((3, 2)))
    source = open_source(str(tmp_path / "x.npz"))
    assert list((tmp_path / "scratch").iterdir())
    del source
    assert not list((tmp_path / "scratch").iterdir())
    np.savez_compressed(tmp_path / "bad.npz", x=np.zeros(3))
    with pytest.raises(DataError):
        open_source(str(tmp_path / "bad.npz"))
    assert not list((tmp_path / "scratch").iterdir())


def test_as_images_takes_channels_last_only(tmp_path):
    np.save(tmp_path / "grey.npy", np.zeros((2, 5, 6), np.uint8))
    np.save(tmp_path / "last.npy", np.zeros((2, 5, 6, 3), np.uint8))
    np.save(tmp_path / "first.npy", np.zeros((2, 3, 5, 6), np.uint8))
    for name in ("grey.npy", "last.npy"):
        source = as_images(open_source(str(tmp_path / name)))
        assert (source.as_is, source.size, len(list(source.items()))) == (False, 2, 2)
        assert as_images(source) is source
    with pytest.raises(DataError, match=r"shape \(3, 5, 6\) is no image.*channels last"):
        list(as_images(open_source(str(tmp_path / "first.npy"))).items())


def test_memory_holds_one_image(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(2000, 3, 64, 64))
    x[:] = 0.5
    x.flush()
    del x
    source = open_source(str(tmp_path / "x.npy"))
    tracemalloc.start()
    try:
        total = sum(float(a.mean()) for _, a in source.items())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 1000
    assert peak < 1_000_000  # the file has 98 MB, an image 49 kB


# ---- folders -----------------------------------------------------------------------------------------------------


def test_folder_is_recursive_sorted_and_keyed_by_relative_path(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("z.PNG", "b/a.jpg", "b/c/x.bmp", "a.webp", "t.tif", "g.gif", "p.ppm", "._a.jpg"):
        picture(9).save(tmp_path / name, "JPEG" if name.startswith(".") else None)
    (tmp_path / "notes.txt").write_text("none")
    source = open_source(str(tmp_path))
    assert [name for name, _ in source.items()] == [
        "a.webp",
        "b/a.jpg",
        "b/c/x.bmp",
        "g.gif",
        "p.ppm",
        "t.tif",
        "z.PNG",
    ]
    assert all(a.shape == (6, 4, 3) and a.dtype == np.uint8 for _, a in source.items())
    assert source.as_is is False
    assert [name for name, _ in source.items([6, 0])] == ["z.PNG", "a.webp"]
    with pytest.raises(DataError, match="image 7 was asked for, but indices run from 0 to 6"):
        list(source.items([7]))
    with pytest.raises(UsageError, match="has no columns"):
        open_source(str(tmp_path), column="image")


def test_unreadable_images_are_named_or_skipped(tmp_path):
    picture(1).save(tmp_path / "a.png")
    picture(2).save(tmp_path / "c.jpg")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:45])
    (tmp_path / "d.png").write_text("no image at all")
    with pytest.raises(DataError, match=r"cannot read image 'b\.png': .*--skip-bad"):
        read(tmp_path)
    source = open_source(str(tmp_path), skip_bad=True)
    for _ in range(2):
        assert [name for name, _ in source.items()] == ["a.png", "c.jpg"]
    assert list(source.skipped) == ["b.png", "d.png"]
    assert "not an image that Pillow knows" in source.skipped["d.png"]


def test_empty_folder_missing_path_and_unknown_ending(tmp_path):
    with pytest.raises(DataError, match=r"no images in folder .*png.*hf:"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"no such file or folder: 'nowhere'; expected one of: FILE\.npz"):
        open_source("nowhere")
    with pytest.raises(DataError, match=r"no such file: 'nowhere\.npz'"):
        open_source("nowhere.npz")
    (tmp_path / "x.mat").write_text("a")
    with pytest.raises(DataError, match=r"do not know how to read .*a Parquet, Arrow or CSV file"):
        open_source(str(tmp_path / "x.mat"))


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 2, axis=0).repeat(8, axis=0).repeat(8, axis=1))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise by 90°
    image.save(tmp_path / "a.png", exif=exif)
    shown = read(tmp_path)[0][1]
    assert shown[0, 0] == 0
    assert shown[-1, 0] == 255
    np.testing.assert_array_equal(shown[:, 0], shown[:, -1])


def test_modes_become_grey_or_rgb(tmp_path):
    rgba = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    half = np.rint(np.array([200, 100, 50]) * 128 / 255)
    cases = {
        "rgba.png": (rgba, half),
        "clear.png": (Image.new("RGBA", (4, 4), (255, 255, 255, 0)), 0),
        "la.png": (Image.new("LA", (4, 4), (200, 128)), round(200 * 128 / 255)),
        "palette.png": (Image.new("RGB", (4, 4), (10, 20, 30)).quantize(4), (10, 20, 30)),
        "bits.png": (Image.new("1", (4, 4), 1), 255),
        "sixteen.png": (Image.fromarray(np.full((4, 4), 40000, np.uint16)), 40000),
        "sixteen.pgm": (Image.fromarray(np.full((4, 4), 40000, np.uint16)), 40000),
        "float.tif": (Image.fromarray(np.full((4, 4), 0.25, np.float32)), 0.25),
        "cmyk.tif": (Image.new("CMYK", (4, 4), (0, 255, 255, 0)), (255, 0, 0)),
    }
    for name, (image, _) in cases.items():
        image.save(tmp_path / name)
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "keyed.png", transparency=(9, 9, 9))
    for name, array in read(tmp_path):
        expected = cases.get(name, (None, 0))[1]
        assert array.ndim == (2 if name in ("la.png", "bits.png", "float.tif") or "sixteen" in name else 3), name
        assert np.abs(array.astype(float) - expected).max() <= (1 if "a.png" in name else 0), name
    kinds = {name: array.dtype for name, array in read(tmp_path)}
    assert kinds["sixteen.png"] == kinds["sixteen.pgm"] == np.uint16
    assert kinds["float.tif"] == np.float32


def test_float_image_with_nan_and_wide_integers_are_refused(tmp_path):
    Image.fromarray(np.full((2, 2), np.nan, np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"image 'a\.tif' holds NaN or Inf"):
        read(tmp_path)
    Image.fromarray(np.full((2, 2), 70000, np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="beyond 16 bits"):
        read(tmp_path)


# ---- sample and fingerprint --------------------------------------------------------------------------------------


def test_a_larger_draw_contains_the_smaller(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((100, 2)))
    source = open_source(str(tmp_path / "x.npy"))
    few, many = draw(source, 10, seed=3), draw(source, 60, seed=3)
    assert many[:10] == few
    assert len(set(many)) == 60
    assert draw(source, 10, seed=3) == few
    assert draw(source, 10, seed=4) != few
    assert few == tuple(np.random.default_rng(3).permutation(100)[:10].tolist())
    assert draw(source, "all", seed=3) == tuple(range(100))
    assert sorted(draw(source, 100, seed=1)) == list(range(100))


def test_draw_refuses_too_many_and_nonsense(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    source = open_source(str(tmp_path / "x.npy"))
    with pytest.raises(DataError, match="6 images were asked for, but there are only 5"):
        draw(source, 6, seed=0)
    for wrong in (0, -1, "some", True):
        with pytest.raises(UsageError, match="positive number or 'all'"):
            draw(source, wrong, seed=0)


class Counted:
    """A source of somebody else's that does not tell its size."""

    uri, as_is, size, skipped = "counted", True, None, {}

    def __init__(self, number):
        self.number = number

    def items(self, indices=None):
        for i in range(self.number) if indices is None else indices:
            yield str(i), np.zeros(3)


def test_a_source_without_size_is_counted_and_an_empty_one_refused():
    assert len(draw(Counted(4), "all", seed=0)) == 4
    with pytest.raises(DataError, match="counted: there are no images to draw from"):
        draw(Counted(0), "all", seed=0)


def test_a_form_of_source_can_be_added(monkeypatch):
    monkeypatch.setitem(
        sources._entries, "count", Form(lambda u: u.startswith("count:"), lambda u, o: Counted(int(u[6:])), "count:N")
    )
    assert [name for name, _ in open_source("count:3").items()] == ["0", "1", "2"]
    assert {"array", "folder", "table", "hf", "count"} <= set(sources)


def test_fingerprint_is_free_of_order_and_sees_every_part():
    rng = np.random.default_rng(0)
    pairs = [(f"i{k}", rng.normal(size=(3, 4)).astype(np.float32)) for k in range(20)]
    value = fingerprint(pairs)
    assert value == fingerprint(reversed(pairs))
    left, right = Fingerprint(), Fingerprint()
    for k, pair in enumerate(pairs):
        (left if k % 3 else right).add(*pair)
    assert left.merge(right).hexdigest() == right.merge(left).hexdigest() == value
    assert len(left.merge(left)) == len(left)
    name, array = pairs[0]
    assert fingerprint([(name, array.T.copy().T), *pairs[1:]]) == value  # memory order is no content
    assert fingerprint([(name, array.astype(">f4")), *pairs[1:]]) == value  # nor is byte order
    changed = array.copy()
    changed[0, 0] += 1
    for other in (("other", array), (name, array.reshape(4, 3)), (name, array.view(np.int32)), (name, changed)):
        assert fingerprint([other, *pairs[1:]]) != value
    with pytest.raises(DataError, match="two different images have the same id 'i0'"):
        fingerprint([*pairs, (name, changed)])


# ---- real data ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "imagenet-samples").is_dir(), reason="../shared/data/imagenet-samples is not there")
def test_real_photographs():
    source = open_source(str(SHARED / "imagenet-samples"))
    assert source.size == 200
    pairs = list(source.items(draw(source, 20, seed=0)))
    assert len({name for name, _ in pairs}) == 20
    assert all(a.shape == (224, 224, 3) and a.std() > 5 for _, a in pairs)


@pytest.mark.skipif(not (SHARED / "rotated-mnist").is_dir(), reason="../shared/data/rotated-mnist is not there")
def test_real_digits():
    source = open_source(str(SHARED / "rotated-mnist" / "MNIST_RR_test.npz"))
    assert source.size == 10_000
    assert all(
        a.shape == (28, 28) and a.dtype == np.uint8 and a.max() > 200 for _, a in source.items(range(0, 10_000, 99))
    )
