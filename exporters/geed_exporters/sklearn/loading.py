"""Fitted models by name: `net.py:build`, `digits.skops`, and, where it is said so, pickles."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.factories import called, framework, load_factory, parse_name
from geed_exporters.loaded import fingerprint
from geed_exporters.sklearn.exporting import INSTALL
from geed_onnx.errors import UsageError

PICKLES = (".joblib", ".pkl", ".pickle")
#: scikit-learn's own plain classes that skops does not list: every fitted perceptron holds one.
HARMLESS = ("sklearn.neural_network._stochastic_optimizers.",)


@dataclass(frozen=True)
class Loaded:
    """A model, and what `geed.source` says of it."""

    model: Any
    name: str
    """Without folders."""
    weights: Any


def load(name: str, *, trust: bool = False) -> Loaded:
    """Return the model of a name: `FILE.py:FACTORY`, `FILE.skops`, or, only with `trust`, a pickle.

    Raises
    ------
    MissingFramework
        If scikit-learn, or what reads the file, is not installed.
    UsageError
        If the name is none of these, or a pickle comes without `trust`.
    UnknownName
        If the Python file holds no such function.
    ExportError
        If a file is not there, is not what its name says, or fails.
    """
    framework("sklearn", INSTALL)
    path = Path(name).expanduser()
    if path.suffix == ".skops":
        return _from_file(path, _skops(_existing(path), trust=trust))
    if path.suffix in PICKLES:
        if not trust:
            raise UsageError(
                f"{path.name} is a pickle, and reading one runs the code that lies in it: save the model with"
                f" skops.io.dump(model, '{path.stem}.skops') and give that, or add --trust if you know who made it"
            )
        return _from_file(path, _pickle(_existing(path)))
    try:
        named = parse_name(name, ())
    except UsageError:
        raise UsageError(
            f"model {name!r}: expected FILE.py:FACTORY, FILE.skops, or, with --trust, FILE.joblib or FILE.pkl"
        ) from None
    assert named.path is not None  # without schemes, a file is all that parse_name returns
    return Loaded(called(load_factory(named.path, named.name), str(named)), str(named), "as the factory returns it")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    return path


def _from_file(path: Path, model: Any) -> Loaded:
    from sklearn.base import BaseEstimator

    if not isinstance(model, BaseEstimator):
        raise ExportError(f"{path} holds a {type(model).__name__}; expected a fitted scikit-learn estimator")
    return Loaded(model, path.name, fingerprint(path))


def _skops(path: Path, *, trust: bool) -> Any:
    skops = framework("skops.io", INSTALL)
    if not zipfile.is_zipfile(path):
        raise ExportError(f"{path} is no skops file (a pickle under another name?); make one with skops.io.dump")
    try:
        unknown = skops.get_untrusted_types(file=path)
        foreign = [name for name in unknown if not name.startswith(HARMLESS)]
        if foreign and not trust:
            raise ExportError(
                f"{path} holds types that are not known to be safe: {', '.join(foreign)}; add --trust if you know who"
                " made the file"
            )
        return skops.load(path, trusted=unknown)
    except ExportError:
        raise
    except Exception as error:  # skops raises whatever rebuilding an object raises
        raise ExportError(f"{path} cannot be read as a skops file: {type(error).__name__}: {error}") from error


def _pickle(path: Path) -> Any:
    joblib = framework("joblib", INSTALL)  # comes with scikit-learn, and reads plain pickles too
    try:
        return joblib.load(path)
    except Exception as error:  # a pickle raises anything
        raise ExportError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
