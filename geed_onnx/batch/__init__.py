"""Many cells: run, killed, resumed; on processes, devices or a cluster; every line written the moment it is known."""

from __future__ import annotations

from geed_onnx.batch.run import Ran, Watcher, run_suite, tasks_of
from geed_onnx.batch.tasks import Outcome, Task
from geed_onnx.batch.workers import Engine, Here, Processes

__all__ = ["Engine", "Here", "Outcome", "Processes", "Ran", "Task", "Watcher", "run_suite", "tasks_of"]
