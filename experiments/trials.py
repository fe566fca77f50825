"""One training after another, resumable: the loop that every experiment shares.

A trial is one network trained once. It lives in a folder of its own:

    step0.onnx, step200.onnx, …   the network at each checkpoint, as geed-onnx measures it
    final.onnx                    the last of them, whatever its number
    history.jsonl                 a line for each checkpoint: step, loss, accuracies, seconds
    state.pt                      weights and optimiser at the last checkpoint; kept, so that others may start from them
    done.json                     written at the end: the recipe, and the versions that trained it

A trial that is killed goes on from its last checkpoint, and ends with the same weights: what is random at a step is
drawn from the trial's seed and the number of the step alone.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from experiments.places import parser, shared_folder, work_folder


@dataclass(frozen=True)
class Recipe:
    """How a trial is trained; all of it goes into the ONNX files' `geed.source`."""

    seed: int
    steps: int
    every: int
    batch: int = 64
    learning_rate: float = 3e-3
    """The largest of the cycle."""
    weight_decay: float = 1e-2


class Learner(Protocol):
    """What is trained, and how; made by a trial."""

    def parts(self) -> Mapping[str, Any]:
        """Return everything that has a `state_dict`: networks and optimiser, by name."""

    def learn(self, step: int) -> float:
        """Take one step, counted from 0, and return its loss."""

    def judged(self, last: bool) -> Mapping[str, float]:
        """Return accuracies on the test images; of a part of them only, unless it is the last checkpoint."""

    def export(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the network as it is now; `facts` go into its `geed.source`."""


class Trial(Protocol):
    """One network to be trained once, as plain data: it is sent to another process."""

    @property
    def folder(self) -> str:
        """Its folder, relative to the folder of all models."""

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""

    def learner(self, shared: Path, work: Path, device: str) -> Learner:
        """Return the network at its start, on this device."""


def steps_of(recipe: Recipe) -> list[int]:
    """Return the steps at which a checkpoint is written: 0, every so many, and the last."""
    return sorted({*range(0, recipe.steps + 1, recipe.every), recipe.steps})


def drawing(recipe: Recipe, step: int) -> np.random.Generator:
    """Return what is random at a step."""
    return np.random.default_rng([recipe.seed, step])


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step, counted from 0: a cosine up over a tenth of the steps, and down to 0."""
    rise = max(1, recipe.steps // 10)
    if step < rise:
        return recipe.learning_rate * (step + 1) / rise
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, recipe.steps - rise)))


def descend(optimiser: torch.optim.Optimizer, loss: torch.Tensor, learning_rate: float) -> float:
    """Take one step of gradient descent and return the loss."""
    for group in optimiser.param_groups:
        group["lr"] = learning_rate
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return loss.item()


def train(trial: Trial, shared: Path, work: Path, device: str = "cpu", threads: int = 1) -> str:
    """Train one trial to its end, from its last checkpoint where there is one; returns what is to be said of it.

    Raises
    ------
    FloatingPointError
        If the loss is not finite.
    ValueError
        If the folder holds a trial of another recipe.
    """
    torch.set_num_threads(threads)
    folder = work / "models" / trial.folder
    recipe = asdict(trial.recipe)
    done = folder / "done.json"
    if done.exists():
        found = json.loads(done.read_text())["recipe"]
        if found != recipe:
            raise ValueError(f"{folder} holds a trial of another recipe: expected {recipe}, got {found}; delete it")
        _finish(folder, trial.recipe)
        return f"{trial.folder}: done before"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(trial.recipe.seed)
    learner = trial.learner(shared, work, device)
    start = _resumed(learner, folder, recipe)
    began, said = time.perf_counter(), ""
    loss = math.nan
    checkpoints = steps_of(trial.recipe)
    for step in range(start, trial.recipe.steps + 1):
        if step in checkpoints and not (start and step == start):
            last = step == trial.recipe.steps
            torch.manual_seed(trial.recipe.seed)
            judged = dict(learner.judged(last))
            learner.export(folder / f"step{step}.onnx", {**recipe, "step": step, **judged})
            line = {"step": step, "loss": None if math.isnan(loss) else loss, **judged}
            said = f"{trial.folder} step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in judged.items())
            _keep(learner, folder, step, recipe, line)
            print(f"{said}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        if step < trial.recipe.steps:
            torch.manual_seed(trial.recipe.seed * 1_000_003 + step)
            loss = learner.learn(step)
            if not math.isfinite(loss):
                raise FloatingPointError(f"{trial.folder}: the loss at step {step} is {loss}")
    _finish(folder, trial.recipe)
    _write(done, json.dumps({"recipe": recipe, "device": device, "versions": versions()}, indent=1) + "\n")
    return said


def versions() -> dict[str, str]:
    """Return the versions of what trains, as they are installed."""
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "numpy", "escnn", "onnxscript", "geed-onnx"):
        try:
            found[name] = version(name)
        except ModuleNotFoundError:  # escnn is needed by one experiment only
            continue
    return found


