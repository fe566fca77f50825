"""A fitted model as a list of steps, each from named arrays to a named array: what is run, and what is converted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from geed_exporters.errors import ExportError, NotExportable, first_line
from geed_exporters.export import Array

Method = Literal["transform", "predict_proba", "decision_function", "predict", "concatenate"]

#: The last step's own output; all others are named by their path in the pipeline.
FINAL = {"predict_proba": "probabilities", "decision_function": "decision", "predict": "prediction"}


@dataclass(frozen=True)
class Step:
    """One estimator, or the union of several."""

    path: str
    """In the pipeline, dotted (`union.pca`); empty where the model is one estimator."""
    estimator: Any
    """None for a union."""
    sources: tuple[str, ...]
    """Names of the arrays it takes; `""` is the model's input."""
    output: str
    method: Method

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of the hidden layers of a multi-layer perceptron, in order."""
        if not is_mlp(self.estimator):
            return ()
        prefix = f"{self.path}." if self.path else ""
        return tuple(f"{prefix}hidden_{i}" for i in range(1, len(self.estimator.coefs_)))

    @property
    def module(self) -> str:
        """The path with the method that gives the output, where that is not `transform`."""
        if self.method not in FINAL:
            return self.output
        return f"{self.path}.{self.method}" if self.path else self.method


def is_mlp(estimator: Any) -> bool:
    """Say whether an estimator is a multi-layer perceptron of scikit-learn."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    return isinstance(estimator, (MLPClassifier, MLPRegressor))


def planned(model: Any) -> tuple[Step, ...]:
    """Return the steps of a fitted model, in order; pipelines, unions and searches are opened, all else is one step.

    Raises
    ------
    ExportError
        If it is no scikit-learn estimator, or is not fitted.
    NotExportable
        If its last step gives neither scores, nor numbers, nor features.
    """
    from sklearn.base import BaseEstimator

    if isinstance(model, type) or not isinstance(model, BaseEstimator):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise ExportError(f"expected a fitted scikit-learn estimator, got {what}")
    steps = tuple(_opened(model, "", "", last=True))
    if not steps:
        raise ExportError("the pipeline has no step that does anything: nothing can be tapped")
    return steps


def _opened(model: Any, path: str, source: str, *, last: bool) -> Iterator[Step]:
    from sklearn.model_selection._search import BaseSearchCV
    from sklearn.pipeline import FeatureUnion, Pipeline

    if isinstance(model, BaseSearchCV):
        _fitted(model, path)
        if not hasattr(model, "best_estimator_"):
            raise ExportError(f"{_named(model, path)} was run with refit=False and holds no fitted model")
        yield from _opened(model.best_estimator_, path, source, last=last)
    elif isinstance(model, Pipeline):
        children = [(name, step) for name, step in model.steps if step not in (None, "passthrough")]
        for i, (name, step) in enumerate(children):
            final = last and i == len(children) - 1
            opened = tuple(_opened(step, _below(path, name), source, last=final))
            yield from opened
            source = opened[-1].output if opened else source
    elif isinstance(model, FeatureUnion) and not model.transformer_weights:
        yield from _united(model, path, source)
    else:
        _fitted(model, path)
        method = _method(model, path) if last else "transform"
        if method == "transform" and not hasattr(model, "transform"):
            raise NotExportable(f"{_named(model, path)} has no transform, which a step inside a pipeline needs")
        output = FINAL.get(method) or path or type(model).__name__.lower()
        yield Step(path, model, (source,), output, method)


def _united(union: Any, path: str, source: str) -> Iterator[Step]:
    sources = []
    for name, member in union.transformer_list:
        if member == "drop":
            continue
        steps = () if member == "passthrough" else tuple(_opened(member, _below(path, name), source, last=False))
        yield from steps
        sources.append(steps[-1].output if steps else source)
    yield Step(path, None, tuple(sources), path or "union", "concatenate")


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _named(model: Any, path: str) -> str:
    return f"step {path!r} ({type(model).__name__})" if path else type(model).__name__


def _fitted(model: Any, path: str) -> None:
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError as error:
        raise ExportError(f"{_named(model, path)} is not fitted: call fit first, then export") from error
    except TypeError as error:
        raise ExportError(f"{_named(model, path)} is no scikit-learn estimator: {error}") from error


def _method(model: Any, path: str) -> Method:
    from sklearn.base import is_classifier, is_regressor

    if is_classifier(model):
        for method in ("predict_proba", "decision_function"):
            if hasattr(model, method):
                return method
        raise NotExportable(f"{_named(model, path)} gives labels only, neither probabilities nor a decision function")
    if is_regressor(model):
        return "predict"
    if hasattr(model, "transform"):
        return "transform"
    raise NotExportable(f"{_named(model, path)} is no classifier, no regressor and no transformer: nothing to measure")


def evaluated(steps: Sequence[Step], x: Array) -> dict[str, Array]:
    """Return every step's output and every hidden layer, `(B, width)`, for rows of features `(B, n)`.

    Raises
    ------
    NotExportable
        If a step does not take a matrix of numbers, or gives no single one.
    """
    arrays: dict[str, Array] = {"": x}
    for step in steps:
        taken = [arrays[name] for name in step.sources]
        if step.estimator is None:
            arrays[step.output] = np.concatenate(taken, axis=1)
            continue
        try:
            with warnings.catch_warnings():
                # fitted on a table with named columns: the columns' order is all that counts here
                warnings.filterwarnings("ignore", message="X does not have valid feature names", category=UserWarning)
                given = getattr(step.estimator, step.method)(taken[0])
        except Exception as error:  # estimators raise what they like, and so does code of the user's
            raise NotExportable(
                f"{_named(step.estimator, step.path)} does not take one matrix of numbers"
                f" ({type(error).__name__}: {first_line(error, 200) or 'no message'}); a model of named or"
                " mixed columns has several inputs, and only one can be moved by a group"
            ) from error
        if isinstance(given, list):
            raise NotExportable(
                f"{_named(step.estimator, step.path)} gives {len(given)} arrays, one an output; export one model each"
            )
        dense = np.asarray(given.toarray() if hasattr(given, "toarray") else given)
        arrays[step.output] = dense.reshape(len(x), -1)
        arrays |= zip(step.hidden, hidden_layers(step.estimator, taken[0]), strict=True)
    del arrays[""]
    return arrays


def hidden_layers(estimator: Any, x: Array) -> list[Array]:
    """Return what each hidden layer of a perceptron gives, after its activation; an empty list for all else."""
    if not is_mlp(estimator):
        return []
    layers, y = [], np.asarray(x)
    for weights, bias in zip(estimator.coefs_[:-1], estimator.intercepts_[:-1], strict=True):
        y = ACTIVATIONS[estimator.activation](y @ weights + bias)
        layers.append(y)
    return layers


def _logistic(z: Array) -> Array:
    half: Array = np.tanh(z / 2)  # exp would overflow
    return (half + 1) / 2


ACTIVATIONS: Mapping[str, Any] = {
    "identity": lambda z: z,
    "logistic": _logistic,
    "tanh": np.tanh,
    "relu": lambda z: np.maximum(z, 0),
}
