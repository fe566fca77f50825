"""Which of a network's modules become taps: those that globs name, or its stages, its latent vector, its scores."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from geed_exporters.errors import ExportError
from geed_exporters.export import Kind, Role
from geed_onnx.errors import UnknownName, UsageError

MOST_STAGES = 12


@dataclass(frozen=True)
class Candidate:
    """The output of one call of one module, as a framework's forward pass showed it."""

    module: str
    """Path in the framework (`layer1.0.conv1`); a second call of the same module is `layer1.0.conv1#1`."""
    shape: tuple[int, ...]
    """Without the batch; maps in (C, H, W), whatever the framework's layout."""
    block: bool = False
    """Whether the network's author made it a block: a direct child of the model, or an entry of a list of blocks."""
    role: Role | None = None
    """latent and scores are known to the exporter; stages are found by `select` where the exporter names none."""
    kind: Kind | None = None
    """Where the exporter knows better than the shape."""

    @property
    def natural_kind(self) -> Kind:
        """What it is: a map has more than one position, scores are probabilities, all else is a vector."""
        if self.kind is not None:
            return self.kind
        if self.role == "scores":
            return "probability"
        return "map" if len(self.shape) == 3 and self.shape[1] * self.shape[2] > 1 else "vector"


def select(candidates: Sequence[Candidate], globs: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """Return the chosen candidates, in the order of the forward pass.

    Parameters
    ----------
    candidates
        In the order in which the forward pass made them.
    globs
        Module paths with `*`, `?` and `[…]` (`*` crosses dots: `layer1.*`; `*` alone is every module); the words
        `stages`, `latent` and `scores` stand for the default choice's parts. None at all: all three.

    Raises
    ------
    UnknownName
        If a glob meets nothing; the message says which paths are near.
    ExportError
        If there is nothing to choose from.
    """
    if not candidates:
        raise ExportError("the forward pass showed no module with a float tensor as output: nothing can be tapped")
    roles = default_roles(candidates)
    with_roles = [replace(c, role=roles.get(c.module)) for c in candidates]
    wanted: set[str] = set()
    for glob in globs or ("stages", "latent", "scores"):
        # a module may be called so (`stages` in ConvNeXt): asked for by name it is meant, by default it is not
        if glob in ("stages", "latent", "scores") and not (globs and any(c.module == glob for c in candidates)):
            role = "stage" if glob == "stages" else glob
            found = {m for m, r in roles.items() if r == role}
            if globs and not found:
                raise UsageError(f"--tap {glob}: this network has none; name modules instead (--list shows them)")
        else:
            found = {c.module for c in candidates if fnmatch.fnmatchcase(c.module, glob)}
            if not found:
                raise UnknownName("module", glob, [c.module for c in candidates], "--list shows what can be tapped")
        wanted |= found
    return tuple(c for c in with_roles if c.module in wanted)


def default_roles(candidates: Sequence[Candidate]) -> dict[str, Role]:
    """Return {module: role} of the default choice: at most twelve stages, the latent vector, the scores.

    Stages are the blocks that give maps (or, in a transformer, sequences of tokens); where there are more than twelve,
    the last of each run of one shape, and then evenly many.
    """
    roles: dict[str, Role] = {c.module: c.role for c in candidates if c.role is not None}
    if "stage" in roles.values():
        return roles
    free = [c for c in candidates if c.module not in roles]
    blocks = [c for c in free if c.block and c.natural_kind == "map"]
    blocks = blocks or [c for c in free if c.block and len(c.shape) == 2]
    blocks = blocks or [c for c in free if c.natural_kind == "map"]
    if len(blocks) > MOST_STAGES:
        runs = [list(run) for _, run in itertools.groupby(blocks, key=lambda c: c.shape)]
        ends = [run[-1] for run in runs]
        blocks = ends if 4 <= len(ends) <= MOST_STAGES else _spread(blocks, [id(e) for e in ends])
    return roles | {c.module: "stage" for c in blocks}


def _spread(blocks: Sequence[Candidate], ends: Sequence[int]) -> list[Candidate]:
    """Return twelve blocks: the ends of runs first (the last twelve of them), the rest filled in evenly."""
    keep = {id(c) for c in blocks if id(c) in ends}
    keep = set([id(c) for c in blocks if id(c) in keep][-MOST_STAGES:])
    rest = [c for c in blocks if id(c) not in keep]
    free = MOST_STAGES - len(keep)
    keep |= {id(rest[(2 * i + 1) * len(rest) // (2 * free)]) for i in range(free)}
    return [c for c in blocks if id(c) in keep]
