"""Signals: the command line ends with one line and leaves nothing behind, whatever they arrive in; nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_nets as nets
import pytest
from batch_tools import contents
from process_tools import gone, proc, until, whole_work

from geed_onnx.results import RESULTS, open_results

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of this kind are POSIX's")

SUITE = """
groups = ["C4", "C8"]
samples = 12
data = "images.npz"
[measure]
provider = "cpu"
threads = 1
[[models]]
path = "net*.onnx"
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, and images in a compressed file, so that a source has a temporary folder."""
    folder = tmp_path_factory.mktemp("desk")
    for i in range(3):
        onnx.save(nets.cnn(size=12, channels=(2, 3), classes=4, seed=i), str(folder / f"net{i}.onnx"))
    x = np.random.default_rng(0).random((24, 1, 12, 12), dtype=np.float32)
    np.savez_compressed(folder / "images.npz", x=x)
    (folder / "suite.toml").write_text(SUITE)
    return folder


# --- processes ------------------------------------------------------------------------------------------------------


def begun(args: list[str], desk: Path, temporary: Path) -> subprocess.Popen[str]:
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "geed_onnx", *args], cwd=desk, env={**os.environ, "TMPDIR": str(temporary)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    said: str
    left: list[str]  # in the folder of temporary files

    @property
    def interrupted(self) -> bool:
        """Whether it was in time; asserts that it then ended as it must."""
        assert "Traceback" not in self.said
        assert "ignored" not in self.said
        assert self.left == []
        if self.code == 130:
            *before, last = self.said.splitlines()
            assert last == "error: interrupted"
            assert all(line.startswith("run: ") for line in before)  # what a run says when it has just ended
            return True
        assert self.code == 0  # it was over before
        return False


def ended(child: subprocess.Popen[str], temporary: Path) -> Ended:
    out, said = child.communicate(timeout=120)
    assert gone(child.pid)
    return Ended(child.returncode, out, said, left_in(temporary))


def left_in(temporary: Path) -> list[str]:
    """What lies in a folder of temporary files, but for ONNX Runtime's own, which it writes when it is loaded."""
    return sorted(set(os.listdir(temporary)) - {".ses"})


def interrupted_at(
    share: float, whole: int, args: list[str], desk: Path, temporary: Path, *, all_of_them: bool
) -> Ended:
    """Run, with Ctrl-C after a share of the whole work: to every process, as a terminal does, or to the first alone."""
    child = begun(args, desk, temporary)
    until(child, share * whole, answering=True)
    if child.poll() is None:
        (os.killpg if all_of_them else os.kill)(child.pid, signal.SIGINT)
    return ended(child, temporary)


def undisturbed(args: list[str], desk: Path, temporary: Path) -> int:
    child = begun(args, desk, temporary)
    done = whole_work(child)
    assert ended(child, temporary).code == 0
    return done


# --- fifty interrupts, spread over whole runs -----------------------------------------------------------------------


@proc
@pytest.mark.slow
def test_thirty_interrupts_of_measure(desk: Path, tmp_path: Path) -> None:
    def args(i: str) -> list[str]:
        (tmp_path / i).mkdir()
        return ["measure", "net0.onnx", "--data", "images.npz", "--group", "C8", "--json",
                "-o", str(tmp_path / i / "out.jsonl"), "--tables"]  # fmt: skip

    (tmp_path / "temporary").mkdir()
    whole = undisturbed([*args("whole"), "--samples", "all"], desk, tmp_path / "temporary" / "whole")

    def one(i: int) -> bool:
        asked = [*args(str(i)), "--samples", "all"]
        found = interrupted_at(i / 30, whole, asked, desk, tmp_path / "temporary" / str(i), all_of_them=i % 2 == 0)
        written = {p.name for p in (tmp_path / str(i)).iterdir()}
        assert written <= {"out.jsonl", "out.deviations.parquet", "out.jackknife.parquet"}
        if "out.jsonl" in written:
            assert (tmp_path / str(i) / "out.jsonl").read_bytes() == (tmp_path / "whole" / "out.jsonl").read_bytes()
        return found.interrupted

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(one, range(30))) >= 15, "most came after the end: too little was tried"


