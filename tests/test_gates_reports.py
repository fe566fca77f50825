"""A verdict for people and for programs: one screen, JUnit, SARIF, markdown; names are shown, never interpreted."""

from __future__ import annotations

import json
import os
import re
import stat
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
from gate_tools import HOSTILE, cell, collected, failed
from hypothesis import given
from hypothesis import strategies as st
from junitparser import JUnitXml
from markdown_it import MarkdownIt
from rich.cells import cell_len

from geed_onnx.errors import GeedError, UsageError
from geed_onnx.gates import Threshold, Verdict, judge
from geed_onnx.reports import clean, gate_summary, junit, markdown, sarif, write_junit, write_markdown, write_sarif
from geed_onnx.reports.gate import shortened
from geed_onnx.reports.markdown import code
from geed_onnx.reports.sarif import uri_of

LIMIT = Threshold("softmax", 0.5)


def verdict_of(*results: Any, limits: tuple[Threshold, ...] = (LIMIT,), **more: Any) -> Verdict:
    return judge(results, limits, **more)


MIXED = verdict_of(
    cell(0.9, 0.8, 1.0, model="a", tap="one"),
    cell(0.1, model="a", tap="two"),
    cell(None, model="b", tap="one", reason="zero spread"),
    failed("c", tap="x", variant="channelwise"),
)
HELD = verdict_of(cell(0.1), cell(0.2, tap="other"))
NASTY = verdict_of(
    replace(
        cell(0.9, model=HOSTILE, tap=HOSTILE, group=HOSTILE, data=HOSTILE),
        model={"name": HOSTILE, "path": HOSTILE, "sha256": None},
    ),
    cell(None, model="b", tap=HOSTILE, reason=HOSTILE),
    failed(HOSTILE, tap=HOSTILE, variant="channelwise", reason=HOSTILE),
    baseline=collected(uri=HOSTILE),
)


# --- one screen -------------------------------------------------------------------------------------------------


def test_the_summary_of_a_closed_gate() -> None:
    lines = gate_summary(MIXED).splitlines()
    assert lines[0] == (
        "gate: 2 of 3 cross their threshold (1 for want of a value); 1 failed cell that no threshold is for"
    )
    assert lines[1].split() == ["model", "group", "tap", "variant", "is", "judged", "at", "limit"]
    assert lines[3].split() == ["b", "C8", "one", "softmax", "–", "–", "0.500", "no", "value", "(1)"]
    assert lines[4].split() == ["a", "C8", "one", "softmax", "0.900", "0.800", "0.500", "crossed"]
    assert lines[5:] == ["(1) zero spread", "(2) the file is gone"]


def test_a_reason_of_many_is_said_once() -> None:
    rows = [cell(tap=f"t{i}", model="new") for i in range(5)]
    baseline = collected(cell(model="a"), cell(model="b"))
    text = gate_summary(verdict_of(*rows, limits=(Threshold("softmax", 0.1, relative=True),), baseline=baseline))
    assert text.count("no value (1)") == 5
    assert text.endswith("\n(1) the baseline has no model 'new'; known: a, b\n")


def test_the_summary_of_an_open_gate_shows_what_is_nearest() -> None:
    lines = gate_summary(HELD).splitlines()
    assert lines[0] == "gate: all 2 hold"
    assert [line.split()[2] for line in lines[3:]] == ["other", "scores"]
    assert gate_summary(verdict_of(cell(0.1))).startswith("gate: the one result holds\n")
    assert gate_summary(Verdict(())) == "gate: nothing was judged: no threshold\n"


def test_a_relative_limit_shows_both_and_says_that_pairs_tell_more() -> None:
    verdict = verdict_of(cell(0.5), limits=(Threshold("softmax", 0.1, relative=True),), baseline=collected(cell(0.4)))
    text = gate_summary(verdict)
    assert "0.440 (+10%)" in text
    assert text.endswith("the folders of two runs are compared in pairs\n")


