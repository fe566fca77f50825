"""What the group acts on, as pictures: 8 bits, grey or RGB."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from geed_onnx.gallery.exhibits import Array, Bytes
from geed_onnx.groups import Group, Motion
from geed_onnx.sources import Preprocessing


def pictures(orbit: Array, preprocessing: Preprocessing | None) -> tuple[Bytes, tuple[str, ...]]:
    """Return an orbit `(n, C, H, W)` as `(n, H, W)` or `(n, H, W, 3)` uint8, and what had to be said about it.

    Images are in 0..1 already.  Arrays that are used as they are have any range and any number of channels: they are
    scaled from the least to the largest value of the orbit, and of channels that are neither one nor three the mean is
    shown.
    """
    x = orbit.astype(np.float64)
    if preprocessing is not None:
        # the network's order of colours, not the eye's
        x = x[:, ::-1] if preprocessing.colour == "bgr" else x
        return _bytes(x), ()
    channels, notes = x.shape[1], []
    if channels not in (1, 3):
        x = x.mean(axis=1, keepdims=True)
        notes.append(f"the mean of {channels} channels")
    low, high = float(x.min()), float(x.max())
    notes.append(f"arrays are shown from {low:.4g} (black) to {high:.4g} (white)")
    return _bytes((x - low) / (high - low) if high > low else np.zeros_like(x)), tuple(notes)


def _bytes(x: Array) -> Bytes:
    planes = np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)
    return planes[:, 0] if planes.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(planes, 1, -1))


def element_names(group: Group) -> tuple[str, ...]:
    """Return what each element does, in words: `45°`, `flip, 90°`, `down 1/2`, `channels 2 0 1`.

    >>> from geed_onnx.groups import parse_group
    >>> element_names(parse_group("C4")), element_names(parse_group("flip"))
    (('0°', '90°', '180°', '270°'), ('as it is', 'flip'))
    """
    turns = any(m.turn and not m.mirror for motions in group.motions for m in motions)
    identity = "0°" if turns else "as it is"
    return tuple(", ".join(part for m in motions for part in _words(m)) or identity for motions in group.motions)


def _words(motion: Motion) -> list[str]:
    said = []
    if motion.mirror and motion.turn == Fraction(1, 2):
        said.append("flip up-down")
    else:
        said += ["flip"] if motion.mirror else []
        said += [f"{float(motion.turn * 360):.4g}°"] if motion.turn else []
    said += [f"{word} {share}" for word, share in zip(("down", "right"), motion.roll, strict=True) if share]
    if motion.axis and motion.permutation != tuple(range(len(motion.permutation))):
        axis = {1: "channels", 2: "rows", 3: "columns"}.get(motion.axis, f"axis {motion.axis}")
        said.append(f"{axis} {' '.join(map(str, motion.permutation))}")
    return said


def shown_elements(order: int, worst: Sequence[int], most: int) -> tuple[int, ...]:
    """Return the elements whose pictures are shown: all, or `most` at even distances with the `worst` among them."""
    if order <= most:
        return tuple(range(order))
    kept = dict.fromkeys([0, *worst][:most])
    for g in np.linspace(0, order, most, endpoint=False).astype(int):
        if len(kept) < most:
            kept[int(g)] = None
    return tuple(sorted(kept))
