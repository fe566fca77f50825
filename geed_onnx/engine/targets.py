"""Which taps are measured, in which variants, under which output actions: what is asked, held against what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from geed_onnx.actions import Declared, parse_declared
from geed_onnx.errors import ActionError, UnknownName, UsageError
from geed_onnx.variants import KINDS, PAPER, SCORES, Scores, Variant, parse_variant, variants

if TYPE_CHECKING:
    from geed_onnx.taps import Tap

Array = npt.NDArray[Any]


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
