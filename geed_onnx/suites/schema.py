"""The tables of a suite as they are written: which keys there are, and what each of them takes.

A field's description is what an error says was expected there.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticCustomError

from geed_onnx.errors import GeedError, ProviderError, suggestion
from geed_onnx.groups import parse_group
from geed_onnx.requests import MAPPINGS, PREPROCESSING, Asked, Data, Model, Runtime, Settings, asked_of
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

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Return a value of a table that is made of fields."""


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


def _table(name: str, keys: Mapping[str, tuple[Asked, Any]]) -> type[Table]:
    """Return the table of what is asked for: {key: (how, default)}; without a default, `...`, it must be there."""
    made: dict[str, Any] = {}
    for key, (how, default) in keys.items():
        form, expected = _form(key, how)
        made[key] = form | None if default is None else form, Field(default, description=expected)
    return create_model(name, __base__=Table, **made)


def _keys(*parts: type) -> dict[str, tuple[Asked, Any]]:
    """Return the keys of the fields of these classes, but for those that a suite has a list of."""
    own = [(f, how) for part in parts for f, how in asked_of(part) if not how.axis]
    # a text that may be left out is `None` where it is
    defaults: dict[Any, Any] = {dataclasses.MISSING: ..., "": None}
    return {f.name: (how, {} if how.form in MAPPINGS else defaults.get(f.default, f.default)) for f, how in own}


def _form(key: str, how: Asked) -> tuple[Any, str]:
    """Return the type of a key, and what is said to be expected there."""
    if how.form == "whole":
        return Annotated[int, Field(ge=how.least, le=LARGEST)], how.expected or f"a whole number from {how.least}"
    if how.form == "switch":
        return bool, how.expected or "true or false"
    if how.form == "word":
        aliases = ("gray",) if "grey" in how.words else ()
        form = Annotated[str, AfterValidator(_one_of(key, how.words, aliases))]
        return form, how.expected or "one of " + ", ".join(how.words)
    return FORMS[how.form], how.expected


#: What takes more to tell than a type; the other forms are in `_form`.
FORMS: Mapping[str, Any] = {
    "text": Text,
    "share": Annotated[float, Field(gt=0, lt=1)],
    "provider": Annotated[Text, AfterValidator(_provider)],
    "taps": Taps,
    "acts": dict[Text, Text],
    "scores": dict[Text, Annotated[str, AfterValidator(_one_of("word for scores", SCORES))]],
    "constants": dict[Text, Annotated[Any, AfterValidator(_constant)]],
    "table": dict[str, Any],
    "size": Annotated[Any, AfterValidator(_size)],
    "range": Annotated[Any, AfterValidator(_range)],
    "channels": Annotated[Any, AfterValidator(_per_channel)],
    "divisors": Annotated[Any, AfterValidator(_deviation)],
}
#: `[measure]`, `[[models]]`, `[[data]]`, and `preprocessing = { … }`, of which what is written stays as it is written.
MeasureTable = _table("MeasureTable", _keys(Settings, Runtime))
ModelTable = _table("ModelTable", _keys(Model))
DataTable = _table("DataTable", _keys(Data))
PreprocessingTable = _table("PreprocessingTable", {key: (how, "") for key, how in PREPROCESSING.items()})


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
