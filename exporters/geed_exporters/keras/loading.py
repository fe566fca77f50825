"""Keras models by name: `keras:MobileNetV2`, `net.py:build`, `model.keras`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError, NotExportable
from geed_exporters.export import InputSpec
from geed_exporters.factories import called, load_factory, parse_name
from geed_exporters.keras import frameworks, preprocessing, weights
from geed_onnx.errors import UnknownName, UsageError

SAVED = (".keras", ".h5", ".hdf5")


@dataclass(frozen=True)
class Loaded:
    """A built Keras model and what is known of it; the input is in the model's own layout, channels last."""

    model: Any
    input: InputSpec
    weights: Any
    """As `Source.weights`: `random`, `pretrained`, a file's name and sha256."""
    name: str
    notes: tuple[str, ...] = ()


def load(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    declared: Mapping[str, Any] | None = None,
) -> Loaded:
    """Return a model by name, built, with its weights.

    Parameters
    ----------
    name
        `keras:NAME` (an entry of keras.applications), `FILE.py:factory` (which returns a model, or a model and a dict
        of facts of its input) or a file that `model.save` wrote (read in safe mode).
    checkpoint
        Weights: `.weights.h5`, `.keras` or `.h5`.
    pretrained
        ImageNet's weights from the application's own place.
    size, channels
        Height and width, and channels, where the model leaves them open.
    declared
        What is done to an image before: colour, range, mean, std, fit, resize, resample; over what the model's own
        configuration says.

    Raises
    ------
    MissingFramework
        If Keras or TensorFlow is not installed.
    UsageError, UnknownName
        If the name or a combination cannot be meant.
    ExportError
        If model or weights cannot be loaded.
    NotExportable
        If the model takes several inputs.
    """
    if pretrained and checkpoint is not None:
        raise UsageError("--pretrained and --checkpoint exclude each other: the weights come from one place")
    if Path(name).suffix.lower() in SAVED and ":" not in Path(name).name:
        model, said, facts = _saved(Path(name).expanduser(), pretrained)
        shown = Path(name).name
    else:
        parsed = parse_name(name, ("keras",))
        shown = str(parsed)
        if parsed.path is None:
            model, facts = _application(parsed.name, pretrained, size, channels)
            said = "pretrained" if pretrained else "random"
        else:
            model, facts = _from_factory(parsed.path, parsed.name, shown, pretrained)
            said = "random"
    # flags stand over what the factory or the application says
    flags = {"size": size, "channels": channels, **(declared or {})}
    facts |= preprocessing.checked({k: v for k, v in flags.items() if v is not None}, "the command line")
    loaded = described(model, facts=facts, weights=said, name=shown)
    if checkpoint is None:
        return loaded
    held = weights.load_weights(loaded.model, Path(checkpoint))
    return Loaded(loaded.model, loaded.input, held, shown, loaded.notes)


def described(
    model: Any, *, facts: Mapping[str, Any] | None = None, weights: Any = "as given", name: str | None = None
) -> Loaded:
    """Return a model with its input described and its variables built, by one call on zeros where that is needed.

    Raises
    ------
    NotExportable
        If it takes several inputs.
    UsageError
        If the size of its input is not known.
    ExportError
        If it is no Keras model, or its forward pass fails.
    """
    keras = frameworks.keras()
    if not isinstance(model, keras.layers.Layer):
        raise ExportError(f"expected a Keras 3 model or layer, got {type(model).__module__}.{type(model).__name__}")
    if keras.config.image_data_format() != "channels_last":
        raise ExportError(
            "Keras is set to channels_first, which TensorFlow cannot run on a CPU; build the model with channels_last"
            " (keras.config.set_image_data_format) and ask for --layout NCHW if the file should be channels first"
        )
    facts = dict(facts or {})
    shape, dtype = _input(model, keras, facts)
    values = {k: v for k, v in facts.items() if k not in ("size", "channels")}
    if len(shape) == 3:
        values.setdefault("colour", {1: "grey", 3: "rgb"}.get(shape[2]))
    layout = "NHWC" if len(shape) == 3 else None
    spec = InputSpec("image" if layout else "input", shape, layout, dtype=dtype, **values)  # type: ignore[arg-type]
    if not model.built or not getattr(model, "inputs", None):
        try:
            model(frameworks.tensorflow().zeros((1, *shape), dtype), training=False)
        except Exception as error:  # the user's own forward pass
            raise ExportError(
                f"the model's forward pass fails on an input of shape {(1, *shape)}: {frameworks.words(error)}"
            ) from error
    return Loaded(model, spec, weights, name or model.name)


