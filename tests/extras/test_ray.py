"""A suite on a Ray cluster of two nodes: the same bytes as in one process, whoever dies on the way."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx_nets
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from batch_tools import contents, desk, ran, suite

from geed_onnx.batch import Task
from geed_onnx.batch import cluster as clusters
from geed_onnx.batch.bench import Bench, Prepared
from geed_onnx.batch.cluster import places
from geed_onnx.batch.ray import RayEngine
from geed_onnx.batch.tasks import Fresh, Outcome
from geed_onnx.errors import SessionError, UnknownName, UsageError
from geed_onnx.requests import Data, Model, Request, Runtime, Settings
from geed_onnx.results import CellTables
from geed_onnx.sessions import SessionFacts

SHIPPED = Path(__file__).parents[2] / "models" / "shipped"
HERE = str(Path(__file__).parent)

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


NODE = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 << 20}


def started() -> Any:
    """A cluster of one node."""
    from ray.cluster_utils import Cluster

    return Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Two nodes of one processor each, as processes of this machine."""
    held = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    # workers find the hooks below by the name of this module
    held["PYTHONPATH"] = os.pathsep.join([HERE, str(Path(HERE).parent), os.environ.get("PYTHONPATH", "")])
    before = {name: os.environ.get(name) for name in held}
    os.environ.update(held)
    cluster = started()
    try:
        cluster.add_node(**NODE)
        yield cluster.address
    finally:
        cluster.shutdown()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


# --- tasks ----------------------------------------------------------------------------------------------------------


def task(number: int, path: Path, group: str, samples: Any, data: Path = SHIPPED / "digits-test.parquet",
         **measure: Any) -> Task:  # fmt: skip
    settings, runtime = Settings(samples=samples, **measure), Runtime("cpu", 1)
    return Task(number, Request(Model(str(path), path.stem), Data(str(data), "data"), group, settings, runtime))


def shipped(*wanted: tuple[str, str, Any], **measure: Any) -> list[Task]:
    return [task(i, SHIPPED / f"{name}.onnx", group, n, **measure) for i, (name, group, n) in enumerate(wanted)]


def alone(tasks: Sequence[Task]) -> dict[int, Outcome]:
    bench = Bench(1)
    return {t.number: bench.perform(t) for t in tasks}


def done(engine: RayEngine, tasks: Sequence[Task], ticks: list[int] | None = None) -> dict[int, Outcome]:
    tick: Callable[[int], None] = (lambda n: None) if ticks is None else ticks.append
    came = list(engine.outcomes(tasks, (), (), tick))
    assert len(came) == len(tasks)
    return {o.number: o for o in came}


def bits(tables: CellTables | None) -> tuple[Any, ...] | None:
    if tables is None:
        return None
    changes = [
        c and (c.value, c.ids, c.changes.tobytes(), c.block.tobytes()) for c in (tables.value, tables.calibrated)
    ]
    return tables.deviations.ids, tables.deviations.values.tobytes(), *changes


def said(outcomes: dict[int, Outcome]) -> dict[int, Any]:
    """Everything that becomes of a run, to the last bit: lines, tables, notes, tickets."""
    cells = {
        n: [(c.result.to_json(), bits(c.tables)) for c in o.cells if isinstance(c, Fresh)] for n, o in outcomes.items()
    }
    return {n: (cells[n], o.notes, o.ticket, len(o.cells)) for n, o in sorted(outcomes.items())}


# --- what workers work with: benches with a hook ----------------------------------------------------------------------


@dataclass(frozen=True)
class Hooked:
    """Makes benches that call `hook(folder, task)` whenever a task is prepared; it comes to the workers by pickle."""

    hook: Callable[[Path, Task], None]
    folder: Path

    def __call__(self, threads: int | None) -> Bench:
        of = self

        class Watched(Bench):
            def prepare(self, task: Task) -> Prepared:
                of.hook(of.folder, task)
                return super().prepare(task)

        return Watched(threads)


def remember(folder: Path, task: Task) -> None:
    with (folder / f"{task.number}.pids").open("a") as file:
        file.write(f"{os.getpid()}\n")


def once(folder: Path, task: Task) -> bool:
    try:
        (folder / f"{task.number}.died").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def die_once(folder: Path, task: Task) -> None:
    if once(folder, task):
        os._exit(7)


def killed_once(folder: Path, task: Task) -> None:
    if once(folder, task):
        os.kill(os.getpid(), signal.SIGKILL)


def poison(folder: Path, task: Task) -> None:
    if task.request.model.name == "digits-mlp":
        os._exit(7)


