"""One threshold: which results it is for, and what they may be; read from text and from a suite's tables."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

from geed_onnx.errors import DataError, UsageError, suggestion
from geed_onnx.results import Result
from geed_onnx.variants import parse_variant

CALIBRATED = "calibrated:"
#: What a failed cell says where it stands for all taps, or for all variants, of its model.
ALL = "*"
FORM = "VARIANT=NUMBER, as in softmax=0.05, calibrated:softmax=0.1, scores@softmax=0.05 (one tap)"
WORSE = " or softmax=+2% (worse than the baseline)"
#: What a threshold picks its results by, in the order in which it is looked at.
FIELDS = ("variant", "model", "group", "data", "tap")
#: The keys of a suite that give the limit; one of them.
LIMITS = ("above", "below", "worse_by")
KEYS = ("variant", *LIMITS, "on", "tap", "model", "group", "data", "prove", "family_wise")


@dataclass(frozen=True)
class Threshold:
    """A limit for the results of one variant, of all taps, models, groups and data sets that its globs match.

    Attributes
    ----------
    variant : str
        As `--variant` takes it.
    limit : float
        What the value may be at most; with `relative`, by which part of the baseline's deviation above the optimum it
        may be worse (0.02: 2 %).
    on : {"value", "calibrated"}
    relative : bool
        Whether `limit` is relative to the baseline.
    tap, model, group, data : str
        Globs, of the tap's name or module path, the model's name, the group's name, the data's address; a name itself
        matches too, whatever characters it has.
    below : bool
        Whether `limit` is what the value may be at least: too large an invariance crosses.
    prove : bool
        Whether a value must be shown to be within the limit: an undecided one closes the gate.
    family_wise : bool
        Whether all its results together cross by chance no more often than one would (Holm).
    """

    variant: str
    limit: float
    on: Literal["value", "calibrated"] = "value"
    relative: bool = False
    tap: str = "*"
    model: str = "*"
    group: str = "*"
    data: str = "*"
    below: bool = False
    prove: bool = False
    family_wise: bool = False

    def applies_to(self, result: Result) -> bool:
        """Say whether a result is held against this threshold.

        A failed cell whose tap or variant is `*` stands for all of them, so it is held against every threshold of its
        model, group and data: what was not measured does not slip through.
        """
        return not self.misses(result)

    def misses(self, result: Result) -> str | None:
        """Return the first of variant, model, group, data, tap that keeps a result from this threshold, or None."""
        for field in FIELDS:
            names = names_of(result, field)
            if result.failed and field in ("variant", "tap") and ALL in names:
                continue
            pattern = getattr(self, field)
            # a variant is a name and no glob; a tensor's name may hold [ ] and be none either
            if pattern not in names and (field == "variant" or not any(fnmatchcase(n, pattern) for n in names)):
                return field
        return None

    @property
    def text(self) -> str:
        """How it is written: `[TAP@][calibrated:]VARIANT=LIMIT`, and what that text has no form for.

        A limit that a value may be at least is written `≥` in place of `=`.
        """
        limit = f"+{100 * self.limit:g}%" if self.relative else f"{self.limit:g}"
        others = [f"{name} {getattr(self, name)}" for name in ("model", "group", "data") if getattr(self, name) != "*"]
        others += [word for word, set_ in (("prove", self.prove), ("family-wise", self.family_wise)) if set_]
        return f"{self.subject}{'≥' if self.below else '='}{limit}" + (f" ({', '.join(others)})" if others else "")

    @property
    def subject(self) -> str:
        """What is limited: `[TAP@][calibrated:]VARIANT`."""
        return (
            f"{'' if self.tap == '*' else self.tap + '@'}{CALIBRATED if self.on == 'calibrated' else ''}{self.variant}"
        )


def names_of(result: Result, field: str) -> tuple[str, ...]:
    """Return what `field` (variant, model, group, data, tap) of a result is called: one name, or two."""
    if field == "variant":
        return (result.variant,)
    if field == "model":
        return (result.label,)
    if field == "group":
        return (str(result.group["name"]),)
    if field == "data":
        names = (result.data.get("uri"), result.data.get("name"))
    else:
        names = (result.tap.get("name"), result.tap.get("module"))
    return tuple(str(n) for n in names if n)


def parse_threshold(text: str, what: str = "threshold", *, below: bool = False) -> Threshold:
    """Return the threshold written as `[TAP@][calibrated:]VARIANT=LIMIT`.

    LIMIT is a number, which the value may be at most (`below`: at least), or `+NUMBER%`, by which its deviation above
    the optimum may be larger than the baseline's.  The limit stands after the last `=`, the tap (a glob) before the
    last `@`: tensor names may hold either, variants hold neither.  `calibrated:` is no kind of tap, so it is not
    mistaken for the first part of a variant in its general form (``map:pixels:relative-l2``).

    >>> parse_threshold("softmax=0.05") == Threshold("softmax", 0.05)
    True
    >>> parse_threshold("block*@calibrated:map:pixels:relative-l2=+2%").text
    'block*@calibrated:map:pixels:relative-l2=+2%'

    Raises
    ------
    UnknownName
        If the variant is not known.
    UsageError
        If the text has another form; `what` names the option in it.
    """
    form = FORM if below else FORM + WORSE
    head, sign, tail = text.rpartition("=")
    tap, at, name = head.rpartition("@")
    if not sign or not tail.strip() or (at and not tap):
        raise UsageError(f"{what} {text!r}: expected {form}")
    on: Literal["value", "calibrated"] = "calibrated" if name.startswith(CALIBRATED) else "value"
    name = name.removeprefix(CALIBRATED)
    if not name:
        raise UsageError(f"{what} {text!r}: expected {form}")
    variant = parse_variant(name).name
    limit, relative = _limit(text, tail.strip(), what)
    if relative and below:
        raise UsageError(f"{what} {text!r}: expected a number; what is relative to a baseline is given to --fail-above")
    return Threshold(variant, limit, on, relative, tap or "*", below=below)


def _limit(text: str, tail: str, what: str) -> tuple[float, bool]:
    relative = tail.endswith("%")
    try:
        number = float(tail.removesuffix("%"))
    except ValueError:
        number = math.nan
    if math.isnan(number):  # nothing is above NaN: it would pass every model
        raise UsageError(f"{what} {text!r}: expected VARIANT=NUMBER, got {tail!r} as the number")
    if not relative:
        return number, False
    if not tail.startswith("+") or number < 0 or math.isinf(number):
        plain = tail.removesuffix("%").lstrip("+-") or "2"
        raise UsageError(
            f"{what} {text!r}: expected +NUMBER%, by how much a value may be worse than the baseline's, got {tail!r};"
            f" write +{plain}%"
        )
    return number / 100, True


class InSuite(NamedTuple):
    """What a suite says of the gate: its thresholds, its baseline, and the folder that relative paths start from."""

    thresholds: tuple[Threshold, ...]
    baseline: str | None
    root: str | None


def suite_thresholds(text: str, where: str) -> InSuite:
    """Return the `[[thresholds]]`, `baseline` and `root` of a suite's TOML text; nothing else of it is looked at.

    The models and images that a suite names need not be there: results are often judged on another machine.

    Raises
    ------
    DataError
        If the text is no TOML, or a threshold has a key, a value or a combination that it cannot have; `where` (the
        file) and the place in it are named.
    """
    try:
        suite = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where}: not TOML: {error}") from None
    tables = suite.get("thresholds", [])
    if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
        raise DataError(f"{where}: thresholds: expected [[thresholds]] tables, got {tables!r:.60}")
    baseline, root = suite.get("baseline"), suite.get("root")
    for key, value in (("baseline", baseline), ("root", root)):
        if value is not None and not isinstance(value, str):
            raise DataError(f"{where}: {key}: expected a path, got {value!r:.60}")
    return InSuite(tuple(_from_table(t, f"{where}: thresholds[{i}]") for i, t in enumerate(tables)), baseline, root)


def _from_table(table: Mapping[str, Any], where: str) -> Threshold:
    for key in table:
        if key not in KEYS:
            raise DataError(f"{where}: unknown key {key!r}{suggestion(key, KEYS)}")
    limits = [k for k in LIMITS if k in table]
    if len(limits) != 1:
        got = " and ".join(limits) or "none"
        raise DataError(f"{where}: expected above, below or worse_by, one of them, got {got}")
    limit, relative = table[limits[0]], limits == ["worse_by"]
    if isinstance(limit, bool) or not isinstance(limit, int | float) or math.isnan(limit) or (relative and limit < 0):
        kind = "a number, 0 or more" if relative else "a number"
        raise DataError(f"{where}.{limits[0]}: expected {kind}, got {limit!r:.60}")
    words = {"on": "value", **dict.fromkeys(("tap", "model", "group", "data"), "*")}
    said = {k: table.get(k, default) for k, default in {"variant": None, **words}.items()}
    for key, value in said.items():
        if not isinstance(value, str):
            got = "nothing" if value is None else repr(value)[:60]
            raise DataError(f"{where}.{key}: expected a text, got {got}")
    if said["on"] not in ("value", "calibrated"):
        raise DataError(f"{where}.on: unknown word {said['on']!r}{suggestion(said['on'], ('value', 'calibrated'))}")
    flags = {k: table.get(k, False) for k in ("prove", "family_wise")}
    for key, flag in flags.items():
        if not isinstance(flag, bool):
            raise DataError(f"{where}.{key}: expected true or false, got {flag!r:.60}")
    return Threshold(**said, **flags, limit=float(limit), relative=relative, below=limits == ["below"])
