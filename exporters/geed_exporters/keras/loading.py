"""Keras models by name: `keras:MobileNetV2`, `net.py:build`, `model.keras`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError, NotExportable
from geed_exporters.export import PREPARATION, InputSpec
from geed_exporters.factories import called, load_factory, parse_name
from geed_exporters.facts import NOTHING, Facts, channels_of, input_spec, over, read_facts
from geed_exporters.keras import frameworks, preprocessing, weights
from geed_exporters.loaded import Loaded, fingerprint
from geed_onnx.errors import UnknownName, UsageError

SAVED = (".keras", ".h5", ".hdf5")


def load(
    name: str,
    *,
    checkpoint: Path | None = None,
    pretrained: bool = False,
    facts: Facts = NOTHING,
) -> Loaded:
    """Return a model by name, built, with its weights.

    Parameters
    ----------
    name
        `keras:NAME` (an entry of keras.applications), `FILE.py:factory` (which returns a model, or a model and a dict
        of what `Facts` has) or a file that `model.save` wrote (read in safe mode).
    checkpoint
        Weights: `.weights.h5`, `.keras` or `.h5`.
    pretrained
        ImageNet's weights from the application's own place.
    facts
        What stands over what the application or the factory says; size and channels where the model leaves them open.

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
        model, said, known = _saved(Path(name).expanduser(), pretrained)
        shown = Path(name).name
    else:
        parsed = parse_name(name, ("keras",))
        shown = str(parsed)
        if parsed.path is None:
            model, known = _application(parsed.name, pretrained, facts.size, facts.channels)
            said = "pretrained" if pretrained else "random"
        else:
            model, known = _from_factory(parsed.path, parsed.name, shown, pretrained)
            said = "random"
    loaded = described(model, facts=over(known, facts), weights=said, name=shown)
    if checkpoint is None:
        return loaded
    return replace(loaded, weights=weights.load_weights(loaded.model, Path(checkpoint)))


def described(model: Any, *, facts: Facts = NOTHING, weights: Any = "as given", name: str | None = None) -> Loaded:
    """Return a model with its input described and its variables built, by one call on zeros where that is needed.

    `weights` is what `geed.source` says of them where the facts do not.

    Raises
    ------
    NotExportable
        If it takes several inputs.
    UsageError
        If the size of its input is not known, or facts do not fit it.
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
    shown = name or model.name
    shape, dtype = _input(model, keras, facts, shown)
    spec = _spec(shape, dtype, facts, shown)
    if not model.built or not getattr(model, "inputs", None):
        try:
            model(frameworks.tensorflow().zeros((1, *shape), dtype), training=False)
        except Exception as error:  # the user's own forward pass
            raise ExportError(
                f"the model's forward pass fails on an input of shape {(1, *shape)}: {frameworks.words(error)}"
            ) from error
    return Loaded(model, spec, weights, shown).said(facts)


def _spec(shape: tuple[int, ...], dtype: str, facts: Facts, name: str) -> InputSpec:
    if len(shape) == 3:
        known = over(facts, Facts(size=(shape[0], shape[1]), channels=shape[2]))
        if known.colour is None:
            known = replace(known, colour={1: "grey", 3: "rgb"}.get(shape[2]))  # type: ignore[arg-type]
        return replace(input_spec(known, layout="NHWC", whose=name), dtype=dtype)
    for key in ("size", "channels", *PREPARATION):
        if getattr(facts, key) is not None:
            raise UsageError(f"{name}: its input {_text(shape)} is no image, of which {key} could be said")
    return InputSpec(facts.input or "input", shape, dtype=dtype)


def _application(name: str, pretrained: bool, size: tuple[int, int] | None, channels: int | None) -> tuple[Any, Facts]:
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
        return model, NOTHING
    return model, facts


def _from_factory(path: Path, function: str, shown: str, pretrained: bool) -> tuple[Any, Facts]:
    if pretrained:
        raise UsageError(f"{shown}: --pretrained is for keras:NAME; a factory loads its own, or give --checkpoint FILE")
    frameworks.keras()
    made = called(load_factory(path, function), shown)
    model, facts = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(facts, Mapping):
        raise ExportError(
            f"{shown}() returned (model, {type(facts).__name__}); expected a model, or a model and a dict"
        )
    return model, read_facts(facts, shown)


def _saved(path: Path, pretrained: bool) -> tuple[Any, Any, Facts]:
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
    return model, fingerprint(path), NOTHING


def _input(model: Any, keras: Any, facts: Facts, name: str) -> tuple[tuple[int, ...], str]:
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
    dtype = keras.backend.standardize_dtype(inputs[0].dtype) if inputs else "float32"
    own = tuple(inputs[0].shape[1:]) if inputs else (None, None, channels_of(facts) or 3)
    if len(own) == 3:
        given = (*(facts.size or (None, None)), facts.channels)
        for have, want in zip(own, given, strict=True):
            if have is not None and want is not None and have != want:
                raise UsageError(f"the model's input is {_text(own)} (height, width, channels), not {_text(given)}")
        given = (*given[:2], channels_of(facts))
        own = tuple(have if have is not None else want for have, want in zip(own, given, strict=True))
        if None in own:  # says which
            input_spec(Facts(size=None if None in own[:2] else own[:2], channels=own[2]), layout="NHWC", whose=name)
    elif None in own:
        raise UsageError(f"{name}: its input {_text(own)} has open axes and is no image; build it with fixed ones")
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
