"""Models of timm, with the preprocessing that their authors recorded."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError, first_line
from geed_exporters.export import InputSpec
from geed_exporters.facts import RESAMPLES
from geed_exporters.loaded import SEED, Loaded
from geed_exporters.pytorch.checkpoints import Adapt, load_state, seeded
from geed_exporters.pytorch.stubs import import_timm
from geed_onnx.errors import UnknownName, UsageError


def load_timm(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    **options: Any,
) -> Loaded:
    """Return a model of timm by its name (`resnet50`, `resnet50.a1_in1k`), in eval mode.

    `options` go to `timm.create_model` (`num_classes=0`). Random weights are those of one fixed seed.

    Raises
    ------
    MissingFramework
        If torch or timm is not installed.
    UnknownName
        If timm has no such model, or no such pretrained tag of it.
    ExportError
        If the checkpoint does not fit, or pretrained weights cannot be fetched.
    """
    timm = import_timm()
    check_name(timm, name)
    if channels is not None:
        options["in_chans"] = channels
    model = _created(timm, name, pretrained, options, size)
    spec, notes = input_of(timm, model, size, channels)
    # without classes, what comes out is the latent vector
    scores = "" if getattr(model, "num_classes", None) == 0 else None
    loaded = Loaded(model.eval(), spec, "pretrained" if pretrained else "random", f"timm:{name}", scores=scores)
    if checkpoint is not None:
        loaded = loaded.with_checkpoint(checkpoint, load_state(model, checkpoint, adapt=_adapter(model)))
    elif not pretrained:
        loaded = replace(loaded, notes=(f"random weights of seed {SEED}",))
    return replace(loaded, notes=(*loaded.notes, *notes))


def check_name(timm: Any, name: str) -> None:
    """Raise UnknownName where timm has no such model or pretrained tag."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise UnknownName("model of timm", name, timm.list_models())
    tags = [n.partition(".")[2] for n in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        raise UnknownName(f"pretrained tag of timm:{architecture}", tag, tags)


def _created(timm: Any, name: str, pretrained: bool, options: Mapping[str, Any], size: tuple[int, int] | None) -> Any:
    """Create the model; networks whose weights depend on the image size are told it."""
    asked = [dict(options)]
    if size is not None and size != tuple(timm.get_pretrained_cfg_value(name, "input_size") or ())[1:]:
        asked.insert(0, {**options, "img_size": size})  # convolutional networks do not take it, and need not
    for i, kwargs in enumerate(asked):
        try:
            with seeded():
                return timm.create_model(name, pretrained=pretrained, **kwargs)
        except Exception as error:  # timm, the hub's client and its HTTP client raise classes of their own
            if i + 1 < len(asked) and isinstance(error, TypeError) and "img_size" in str(error):
                continue
            said = f"{type(error).__name__}: {first_line(error, 200)}"
            if pretrained:
                raise ExportError(
                    f"timm:{name}: pretrained weights cannot be had ({said}); fetch"
                    " them where there is a network and give the file: --checkpoint FILE.safetensors"
                ) from error
            what = f" with images of {size[0]}x{size[1]}" if size else ""
            raise ExportError(f"timm:{name} cannot be made{what} ({said})") from error
    raise AssertionError("unreachable")


def _adapter(model: Any) -> Adapt | None:
    """Return timm's own translation of the original authors' checkpoints to its names, where it has one."""
    found = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return found if callable(found) else None


def input_of(
    timm: Any, model: Any, size: tuple[int, int] | None = None, channels: int | None = None
) -> tuple[InputSpec, list[str]]:
    """Return the input of a model of timm as its configuration records it, and what could not be recorded of it.

    An image is resized to floor(size / crop_pct) on its short side and its centre is cut out, as timm evaluates.
    """
    config = timm.data.resolve_model_data_config(model)
    notes: list[str] = []
    height, width = size or tuple(config["input_size"])[1:]
    planes = channels or config["input_size"][0]
    mean, std = (tuple(map(float, config[k])) for k in ("mean", "std"))
    if planes not in (1, len(mean)):
        raise UsageError(f"--channels {planes}: expected 1 or {len(mean)}")
    if planes != len(mean):
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
        notes.append("mean and std of the input: the averages of timm's over its channels")
    fit: Any = None
    resize = None
    mode = config.get("crop_mode", "center")
    if mode == "center" and height == width:
        fit, resize = "crop", math.floor(height / config["crop_pct"])
    elif mode == "center":
        fit = "crop"
        notes.append("the images are not square: timm's crop_pct is not recorded")
    elif mode == "squash" and config["crop_pct"] == 1:
        fit = "resize"
    else:
        notes.append(f"timm's crop mode {mode} with crop_pct {config['crop_pct']} is not recorded")
    resample = config["interpolation"] if config["interpolation"] in RESAMPLES else None
    spec = InputSpec(
        name="image",
        shape=(planes, height, width),
        layout="NCHW",
        colour="grey" if planes == 1 else "rgb",
        range=(0.0, 1.0),
        mean=mean,
        std=std,
        fit=fit,
        resize=resize,
        resample=resample,
    )
    return spec, notes
