"""Imports escnn where two of its requirements cannot be installed.

`lie_learn` wants an older NumPy and `py3nj` a Fortran compiler. escnn uses both for the rotations of space (SO(3))
only, which have nothing to do with images, but it imports them for everything. Where they are missing, stand-ins that
say so when they are called take their places.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from geed_exporters.factories import framework
from geed_exporters.stand_ins import stand_in

#: escnn's own requirements do not build, so that it cannot be one of the extra
INSTALL = "pip install 'geed-onnx[escnn]' && pip install --no-deps escnn==1.0.11"
UNNEEDED = ("py3nj", "lie_learn.representations.SO3.wigner_d")


def import_escnn() -> Any:
    """Return the module escnn, with stand-ins for what it needs for SO(3) only, and able to live beside scikit-learn.

    Raises
    ------
    MissingFramework
        If escnn or torch is not installed; the message is the two pip lines.
    """
    framework("torch", INSTALL)
    if "escnn" not in sys.modules:
        stand_in((name for name in UNNEEDED if not _importable(name)), "escnn needs it for rotations of space (SO(3))")
    escnn = framework("escnn", INSTALL)
    numerical = importlib.import_module("escnn.group._numerical")
    # escnn hands np.matrix to scikit-learn where that is installed, and scikit-learn takes none any more; without it,
    # escnn has a way of its own
    vars(numerical)["randomized_svd"] = None
    return escnn


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # built for another NumPy, lie_learn raises ValueError or AttributeError
        return False
    return True