def raise_ours(folder: Path, task: Task) -> None:
    raise_bare(UnknownName("tap", "latant", ["latent", "scores"]))


def raise_bare(error: Exception) -> None:
    raise error


def mistake(folder: Path, task: Task) -> None:
    raise ZeroDivisionError("a mistake of ours")


class Bad(Bench):
    """Raises an error of ours where none is turned into a row."""

    def perform(self, *args: Any, **options: Any) -> Outcome:
        raise UnknownName("tap", "latant", ["latent", "scores"])


# --- the same bits ----------------------------------------------------------------------------------------------------


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize("shards", [None, 2, 5])
def test_a_cluster_gives_the_same_bits_as_one_process(address: str, shards: int | None, tmp_path: Path) -> None:
    tasks = shipped(("digits-cnn", "C4", 40), ("digits-cnn", "C8", 20), ("digits-cnn-flax", "flip", 30),
                    ("digits-cnn-int8", "C4", 12), ("digits-mlp", "C8", 150), batch_size=16, floor=True)  # fmt: skip
    ticks: list[int] = []
    notes: list[str] = []
    engine = RayEngine(address, workers=2, shards=shards, notify=notes.append, bench=Hooked(remember, tmp_path))
    found = done(engine, tasks, ticks)
    expected = alone(tasks)
    assert said(found) == said(expected)
    assert all(c.result.value is not None for o in found.values() for c in o.cells if isinstance(c, Fresh))
    assert notes == []
    assert sum(ticks) == sum(o.passes for o in found.values())
    for number, outcome in expected.items():
        # every part but the first makes two passes of the whole once more
        assert 0 <= found[number].passes - outcome.passes <= 2 * 4
    at_work = {n: set((tmp_path / f"{n}.pids").read_text().split()) for n in found}
    if shards is not None:
        assert any(len(pids) == 2 for pids in at_work.values())  # of one task, two had a part
    assert len(set().union(*at_work.values())) == 2


@with_ray
@pytest.mark.slow
def test_a_suite_leaves_the_same_files(address: str, tmp_path: Path) -> None:
    asked = suite(desk(tmp_path), samples=(6, "all"), batch_size=8)
    one, _ = ran(asked, tmp_path / "one")
    many, log = ran(asked, tmp_path / "many", engine=RayEngine(address, workers=2, shards=3))
    assert contents(tmp_path / "many") == contents(tmp_path / "one")
    assert (many.measured, many.kept) == (one.measured, one.kept)
    assert log.notes == []
    again, log = ran(asked, tmp_path / "many", engine=RayEngine(address, workers=2, shards=3))
    assert (again.measured, log.counted) == (0, 0)
    assert contents(tmp_path / "many") == contents(tmp_path / "one")


# --- deaths -----------------------------------------------------------------------------------------------------------


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize(("hook", "shards"), [(die_once, 1), (killed_once, 3)])
def test_a_worker_that_dies_is_replaced_and_said(address: str, hook: Any, shards: int, tmp_path: Path) -> None:
    tasks = shipped(("digits-cnn", "C4", 30), ("digits-mlp", "C4", 30), batch_size=8)
    notes: list[str] = []
    engine = RayEngine(address, workers=2, shards=shards, notify=notes.append, bench=Hooked(hook, tmp_path))
    assert said(done(engine, tasks)) == said(alone(tasks))
    assert len(notes) == 2
    for name in ("digits-cnn", "digits-mlp"):
        assert any(n.startswith("Ray worker ") and n.endswith(f" died at {name} (C4): tried again") for n in notes), (
            notes
        )


