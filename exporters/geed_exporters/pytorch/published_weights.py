"""Weights as their authors publish them, brought to the names and shapes of the networks here.

Each function turns `{name: tensor}` of a checkpoint into `{name: tensor}` of a model: an `Adapt` of `load_state`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError

#: names that training frameworks put before those of the network itself
PREFIXES = ("", "module.", "backbone.", "encoder.", "model.", "net.", "convnet.", "_feature_blocks.")
#: what self-supervised training leaves beside the network, at the top of the checkpoint or of the network
PROJECTORS = (
    *("head.", "heads.", "projector.", "projection.", "projection_head.", "contrastive_head.", "fc."),
    *("module.head.", "module.projector.", "module.projection.", "module.projection_head."),
)

DENSE_LAYER = re.compile(r"^(.*denselayer\d+\.(?:norm|conv))\.([12]\..+)$")
NUMBERED = re.compile(r"^((?:module\.|backbone\.|encoder\.)*)([0-7])\.(.+)$")
RESNET_CHILDREN = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")


def renamed(state: Mapping[str, Any], name_of: Callable[[str], str]) -> dict[str, Any]:
    """Return the weights under their new names.

    Raises
    ------
    ExportError
        If two weights come to one name: which of them is meant, nobody can tell.
    """
    origin: dict[str, str] = {}
    for old in state:
        if (other := origin.setdefault(name_of(old), old)) != old:
            raise ExportError(f"the checkpoint holds {other!r} and {old!r}, which are both {name_of(old)!r} here")
    return {new: state[old] for new, old in origin.items()}


def without_module(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Take `module.` out of the names: older training scripts wrapped AlexNet's `features` alone for several GPUs."""
    return renamed(state, lambda k: re.sub(r"(^|\.)module\.", r"\1", k))


def undotted_dense_layers(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Turn `denselayer1.norm.1.weight` of torchvision's file of 2017 into `denselayer1.norm1.weight`."""
    return renamed(state, lambda k: DENSE_LAYER.sub(r"\1\2", k))


def linear_as_convolution(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Give linear layers `(out, in)` the shape of the 1x1 convolutions `(out, in, 1, 1)` that compute the same."""
    wanted = model.state_dict()
    return {
        k: v.reshape(wanted[k].shape) if k in wanted and tuple(wanted[k].shape) == (*v.shape, 1, 1) else v
        for k, v in state.items()
    }


def named_children(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Turn the numbers of a ResNet's children (`backbone.4.0.conv1.weight`) into their names (`layer1.0.conv1.…`).

    A network cut before its classifier by `Sequential(*list(resnet.children())[:-1])` is saved so.
    """
    return renamed(state, lambda k: NUMBERED.sub(lambda m: f"{RESNET_CHILDREN[int(m[2])]}.{m[3]}", k))


def load_bit_arrays(model: Any, path: Path) -> tuple[str, ...]:
    """Copy the arrays of a BiT release (`BiT-M-R101x1-ILSVRC2012.npz`) into timm's ResNetV2, in place.

    Raises
    ------
    ExportError
        If the file is no such archive, or was made for another network or another number of classes.
    """
    import numpy as np

    head = "resnet/head/conv2d/kernel"
    classes = model.num_classes
    try:
        with np.load(path, allow_pickle=False) as arrays:
            shapes: Mapping[str, tuple[int, ...]] = {k: arrays[k].shape for k in arrays.files if k == head}
        # timm leaves the classifier as it was, without a word, where the file has another number of classes
        if shapes.get(head, (0,))[-1] != classes:
            found = f"{shapes[head][-1]}" if head in shapes else "none"
            raise ExportError(f"{path}: expected a classifier of {classes} classes ({head}), got {found}")
        model.load_pretrained(str(path))
    except (OSError, ValueError, KeyError, RuntimeError, EOFError) as error:
        raise ExportError(f"{path}: no .npz of BiT for this network ({type(error).__name__}: {error})") from error
    return ()
