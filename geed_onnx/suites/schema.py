"""The tables of a suite as they are written: which keys there are, and what each of them takes.

A field's description is what an error says was expected there.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from geed_onnx.actions import INTERPOLATIONS, MASKS
from geed_onnx.errors import GeedError, ProviderError, suggestion
from geed_onnx.groups import parse_group
from geed_onnx.sources.preprocessing import COLOURS, FITS, LAYOUTS, RESAMPLES
from geed_onnx.suites.faults import MISSING, Fault, nearby, place, unexpected
from geed_onnx.suites.suite import SUITE_SCHEMA
from geed_onnx.variants import KINDS, SCORES, parse_variant

T = TypeVar("T", bound="Table")


# --- what a value may be ----------------------------------------------------------------------------------------


def _wrong(message: str) -> PydanticCustomError:
    return PydanticCustomError("said", "{message}", {"message": message})


def said_of(error: GeedError, value: object) -> str:
    """Return an error's words without the value, which stands before them."""
    return str(error).replace(f" {value!r}", "", 1).removeprefix(f"{value}: ").removeprefix("variant: ")


def _group(text: str) -> str:
    try:
        parse_group(text)
    except GeedError as error:
        raise _wrong(said_of(error, text)) from None
    return text.strip()


def _variant(text: str) -> str:
    try:
        return parse_variant(text).name
    except GeedError as error:
        raise _wrong(said_of(error, text)) from None


def _tap(text: str) -> str:
    name, colon, last = text.rpartition(":")
    if colon and last in KINDS and not name:
        raise _wrong(f"expected NAME:{last}; there is no name before the colon")
    near = difflib.get_close_matches(last.lower(), KINDS, n=1, cutoff=0.8)
    if colon and last not in KINDS and near:
        # a tensor may be called so, but then a glob still names it
        raise _wrong(f"unknown kind of tap: did you mean '{name}:{near[0]}'?; a tensor really called so: '{name}:?*'")
    return text


def _sample(value: Any) -> Any:
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST):
        return value
    raise _wrong(f"expected {SAMPLES}" + (nearby(value, ["all"]) if isinstance(value, str) else ""))


def _provider(word: str) -> str:
    from geed_onnx.sessions import resolve_provider

    try:
        resolve_provider(word)
    except ProviderError:
        pass  # known, but not on this machine: the suite may be run on another
    except GeedError as error:
        raise _wrong(said_of(error, word)) from None
    return word


def _one_of(what: str, words: Sequence[str], aliases: Sequence[str] = ()) -> Callable[[str], str]:
    def read(word: str) -> str:
        if word not in words and word not in aliases:
            raise _wrong(f"unknown {what}{suggestion(word, words)}")
        return word

    return read


def _constant(value: Any) -> float | str:
    if isinstance(value, str) and value.lower().endswith(".npy"):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an int beyond every float
            number = math.nan
        if not math.isnan(number):
            return number
    raise _wrong("expected a number, or the path of a .npy file")


def _size(value: Any) -> Any:
    sides: list[Any] = []
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}(\s*[x×,]\s*\d{1,6})?\s*", value):
        sides = [int(n) for n in re.findall(r"\d+", value)]
    elif isinstance(value, (list, int)):
        sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in sides):
        raise _wrong('expected a side or height and width, as in "224x224", [224, 224] or 224')
    return value


def _numbers(value: Any) -> list[float]:
    given = value.replace(",", " ").split() if isinstance(value, str) else value if isinstance(value, list) else [value]
    try:
        numbers = [math.nan if isinstance(n, bool) or n is None else float(n) for n in given]
    except (ValueError, TypeError, OverflowError):
        numbers = []
    return numbers if numbers and all(map(math.isfinite, numbers)) else []


def _range(value: Any) -> Any:
    numbers = _numbers(value)
    if len(numbers) != 2 or numbers[0] == numbers[1]:
        raise _wrong('expected two different numbers, what black and white become, as in [0, 1] or "0,255"')
    return value


def _per_channel(value: Any) -> Any:
    if len(_numbers(value)) not in (1, 3):
        raise _wrong('expected one number or three, one a channel, as in [0.485, 0.456, 0.406] or "0.5"')
    return value


def _deviation(value: Any) -> Any:
    if 0 in _numbers(value):
        raise _wrong("expected numbers other than 0: the input is divided by them")
    return _per_channel(value)