@proc
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ten_interrupts_of_a_run_lose_nothing(desk: Path, tmp_path: Path, workers: str) -> None:
    def args(folder: str) -> list[str]:
        return ["run", "suite.toml", "-o", str(tmp_path / folder), "--workers", workers]

    whole = undisturbed(args("whole"), desk, tmp_path / "temporary")
    expected = contents(tmp_path / "whole")

    def one(i: int) -> int:
        """Interrupt one run five times, then let it end."""
        temporary, folder = tmp_path / f"temporary{i}", tmp_path / f"run{i}"
        count = 0
        for step in range(5):
            share = (2 * step + i + 1) / 11
            found = interrupted_at(share, whole, args(folder.name), desk, temporary, all_of_them=(step + i) % 2 == 0)
            count += found.interrupted
            hidden = [p.name for p in folder.rglob(".*")] if folder.exists() else []
            assert set(hidden) <= {".journal", ".lock"}
            if (folder / RESULTS).exists():
                assert (folder / RESULTS).read_bytes()[-1:] in (b"", b"\n")
                open_results(folder)
        last = ended(begun(args(folder.name), desk, temporary), temporary)
        assert (last.code, last.left) == (0, [])
        assert contents(folder) == expected
        return count

    with ThreadPoolExecutor(2) as threads:
        assert sum(threads.map(one, range(2))) >= 4, "most came after the end: too little was tried"


@proc
def test_a_run_that_is_told_to_terminate_says_so_and_ends_its_workers(desk: Path, tmp_path: Path) -> None:
    args = ["run", "suite.toml", "-o", str(tmp_path / "run"), "--workers", "2"]
    child = begun(args, desk, tmp_path / "temporary")
    while not (tmp_path / "run" / ".lock").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.terminate()
    found = ended(child, tmp_path / "temporary")
    assert (found.code, found.out, found.said, found.left) == (143, "", "error: terminated\n", [])


# --- wherever it arrives --------------------------------------------------------------------------------------------

BEGIN = """
import os, signal, sys, weakref
from pathlib import Path
from geed_onnx.ending import at_end, answer_signals, put_away, starting_a_process, temporary_file, temporary_folder
from geed_onnx.ending import ignore_signals, unbroken
def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000): pass
class Thing: pass
thing = Thing()
answer_signals()
"""


def script(text: str, temporary: Path) -> Ended:
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + text], env={**os.environ, "TMPDIR": str(temporary)}, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr, left_in(temporary))


@pytest.mark.parametrize(
    "text",
    [
        "ref = weakref.ref(thing, interrupt); del thing; print('on')",
        "weakref.finalize(thing, interrupt); del thing; print('on')",
        "Thing.__del__ = interrupt; del thing; print('on')",
        "import atexit; atexit.register(interrupt)",
        "import gc; gc.callbacks.append(interrupt); gc.collect(); print('on')",
        "sorted([1, 2], key=interrupt); print('on')",
        "import threading; threading.Thread(target=interrupt).start(); signal.pause()",
        "folder = temporary_folder(); (folder / 'x').write_text('x'); interrupt(); print('on')",
        "path, file = temporary_file(temporary_folder(), '.x.'); file.write(b'x'); interrupt(); print('on')",
        "temporary_folder()\nwith unbroken():\n    interrupt(); print('on')",
        "sys.stderr.write(''); sys.stderr.flush()\ntry: interrupt()\nexcept BaseException: print('on')",
    ],
    ids=["a weak reference", "a finalizer", "__del__", "at exit", "a collection", "a sort", "a thread",
         "with a folder", "with a file", "while writing", "in a try"],
)  # fmt: skip
def test_an_interrupt_raises_nothing_wherever_it_arrives(text: str, tmp_path: Path) -> None:
    found = script(text, tmp_path / "temporary")
    assert (found.out, found.interrupted) == ("", True)


