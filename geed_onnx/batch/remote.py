"""Addresses that are no path of this machine, by fsspec: models and data fetched, a run's folder kept in step."""

from __future__ import annotations

import hashlib
import os
import posixpath
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from geed_onnx.ending import put_away, temporary_file
from geed_onnx.errors import DataError, UsageError


def is_remote(address: str) -> bool:
    """Say whether an address names another place than a path of this machine."""
    return "://" in address


def local_copy(address: str) -> str:
    """Return a path with the content of an address: itself, or a copy of a remote file or folder.

    A model's external data beside it come with it.  A copy is fetched again when the remote size or time has changed.

    Raises
    ------
    DataError
        If it cannot be fetched.
    """
    if not is_remote(address):
        return address
    fs, path = filesystem(address)
    try:
        fs.invalidate_cache()
        info = fs.info(path)
        if info.get("type") == "directory":
            inside = fs.find(path, detail=True)
            return str(_fetched(fs, path, sorted(inside), _mark(address, *(inside[p] for p in sorted(inside)))))
        folder = _fetched(fs, posixpath.dirname(path), [path], _mark(address, info))
        local = folder / posixpath.basename(path)
        if local.suffix.lower() == ".onnx":
            _fetch_external(fs, posixpath.dirname(path), local)
        return str(local)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {address!r}: {_said(error)}") from None


def filesystem(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address and the path in it.

    Raises
    ------
    UsageError
        If the protocol is not known, or what it needs is not installed.
    """
    import fsspec

    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise UsageError(f"cannot open {address!r}: {_said(error)}") from None
    return fs, str(path)


def _said(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def _mark(address: str, *infos: dict[str, Any]) -> str:
    told = ("name", "size", "mtime", "created", "LastModified", "ETag", "etag")
    facts = [address, *(str(info.get(k)) for info in infos for k in told)]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:24]


def cache_folder() -> Path:
    """Return where fetched files and the working folders of remote runs are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "geed-onnx"


def _fetched(fs: Any, root: str, paths: Iterable[str], mark: str) -> Path:
    folder = cache_folder() / "files" / mark
    for path in paths:
        _fetch(fs, path, folder / posixpath.relpath(path, root))
    return folder


def _fetch(fs: Any, path: str, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = temporary_file(target.parent, ".fetching.")
    file.close()
    try:
        fs.get_file(path, str(temporary))
        os.replace(temporary, target)
    finally:
        put_away(temporary)


def _fetch_external(fs: Any, root: str, local: Path) -> None:
    from geed_onnx.taps import external_files

    for place in external_files(local):
        _fetch(fs, posixpath.join(root, place.relative_to(local.parent).as_posix()), place)


class Mirror:
    """A run's folder at a remote address: fetched before the run, and sent there as it grows.

    Every file is sent whole.  The journal of each task is a file of its own, sent the moment the task ends, so that a
    killed run is taken up again from any machine.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self._fs, self._root = filesystem(self.address)
        name = hashlib.sha256(self.address.encode()).hexdigest()[:24]
        self.folder = cache_folder() / "runs" / name
        self._sent: dict[str, tuple[int, int]] = {}
        self._last = time.monotonic()

    def fetch(self) -> None:
        """Bring what is there to `folder`, in place of what an earlier run from here left.

        Raises
        ------
        DataError
            If it cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._fs.invalidate_cache()
            there = self._fs.find(self._root) if self._fs.exists(self._root) else []
            wanted = {posixpath.relpath(path, self._root): path for path in there}
            for local in [p for p in self.folder.rglob("*") if p.is_file() and p.name != ".lock"]:
                local.unlink()
            for name, path in wanted.items():
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(path, str(target))
                self._sent[name] = _stamp(target)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {self.address!r}: {_said(error)}") from None

    def send(self, after: float = 0.0) -> None:
        """Send every file that changed, and remove there what is gone here; unless that was done `after` seconds ago.

        Raises
        ------
        DataError
            If it cannot be written.
        """
        if time.monotonic() - self._last < after:
            return
        self._last = time.monotonic()
        files = {p.relative_to(self.folder).as_posix(): p for p in self.folder.rglob("*") if p.is_file()}
        here = {name: p for name, p in files.items() if not p.name.startswith(".") or "/" in name}
        try:
            for name, path in here.items():
                if (stamp := _stamp(path)) != self._sent.get(name):
                    target = posixpath.join(self._root, name)
                    self._fs.makedirs(posixpath.dirname(target), exist_ok=True)
                    self._fs.put_file(str(path), target)
                    self._sent[name] = stamp
            for name in [n for n in self._sent if n not in here]:
                self._fs.rm_file(posixpath.join(self._root, name))
                del self._sent[name]
        except (OSError, ValueError) as error:
            raise DataError(f"cannot write to {self.address!r}: {_said(error)}") from None


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