def _many(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


#: What a whole number of TOML may be.
LARGEST = 2**63 - 1
SAMPLES = 'a positive whole number or "all"'
Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Group = Annotated[Text, AfterValidator(_group)]
VariantName = Annotated[Text, AfterValidator(_variant)]
TapSpec = Annotated[Text, AfterValidator(_tap)]
Sample = Annotated[Any, AfterValidator(_sample)]
Groups = Annotated[list[Group], BeforeValidator(_many), Field(min_length=1)]
Variants = Annotated[list[VariantName], BeforeValidator(_many), Field(min_length=1)]
Taps = Annotated[list[TapSpec], BeforeValidator(_many), Field(min_length=1)]
Samples = Annotated[list[Sample], BeforeValidator(_many), Field(min_length=1)]
Seeds = Annotated[list[Whole], BeforeValidator(_many), Field(min_length=1)]


# --- tables -----------------------------------------------------------------------------------------------------


class Table(BaseModel):
    """One table of a suite; no key but these, no type but the one that is meant."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SuiteTable(Table):
    """The keys before the first table."""

    schema_: Annotated[str, AfterValidator(_one_of("schema", (SUITE_SCHEMA,)))] = Field(
        SUITE_SCHEMA, alias="schema", description=f'the text "{SUITE_SCHEMA}"'
    )
    title: Text | None = Field(None, description="a text")
    output: Text | None = Field(None, description="the path of a folder")
    root: Text | None = Field(None, description="the path of a folder")
    baseline: Text | None = Field(None, description="the path of a run's folder or of a .jsonl file of results")
    group: Groups | None = Field(None, description="a group, or a list of groups")
    groups: Groups | None = Field(None, description="a group, or a list of groups")
    samples: Samples | None = Field(None, description=f"{SAMPLES}, or a list of them")
    seed: Seeds | None = Field(None, description="a whole number from 0, or a list of them")
    seeds: Seeds | None = Field(None, description="a whole number from 0, or a list of them")
    taps: Taps | None = Field(None, description="NAME[:KIND], or a list of them")
    variants: Variants | None = Field(None, description="a variant, or a list of variants")
    measure: dict[str, Any] = Field({}, description="a table [measure]")
    models: Any = Field(None, description="tables [[models]]")
    data: Any = Field(None, description="tables [[data]]")
    thresholds: Any = Field(None, description="tables [[thresholds]]")


class MeasureTable(Table):
    """`[measure]`."""

    spread_samples: Annotated[int, Field(ge=2)] | None = Field(None, description="a whole number from 2")
    reference_samples: Whole | None = Field(None, description="a whole number from 0")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.95, description="a number between 0 and 1 (95 % is written 0.95)"
    )
    floor: bool = Field(False, description="true or false")
    mask: Annotated[str, AfterValidator(_one_of("mask", MASKS))] = Field(
        "auto", description="one of " + ", ".join(MASKS)
    )
    interpolation: Annotated[str, AfterValidator(_one_of("interpolation", INTERPOLATIONS))] = Field(
        "bilinear", description="one of " + ", ".join(INTERPOLATIONS)
    )
    batch_size: Annotated[int, Field(ge=1)] | None = Field(None, description="a whole number from 1")
    provider: Annotated[Text, AfterValidator(_provider)] = Field("auto", description="auto, cpu, cuda, …")
    threads: Annotated[int, Field(ge=1)] | None = Field(None, description="a whole number from 1")
    tf32: bool = Field(False, description="true or false")


class ModelTable(Table):
    """`[[models]]`."""

    path: Text = Field(description="the path of an ONNX file, or a pattern of paths")
    name: Text | None = Field(None, description="a text")
    family: Text | None = Field(None, description="a text")
    seed: Whole | None = Field(None, description="a whole number from 0")
    step: Whole | None = Field(None, description="a whole number from 0")
    taps: Taps | None = Field(None, description="NAME[:KIND], or a list of them")
    acts: dict[Text, Text] = Field({}, description='a table of actions by tap, as in { logits = "permute:1:1,0" }')
    declared_action: bool = Field(True, description="true or false")
    scores: dict[Text, Annotated[str, AfterValidator(_one_of("word for scores", SCORES))]] = Field(
        {}, description='a table of "logits" or "probabilities" by tap'
    )
    input: Text | None = Field(None, description="the name of an input")
    layout: Annotated[str, AfterValidator(_one_of("layout", LAYOUTS))] | None = Field(
        None, description='"NCHW" or "NHWC"'
    )
    constants: dict[Text, Annotated[Any, AfterValidator(_constant)]] = Field(
        {}, description="a table of numbers or .npy files by input"
    )
    preprocessing: dict[str, Any] = Field({}, description="a table of preprocessing")


class PreprocessingTable(Table):
    """`preprocessing = { … }` of a model or of a data set; what is written stays as it is written."""

    size: Annotated[Any, AfterValidator(_size)] = Field(None, description="height and width")
    fit: Annotated[str, AfterValidator(_one_of("fit", FITS))] = Field("", description="one of " + ", ".join(FITS))
    resize: Annotated[Any, AfterValidator(_size)] = Field(None, description="a side, or height and width")
    colour: Annotated[str, AfterValidator(_one_of("colour", COLOURS, ("gray",)))] = Field(
        "", description="one of " + ", ".join(COLOURS)
    )
    range: Annotated[Any, AfterValidator(_range)] = Field(None, description="two numbers")
    mean: Annotated[Any, AfterValidator(_per_channel)] = Field(None, description="one number, or three")
    std: Annotated[Any, AfterValidator(_deviation)] = Field(None, description="one number, or three")
    resample: Annotated[str, AfterValidator(_one_of("resample", RESAMPLES))] = Field(
        "", description="one of " + ", ".join(RESAMPLES)
    )


class DataTable(Table):
    """`[[data]]`."""

    source: Text = Field(description="the path of a file or folder, or hf:NAME[:SPLIT]")
    name: Text | None = Field(None, description="a text")
    column: Text | None = Field(None, description="the name of a column")
    cluster: Text | None = Field(None, description='the name of a column, or "folder"')
    skip_bad: bool = Field(False, description="true or false")
    streaming: bool | None = Field(None, description="true or false")
    preprocessing: dict[str, Any] = Field({}, description="a table of preprocessing")


class ThresholdTable(Table):
    """`[[thresholds]]`."""

    variant: VariantName = Field(description="a variant")
    above: Finite | None = Field(None, description="a finite number")
    below: Finite | None = Field(None, description="a finite number")
    worse_by: Annotated[Finite, Field(ge=0)] | None = Field(
        None, description="a finite number from 0 (2 % is written 0.02)"
    )
    on: Annotated[str, AfterValidator(_one_of("word", ("value", "calibrated")))] = Field(
        "value", description='"value" or "calibrated"'
    )
    tap: Text = Field("*", description="a glob of tap names")
    model: Text = Field("*", description="a glob of model names")
    group: Text = Field("*", description="a glob of groups")
    data: Text = Field("*", description="a glob of data sets")
    prove: bool = Field(False, description="true or false")
    family_wise: bool = Field(False, description="true or false")


#: Where the keys of a table belong, for one that is found in another.
HOMES: tuple[tuple[type[Table], str], ...] = (
    (PreprocessingTable, "into preprocessing = { … }"),
    (ThresholdTable, "into [[thresholds]]"),
    (DataTable, "into [[data]]"),
    (ModelTable, "into [[models]]"),
    (MeasureTable, "into [measure]"),
    (SuiteTable, "before the first table"),
)


# --- every fault of a table -------------------------------------------------------------------------------------


def checked(table: type[T], raw: Mapping[str, Any], where: str, faults: list[Fault]) -> tuple[T | None, frozenset[str]]:
    """Return what is right in a table, and the keys that are not; each fault is added to `faults`.

    What is wrong is left out, so that the rest can still be held against the other tables; None where a key that must
    be there is missing or wrong.
    """
    try:
        return table.model_validate(raw), frozenset()
    except ValidationError as error:
        faults += _faults(error, table, raw, where)
        wrong = frozenset(str(e["loc"][0]) for e in error.errors(include_url=False))
    try:
        return table.model_validate({k: v for k, v in raw.items() if k not in wrong}), wrong
    except ValidationError:
        return None, wrong


def _faults(error: ValidationError, table: type[Table], raw: Mapping[str, Any], where: str) -> list[Fault]:
    found: dict[str, Fault] = {}
    for details in error.errors(include_url=False):
        fault = _fault(details, table, raw, where)
        found.setdefault(fault.path, fault)
    return list(found.values())


def _fault(details: ErrorDetails, table: type[Table], raw: Mapping[str, Any], where: str) -> Fault:
    key = str(details["loc"][0])
    if details["type"] == "missing":
        return unexpected(place(where, key), MISSING, _expected(table, key))
    at, value = _walked(details["loc"], raw, where)
    if details["type"] == "extra_forbidden":
        names = [f.alias or name for name, f in table.model_fields.items()]
        return Fault(at, value, "one of " + ", ".join(names), f"unknown key{_meant(key, names)}")
    expected = _expected(table, key)
    if details["type"] == "said":
        return Fault(at, value, expected, details["msg"])
    empty = "; this is empty" if value in ("", []) else ""
    return unexpected(at, value, expected, empty)


def _meant(key: str, names: Sequence[str]) -> str:
    """Return which key may have been meant: one of these, or one of another table.

    A table of TOML ends where the next one begins, so a key is easily written into the wrong one.
    """
    elsewhere = {
        name: home
        for table, home in HOMES
        for name in [f.alias or name for name, f in table.model_fields.items()]
        if name not in names
    }
    best = difflib.get_close_matches(key.lower(), [*names, *elsewhere], n=1, cutoff=0.6)
    if best and best[0] in elsewhere:
        what = f"{key!r} belongs" if key == best[0] else f"did you mean {best[0]!r}, which belongs"
        return f": {what} {elsewhere[best[0]]}"
    return suggestion(key, names)


def _walked(loc: Sequence[str | int], raw: Any, where: str) -> tuple[str, Any]:
    """Return path and value of the innermost part of `loc` that is there."""
    for part in loc:
        if isinstance(raw, dict) and part in raw:
            raw = raw[str(part)]
        elif isinstance(raw, list) and isinstance(part, int):
            raw = raw[part]
        else:
            break
        where = place(where, part)
    return where, raw


def _expected(table: type[Table], key: str) -> str:
    for name, field in table.model_fields.items():
        if key in (name, field.alias):
            return str(field.description)
    return "a value"
