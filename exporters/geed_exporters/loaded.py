"""A model that is ready to be exported, whatever its framework, and what is known of it."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geed_exporters.candidates import Candidate
from geed_exporters.export import InputSpec, Layout, TapEntry
from geed_exporters.facts import Facts, facts_of, input_spec, over
from geed_onnx.errors import UnknownName

SEED = 0  # of random weights: the same file whenever it is written


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to be exported, and what is known of it."""

    model: Any
    """As its framework has it, in evaluation mode."""
    input: InputSpec
    """In the framework's own layout."""
    weights: Any
    """As `Source.weights`: random, pretrained, a file's name and sha256, or what a factory says."""
    name: str
    """As `geed.source` holds it: `timm:resnet50`, `net.py:build`."""
    blocks: tuple[str, ...] = ()
    """Globs of the module paths that are blocks; none: found by structure."""
    latent: str | None = None
    """Path of the module that gives the latent vector (`fc.input`: what goes into `fc`); None: found."""
    scores: str | None = None
    """Path of the module that gives the class scores; None: found; empty: there are none."""
    notes: tuple[str, ...] = ()
    actions: Mapping[str, Any] = field(default_factory=dict)
    """How channels move under the group, by module path; see `geed_onnx.actions.fields`."""
    variables: Any = None
    """Of a linen module of Flax, which does not hold them itself: `{"params": …, "batch_stats": …}`."""

    def said(self, facts: Facts) -> Loaded:
        """Return the model with what facts say of it in place of what is known; of the input they say nothing."""
        known = {key: getattr(facts, key) for key in ("blocks", "latent", "scores", "weights", "notes", "actions")}
        return replace(self, **{key: value for key, value in known.items() if value is not None})

    def with_facts(self, facts: Facts) -> Loaded:
        """Return the model with what facts say of it and of its input in place of what is known.

        Raises
        ------
        UsageError
            If they do not fit the input's channels.
        """
        assert self.input.layout is not None
        spec = input_spec(over(facts_of(self.input), facts), layout=self.input.layout, whose=self.name)
        return replace(self, input=spec).said(facts)

    def with_checkpoint(self, path: Path, notes: Iterable[str] = ()) -> Loaded:
        """Return the model as one whose weights come from a file, with what is to be noted of them."""
        return replace(self, weights=fingerprint(path), notes=(*self.notes, *notes))

    def in_blocks(self, name: str) -> bool:
        """Return whether a module is one of the blocks that were named."""
        return any(fnmatch.fnmatchcase(name, glob) for glob in self.blocks)

    def check_names(self, known: Sequence[str]) -> None:
        """Raise UnknownName where the latent vector, the scores, a block or an action was given a path that is none."""
        said = [("as the latent vector of", self.latent), ("as the scores of", self.scores)]
        said += [("as a block of", glob) for glob in self.blocks] + [("an action by", path) for path in self.actions]
        for what, name in said:
            if name and not any(n == name or (name in self.blocks and fnmatch.fnmatchcase(n, name)) for n in known):
                raise UnknownName("module", name, known, f"given {what} {self.name}")

    def entries(self, chosen: Iterable[Candidate], layouts: Mapping[str, Layout | None]) -> tuple[TapEntry, ...]:
        """Return the entries of the chosen taps, each under its module's path; `layouts` are those of maps."""
        return tuple(
            TapEntry(
                name=c.module,
                kind=c.natural_kind,
                layout=layouts.get(c.module) if c.natural_kind == "map" else None,
                module=c.module,
                role=c.role,
                action=self.actions.get(c.module),
            )
            for c in chosen
        )


def fingerprint(path: Path) -> dict[str, str]:
    """Return what `geed.source` says of weights from a file: its name without folders, and its sha256.

    Of a folder it is the sha256 over its files in order, with their names.
    """
    path = path.expanduser()
    total = hashlib.sha256()
    for part in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
        if part != path:
            total.update(part.relative_to(path).as_posix().encode())
        total.update(part.read_bytes())
    return {"file": (path.resolve() if path.is_dir() else path).name, "sha256": total.hexdigest()}
