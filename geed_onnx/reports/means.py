"""Families of models in numbers: the mean over models at each step, on each data set, with its interval."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from geed_onnx.estimators import Estimate, over_models
from geed_onnx.reports.page.contents import Contents, Entity, contents_of
from geed_onnx.reports.page.families import mean_over
from geed_onnx.results import Result
from geed_onnx.results.writing import write_text

On = Literal["value", "calibrated"]
MEAN_SCHEMA = "geed-mean/1"
#: What the interval of a family is not over.
ONE_SET = "on one set of images: nothing is said of other images"


@dataclass(frozen=True)
class FamilyMean:
    """One number of a family: the mean over its models, or why there is none.

    Attributes
    ----------
    family : str
        A model that has none is one by itself, of the model's name, without the step that is in it.
    step : float or None
        Of training.
    data : str
        Name of the images in the suite, else the last part of their address.
    uri : str
        Their address.
    group, variant : str
    tap : str
        As it is called in the models that share it; the last vector is `latent` and the last probabilities are
        `scores` where models call them differently.
    kind : str
    samples, seed : int
        Images, and the seed of their draw.
    spread_samples : int or None
        Points of M, where the value is relative to it.
    mask : bool
        Whether only what lies inside the inscribed disc counts.
    interpolation : str
    units : int or None
        Number of clusters, where those and not images are what a single model's interval is over.
    on : `value` or `calibrated`
    of, models : int
        How many models were measured, and how many have the number.
    estimate : Estimate or None
        Student's t over the models, which all saw the same images: the interval says nothing of other images, as
        `method` says. A single model has its own interval, over images.
    optimum : float or None
        Of raw values: that of an exactly equivariant model, the mean over the models that have a value.
    reason : str or None
        Why there is no estimate, or why a model has no number.
    """

    family: str
    step: float | None
    data: str
    uri: str
    group: str
    tap: str
    kind: str
    variant: str
    samples: int
    seed: int
    spread_samples: int | None
    mask: bool
    interpolation: str
    units: int | None
    on: On
    of: int
    models: int
    estimate: Estimate | None
    optimum: float | None
    reason: str | None

    def to_json(self) -> str:
        """Return the line (without its end), strict JSON."""
        facts: dict[str, Any] = {"schema": MEAN_SCHEMA, **vars(self)}
        e: Estimate | None = facts.pop("estimate")
        names = ("value", "low", "high", "level", "method")
        facts |= {name: None if e is None else getattr(e, name) for name in names}
        return json.dumps(facts, ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True)
class Placed:
    """A mean, with the context and the column of `Contents` that it belongs to."""

    context: int
    slot: int
    mean: FamilyMean


def family_means(results: Sequence[Result]) -> list[FamilyMean]:
    """Return value and calibrated value of every family, at each step, under each setting, of each tap and variant.

    Settings (images, group, samples, clusters, seed, mask, interpolation, points of M) are never mixed. Models of a
    family are copies but for chance, so the unit of uncertainty is the model, and the interval Student's t, as in the
    paper's figures; of a single model it is that of its result. What stands there twice is counted once. In the order
    of settings, taps, variants, families, steps.

    Raises
    ------
    DataError
        If a result holds something else than its schema says.
    """
    return [placed.mean for placed in means_in(contents_of(results))]


def write_means(path: str | os.PathLike[str], means: Sequence[FamilyMean]) -> None:
    """Write means as JSON Lines, whole or not at all.

    Raises
    ------
    UsageError, GeedError
        If the file cannot be written.
    """
    write_text(path, "".join(f"{m.to_json()}\n" for m in means), "the means")


def means_in(contents: Contents) -> list[Placed]:
    """Return the means of `family_means`, each with its place in `contents`."""
    names = _names(contents)
    groups: dict[tuple[int, int, str], dict[tuple[str, float | None], list[tuple[Entity, Result]]]] = {}
    for c in contents.cells:
        # a failed cell has no column, unless its taps are known from elsewhere
        if c.slot is not None and isinstance(c.reading, Result):
            entity = contents.entities[c.entity]
            family = groups.setdefault((c.context, c.slot, c.variant), {})
            family.setdefault((names[c.entity], entity.step), []).append((entity, c.reading))
    first = {place: i for i, place in enumerate(groups)}
    families = {name: i for i, name in enumerate(dict.fromkeys(names))}
    found = []
    for place in sorted(groups, key=lambda p: (p[0], p[1], first[p])):
        context, slot, _ = place
        # without a step comes last: a training that has ended
        order = sorted(groups[place], key=lambda f: (families[f[0]], f[1] is None, f[1] or 0.0))
        for name, step in order:
            members = groups[place][name, step]
            for on in ("value", "calibrated"):
                found.append(Placed(context, slot, _mean(contents, context, slot, name, step, members, on)))
    return found


def _names(contents: Contents) -> list[str]:
    """Return what each entity's line is called: its family, else the training it is a checkpoint of, else itself."""
    trainings = {i: run.label for run in contents.runs for _, i in run.points}
    return [e.family if e.family is not None else trainings.get(i, e.label) for i, e in enumerate(contents.entities)]


def _mean(
    contents: Contents,
    context: int,
    slot: int,
    name: str,
    step: float | None,
    members: Sequence[tuple[Entity, Result]],
    on: On,
) -> FamilyMean:
    where, column, first = contents.contexts[context], contents.slots[slot], members[0][1]
    twice = _twice([e for e, _ in members])
    have = [] if twice else [r for _, r in members if getattr(r, on) is not None]
    lacking = next((r for _, r in members if getattr(r, on) is None), None)
    why = None if lacking is None else lacking.reason if on == "value" else lacking.why_uncalibrated
    reason = twice or (None if lacking is None else f"{lacking.label}: {why or 'no reason was given'}")
    return FamilyMean(
        family=name,
        step=step,
        data=where.name,
        uri=where.data,
        group=where.group,
        tap=column.label,
        kind=column.kind,
        variant=first.variant,
        samples=first.samples,
        seed=first.seed,
        spread_samples=first.spread_samples,
        mask=bool(first.data.get("mask")),
        interpolation=first.interpolation,
        units=first.units,
        on=on,
        of=len(members),
        models=len(have),
        estimate=_estimate(have, on) if have else None,
        optimum=mean_over([r.optimum for r in have]) if on == "value" else None,
        reason=reason,
    )


def _twice(entities: Sequence[Entity]) -> str | None:
    """Say which model is there twice with two numbers, so that no mean is of copies that differ by chance alone."""
    seeds: set[int] = set()
    files: set[Any] = set()
    for e in entities:
        file = (e.model or {}).get("path")
        if (e.seed is not None and e.seed in seeds) or (file is not None and file in files):
            which = e.label if e.seed is None else f"seed {e.seed}"
            return f"{which} is there twice, with two numbers: give models that differ not by chance two families"
        seeds |= set() if e.seed is None else {e.seed}
        files.add(file)
    return None


def _estimate(results: Sequence[Result], on: On) -> Estimate:
    if len(results) > 1:
        found = over_models([float(getattr(r, on)) for r in results], results[0].level)
        return replace(found, method=f"{found.method}, {ONE_SET}")
    [r] = results
    low, high = (r.low, r.high) if on == "value" else (r.calibrated_low, r.calibrated_high)
    return Estimate(float(getattr(r, on)), low, high, r.level, r.method, r.samples)