def test_what_is_to_be_done_at_the_end_is_done_once_and_a_failure_in_it_is_not_told(tmp_path: Path) -> None:
    found = script(
        "with at_end(lambda: print('over', flush=True)): pass\n"
        "with at_end(lambda: print('later', flush=True)), at_end(lambda: 1 / 0), at_end(lambda: print('first')):\n"
        "    interrupt()",
        tmp_path / "temporary",
    )
    assert found.interrupted
    assert found.out == "first\nlater\n"


def test_a_write_in_another_thread_comes_to_its_end_first(tmp_path: Path) -> None:
    found = script(
        "import threading, time\n"
        "begun = threading.Event()\n"
        "def write():\n"
        "    with unbroken(), open(sys.argv[0] if False else os.environ['TMPDIR'] + '/kept', 'w') as file:\n"
        "        begun.set(); time.sleep(0.3); file.write('whole')\n"
        "threading.Thread(target=write).start(); begun.wait(); interrupt()",
        tmp_path / "temporary",
    )
    assert (found.code, found.said, found.left) == (130, "error: interrupted\n", ["kept"])
    assert (tmp_path / "temporary" / "kept").read_text() == "whole"


def test_a_second_interrupt_waits_for_nothing(tmp_path: Path) -> None:
    found = script(
        "import time\nwith at_end(lambda: (interrupt(), time.sleep(1000))): interrupt()", tmp_path / "temporary"
    )
    assert found.interrupted


def test_no_process_is_lost_while_it_starts_and_ctrl_c_is_not_its_to_answer(tmp_path: Path) -> None:
    found = script(
        "import subprocess\n"
        "with starting_a_process():\n"
        "    interrupt(); print('held', flush=True)\n"
        "    mask = 'import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))'\n"
        "    subprocess.run([sys.executable, '-c', mask])\n"
        "print('on')",
        tmp_path / "temporary",
    )
    assert found.interrupted
    assert found.out == "held\nTrue\n"


def test_a_signal_that_is_ignored_stays_so_and_one_after_the_end_changes_nothing(tmp_path: Path) -> None:
    ignored = "signal.signal(signal.SIGINT, signal.SIG_IGN); answer_signals(); interrupt(); print('on')"
    after = "ignore_signals(); interrupt(); os.kill(os.getpid(), signal.SIGTERM); print('on')"
    for i, text in enumerate((ignored, after)):
        found = script(text, tmp_path / str(i))
        assert (found.code, found.out, found.said) == (0, "on\n", "")


# --- the library ----------------------------------------------------------------------------------------------------

LIBRARY = """
import os, signal, sys
from geed_onnx import measure
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
def progress(done, total):
    os.kill(os.getpid(), signal.SIGINT)
try:
    measure("net0.onnx", "images.npz", "C4", samples="all", progress=progress)
except KeyboardInterrupt:
    print("caught", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def test_a_program_that_measures_gets_its_keyboard_interrupt(desk: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], cwd=desk, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "caught True\n", "")
    assert left_in(tmp_path) == []


def test_temporary_files_are_the_users_own_and_go(tmp_path: Path) -> None:
    from geed_onnx.ending import put_away, temporary_file, temporary_folder

    folder = temporary_folder(str(tmp_path))
    assert folder.stat().st_mode & 0o777 == 0o700
    path, file = temporary_file(folder, ".out.")
    with file:
        file.write(b"x")
    assert path.stat().st_mode & 0o777 == 0o600
    put_away(path)
    put_away(path)  # what is not there is put away
    assert list(folder.iterdir()) == []
    (folder / "inside").write_text("x")
    put_away(folder)
    assert list(tmp_path.iterdir()) == []
    assert Path(tempfile.gettempdir()) == temporary_folder().parent
