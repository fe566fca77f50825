"""`hf:NAME[:SPLIT]`: a data set of the Hugging Face Hub, or a local folder that `datasets` can load."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geed_onnx.errors import DataError, UnknownName
from geed_onnx.sources.source import Form, Options, one_line, sources
from geed_onnx.sources.tables import STREAM_BYTES, STREAM_ROWS, Scratch, TableSource, quiet

_SCHEME = "hf:"
_PREFERRED = ("test", "validation", "train")


def open_hub(uri: str, options: Options) -> TableSource:
    """Return the source at `hf:NAME[:SPLIT]`; without SPLIT the test split, else validation, else train.

    A data set of more than 50,000 rows or 1 GB is streamed. Code that comes with a data set is never run.

    Raises
    ------
    DataError
        If the data set is not there, cannot be reached, or has no usable split or column.
    """
    name, split = _parts(uri)
    with Scratch() as keep, quiet():
        try:
            rows, size = _saved(name, split, uri) or _built(name, split, uri, options, keep.folder)
        except (DataError, UnknownName):
            raise
        except Exception as error:  # connection, authorisation, format: every layer has errors of its own
            raise DataError(
                f"{uri}: cannot be loaded: {one_line(error)}; check the name, the network and, for a private data "
                "set, the login (HF_TOKEN)"
            ) from error
        return keep.until_gone(TableSource(uri, rows, options, size=size))


def _parts(uri: str) -> tuple[str, str | None]:
    rest = uri.removeprefix(_SCHEME)
    # a local folder may have a colon in its name, a split a slice: train[100:200]
    if rest and Path(rest).exists():
        return rest, None
    parts = re.fullmatch(r"(?P<name>[^\s:].*?)(:(?P<split>[\w.+-]+(\[[^\[\]/]*\])?))?", rest)
    if parts is None or parts["name"].endswith(":"):
        raise DataError(f"{uri!r}: expected hf:NAME or hf:NAME:SPLIT")
    return parts["name"], parts["split"]


def _saved(name: str, split: str | None, uri: str) -> tuple[Any, int] | None:
    """Return the rows of a folder written by `save_to_disk`, if it is one."""
    import datasets

    folder = Path(name)
    if (folder / "state.json").is_file():
        if split is not None:
            raise DataError(f"{uri}: a single data set without splits was saved there; leave out :{split}")
        rows = datasets.load_from_disk(name)
    elif (folder / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(name)
        chosen = _chosen(splits, split, uri)
        if chosen not in splits:
            raise DataError(f"{uri}: a saved data set is not sliced; give one of its splits: {', '.join(splits)}")
        rows = splits[chosen]
    else:
        return None
    return rows, len(rows)


def _built(name: str, split: str | None, uri: str, options: Options, folder: Path) -> tuple[Any, int | None]:
    import datasets

    local = Path(name).is_dir()
    extra: dict[str, Any] = {"cache_dir": str(folder)} if local else {}
    if "trust_remote_code" in inspect.signature(datasets.load_dataset_builder).parameters:
        extra["trust_remote_code"] = False  # datasets 3 would ask; later ones have no such code
    builder = datasets.load_dataset_builder(name, **extra)
    infos = builder.info.splits or {}
    files = getattr(builder.config, "data_files", None) or {}
    chosen = _chosen([*(infos or files)], split, uri)
    whole = chosen.split("[")[0]
    rows_told = infos[whole].num_examples if whole in infos else None
    streams = options.streaming
    if streams is None:
        bytes_told = infos[whole].num_bytes or 0 if whole in infos else _bytes_of(files.get(whole, []) if local else [])
        # a slice of a split is cut from the whole, which a stream cannot do
        streams = whole == chosen and ((rows_told or 0) > STREAM_ROWS or bytes_told > STREAM_BYTES)
    if streams:
        if whole != chosen:
            raise DataError(f"{uri}: a stream cannot be sliced; give the split as {whole!r}")
        return builder.as_streaming_dataset(split=chosen), rows_told or None
    builder.download_and_prepare()
    rows = builder.as_dataset(split=chosen)
    return rows, len(rows)


def _bytes_of(files: Iterable[Any]) -> int:
    return sum(Path(str(file)).stat().st_size for file in files if Path(str(file)).is_file())


def _chosen(available: Iterable[str], wanted: str | None, uri: str) -> str:
    names = [str(name) for name in available]
    if wanted is not None:
        # where nothing is told about splits beforehand, `datasets` itself answers
        if names and wanted.split("[")[0] not in names:
            raise UnknownName("split", wanted, names, hint=f"in {uri}")
        return wanted
    for name in _PREFERRED:
        if name in names:
            return name
    if len(names) == 1:
        return names[0]
    raise DataError(f"{uri}: which split? There are {', '.join(names) or 'none told'}; write hf:NAME:SPLIT")


sources.register("hf", Form(lambda uri: uri.startswith(_SCHEME), open_hub, "hf:NAME[:SPLIT]"))
