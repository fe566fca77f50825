"""What must not outlive this process, and how the command line ends when a signal tells it to.

An exception that a signal raises comes up wherever the main thread happens to be: in the callback of a weak reference,
in ``__del__``, halfway through an import, where nobody catches it and a traceback is printed.  So the command line
raises nothing.  Its handler, the one place where signals are answered, ends the child processes, lets a write that has
begun come to its end, removes what is temporary, says one line and leaves, without unwinding.  What is measured needs
no more: it is fsynced task by task, and every other file takes its place whole, by being renamed.

The library answers no signals: a program that calls `geed_onnx.measure` gets its KeyboardInterrupt.
"""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

#: Signals that end the command line, and the one line that is said of it; the exit code is 128 and the signal's number.
SAID = {signal.SIGINT: "error: interrupted\n", signal.SIGTERM: "error: terminated\n"}
#: Seconds a child process, or a write that has begun, is waited for.
PATIENCE = 5.0

#: Held while something is written that is to be whole, or temporary, and known as that before it is there. The handler
#: takes it and keeps it; it runs in the main thread, which may be holding it already.
_writing = threading.RLock()
_paths: set[Path] = set()
_acts: dict[object, Callable[[], object]] = {}
_starting = 0
_postponed: list[int] = []


# --- what must not outlive this process ---------------------------------------------------------------------------


def unbroken() -> AbstractContextManager[bool]:
    """Return the lock within which a signal does not break off what is written; for moments, not for work."""
    return _writing


def temporary_folder(parent: str | None = None, prefix: str = "geed-onnx-") -> Path:
    """Make a folder that is gone when this process is, however that is told to end; `put_away` removes it before."""
    path = Path(parent or tempfile.gettempdir()) / f"{prefix}{secrets.token_hex(8)}"
    with _writing:
        _paths.add(path)
        path.mkdir(mode=0o700)
    return path


def temporary_file(folder: Path, prefix: str) -> tuple[Path, IO[bytes]]:
    """Make and open a file that the user alone may read; gone as `temporary_folder`, unless it is renamed."""
    path = folder / f"{prefix}{secrets.token_hex(8)}"
    with _writing:
        _paths.add(path)
        return path, open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600))


def put_away(path: Path) -> None:
    """Remove a temporary file or folder, if it is there."""
    if path.is_dir():
        for _ in range(3):  # another thread may be writing to it
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                break
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
    _paths.discard(path)


def _put_all_away() -> None:
    for path in list(_paths):
        put_away(path)


atexit.register(_put_all_away)


@contextmanager
def at_end(act: Callable[[], object]) -> Iterator[None]:
    """Have `act` called if a signal ends the process meanwhile."""
    place = object()
    _acts[place] = act
    try:
        yield
    finally:
        _acts.pop(place, None)


@contextmanager
def starting_a_process() -> Iterator[None]:
    """Answer no signal until a child process is known as one; it is deaf to Ctrl-C, which is its parent's to answer."""
    global _starting
    if os.name == "posix":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # or starting a process starts it first, which lets signals through again
    _starting += 1
    mask = getattr(signal, "pthread_sigmask", None)  # a child inherits it; not on Windows
    before = mask(signal.SIG_BLOCK, {signal.SIGINT}) if mask is not None else None
    try:
        yield
    finally:
        if mask is not None:
            mask(signal.SIG_SETMASK, before)
        _starting -= 1
        if not _starting and _postponed:
            _leave(_postponed[0])


# --- signals ------------------------------------------------------------------------------------------------------


def answer_signals() -> None:
    """Have SIGINT and SIGTERM end this process, the command line's; one that is ignored or answered stays so."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is usual:
            signal.signal(number, _answer)


def answer_as_a_worker() -> None:
    """Have SIGTERM, the parent's word, end this process and put away what is temporary; Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _answer_silently)


def ignore_signals() -> None:
    """Let what is done be done: from here on a signal that is answered changes nothing."""
    for number in SAID:
        if signal.getsignal(number) is _answer:
            signal.signal(number, signal.SIG_IGN)


def _answer(number: int, frame: FrameType | None) -> None:
    if _starting:
        _postponed.append(number)
    else:
        _leave(number)


def _answer_silently(number: int, frame: FrameType | None) -> None:
    _end(0, "")


def _leave(number: int) -> None:
    _end(128 + number, SAID[signal.Signals(number)])


def _end(code: int, line: str) -> None:
    """Leave this process at once, with nothing left behind; a further signal does not even wait for that."""

    def leave(*_: object) -> None:
        _say(line)
        os._exit(code)

    try:
        for number in SAID:
            signal.signal(number, leave)
        _end_children()
        _writing.acquire(timeout=PATIENCE)
        for act in reversed(list(_acts.values())):
            with suppress(Exception):
                act()
        _put_all_away()
    finally:
        leave()


def _end_children() -> None:
    """End the processes that were started here: they put away what they have, and are killed if they do not end."""
    known = getattr(sys.modules.get("multiprocessing"), "active_children", None)
    children = known() if known is not None else []
    for child in children:
        child.terminate()
    for child in children:
        child.join(PATIENCE)
        child.kill()
        child.join()


def _say(line: str) -> None:
    """Write to stderr without Python's buffer, which the main thread may be in the middle of."""
    with suppress(OSError):
        if line and os.isatty(2):
            line = f"\r\x1b[K\x1b[?25h{line}"  # a progress bar leaves its line, and a cursor that it has hidden
        os.write(2, line.encode())