def _resumed(learner: Learner, folder: Path, recipe: Mapping[str, Any]) -> int:
    """Put the last checkpoint into the learner and return its step, 0 where there is none."""
    state = folder / "state.pt"
    if not state.exists():
        return 0
    kept = torch.load(state, weights_only=True)
    if kept["recipe"] != recipe:
        raise ValueError(
            f"{folder} holds a trial of another recipe: expected {recipe}, got {kept['recipe']}; delete it"
        )
    for name, part in learner.parts().items():
        part.load_state_dict(kept["parts"][name])
    return int(kept["step"])


def _keep(learner: Learner, folder: Path, step: int, recipe: Mapping[str, Any], line: Mapping[str, Any]) -> None:
    """Write the history, then the state: a kill between the two writes the line again, not twice."""
    history = folder / "history.jsonl"
    before = history.read_text().splitlines() if history.exists() else []
    kept = [text for text in before if json.loads(text)["step"] < step]
    _write(history, "\n".join([*kept, json.dumps(line)]) + "\n")
    state = {"step": step, "recipe": dict(recipe), "parts": {n: p.state_dict() for n, p in learner.parts().items()}}
    torch.save(state, folder / "state.tmp")
    os.replace(folder / "state.tmp", folder / "state.pt")


def _finish(folder: Path, recipe: Recipe) -> None:
    """Give the last checkpoint its second name, by which suites find it however long a training was."""
    if not (folder / "final.onnx").exists():
        shutil.copyfile(folder / f"step{recipe.steps}.onnx", folder / "final.tmp")
        os.replace(folder / "final.tmp", folder / "final.onnx")


def _write(path: Path, text: str) -> None:
    path.with_suffix(".tmp").write_text(text)
    os.replace(path.with_suffix(".tmp"), path)


def train_all(trials: Sequence[Trial], shared: Path, work: Path, device: str, workers: int) -> None:
    """Train every trial, `workers` at a time, each in a process of its own with its share of the cores."""
    if device != "cpu" and workers > 1:
        raise ValueError(f"several trials at a time share one {device}: --workers 1")
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with, (os.getpid(),)) as pool:
        pending = [pool.submit(train, t, shared, work, device, threads) for t in trials]
        for count, one in enumerate(as_completed(pending), 1):
            print(f"[{count} of {len(trials)}] {one.result()}", flush=True)


def _end_with(parent: int) -> None:
    """Let this process end when its parent is gone: one that is killed cannot tell its children."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(
    text: str,
    trials: Callable[[bool], Sequence[Trial]],
    prepare: Callable[[Path, Path], None],
    then: Sequence[Callable[[bool], Sequence[Trial]]] = (),
) -> None:
    """Train what the command line asks for; `prepare` writes the images that geed-onnx measures on.

    Trials of `then` start from what earlier ones left: each list begins when the one before it has ended.
    """
    options = parser(text)
    options.add_argument("--workers", type=int, help="trainings at a time [the number of cores]")
    options.add_argument("--device", default="cpu", help="cpu, cuda, … [cpu]")
    options.add_argument("--only", default="", help="trials whose folder begins so")
    asked = options.parse_args()
    shared, work = shared_folder(asked), work_folder(asked)
    prepare(shared, work)
    workers = asked.workers or (1 if asked.device != "cpu" else os.cpu_count() or 1)
    for stage in (trials, *then):
        chosen = [t for t in stage(asked.fast) if t.folder.startswith(asked.only)]
        train_all(chosen, shared, work, asked.device, workers)
