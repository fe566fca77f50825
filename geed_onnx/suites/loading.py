"""From the file of a suite to the `Suite` that is meant, or to every fault of it at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from geed_onnx.errors import UsageError
from geed_onnx.groups import parse_group
from geed_onnx.requests import Runtime, Settings, of_fields
from geed_onnx.results import RESULTS
from geed_onnx.suites.entries import Place, check_acts, data_of, models_of
from geed_onnx.suites.faults import MISSING, Fault, SuiteError, place, unexpected
from geed_onnx.suites.paths import existing, is_remote, located, stem_parts
from geed_onnx.suites.reading import read_document
from geed_onnx.suites.suite import Suite
from geed_onnx.suites.thresholds import Measured, thresholds_of
from geed_onnx.variants import PAPER

if TYPE_CHECKING:
    from geed_onnx.suites.schema import SuiteTable, Table

T = TypeVar("T", bound="Table")
TABLES = ("measure", "models", "data", "thresholds")


def load_suite(
    path: str | os.PathLike[str], *, root: str | os.PathLike[str] | None = None, files: bool = True
) -> Suite:
    """Return the suite that a TOML, YAML or JSON file asks for, every pattern followed and every default filled in.

    Parameters
    ----------
    path
        The file; paths in it are relative to its folder, or to its `root`.
    root
        What they are relative to instead: a folder, over the suite's own `root`, as one would type it here.
    files
        Whether the file system is looked at. Without it paths stay as they are written and patterns are not followed:
        for the ``suite.toml`` of a run whose models and images may have moved since.

    Raises
    ------
    SuiteError
        If anything in it cannot be meant: all faults, each with its place, value and what was expected.
    UsageError
        If `root` is no folder.
    """
    from geed_onnx.suites.schema import DataTable, MeasureTable, ModelTable, SuiteTable, ThresholdTable, checked

    uri = os.fspath(path)
    given_root = None if root is None else _root(os.fspath(root), files=files)
    document = read_document(uri)
    faults: list[Fault] = []
    head, wrong = checked(SuiteTable, document, "", faults)
    assert head is not None, "every key before the tables may be left out"
    at = Place(_folder(uri, head) if given_root is None else given_root, files)
    groups = _given(head, document, wrong, ("group", "groups"), faults)
    if groups is None and not wrong & {"group", "groups"}:
        faults.append(unexpected("groups", MISSING, 'a list of groups, as in groups = ["C8"]'))
    seeds = _given(head, document, wrong, ("seed", "seeds"), faults) or [0]
    _once(groups or (), "groups", faults, lambda g: parse_group(g).name)
    for key, values in (("samples", head.samples or ()), ("seeds", seeds), ("variants", head.variants or ())):
        _once(values, key, faults)
    _taps(head.taps or (), "taps", faults)
    baseline = _baseline(head, at, faults)

    measure, _ = checked(MeasureTable, head.measure, "measure", faults)
    models = _tables(ModelTable, document, "models", "path", faults)
    model_tables = [(where, t, _preprocessing(t.preprocessing, where, faults)) for where, t, _ in models if t]
    for where, t, _ in models:
        if t is not None:
            _taps(t.taps or (), place(where, "taps"), faults)
    check_acts([(where, t) for where, t, _ in model_tables], [parse_group(g) for g in groups or ["C2"]], faults)
    before = len(faults)
    entries = models_of(model_tables, tuple(head.taps) if head.taps else None, at, faults)
    all_models = len(faults) == before and len(model_tables) == len(models)

    tables = _tables(DataTable, document, "data", "source", faults)
    before = len(faults)
    data_tables = [(where, t, _preprocessing(t.preprocessing, where, faults)) for where, t, _ in tables if t]
    data = data_of(data_tables, at, faults)
    all_data = len(faults) == before and len(data_tables) == len(tables)

    limits = _tables(ThresholdTable, document, "thresholds", None, faults)
    measured = Measured(
        None if "variants" in wrong else tuple(head.variants or PAPER),
        tuple(parse_group(g).name for g in groups) if groups else None,
        tuple(e.name for e in entries) if all_models else None,
        tuple(data) if all_data else None,
        head.baseline is not None or "baseline" in wrong,
    )
    thresholds = thresholds_of([(where, t, w) for where, t, w in limits if t], measured, faults)
    if faults:
        raise SuiteError(uri, sorted(faults, key=_order))
    assert measure is not None, "every key of [measure] may be left out"
    return Suite(
        path=uri,
        title=head.title or stem_parts(uri)[-1],
        models=tuple(entries),
        data=tuple(entry for entry, _ in data),
        groups=tuple(groups or ()),
        samples=tuple(head.samples or (None,)),
        seeds=tuple(seeds),
        settings=of_fields(Settings, {"variants": head.variants, **measure.model_dump()}),
        runtime=of_fields(Runtime, measure.model_dump()),
        thresholds=tuple(thresholds),
        baseline=baseline,
        output=head.output,
    )


def _order(fault: Fault) -> tuple[int, int]:
    """Sort faults as a suite is read: what is before the tables, then table by table."""
    found = re.match(r"(measure|models|data|thresholds)(?:\[(\d+)\])?", fault.path)
    return (0, 0) if found is None else (TABLES.index(found[1]) + 1, int(found[2] or 0))


def _folder(uri: str, head: SuiteTable) -> str:
    """Return what the paths of a suite are relative to."""
    folder = uri.rsplit("/", 1)[0] if is_remote(uri) else os.path.dirname(uri)
    if head.root is None:
        return folder
    root = located(folder, head.root)
    # by its words alone: where the folder is a link, `..` is still the folder that it is written in
    return root if is_remote(root) else os.path.normpath(root)


def _root(folder: str, *, files: bool) -> str:
    """Return the folder that paths are to be relative to, checked where the file system is looked at."""
    if is_remote(folder):
        return folder
    if files and not os.path.isdir(folder):
        if not folder or os.path.exists(folder):
            raise UsageError(f"root: expected a folder, {folder!r} is none")
        try:
            existing("", folder, folders=True)
        except UsageError as error:  # which says what is near it
            raise UsageError(f"root: {error}") from None
    return os.path.normpath(folder)


def _given(
    head: SuiteTable, document: Mapping[str, Any], wrong: frozenset[str], keys: tuple[str, str], faults: list[Fault]
) -> list[Any] | None:
    """Return what is given under either key, the one for one and the one for many."""
    one, many = (getattr(head, key) for key in keys)
    if all(getattr(head, key) is not None or key in wrong for key in keys):
        message = f"{keys[0]} and {keys[1]} are both given; give one"
        faults.append(Fault(keys[0], document[keys[0]], f"{keys[0]} or {keys[1]}", message))
    found: list[Any] | None = one if many is None else many
    return found


def _once(
    values: Sequence[Any], where: str, faults: list[Fault], same: Callable[[Any], Hashable] = lambda value: value
) -> None:
    """Add a fault for each value that is there twice."""
    first: dict[Hashable, int] = {}
    for i, value in enumerate(values):
        known = first.setdefault(same(value), i)
        if known != i:
            faults.append(
                Fault(place(where, i), value, "each once", f"{place(where, known)} is the same; leave it out")
            )


def _taps(taps: Sequence[str], where: str, faults: list[Fault]) -> None:
    """Add a fault for each tap that is there twice, or as two kinds."""
    from geed_onnx.variants import KINDS

    kinds: dict[str, tuple[str, int]] = {}
    _once(taps, where, faults)
    for i, tap in enumerate(taps):
        name, _, kind = tap.rpartition(":")
        if kind in KINDS:
            other, known = kinds.setdefault(name, (kind, i))
            if other != kind:
                message = f"{name!r} is a {other} in {place(where, known)}; choose one kind"
                faults.append(Fault(place(where, i), tap, "one kind for a tap", message))


def _baseline(head: SuiteTable, at: Place, faults: list[Fault]) -> str | None:
    if head.baseline is None or not at.files:
        return head.baseline
    try:
        found = existing(at.folder, head.baseline, folders=True)
        if os.path.isdir(found) and not os.path.isfile(os.path.join(found, RESULTS)):
            raise UsageError(f"this folder holds no {RESULTS}: geed-onnx run writes one")
        return found
    except UsageError as error:
        faults.append(Fault("baseline", head.baseline, "a run's folder or a .jsonl file of results", str(error)))
        return None


def _tables(
    table: type[T], document: Mapping[str, Any], key: str, short: str | None, faults: list[Fault]
) -> list[tuple[str, T | None, frozenset[str]]]:
    """Return the tables under a key: (path in the suite, what is right in it, the keys that are not).

    Where `short` is given, a text stands for a table with that key alone.
    """
    from geed_onnx.suites.schema import checked

    expected = f"at least one table [[{key}]]" + (f" with {short}" if short else "")
    if document.get(key) is None:
        if short is not None:
            faults.append(unexpected(key, MISSING, expected))
        return []
    raw = document[key]
    single = not isinstance(raw, list)
    if raw == [] and short is not None:
        faults.append(unexpected(key, raw, expected, "; this is empty"))
    found: list[tuple[str, T | None, frozenset[str]]] = []
    for i, entry in enumerate([raw] if single else raw):
        where = key if single else place(key, i)
        if isinstance(entry, str) and short is not None:
            entry = {short: entry}
        if not isinstance(entry, dict):
            what = f"a table [[{key}]]" + (f", or the text that its {short} would be" if short else "")
            faults.append(unexpected(where, entry, what))
            found.append((where, None, frozenset()))
            continue
        found.append((where, *checked(table, entry, where, faults)))
    return found


def _preprocessing(raw: Mapping[str, Any], where: str, faults: list[Fault]) -> Mapping[str, Any]:
    from geed_onnx.suites.schema import PreprocessingTable, checked

    found, _ = checked(PreprocessingTable, raw, place(where, "preprocessing"), faults)
    return {} if found is None else found.model_dump(exclude_unset=True)