class Dying:
    """A session that ends its process at its second pass of a share, once."""

    def __init__(self, session: Any, flag: Path) -> None:
        self.session, self.flag, self.calls = session, flag, 0

    @property
    def facts(self) -> SessionFacts:
        facts: SessionFacts = self.session.facts
        return facts

    def run(self, x: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            try:
                self.flag.touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os._exit(9)
        return self.session.run(x)


@dataclass(frozen=True)
class DyingBench:
    folder: Path

    def __call__(self, threads: int | None) -> Bench:
        folder = self.folder

        class Fragile(Bench):
            def prepare(self, task: Task) -> Prepared:
                prepared = super().prepare(task)
                session = Dying(prepared.plan.session, folder / f"{task.number}.died")
                return replace(
                    prepared, plan=replace(prepared.plan, opened=replace(prepared.plan.opened, connect=lambda: session))
                )

        return Fragile(threads)


@with_ray
@pytest.mark.slow
def test_a_part_whose_worker_dies_in_the_middle_is_measured_again(address: str, tmp_path: Path) -> None:
    tasks = shipped(("digits-cnn", "C8", 40), batch_size=16)
    notes: list[str] = []
    engine = RayEngine(address, workers=2, shards=4, notify=notes.append, bench=DyingBench(tmp_path))
    assert said(done(engine, tasks)) == said(alone(tasks))
    (note,) = notes
    assert "died at digits-cnn (C8), part " in note
    assert note.endswith(" of 4: tried again")


@with_ray
@pytest.mark.slow
@pytest.mark.parametrize("shards", [None, 2])
def test_a_task_that_keeps_killing_its_worker_fails_alone(address: str, shards: int | None, tmp_path: Path) -> None:
    tasks = shipped(("digits-cnn", "C4", 20), ("digits-mlp", "C4", 20), ("digits-cnn-flax", "C4", 20), batch_size=8)
    notes: list[str] = []
    engine = RayEngine(address, 2, shards, retries=1, notify=notes.append, bench=Hooked(poison, tmp_path))
    found = done(engine, tasks)
    expected = alone(tasks)
    assert {n: v for n, v in said(found).items() if n != 1} == {n: v for n, v in said(expected).items() if n != 1}
    (cell,) = found[1].cells
    assert isinstance(cell, Fresh)
    assert cell.result.failed
    assert cell.result.value is None
    assert cell.result.reason == "the worker process died, 2 times at this model; it may want more memory"
    assert [n.partition(" died ")[2] for n in notes] == [
        "at digits-mlp (C4): tried again",
        "at digits-mlp (C4): given up",
    ]


@with_ray
@pytest.mark.slow
def test_a_node_that_goes_is_done_without(address: str, tmp_path: Path) -> None:
    import ray

    cluster = started()
    try:
        second = cluster.add_node(**NODE)
        tasks = shipped(*(("digits-cnn", "C8", 40 + i) for i in range(6)), batch_size=16)
        notes: list[str] = []
        engine = RayEngine(cluster.address, workers=2, retries=3, notify=notes.append)
        found = {}
        for outcome in engine.outcomes(tasks, (), (), lambda n: None):
            if not found:
                cluster.remove_node(second, allow_graceful=False)
            found[outcome.number] = outcome
        assert said(found) == said(alone(tasks))
        assert all("tried again" in note for note in notes)
    finally:
        ray.shutdown()
        cluster.shutdown()


# --- errors -----------------------------------------------------------------------------------------------------------


@with_ray
@pytest.mark.slow
def test_what_cannot_be_measured_is_told_as_in_one_process(address: str, tmp_path: Path) -> None:
    onnx.save(onnx_nets.nan_tap(), str(tmp_path / "nan.onnx"))
    data = desk(tmp_path, models=1, images=40, size=8) / "images.npy"
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    names = ("nan", "net0", "broken", "missing")
    tasks = [task(i, tmp_path / f"{name}.onnx", "C4", "all", data, batch_size=8) for i, name in enumerate(names)]
    expected = said(alone(tasks))
    assert any('"failed": true' in line for line, _ in expected[0][0])
    assert said(done(RayEngine(address, workers=2, shards=3), tasks)) == expected


@with_ray
@pytest.mark.slow
def test_errors_keep_their_class_and_text(address: str, tmp_path: Path) -> None:
    tasks = shipped(("digits-cnn", "C4", 8))
    with pytest.raises(UnknownName) as raised:
        done(RayEngine(address, workers=1, bench=Bad), tasks)
    assert str(raised.value) == "unknown tap 'latant': did you mean 'latent'?"
    assert (raised.value.what, raised.value.name, raised.value.exit_code) == ("tap", "latant", 2)
    # whole or in shares, a mistake of ours is a row too, as in one process: the others go on
    for shards in (None, 2):
        (cell,) = done(RayEngine(address, workers=2, shards=shards, bench=Hooked(mistake, tmp_path)), tasks)[0].cells
        assert isinstance(cell, Fresh)
        assert cell.result.failed
        assert str(cell.result.reason).startswith("unexpected ZeroDivisionError: a mistake of ours (this is a bug")
    (cell,) = done(RayEngine(address, workers=1, bench=Hooked(raise_ours, tmp_path)), tasks)[0].cells
    assert isinstance(cell, Fresh)
    assert cell.result.reason == "unknown tap 'latant': did you mean 'latent'?"


@with_ray
@pytest.mark.slow
def test_no_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = shipped(("digits-cnn", "C4", 8))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        monkeypatch.setattr(clusters, "ANSWER_SECONDS", 8)
        with pytest.raises(SessionError, match=rf"no Ray cluster answers at '127.0.0.1:{port}' within 8 s; start one"):
            done(RayEngine(f"127.0.0.1:{port}"), tasks)
    with pytest.raises(
        SessionError, match=rf"answers at '127.0.0.1:{port}' \(Connection refused\); start one with ray"
    ):
        done(RayEngine(f"127.0.0.1:{port}"), tasks)
    with pytest.raises(UsageError, match="--address 'nonsense' is no address of a Ray cluster: expected HOST:PORT"):
        done(RayEngine("nonsense"), tasks)


LOCAL = """
import sys
from geed_onnx.batch.ray import RayEngine
from geed_onnx.batch import Task
from geed_onnx.requests import Data, Model, Request, Runtime, Settings

def main():
    model, data = sys.argv[1:]
    job = Request(Model(model, "m"), Data(data, "data"), "C4", Settings(samples=10), Runtime("cpu", 1))
    for _ in range(2):  # twice: a cluster of our own leaves room for the next
        for outcome in RayEngine(workers=2).outcomes([Task(0, job)], (), (), lambda n: None):
            print(outcome.cells[0].result.to_json())

main()
"""


@with_ray
@pytest.mark.slow
def test_a_cluster_of_our_own_says_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    home, scratch = tmp_path / "home", tmp_path / "t"
    home.mkdir()
    scratch.mkdir()
    model, data = SHIPPED / "digits-cnn.onnx", SHIPPED / "digits-test.parquet"
    before = set(Path("/tmp").glob("geed-ray-*"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    found = subprocess.run(
        [sys.executable, "-c", LOCAL, str(model), str(data)], capture_output=True, text=True, timeout=180,
        env={**environment, "HOME": str(home), "TMPDIR": str(scratch)},
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    (expected, *_) = [c.result.to_json() for c in alone([task(0, model, "C4", 10)])[0].cells if isinstance(c, Fresh)]
    assert found.stdout.splitlines() == [expected.replace('"name": "digits-cnn"', '"name": "m"')] * 2
    assert set(Path("/tmp").glob("geed-ray-*")) <= before
    assert not (home / ".ray").exists()
    assert list(scratch.glob("geed-*")) == []  # nor do workers leave what they unpacked
    assert str(tmp_path) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


# --- without a cluster ------------------------------------------------------------------------------------------------


def test_without_ray_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(UsageError, match=r"--engine ray needs Ray, .* pip install 'geed-onnx\[ray\]'"):
        RayEngine()


@with_ray
@pytest.mark.parametrize("asked", [{"workers": 0}, {"shards": 0}, {"retries": -1}])
def test_numbers_that_cannot_be_meant(asked: dict[str, int]) -> None:
    (word,) = asked
    with pytest.raises(UsageError, match=f"{word} must be at least"):
        RayEngine(**asked)  # type: ignore[arg-type]


@dataclass
class Nodes:
    """As much of Ray as `places` looks at."""

    given: tuple[tuple[str, dict[str, float]], ...]

    def nodes(self) -> list[dict[str, Any]]:
        dead = {"NodeID": "dead", "Alive": False, "Resources": {"CPU": 64.0}}
        return [dead, *({"NodeID": n, "Alive": True, "Resources": r} for n, r in self.given)]


def test_workers_divide_the_cores_of_their_node() -> None:
    two = Nodes((("a", {"CPU": 8.0}), ("b", {"CPU": 2.0}), ("head", {})))
    assert [(p.node, p.cpus, p.threads) for p in places(two, None, "auto")] == [("a", 4, 4), ("a", 4, 4), ("b", 2, 2)]
    assert [(p.node, p.cpus, p.threads) for p in places(two, 3, "cpu")] == [("a", 2, 2)] * 3
    assert [p.node for p in places(two, 5, "cpu")].count("b") == 1
    crowded = places(Nodes((("a", {"CPU": 2.0}),)), 3, "cpu")
    assert [(p.cpus, p.threads) for p in crowded] == [(0.666, 1)] * 3
    assert sum(p.cpus for p in crowded) <= 2


def test_one_worker_a_device() -> None:
    mixed = Nodes((("a", {"CPU": 8.0, "GPU": 2.0}), ("b", {"CPU": 4.0})))
    assert [(p.node, p.gpus, p.cpus, p.threads) for p in places(mixed, None, "auto")] == [("a", 1, 4, None)] * 2
    assert len(places(mixed, 1, "cuda")) == 1
    assert [p.gpus for p in places(mixed, None, "cpu")] == [0, 0, 0]
    with pytest.raises(SessionError, match="no node with a CPU"):
        places(Nodes((("head", {}),)), None, "auto")
