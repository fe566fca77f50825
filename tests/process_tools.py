"""What the tests of whole processes share: how far one is, by the work it has done and not by the clock."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc to see how far a process is")


def members(group: int) -> list[list[str]]:
    """What /proc says of the processes of a group, from the state on, but for those that nobody has buried yet."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(fields)
    return found


def work_done(group: int) -> int:
    """Clock ticks that the processes of a group have computed: how far they are, however loaded the machine is."""
    return sum(sum(map(int, fields[11:15])) for fields in members(group))


def answers(pid: int) -> bool:
    """Say whether a process handles SIGTERM: Python by itself does not."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def until(child: subprocess.Popen[Any], ticks: float, *, answering: bool = False) -> None:
    """Wait until the group of a process has done so much work (and answers signals), or has ended."""
    while child.poll() is None and not (work_done(child.pid) >= ticks and (answers(child.pid) or not answering)):
        time.sleep(0.02)  # a look at every process costs about 3 ms


def whole_work(child: subprocess.Popen[Any]) -> int:
    """Let a process end; return the clock ticks that its group took."""
    done = 0
    while child.poll() is None:
        done = max(done, work_done(child.pid))
        time.sleep(0.05)
    return done


def gone(group: int) -> bool:
    """Say whether no process of a group is left; the tracker of shared memory ends a moment after the others."""
    for _ in range(400):
        if not members(group):
            return True
        time.sleep(0.05)
    return False
