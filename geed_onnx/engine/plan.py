"""What is to be measured: a model that runs, images that are read, a group that acts, taps and variants that fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from geed_onnx.actions import (
    Action,
    Declared,
    Interpolation,
    Mask,
    input_action,
    interpolation_of,
    mask_of,
    masked,
    motion_classes,
    parse_declared,
    within_disc,
)
from geed_onnx.engine.feeding import Feed, first_raw, open_data, prepare_file
from geed_onnx.errors import ActionError, DataError, MeasureError, OutOfMemory, UnknownName, UsageError
from geed_onnx.groups import Group, parse_group
from geed_onnx.sessions import CallableSession, RuntimeOptions, Session
from geed_onnx.sources import Drawing, Source, clusters_of, draw_distinct, permuted
from geed_onnx.variants import KINDS, PAPER, SCORES, Scores, Variant, parse_variant, variants

if TYPE_CHECKING:
    from geed_onnx.taps import Tap

Array = npt.NDArray[Any]
#: Reference images of one block; their orbits are what is in memory at once.
BLOCK = 16


@dataclass(frozen=True)
class Target:
    """One tap to be measured, however the model came."""

    name: str
    kind: str
    layout: str | None = None
    module: str | None = None
    logits: bool | None = None
    """for scores: whether a softmax is still to be applied, as the graph shows or the user says; None: neither tells"""
    scores: Scores | None = None
    """what the user says they are"""
    declared: object | None = None
    """the channel action that the file declares"""
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """The numbers of a measurement; see `measure`."""

    samples: int | Literal["all"] | None = None
    """None: 50, or as many as there are"""
    spread_samples: int | None = None
    reference_samples: int | None = None
    """None: all of the sample"""
    seed: int = 0
    level: float = 0.95
    floor: bool = False
    mask: Mask = "auto"
    batch_size: int | None = None
    interpolation: Interpolation = "bilinear"
    cluster: str | None = None
    """the column that names each image's cluster (`geed_onnx.sources.clusters_of`); None: each image is its own"""

    def __post_init__(self) -> None:
        interpolation_of(self.interpolation)
        mask_of(self.mask)
        for word, value, least in (
            ("spread samples", self.spread_samples, 2),
            ("reference samples", self.reference_samples, 0),
            ("batch size", self.batch_size, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{word} must be at least {least}, not {value}")
        if not 0 < self.level < 1:
            raise UsageError(f"level must lie between 0 and 1 (0.95 is 95 %), not {self.level}")


@dataclass(frozen=True)
class Plan:
    """Everything decided before the first forward pass that counts."""

    session: Session
    model: Mapping[str, Any]
    source: Source
    indices: tuple[int, ...]
    spread_indices: tuple[int, ...]
    group: Group
    acting: Action
    feed: Feed
    targets: tuple[Target, ...]
    explicit: bool
    """whether the taps were named by the user: then one that cannot be measured is an error, not a row with a reason"""
    variants: tuple[Variant, ...]
    acts: Mapping[str, str | Declared]
    settings: Settings
    references: tuple[tuple[int, ...], ...] = ()
    """the first of the indices, in blocks inside which broken orbits are made"""
    metadata: Mapping[str, str] = field(default_factory=dict)
    skip_bad: bool = False
    input: str | None = None
    """the model's input that the group acts on"""
    constants: Mapping[str, Array] = field(default_factory=dict)
    """what the other inputs are given"""
    notes: tuple[str, ...] = ()
    """what of the file's own declarations was left aside, and what is to be said of the draw"""
    units: Mapping[str, str] | None = None
    """{image id: cluster} of the sample and the spread points; None: the image is the unit"""

    @property
    def masked(self) -> bool:
        """Whether everything happens inside the inscribed disc."""
        return wants_disc(self.settings.mask, self.acting)

    @cached_property
    def motions(self) -> tuple[int, ...]:
        """For every element the first one that moves the input exactly as it does."""
        return motion_classes(self.acting)

    def prepare(self, raw: Array) -> Array:
        """Return the array that the group acts on, of a raw one: preprocessed and, if so asked, within the disc."""
        x = self.feed.prepare(raw)
        return masked(x, self.masked and x.ndim == 3)

    def images(self, indices: Sequence[int]) -> Iterator[tuple[int, str, Array, Array]]:
        """Yield (index, id, raw array, array the group acts on), one at a time."""
        shape = self.acting.shape
        for index, (name, raw) in self._items(indices):
            x = self.prepare(raw)
            if x.shape != shape:
                raise DataError(
                    f"{self.source.uri}: image {name!r} has shape {raw.shape}, but the first one came to {shape}; all"
                    " images must have one shape"
                )
            yield index, name, raw, x

    def _items(self, indices: Sequence[int]) -> Iterator[tuple[int, tuple[str, Array]]]:
        if not self.skip_bad:
            yield from zip(indices, self.source.items(indices), strict=True)
        else:
            # an image that is left out shifts those after it, so each is asked for by itself
            for index in indices:
                yield from ((index, item) for item in self.source.items([index]))


# --- data -------------------------------------------------------------------------------------------------------


def draw_indices(source: Source, settings: Settings, *, spread: bool = True) -> Drawing:
    """Return the sample, the spread points if they are wanted, and notes; see `draw_distinct`."""
    return draw_distinct(source, settings.samples, settings.spread_samples, settings.seed, spread=spread)


def units_of(source: Source, drawing: Drawing, column: str | None) -> dict[str, str] | None:
    """Return {image id: cluster} of the images drawn; None without a column.

    Raises
    ------
    UsageError
        If there is no such column.
    DataError
        If it has no value for an image, or all of the sample are one cluster.
    """
    units = clusters_of(source, dict.fromkeys((*drawing.sample, *drawing.spread)), column)
    if units is not None and len(some := set(list(units.values())[: len(drawing.sample)])) < 2:
        count = len(drawing.sample)
        raise DataError(
            f"{source.uri}: the sample of {count} image{'s' * (count != 1)} is one cluster, {column} {some.pop()!r}; an"
            " interval over clusters takes at least 2: measure more images, or leave out --cluster"
        )
    return units


def reference_blocks(
    indices: Sequence[int], count: int | None, seed: int, cluster: Mapping[int, str] | None = None
) -> tuple[tuple[int, ...], ...]:
    """Return the reference images in blocks of 16 or a few more, no two of one cluster in a block.

    They are the first `count` (None: all) of a permutation by the seed of the sorted sample, so that neither the order
    of a folder nor that of the sample says who partners whom.
    """
    order = permuted(indices, seed)[:count]
    groups: dict[object, list[int]] = {}
    for index in order:
        groups.setdefault(index if cluster is None else cluster[index], []).append(index)
    sizes = [len(g) for g in groups.values()]
    # of a cluster that would need more blocks than the others fill, only some are taken
    most = max((q for q in set(sizes) if sum(min(s, q) for s in sizes) >= q * min(8, len(sizes) // 2 + 1)), default=1)
    dealt = [index for g in groups.values() for index in g[:most]]
    blocks = max(1, len(dealt) // BLOCK, most)
    return tuple(tuple(dealt[b::blocks]) for b in range(blocks) if dealt[b::blocks])


def wants_disc(mask: Mask, acting: Action) -> bool:
    """Say whether everything is to happen inside the inscribed disc, for this action on the input."""
    return mask == "disc" or (mask == "auto" and any(acting.resampled_by))


def targets_of(taps: Sequence[Tap], layout: str | None) -> tuple[Target, ...]:
    """Return the graph's taps as targets."""
    return tuple(
        Target(t.name, t.kind, t.layout or layout, t.module, t.logits, declared=t.action, flags=tuple(t.flags))
        for t in taps
    )


def callable_targets(outputs: Mapping[str, Array], specs: Sequence[str] | None) -> tuple[Target, ...]:
    """Return the targets among a session's outputs; without a kind, rank 4 is a map and anything else a vector."""
    if specs is None:
        return tuple(
            Target(n, "map" if y.ndim == 4 and y.shape[2] * y.shape[3] > 1 else "vector") for n, y in outputs.items()
        )
    found = []
    for spec in specs:
        name, colon, kind = spec.rpartition(":")
        if not colon or kind not in KINDS:
            name, kind = spec, ""
        if name not in outputs:
            raise UnknownName("tap", name, outputs)
        rank4 = outputs[name].ndim == 4 and outputs[name].shape[2] * outputs[name].shape[3] > 1
        if kind == "map" and outputs[name].ndim != 4:
            raise UsageError(f"tap {spec!r}: a map has shape (batch, C, H, W), this is {outputs[name].shape}")
        found.append(Target(name, kind or ("map" if rank4 else "vector")))
    return tuple(found)


# --- taps, variants, actions ------------------------------------------------------------------------------------


def chosen_variants(names: Sequence[str | Variant] | None, targets: Sequence[Target]) -> tuple[Variant, ...]:
    """Return the variants asked for, by default the five of the paper.

    Raises
    ------
    UnknownName
        If there is no such variant.
    UsageError
        If no tap is of a variant's kind.
    """
    if names is None:
        chosen: tuple[Variant, ...] = tuple(variants[n] for n in PAPER)
    else:
        chosen = tuple(dict.fromkeys(v if isinstance(v, Variant) else parse_variant(v) for v in names))
        kinds = {t.kind for t in targets}
        for v in chosen:
            if v.kind not in kinds:
                raise UsageError(
                    f"variant {v.name!r} is for a {v.kind}, but none of the taps is one ({_kinds(targets)}); name one"
                    f" with --tap NAME:{v.kind}"
                )
    if not any(v.kind == t.kind for v in chosen for t in targets):
        raise UsageError(f"no variant fits any of the taps ({_kinds(targets)}); name others with --tap or --variant")
    return chosen


def _kinds(targets: Sequence[Target]) -> str:
    return (
        ", ".join(f"{t.name}: {t.kind}" for t in targets[:6]) + (", …" if len(targets) > 6 else "") or "there are none"
    )


def chosen_acts(
    acts: Mapping[str, str | Mapping[str, Any]] | None, targets: Sequence[Target], *, declared: bool
) -> dict[str, str | Declared]:
    """Return {tap: action} from what the user says, over what the file declares.

    Raises
    ------
    UnknownName
        If an action is given to a tap that is not measured.
    ActionError
        If a declaration is not understood, or breaks the law of its group.
    """
    found: dict[str, str | Declared] = {}
    for target in targets:
        if declared and target.declared is not None:
            found[target.name] = declared_action(target.name, target.declared)
    for tap, action in (acts or {}).items():
        found[_named(tap, targets, "--act")] = action if isinstance(action, str) else parse_declared(action)
    return found


def _named(tap: str, targets: Sequence[Target], flag: str) -> str:
    """Return the name of the target that a tensor's name or a module path, with or without a kind, means."""
    names = {t.name: t.name for t in targets} | {t.module: t.name for t in targets if t.module}
    bare = tap.rpartition(":")[0] if tap.rpartition(":")[2] in ("map", "vector", "probability") else tap
    name = names.get(tap) or names.get(bare)
    if name is None:
        raise UnknownName("tap", tap, [n for n in names if n], f"{flag} is for taps that are measured: add --tap too")
    return name


def declared_scores(scores: Mapping[str, str] | None, targets: Sequence[Target]) -> tuple[Target, ...]:
    """Return the targets, those of `scores` taken as the user says: `logits` or `probabilities`.

    Raises
    ------
    UnknownName
        If a word is neither, or a tap is not measured.
    UsageError
        If a tap is measured as something else than scores, or given two words.
    """
    said: dict[str, Scores] = {}
    for tap, word in (scores or {}).items():
        name = _named(tap, targets, "--scores")
        found = next((s for s in SCORES if s == word), None)
        if found is None:
            raise UnknownName("word for scores", word, SCORES, f"as in --scores {tap}=logits")
        if said.setdefault(name, found) != found:
            raise UsageError(f"--scores: tap {name!r} is given both as {said[name]} and as {found}; give one")
    for target in targets:
        if target.name in said and target.kind != "probability":
            raise UsageError(
                f"--scores {target.name}={said[target.name]}: the tap is measured as a {target.kind}; to measure it as"
                f" scores, name it with --tap {target.name}:probability"
            )
    return tuple(
        replace(t, scores=said[t.name], logits=said[t.name] == "logits") if t.name in said else t for t in targets
    )


def declared_action(tap: str, declared: object) -> str | Declared:
    """Read what `geed.taps` declares for a tap: text as `--act` takes it, or fields; the group law is checked.

    Raises
    ------
    ActionError
        If it is not understood, or breaks the law of its group.
    """
    if isinstance(declared, str):
        return declared
    try:
        return parse_declared(declared)
    except ActionError as error:
        raise ActionError(
            f"the action that the file declares for {tap!r} cannot be used: {error}; export the model again, or measure"
            " naively with --no-declared-action"
        ) from error


@dataclass(frozen=True)
class Opened:
    """A model that runs on some data: what does not depend on the group, the variants or the sample."""

    session: Session
    model: Mapping[str, Any]
    source: Source
    feed: Feed
    shape: tuple[int, ...]
    """of what the group acts on"""
    targets: tuple[Target, ...]
    explicit: bool
    metadata: Mapping[str, str] = field(default_factory=dict)
    skip_bad: bool = False
    input: str | None = None
    constants: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def make_plan(
    model: Any,
    data: Any,
    group: str | Group,
    *,
    taps: Sequence[str] | None,
    variants: Sequence[str | Variant] | None,
    acts: Mapping[str, str | Mapping[str, Any]] | None,
    declared: bool,
    settings: Settings,
    input: str | None,
    layout: str | None,
    preprocessing: Mapping[str, Any],
    runtime: RuntimeOptions,
    column: str | None,
    skip_bad: bool,
    streaming: bool | None,
    scores: Mapping[str, str] | None = None,
) -> Plan:
    """Settle all that can be settled before the forward passes; whatever is wrong with the request shows here."""
    group = parse_group(group) if isinstance(group, str) else group

    def source() -> Source:
        # opened when it is its turn: the model is named first
        if isinstance(data, (str, os.PathLike)):
            return open_data(data, column=column, skip_bad=skip_bad, streaming=streaming)
        return open_data(data)

    def fits(shape: tuple[int, ...]) -> object:
        return input_action(group, shape, settings.interpolation)

    if isinstance(model, (str, os.PathLike)):
        opened = open_file(
            os.fspath(model),
            source,
            taps=taps,
            input=input,
            layout=layout,
            preprocessing=preprocessing,
            runtime=runtime,
            skip_bad=skip_bad,
            fits=fits,
            suits=lambda targets: chosen_variants(variants, targets),
        )
    else:
        opened = _open_callable(model, source(), taps, layout, skip_bad, fits)
    return plan_of(opened, group, variants=variants, acts=acts, declared=declared, settings=settings, scores=scores)


def plan_of(
    opened: Opened,
    group: Group,
    *,
    variants: Sequence[str | Variant] | None,
    acts: Mapping[str, str | Mapping[str, Any]] | None,
    declared: bool,
    settings: Settings,
    scores: Mapping[str, str] | None = None,
) -> Plan:
    """Return the plan for one group and sample of a model that was opened on its data."""
    picked = chosen_variants(variants, opened.targets)
    drawing = draw_indices(opened.source, settings, spread=_wants_spread(picked, opened.targets))
    units = units_of(opened.source, drawing, settings.cluster)
    cluster = None if units is None else dict(zip(drawing.sample, units.values(), strict=False))
    blocks = reference_blocks(drawing.sample, settings.reference_samples, settings.seed, cluster)
    first = dict.fromkeys(index for block in blocks for index in block)
    acting = input_action(group, opened.shape, settings.interpolation)
    return Plan(
        session=opened.session,
        model=opened.model,
        source=opened.source,
        indices=(*first, *(i for i in drawing.sample if i not in first)),
        spread_indices=drawing.spread,
        group=group,
        acting=within_disc(acting, wants_disc(settings.mask, acting)),
        feed=opened.feed,
        targets=declared_scores(scores, opened.targets),
        explicit=opened.explicit,
        variants=picked,
        acts=chosen_acts(acts, opened.targets, declared=declared),
        settings=settings,
        references=blocks,
        metadata=opened.metadata,
        skip_bad=opened.skip_bad,
        input=opened.input,
        constants=opened.constants,
        notes=(*opened.notes, *drawing.notes),
        units=units,
    )


def _anything(of: Any) -> None:
    """Check nothing."""


def open_file(
    model: str,
    data: Callable[[], Source],
    *,
    taps: Sequence[str] | None,
    input: str | None,
    layout: str | None,
    preprocessing: Mapping[str, Any],
    runtime: RuntimeOptions,
    skip_bad: bool,
    fits: Callable[[tuple[int, ...]], object] = _anything,
    suits: Callable[[tuple[Target, ...]], object] = _anything,
) -> Opened:
    """Open an ONNX file on the images of `data`, which is called once the file was read.

    `fits` and `suits` are asked before the session is opened, since that takes longest: they raise for a shape that a
    group cannot act on, and for targets that no variant is for.
    """
    from geed_onnx.sessions import open_session
    from geed_onnx.taps import choose_taps, declaration_problems, file_sha256, read_graph, resolve_taps

    # before the data, because the model is named first
    graph = read_graph(model)
    file, source = prepare_file(graph, data(), input=input, layout=layout, flags=preprocessing)
    name = file.port.name
    chosen = resolve_taps(file.graph, taps, input=name) if taps else choose_taps(file.graph, input=name)
    if not chosen:
        raise MeasureError(
            f"{model}: no stage, latent or scores were found in the graph; name tensors with --tap"
            " (geed-onnx taps lists them)"
        )
    targets = targets_of(chosen, layout)
    fits(file.shape)
    suits(targets)
    return Opened(
        session=open_session(file.graph, chosen, file.port, runtime),
        model={"path": model, "sha256": file_sha256(file.graph), "producer": file.graph.producer},
        source=source,
        feed=file.feed,
        shape=file.shape,
        targets=targets,
        explicit=bool(taps),
        metadata=file.graph.metadata,
        skip_bad=skip_bad,
        input=name,
        constants=runtime.constants,
        notes=tuple(declaration_problems(file.graph)),
    )


def _open_callable(
    model: Any,
    source: Source,
    taps: Sequence[str] | None,
    layout: str | None,
    skip_bad: bool,
    fits: Callable[[tuple[int, ...]], object],
) -> Opened:
    """Open a Session, or a Python callable as one."""
    if not hasattr(model, "run"):
        if not callable(model):
            raise UsageError(f"model: expected a path, a Session or a callable, got {type(model).__name__}")
        model = CallableSession(model, getattr(model, "__name__", "callable"))
    if not source.as_is:
        raise UsageError("a model that is no file has no declared input: give arrays that are its input")
    raw = first_raw(source)
    feed = Feed(None, layout, raw.dtype.name)
    first = feed.prepare(raw)
    fits(first.shape)
    try:
        outputs = model.run(feed.model_input(first[None]))
    except MemoryError as error:
        raise OutOfMemory(f"not even one row fits into memory ({error})") from error
    return Opened(
        session=model,
        model={"path": None, "sha256": None, "producer": model.facts.provider},
        source=source,
        feed=feed,
        shape=first.shape,
        targets=callable_targets(outputs, taps),
        explicit=taps is not None,
        skip_bad=skip_bad,
    )


def _wants_spread(picked: Sequence[Variant], targets: Sequence[Target]) -> bool:
    """Say whether any tap is measured against M: otherwise no pass is spent on its points."""
    kinds = {t.kind for t in targets}
    return any(v.scale.spread and v.kind in kinds for v in picked)


Progress = Callable[[int, int], None]
