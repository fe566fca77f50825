"""From deviations to numbers: tables keyed by image, the spread M, jackknife intervals, calibration.

Every statistic here is a pure function of tables keyed by image id, sorted by id before anything is added up, so that
it does not depend, to the last bit, on batch size, order, shards or workers.  The unit of uncertainty is the image.
"""

from __future__ import annotations

from geed_onnx.estimators.deviations import Array, Broken, Deviations, Floats, merge
from geed_onnx.estimators.intervals import (
    AROUND,
    METHOD,
    REFERENCE,
    SAMPLE,
    Change,
    Estimate,
    hull,
    interval,
    reach,
)
from geed_onnx.estimators.normalising import Normaliser, Spread, normalisers, spread
from geed_onnx.estimators.paired import (
    Equivalence,
    change_of_difference,
    check_margin,
    difference,
    equivalence,
    over_models,
    paired_by_model,
    unpaired,
    welch,
)
from geed_onnx.estimators.values import (
    Calibration,
    Tables,
    calibrated,
    calibrated_change,
    no_spread,
    restricted,
    value_change,
    value_of,
)