@pytest.mark.parametrize("width", [40, 60, 80, 160])
@pytest.mark.parametrize("value", [0.9, 0.1, None])
def test_it_stays_on_one_screen(width: int, value: float | None) -> None:
    rows = [
        cell(value, model=f"runs/{'long/' * 20}net-{i:03}.onnx", tap=f"tap{i}" * 30, reason=f"reason {i} " * 50)
        for i in range(300)
    ]
    lines = gate_summary(verdict_of(*rows), width).splitlines()
    screen = sum(-(-max(cell_len(line), 1) // width) for line in lines)  # as a terminal wraps them
    assert screen <= (24 if width >= 60 else 48)
    assert any(re.fullmatch(r"and 29\d more", line) for line in lines)
    for line in lines[3 : lines.index(next(x for x in lines if x.startswith("and 29")))]:
        assert cell_len(line.rstrip()) <= max(width, 60)
        assert "0.500" in line  # a number is never cut


@given(st.text(), st.integers(2, 30), st.booleans())
def test_shortened_names_fit_and_keep_an_end(text: str, room: int, front: bool) -> None:
    short = shortened(text, room, front=front)
    assert cell_len(short) <= room or cell_len(text) <= room
    kept = short.removeprefix("…") if front else short.removesuffix("…")
    assert short == text or (text.endswith(kept) if front else text.startswith(kept))


# --- JUnit ------------------------------------------------------------------------------------------------------


def test_junit_has_a_case_for_everything_judged() -> None:
    text = junit(MIXED)
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites ')
    root = ET.fromstring(text)
    assert [(s.get("name"), s.get("tests"), s.get("failures"), s.get("errors")) for s in root] == [
        ("a", "2", "1", "0"), ("b", "1", "1", "0"), ("c", "1", "0", "1"),
    ]  # fmt: skip
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("4", "2", "1")
    [bad, good] = root[0]
    assert (bad.get("name"), bad.get("classname")) == ("softmax=0.5 | one | C8 | digits.parquet", "a")
    assert bad[0].tag == "failure"
    assert bad[0].attrib == {"type": "crossed", "message": MIXED.judged[0].message}
    assert [child.tag for child in good] == ["system-out"]
    assert root[1][0][0].attrib["message"].endswith("zero spread")
    assert root[2][0][0].tag == "error"
    assert root[2][0][0].get("message") == "the file is gone"


def test_cases_have_names_of_their_own() -> None:
    rows = [cell(tap=t, group=g, data=d) for t in "ab" for g in ("C4", "C8") for d in ("x", "y")]
    limits = LIMIT, Threshold("softmax", 0.5, model="net"), Threshold("softmax", 0.4)
    names = [c.get("name") for c in ET.fromstring(junit(judge(rows, limits))).iter("testcase")]
    assert len(set(names)) == len(names) == 24


def test_junit_of_names_that_xml_has_no_form_for(tmp_path: Path) -> None:
    write_junit(NASTY, tmp_path / "gate.xml")
    data = (tmp_path / "gate.xml").read_bytes()
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", data)
    found = JUnitXml.fromstring(data)  # a reader of its own
    assert {clean(HOSTILE), "b"} == {suite.name for suite in found}
    [first] = list(next(iter(found)))[:1]
    assert first.classname == clean(HOSTILE)


# --- SARIF ------------------------------------------------------------------------------------------------------

TEXT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "minLength": 1}}}
LOCATION = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "physicalLocation": {
            "type": "object",
            "additionalProperties": False,
            "required": ["artifactLocation"],
            "properties": {
                "artifactLocation": {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {"uri": {"type": "string", "pattern": r"^([!#-;=?-\[\]_a-z~]|%[0-9A-F]{2})+$"}},
                },
                "region": {"type": "object", "properties": {"startLine": {"type": "integer", "minimum": 1}}},
            },
        },
        "logicalLocations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "properties": {"name": {"type": "string"}, "fullyQualifiedName": {"type": "string"}},
            },
        },
    },
}
#: What SARIF 2.1.0 asks of the parts that are written here.
SARIF: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["tool"],
                "properties": {
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["name"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "version": {"type": "string"},
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {
                                            "type": "object",
                                            "additionalProperties": False,
                                            "required": ["id"],
                                            "properties": {
                                                "id": {"type": "string"},
                                                "shortDescription": TEXT,
                                                "fullDescription": TEXT,
                                                "defaultConfiguration": {
                                                    "type": "object",
                                                    "additionalProperties": False,
                                                    "properties": {"level": {"enum": ["error"]}},
                                                },
                                            },
                                        },
                                    },
                                },
                            }
                        },
                    },
                    "invocations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["executionSuccessful"],
                            "properties": {
                                "executionSuccessful": {"type": "boolean"},
                                "toolExecutionNotifications": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "required": ["message"],
                                        "properties": {
                                            "message": TEXT,
                                            "level": {"enum": ["none", "note", "warning", "error"]},
                                            "locations": {"type": "array", "items": LOCATION},
                                        },
                                    },
                                },
                            },
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["message"],
                            "properties": {
                                "ruleId": {"type": "string"},
                                "ruleIndex": {"type": "integer", "minimum": -1},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": TEXT,
                                "locations": {"type": "array", "items": LOCATION},
                                "partialFingerprints": {
                                    "type": "object",
                                    "additionalProperties": {"type": "string"},
                                },
                                "properties": {"type": "object"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def log_of(verdict: Verdict) -> dict[str, Any]:
    log = json.loads(sarif(verdict), parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    jsonschema.validate(log, SARIF)
    [run] = log["runs"]
    assert isinstance(run, dict)
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


def test_sarif_has_a_result_for_everything_that_crossed() -> None:
    run = log_of(MIXED)
    assert [r["id"] for r in run["tool"]["driver"]["rules"]] == ["softmax"]
    [a, b] = run["results"]
    assert a["level"] == "error"
    assert a["message"]["text"] == f"{MIXED.judged[0].message} (a, C8, 50 images of digits.parquet)"
    assert a["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": "models/a.onnx"}
    assert a["properties"] == {"observed": 0.9, "low": 0.8, "high": 1.0, "limit": 0.5}
    assert b["properties"] == {"limit": 0.5}
    assert run["invocations"][0]["executionSuccessful"] is False
    [gone] = run["invocations"][0]["toolExecutionNotifications"]
    assert gone["message"]["text"] == "channelwise of x was not measured: the file is gone (c, C8)"
    held = log_of(HELD)
    assert (held["results"], held["invocations"][0]["executionSuccessful"]) == ([], True)


def test_a_finding_is_known_again_when_its_number_changes() -> None:
    def prints(value: float, limit: float, **more: Any) -> tuple[str, str]:
        [result] = log_of(verdict_of(cell(value, **more), limits=(Threshold("softmax", limit),)))["results"]
        return result["ruleId"], result["partialFingerprints"]["geedCell/v1"]

    assert prints(0.9, 0.5) == prints(0.8, 0.4)
    assert prints(0.9, 0.5) != prints(0.9, 0.5, tap="other")


def test_rules_that_differ_in_the_limit_alone_have_ids_of_their_own() -> None:
    limits = (
        LIMIT,
        Threshold("softmax", 0.4),
        Threshold("softmax", 0.4, tap="sc*"),
        Threshold("softmax", 0.4, group="C8"),
    )
    rules = log_of(verdict_of(cell(0.9), limits=limits))["tool"]["driver"]["rules"]
    assert [r["id"] for r in rules] == ["softmax=0.5", "softmax=0.4", "sc*@softmax", "softmax/C8"]


def test_sarif_of_infinite_limits_and_hostile_names() -> None:
    log_of(verdict_of(cell(0.9), limits=(Threshold("softmax", float("-inf")),)))
    run = log_of(NASTY)
    text = json.dumps(run)
    assert "\\u001b" not in text
    assert "\\ud800" not in text.replace("\\\\ud800", "")
    assert len(run["results"]) == 2


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("models/net.onnx", "models/net.onnx"),
        ("my models/ü 100%#?.onnx", "my%20models/%C3%BC%20100%25%23%3F.onnx"),
        ("a:b/c.onnx", "a%3Ab/c.onnx"),
        ("/srv/net 1.onnx", "file:///srv/net%201.onnx"),
        ("s3://bucket/a b.onnx", "s3://bucket/a%20b.onnx"),
        ("../up.onnx", "../up.onnx"),
        ("\udcff.onnx", "%FF.onnx"),
    ],
)
def test_paths_as_uris(path: str, uri: str) -> None:
    assert uri_of(path) == uri


@given(st.text(st.characters(exclude_characters="\\"), min_size=1))
def test_uris_hold_the_path_and_nothing_else(path: str) -> None:
    uri = uri_of(path)
    assert re.fullmatch(r"[A-Za-z0-9/._~%:@+-]*", uri)
    parts = urlsplit(uri)
    assert not parts.query
    assert not parts.fragment
    if "://" not in path and not path.startswith("/") and not re.search("[\ud800-\udfff]", path):
        assert not parts.scheme
        assert unquote(uri) == str(Path(path))


# --- markdown ---------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page, the cells of its tables, and the text of its code."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.codes: list[str] = []
        self.rows: list[int] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        if tag == "code":
            self.codes.append("")
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "code" in self._open:
            self.codes[-1] += data
        else:
            # what is outside code comes from us
            assert "script" not in data
            assert "@team" not in data


def rendered(text: str) -> Page:
    page = Page()
    page.feed(MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough").render(text))
    return page


ALLOWED = {"h3", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "ul", "li", "details", "summary"}


def test_markdown_says_what_crossed() -> None:
    text = markdown(MIXED)
    assert text.startswith("### ❌ geed-onnx gate: 2 of 3 cross their threshold (1 for want of a value); 1 failed cell")
    assert "| `a` | `C8` | `one` | `softmax` | value | 0.900 | 0.800 | 0.500 | ❌ crossed |\n" in text
    assert "- `zero spread`\n" in text
    assert "Not measured, and no threshold is for it:\n\n- `c, C8: the file is gone`\n" in text
    assert "<details><summary>1 hold, the nearest to its limit first</summary>" in text
    page = rendered(text)
    assert set(page.tags) == ALLOWED
    assert page.rows == [9] * 5
    assert markdown(HELD).startswith("### ✅ geed-onnx gate: all 2 hold\n")


def test_no_name_is_interpreted() -> None:
    page = rendered(markdown(NASTY))
    assert set(page.tags) <= ALLOWED
    assert page.rows == [9] * 3
    shown = clean(HOSTILE)
    exact = [c for c in page.codes if c == shown]
    spelled = [c for c in page.codes if c == shown.replace("\\|", "\\\\x7c")]
    assert len(exact) == 2  # the baseline and the reason, out of a table
    assert len(spelled) == 4  # model, group, tap; the other's tap


@given(st.text(st.sampled_from("a `|\\<>*_@#&[]()!~\n\x00-") | st.characters(), min_size=1), st.booleans())
def test_any_name_is_one_cell_of_code(name: str, cell: bool) -> None:
    shown = code(name, cell=cell)
    text = f"| a | b |\n|---|---|\n| {shown} | x |\n" if cell else f"x {shown} y"
    page = rendered(text)
    wanted = clean(name).replace("\\|", "\\\\x7c") if cell else clean(name)
    if wanted.strip(" "):
        assert page.codes == [wanted]
    assert page.rows == ([2, 2] if cell else [])
    assert set(page.tags) <= {*ALLOWED}


def test_long_tables_are_cut_and_say_so() -> None:
    text = markdown(verdict_of(*(cell(0.9, tap=f"t{i}") for i in range(250))))
    assert text.count("❌ crossed") == 200
    assert "\n\nand 50 more\n" in text


# --- files ------------------------------------------------------------------------------------------------------

WRITERS = [write_junit, write_sarif, write_markdown]


@pytest.mark.parametrize("write", WRITERS)
def test_files_are_written_whole_or_not_at_all(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out"
    target.write_text("before")
    target.chmod(0o640)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(GeedError, match=r"cannot write '.*out': No space left on device"):
            write(MIXED, target)
    assert target.read_text() == "before"
    assert os.listdir(tmp_path) == ["out"]
    write(MIXED, target)
    assert target.read_text() != "before"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    link = tmp_path / "link"
    link.symlink_to(target)
    target.write_text("")
    write(HELD, link)
    assert link.is_symlink()
    assert target.stat().st_size > 0


@pytest.mark.parametrize("write", WRITERS)
def test_places_that_no_file_can_be_in(write: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is a folder; give a file name in it"):
        write(MIXED, tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder '.*nowhere'"):
        write(MIXED, tmp_path / "nowhere" / "out")
    write(MIXED, os.devnull)
    assert not stat.S_ISREG(os.stat(os.devnull).st_mode)