def _application(
    name: str, pretrained: bool, size: tuple[int, int] | None, channels: int | None
) -> tuple[Any, dict[str, Any]]:
    keras = frameworks.keras()
    known = [n for n in dir(keras.applications) if n[0].isupper() and callable(getattr(keras.applications, n))]
    if name not in known:
        raise UnknownName("keras application", name, known)
    build = getattr(keras.applications, name)
    wanted: dict[str, Any] = {"weights": "imagenet" if pretrained else None}
    try:
        if size is None and channels is not None:
            size = build(weights=None).input_shape[1:3]
        if size is not None:
            wanted["input_shape"] = (*size, channels or 3)
        with frameworks.quiet():
            model = build(**wanted)
    except ValueError as error:
        raise ExportError(f"keras:{name} cannot be built: {frameworks.words(error)}") from error
    except Exception as error:
        if not pretrained:
            raise
        raise ExportError(
            f"keras:{name}: the pretrained weights cannot be had ({frameworks.words(error)}); give a file with"
            " --checkpoint FILE.weights.h5"
        ) from error
    facts = preprocessing.of_application(sys.modules[build.__module__].preprocess_input)
    if model.input_shape[-1] != 3:  # the application's values are for three channels
        facts = {}
    return model, facts


def _from_factory(path: Path, function: str, shown: str, pretrained: bool) -> tuple[Any, dict[str, Any]]:
    if pretrained:
        raise UsageError(f"{shown}: --pretrained is for keras:NAME; a factory loads its own, or give --checkpoint FILE")
    frameworks.keras()
    made = called(load_factory(path, function), shown)
    model, facts = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(facts, Mapping):
        raise ExportError(
            f"{shown}() returned (model, {type(facts).__name__}); expected a model, or a model and a dict"
        )
    return model, preprocessing.checked(facts, f"{shown}()")


def _saved(path: Path, pretrained: bool) -> tuple[Any, Any, dict[str, Any]]:
    if pretrained:
        raise UsageError(f"{path.name}: --pretrained is for keras:NAME; a saved model brings its own weights")
    keras = frameworks.keras()
    weights.refuse_others(path)
    try:
        with frameworks.quiet():
            model = keras.saving.load_model(str(path), compile=False, safe_mode=True)
    except Exception as error:  # Keras raises ValueError, TypeError, KeyError, OSError: all mean the same here
        raise ExportError(
            f"{path.name} cannot be loaded as a saved Keras model (safe mode): {frameworks.words(error)}. Code of your"
            " own goes into FILE.py:factory, with the weights as --checkpoint"
        ) from error
    return model, weights.file_facts(path), {}


def _input(model: Any, keras: Any, facts: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    """Return the input's shape without batch and its dtype."""
    inputs = getattr(model, "inputs", None) or ()
    if len(inputs) > 1:
        names = ", ".join(repr(t.name) for t in inputs)
        raise NotExportable(
            f"the model takes {len(inputs)} inputs ({names}); G-EED is measured on one: fix the others in a model of"
            " one input and export that"
        )
    if not inputs:
        _one_argument(model)
    size, channels = facts.get("size"), facts.get("channels")
    dtype = keras.backend.standardize_dtype(inputs[0].dtype) if inputs else "float32"
    own = tuple(inputs[0].shape[1:]) if inputs else (None, None, channels or 3)
    if len(own) == 3:
        given = (*(size or (None, None)), channels)
        for have, want in zip(own, given, strict=True):
            if have is not None and want is not None and have != want:
                raise UsageError(f"the model's input is {_text(own)} (height, width, channels), not {_text(given)}")
        own = tuple(have if have is not None else want for have, want in zip(own, given, strict=True))
    if any(n is None for n in own):
        raise UsageError(f"the size of the model's input {_text(own)} is not known; add --size HxW (and --channels)")
    # a half-precision model still takes float32 images: Keras casts them
    return tuple(int(n) for n in own), "float32" if dtype in ("float16", "bfloat16", "float64") else dtype


def _one_argument(model: Any) -> None:
    import inspect

    wanted = [
        p.name
        for p in inspect.signature(model.call).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    wanted = [n for n in wanted if n not in ("training", "mask")]
    if len(wanted) > 1:
        raise NotExportable(
            f"the model's call takes {len(wanted)} inputs ({', '.join(wanted)}); G-EED is measured on one: fix the"
            " others in a model of one input and export that"
        )


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("?" if n is None else str(n) for n in shape) + ")"
