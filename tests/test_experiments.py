"""The experiments: their suites, what is kept of their results, and that the page of findings is made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from experiments.findings.page import SECTIONS, findings, made
from experiments.measure import HERE, TABLES, kept, suites
from experiments.training_facts import KEPT
from geed_onnx.results import open_results, read_results

SUITES = suites()
FINDINGS = HERE / "FINDINGS.md"


@pytest.mark.parametrize("suite", SUITES)
def test_every_suite_has_results_and_none_failed(suite: str) -> None:
    results = read_results(kept(suite))
    assert results
    assert not [r.label for r in results if r.failed]
    for r in results:
        assert r.value is None or r.low is None or r.high is None or r.low <= r.value <= r.high
        assert r.model["sha256"]
        assert r.key
        # a path of the machine that measured would say nothing to anybody else
        assert not Path(r.model["path"]).is_absolute()


def test_the_page_is_what_the_results_say() -> None:
    assert FINDINGS.read_text(encoding="utf-8") == made(), "run make findings"


def test_every_claim_and_question_has_sentence_figure_and_number() -> None:
    found = {f.key: f for f in findings()}
    assert list(found) == [k for _, keys in SECTIONS for k in keys]
    for f in found.values():
        assert f.sentence.endswith((".", ".)"))
        assert f.number.low is not None
        assert f.number.high is not None
        assert f.number.low <= f.number.value <= f.number.high
        assert (HERE / "figures" / f"{f.figure}.png").is_file()
        if f.verdict in ("not reproduced", "reproduced in part"):
            assert f.check, f"{f.key} contradicts the paper and says not why that is no mistake"


def test_every_figure_of_the_page_is_there() -> None:
    drawn = {p.name for p in (HERE / "figures").iterdir()}
    text = FINDINGS.read_text(encoding="utf-8")
    assert drawn == {part.partition(".png")[0] + ".png" for part in text.split("](figures/")[1:]}


def test_what_is_kept_stays_small_and_holds_no_networks() -> None:
    files = [p for p in HERE.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert sum(p.stat().st_size for p in files) < 20_000_000
    assert not [p for p in files if p.suffix in (".onnx", ".pt", ".safetensors")]


def test_every_training_is_kept_with_its_seed_and_versions() -> None:
    for section, count in (("augmentation", 20), ("pretraining", 22), ("self_supervision", 15)):
        lines = [json.loads(s) for s in (HERE / section / "results" / KEPT).read_text().splitlines()]
        assert len({line["trial"] for line in lines}) == len(lines) == count
        assert all(line["versions"]["torch"] and line["recipe"]["seed"] >= 0 and line["last"] for line in lines)


def test_every_model_that_was_trained_is_measured() -> None:
    for suite, families, models in (
        ("augmentation/suite", 2, 20),
        ("pretraining/suite", 4, 20),
        ("self_supervision/suite", 5, 15),
    ):
        seeds = {(r.model["family"], r.model["seed"]) for r in read_results(kept(suite))}
        assert (len({f for f, _ in seeds}), len(seeds)) == (families, models)
        section = suite.split("/")[0]
        lines = [json.loads(s) for s in (HERE / section / "results" / KEPT).read_text().splitlines()]
        # networks that are only started from are trained, and not measured
        assert len([line for line in lines if "cifar10-" not in line["trial"]]) == models


def test_kept_tables_belong_to_their_results() -> None:
    for suite in TABLES:
        found = open_results(kept(suite))
        tables = [found.tables(r) for r in found.results]
        assert all(t is not None and t.value is not None for t in tables)
