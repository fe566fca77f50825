"""Parquet, Arrow, CSV and `hf:` through `datasets`: columns, ids, streams, faults, and silence."""

from __future__ import annotations

import io
import logging
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from PIL import Image

from geed_onnx.errors import DataError, UnknownName
from geed_onnx.sources import Options, TableSource, draw, open_source


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def struct(value: int) -> dict:
    return {"bytes": png(value), "path": f"{value}.png"}


def write(path: Path, **columns) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, path)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    return path


def values(source, indices=None) -> list[tuple[str, int]]:
    return [(name, int(a[0, 0, 0])) for name, a in source.items(indices)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_tables_mapped_and_streamed_give_the_same(tmp_path, suffix, streaming, capfd):
    path = write(tmp_path / f"t{suffix}", image=[struct(k) for k in range(9)], label=list(range(9)))
    source = open_source(str(path), streaming=streaming)
    assert (source.size, source.as_is, source.uri) == (9, False, str(path))
    assert values(source) == [(str(k), k) for k in range(9)]
    assert values(source, [7, 0, 8, 0, 3]) == [("7", 7), ("0", 0), ("8", 8), ("0", 0), ("3", 3)]
    assert values(source, []) == []
    with pytest.raises(DataError, match="image 9 was asked for, but indices run from 0 to 8"):
        values(source, [1, 9])
    with pytest.raises(DataError, match="image -1 was asked for"):
        values(source, [1, -1])
    assert capfd.readouterr() == ("", "")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_streaming_a_draw_equals_mapping_it(tmp_path):
    path = write(tmp_path / "t.parquet", image=[png(k) for k in range(30)])
    mapped, streamed = (open_source(str(path), streaming=s) for s in (False, True))
    indices = draw(mapped, 12, seed=5)
    assert draw(streamed, 12, seed=5) == indices
    assert values(mapped, indices) == values(streamed, indices)


def test_image_feature_written_by_datasets(tmp_path):
    import datasets

    from geed_onnx.sources.tables import quiet

    with quiet():
        made = datasets.Dataset.from_dict(
            {"picture": [struct(k) for k in range(3)], "n": [1, 2, 3]},
            features=datasets.Features({"picture": datasets.Image(), "n": datasets.Value("int64")}),
        )
        made.to_parquet(str(tmp_path / "d.parquet"))
        made.save_to_disk(str(tmp_path / "saved"))
        datasets.DatasetDict({"train": made.select([0]), "test": made}).save_to_disk(str(tmp_path / "dict"))
    expected = [("0", 0), ("1", 1), ("2", 2)]
    for uri in (tmp_path / "d.parquet", f"hf:{tmp_path / 'saved'}", f"hf:{tmp_path / 'dict'}"):
        for streaming in (False, True):
            assert values(open_source(str(uri), streaming=streaming)) == expected
    assert values(open_source(f"hf:{tmp_path / 'dict'}:train")) == expected[:1]
    with pytest.raises(DataError, match="a saved data set is not sliced; give one of its splits: train, test"):
        open_source(f"hf:{tmp_path / 'dict'}:train[1:]")
    with pytest.raises(DataError, match="single data set without splits"):
        open_source(f"hf:{tmp_path / 'saved'}:train")


@pytest.mark.parametrize("streaming", [False, True])
def test_ids_come_from_a_column_that_names_each_row(tmp_path, streaming):
    images = [png(k) for k in range(3)]
    path = write(tmp_path / "t.parquet", image=images, image_id=["a", "b", "c"])
    assert values(open_source(str(path), streaming=streaming), [2, 0]) == [("c", 2), ("a", 0)]
    path = write(tmp_path / "n.parquet", image=images, id=[30, 20, 10])
    assert values(open_source(str(path), streaming=streaming), [1]) == [("20", 1)]
    path = write(tmp_path / "f.parquet", image=images, id=[0.1, 0.2, 0.3])
    assert values(open_source(str(path), streaming=streaming), [1]) == [("1", 1)]
    path = write(tmp_path / "twice.parquet", image=images, id=["a", "b", "a"])
    source = open_source(str(path), streaming=streaming)
    if streaming:
        with pytest.raises(DataError, match="column 'id' names two images 'a'"):
            values(source)
    else:
        assert [name for name, _ in values(source)] == ["0", "1", "2"]


def test_columns_are_found_or_asked_for(tmp_path):
    two = str(write(tmp_path / "two.parquet", left=[png(1)], right=[struct(2)], label=[0]))
    with pytest.raises(DataError, match="several columns hold images: left, right; name one with --column"):
        open_source(two)
    assert values(open_source(two, column="right")) == [("0", 2)]
    with pytest.raises(UnknownName, match=r"unknown column 'rigth': did you mean 'right'\?"):
        open_source(two, column="rigth")
    with pytest.raises(DataError, match=r"column 'label' holds .*int64.*, not images; expected an Image feature"):
        open_source(two, column="label")
    none = str(write(tmp_path / "none.parquet", label=[0], text=["a"]))
    with pytest.raises(DataError, match=r"no column holds images \(columns: label, text\)"):
        open_source(none)
    empty = str(write(tmp_path / "empty.parquet", image=pa.array([], pa.binary())))
    for streaming in (False, True):
        with pytest.raises(DataError, match="the table has no rows"):
            open_source(empty, streaming=streaming)


def test_csv_of_paths_relative_to_it(tmp_path):
    (tmp_path / "im").mkdir()
    for k in range(3):
        (tmp_path / "im" / f"{k}.png").write_bytes(png(k))
    (tmp_path / "t.csv").write_text("file,label,id\nim/2.png,x,p\nim/0.png,y,q\nim/1.png,z,r\n")
    for streaming in (None, True):
        source = open_source(str(tmp_path / "t.csv"), streaming=streaming)
        assert source.size == 3
        assert values(source) == [("p", 2), ("q", 0), ("r", 1)]
    (tmp_path / "t.csv").write_text("file\nim/0.png\nim/9.png\n")
    with pytest.raises(DataError, match=r"cannot read image '1': .*No such file"):
        values(open_source(str(tmp_path / "t.csv")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["im", "t.csv"]


def test_paths_may_be_addresses(tmp_path):
    (tmp_path / "a.png").write_bytes(png(5))
    (tmp_path / "t.csv").write_text(f"at\nfile://{tmp_path}/a.png\nfile://{tmp_path}/b.png\n")
    source = open_source(str(tmp_path / "t.csv"))
    assert values(source, [0]) == [("0", 5)]
    with pytest.raises(DataError, match=r"cannot read image '1': file://.*/b\.png cannot be read"):
        values(source)


def test_memory_of_a_reordered_stream_holds_one_image(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 100, 100, 3), dtype=np.uint8)  # 30 kB each, encoded

    def encoded(array):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return buffer.getvalue()

    table = pa.table({"image": [encoded(array) for array in noise]})
    pa.parquet.write_table(table, tmp_path / "t.parquet", row_group_size=5)
    source = open_source(str(tmp_path / "t.parquet"), streaming=True)

    def peak(order):
        tracemalloc.start()
        try:
            for index, (name, array) in zip(range(200) if order is None else order, source.items(order), strict=True):
                assert name == str(index)
                assert (array == noise[index]).all()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    in_order, reverse = peak(None), peak(range(199, -1, -1))
    # in reverse all wait for the last, 6 MB of them; what datasets reads ahead is in both
    assert reverse < in_order + 500_000


@pytest.mark.parametrize("streaming", [False, True])
def test_bad_cells_are_named_or_skipped(tmp_path, streaming):
    cells = [png(0), None, b"no image", png(3)]
    path = str(write(tmp_path / "t.parquet", image=pa.array(cells, pa.binary()), id=list("abcd")))
    with pytest.raises(DataError, match=r"t\.parquet: cannot read image 'b': the cell is empty.*--skip-bad"):
        values(open_source(path, streaming=streaming))
    with pytest.raises(DataError, match=r"t\.parquet: cannot read image 'c': not an image"):
        values(open_source(path, streaming=streaming), [2])
    source = open_source(path, streaming=streaming, skip_bad=True)
    assert values(source) == [("a", 0), ("d", 3)]
    assert list(source.skipped) == ["b", "c"]


@pytest.mark.parametrize("streaming", [False, True])
def test_damaged_tables(tmp_path, streaming, capfd):
    whole = write(tmp_path / "w.parquet", image=[png(k) for k in range(9)]).read_bytes()
    arrow = write(tmp_path / "w.arrow", image=[png(k) for k in range(9)]).read_bytes()
    for name, content, text in (
        ("cut.parquet", whole[:300], "cannot be read as parquet, damaged or truncated"),
        ("cut.arrow", arrow[:50], "cannot be read as arrow, damaged or truncated"),
        ("text.feather", b"hello, world", "cannot be read as feather, damaged or truncated"),
        ("quote.csv", b'a,b\n"1,2\n3,4,5\n', "cannot be read as csv, damaged or truncated"),
        ("empty.parquet", b"", r"is empty \(0 bytes\)"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=text) as caught:
            values(open_source(str(tmp_path / name), streaming=streaming))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"no such file: 'none\.parquet'"):
        open_source("none.parquet")
    assert capfd.readouterr() == ("", "")


def test_file_names_with_pattern_signs(tmp_path):
    path = write(tmp_path / "a[1]*.parquet", image=[png(7)])
    write(tmp_path / "a1x.parquet", image=[png(8)])
    assert values(open_source(str(path))) == [("0", 7)]


def test_scratch_goes_with_the_source(tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    path = str(write(tmp_path / "t.parquet", image=[png(1)]))
    source = open_source(path)
    assert values(source) == [("0", 1)]
    assert list((tmp_path / "scratch").iterdir())
    del source
    assert not list((tmp_path / "scratch").iterdir())
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError):
        open_source(str(tmp_path / "bad.parquet"))
    assert not list((tmp_path / "scratch").iterdir())


def test_datasets_is_left_as_it_was_found(tmp_path):
    import datasets

    path = str(write(tmp_path / "t.parquet", image=[png(1)]))
    logger = logging.getLogger("datasets")
    before = (logger.level, datasets.is_progress_bar_enabled())
    values(open_source(path))
    assert (logger.level, datasets.is_progress_bar_enabled()) == before


def test_a_stream_that_tells_neither_types_nor_size():
    import datasets

    def rows():
        for k in range(4):
            yield {"picture": struct(k), "label": k, "image_id": f"n{k}"}

    stream = datasets.IterableDataset.from_generator(rows)
    assert stream.features is None
    source = TableSource("made", stream, Options(), size=None)
    assert values(source, draw(source, "all", seed=0)) == [("n0", 0), ("n1", 1), ("n2", 2), ("n3", 3)]


def test_a_stream_that_breaks_off_is_told():
    import datasets

    def rows():
        yield {"picture": struct(0)}
        raise OSError("connection lost")

    source = TableSource("made", datasets.IterableDataset.from_generator(rows), Options(), size=None)
    with pytest.raises(DataError, match="made: the stream broke off: connection lost"):
        values(source)


# ---- hf: ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "train-0.parquet", image=[struct(k) for k in range(5)])
    write(tmp_path / "data" / "test-0.parquet", image=[struct(k) for k in range(10, 13)])
    return tmp_path


def test_hf_local_folder_and_its_splits(folder, capfd):
    assert values(open_source(f"hf:{folder}")) == [("0", 10), ("1", 11), ("2", 12)]
    assert open_source(f"hf:{folder}:train").size == 5
    assert values(open_source(f"hf:{folder}:train[3:]")) == [("0", 3), ("1", 4)]
    streamed = open_source(f"hf:{folder}:train", streaming=True)
    assert streamed.size is None
    assert values(streamed, draw(streamed, 4, seed=0)) == values(
        open_source(f"hf:{folder}:train"), draw(streamed, 4, seed=0)
    )
    with pytest.raises(UnknownName, match=r"unknown split 'tset': did you mean 'test'\?"):
        open_source(f"hf:{folder}:tset")
    with pytest.raises(DataError, match="a stream cannot be sliced; give the split as 'train'"):
        open_source(f"hf:{folder}:train[3:]", streaming=True)
    for wrong in ("hf:", "hf::test", "hf:name:"):
        with pytest.raises(DataError, match="expected hf:NAME or hf:NAME:SPLIT"):
            open_source(wrong)
    assert capfd.readouterr() == ("", "")
    assert [p.name for p in folder.iterdir()] == ["data"]


def test_hf_folder_of_images(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_bytes(png(k))
    for streaming in (False, True):
        source = open_source(f"hf:{tmp_path}", streaming=streaming)
        assert values(source, [2, 0]) == [("2", 2), ("0", 0)]


@pytest.mark.parametrize(("rows", "size", "streams"), [(50_001, 10, True), (10, 1_000_000_001, True), (10, 10, False)])
def test_hf_streams_what_is_large(folder, monkeypatch, rows, size, streams):
    import datasets

    made = datasets.load_dataset_builder

    def told(*args, **kwargs):
        builder = made(*args, **kwargs)
        builder.info.splits = datasets.splits.SplitDict.from_split_dict(
            [{"name": "train", "num_examples": rows, "num_bytes": size}]
        )
        return builder

    monkeypatch.setattr(datasets, "load_dataset_builder", told)
    called = []
    for name in ("as_streaming_dataset", "download_and_prepare"):
        monkeypatch.setattr(datasets.DatasetBuilder, name, _raises(called, name))
    with pytest.raises(DataError, match="stop here"):
        open_source(f"hf:{folder}:train")
    assert called == ["as_streaming_dataset" if streams else "download_and_prepare"]


def _raises(called, name):
    def stop(self, *args, **kwargs):
        called.append(name)
        raise RuntimeError("stop here")

    return stop


def test_hf_not_reachable_is_one_line(monkeypatch, capfd):
    import datasets

    def offline(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'no/such' on the Hub (OfflineModeIsEnabled)\nand more")

    monkeypatch.setattr(datasets, "load_dataset_builder", offline)
    with pytest.raises(DataError, match=r"hf:no/such: cannot be loaded: Couldn't reach 'no/such'.*check the name") as e:
        open_source("hf:no/such")
    assert "\n" not in str(e.value)
    assert capfd.readouterr() == ("", "")
