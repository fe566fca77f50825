"""A Ray cluster to work on: one that is there already, or one that is started here and leaves nothing behind."""

from __future__ import annotations

import importlib.util
import logging
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from geed_onnx.ending import at_end, put_away, temporary_folder
from geed_onnx.errors import SessionError, UsageError

#: What a cluster of our own keeps of objects in shared memory, in bytes: tables are small.
STORE_BYTES = 100 << 20
#: Seconds within which a cluster must answer.
ANSWER_SECONDS = 30
#: A session of ONNX Runtime keeps this many cores busy; more of them want more sessions.
CORES_OF_A_WORKER = 4


@dataclass(frozen=True)
class Place:
    """Where one worker goes: a node, and what it takes of it."""

    node: str
    cpus: float
    gpus: int
    threads: int | None
    """of ONNX Runtime; None on a device"""


def check_installed() -> None:
    """Raise unless Ray is there.

    Raises
    ------
    UsageError
        If it is not.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("--engine ray needs Ray, which is not installed: pip install 'geed-onnx[ray]'")


@contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Yield the module `ray`, connected; what was started or connected here is ended again.

    A program that is connected already keeps its own connection.

    Raises
    ------
    UsageError
        If Ray is not installed.
    SessionError
        If no cluster answers at `address` within `ANSWER_SECONDS`, or none can be started here.
    """
    check_installed()
    ours = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address is None:
        # a cluster of our own has a token of its own, which is not written into the home folder
        ours |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _token()}
    with _environment(ours), _hushed():
        import ray

        if ray.is_initialized():
            yield ray
            return
        if address is not None:
            _probe(address)
        folder = None if address is not None else temporary_folder(_short_folder(), "geed-ray-")
        with at_end(ray.shutdown):
            try:
                _init(ray, address, folder)
                yield ray
            finally:
                ray.shutdown()
                if folder is not None:
                    put_away(folder)


def _init(ray: Any, address: str | None, folder: Path | None) -> None:
    how: dict[str, Any] = {"address": address}
    if address is None:
        how = {"address": "local", "num_cpus": cores(), "include_dashboard": False, "_temp_dir": str(folder)}
        how["object_store_memory"] = STORE_BYTES
    try:
        ray.init(**how, log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises ConnectionError, ValueError, RuntimeError and more
        what = "start a Ray cluster here" if address is None else f"connect to the Ray cluster at {address!r}"
        raise SessionError(f"cannot {what}: {first_line(error)}") from error


def _probe(address: str) -> None:
    """Raise unless a cluster answers: Ray itself would wait for minutes, and may end the whole process."""
    advice = "start one with ray start --head, or give its --address as HOST:PORT, ray://HOST:PORT or auto"
    where = f"no Ray cluster answers at {address!r}"
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto":
        if not host or not port.isdigit() or int(port) > 65535:
            raise UsageError(f"--address {address!r} is no address of a Ray cluster: expected HOST:PORT (that of ray"
                             " start --head, port 6379), ray://HOST:PORT or auto")  # fmt: skip
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS / 3).close()
        except OSError as error:
            raise SessionError(f"{where} ({error.strerror or error}); {advice}") from None
    code = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); print('answered')"
    try:
        found = subprocess.run(
            [sys.executable, "-c", code, address], capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise SessionError(f"{where} within {ANSWER_SECONDS} s; {advice}") from None
    if "answered" not in found.stdout:
        lines = [line.strip() for line in found.stderr.splitlines() if line.strip()]
        raise SessionError(f"{where} ({lines[-1] if lines else f'exit code {found.returncode}'}); {advice}")


def places(ray: Any, workers: int | None, provider: str) -> list[Place]:
    """Return where to put the workers: one a device, else one for every `CORES_OF_A_WORKER` cores of a node.

    `workers` on CPUs go to the nodes in turn, and divide the cores of their node; on devices it is the most there are.

    Raises
    ------
    SessionError
        If the cluster has no processors.
    """
    nodes = {n["NodeID"]: n["Resources"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("CPU", 0) > 0}
    if not nodes:
        raise SessionError("the Ray cluster has no node with a CPU: is it still starting?")
    devices = [node for node, has in nodes.items() for _ in range(int(has.get("GPU", 0)))]
    if devices and provider.lower() not in ("cpu", "cpuexecutionprovider"):
        return [_place(n, nodes[n], devices.count(n), 1) for n in devices[:workers]]
    if workers is None:
        chosen = [n for n, has in nodes.items() for _ in range(max(1, int(has["CPU"]) // CORES_OF_A_WORKER))]
    else:
        # the node with most cores for each of its workers is next
        chosen = []
        for _ in range(workers):
            chosen.append(max(nodes, key=lambda n: nodes[n]["CPU"] / (chosen.count(n) + 1)))
    return [_place(n, nodes[n], chosen.count(n), 0) for n in chosen]


def _place(node: str, has: Mapping[str, float], count: int, gpus: int) -> Place:
    share = has["CPU"] / count
    # Ray takes whole processors, or thousandths below one
    return Place(
        node, int(share) if share >= 1 else int(1000 * share) / 1000, gpus, None if gpus else max(1, int(share))
    )


def cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# --- surroundings -----------------------------------------------------------------------------------------------


@cache
def _token() -> str:
    return secrets.token_hex(32)  # one a process, because Ray reads it once


def _short_folder() -> str | None:
    """Return a folder for sockets, whose paths the system limits to about a hundred characters."""
    return "/tmp" if len(tempfile.gettempdir()) > 20 and Path("/tmp").is_dir() else None


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set, for the time being."""
    mine = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep what Ray says of itself off the terminal: deaths are said in our own words, and stdout is data."""
    import ray._private.worker as worker

    logger = logging.getLogger("ray")
    level, said = logger.level, getattr(worker, "print_to_stdstream", None)
    logger.setLevel(logging.CRITICAL)
    if said is not None:
        worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        logger.setLevel(level)
        if said is not None:
            worker.print_to_stdstream = said
