"""The page in a real browser: it draws, sorts, filters, saves, obeys the reader's choices, and asks for nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import browser, opened
from page_results import before, collection, failed, many, result, untrained

from geed_onnx.gates import Threshold, judge
from geed_onnx.reports.page import Section, write_page

EVIL = (
    "<script>window.__hit=1</script>",
    "</script><img src=x onerror='window.__hit=1'>",
    "${window.__hit=1}",
    "{{constructor.constructor('window.__hit=1')()}}",
    "a\u2028b\udc80\u202ec",
    "=HYPERLINK(1)",
    "__proto__",
    "constructor",
)


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, two groups, a family with checkpoints, a failed cell, a threshold, a section of others."""
    results = [
        result(name=name, path=f"{name}.onnx", tap=tap, value=value + 0.02 * i, calibrated=0.2 + 0.1 * i, group=group,
               order=order)
        for name, value in (("alpha", -0.9), ("beta", -0.5))
        for group, order in (("C4", 4), ("D4", 8))
        for i, tap in enumerate(("block1", "block2", "block10"))
    ]  # fmt: skip
    results += [
        result(name=f"cnn {seed}@{step}", path=f"{seed}/{step}.onnx", family="cnn", model_seed=seed, step=step,
               tap="block1", value=-0.8 + 0.01 * seed, calibrated=0.9 - step / 1000 + 0.02 * seed)
        for seed in (0, 1, 2)
        for step in (0, 100, 200)
    ]  # fmt: skip
    scores = result(name="alpha", path="alpha.onnx", tap="scores", kind="probability", variant="softmax")
    none = dict.fromkeys(("calibrated", "calibrated_low", "calibrated_high"))
    flat = replace(scores, **none, calibrated_reason="an insensitive network")
    found = collection(*results, flat, failed(name="gamma", path="gamma.onnx"))
    verdict = judge(found.results, [Threshold("channelwise", -0.7, model=m) for m in ("alpha", "beta")])
    head = "<thead><tr><th>Name</th><th>Number</th></tr></thead>"
    rows = '<tr><td>b</td><td data-value="10">ten</td></tr><tr><td>a</td><td data-value="9">nine</td></tr>'
    extra = Section("further", "Further", f"<table>{head}<tbody>{rows}</tbody></table>")
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_page(found, path, sections=[extra], verdict=verdict, title="Small")
    return path


def column(page: Any, table: str, place: int) -> list[str]:
    found: list[str] = page.locator(f"{table} tbody tr > :nth-child({place})").all_inner_texts()
    return found


def place_of(page: Any, table: str, title: str) -> int:
    heads = [h.split("\n")[0].strip(" ↕↑↓") for h in page.locator(f"{table} thead th").all_inner_texts()]
    return heads.index(title) + 1


def saved(page: Any, selector: str) -> tuple[str, list[list[str]]]:
    with page.expect_download() as waiting:
        page.click(selector)
    download = waiting.value
    return download.suggested_filename, list(
        csv.reader(io.StringIO(Path(download.path()).read_bytes().decode("utf-8")))
    )


def test_every_chart_is_drawn_without_complaint_or_request(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        for chart in ("depth-chart", "profile-chart", "training-chart"):
            it.page.locator(f"#{chart}").scroll_into_view_if_needed()
            it.settle(
                f"document.querySelectorAll('#{chart} svg .mark-line path, #{chart} svg .mark-rect path').length > 0"
            )
        assert "2 of 2" not in it.page.inner_text("#top header")
        assert "1 of 2 thresholds is crossed" in it.page.inner_text("#top header")
        assert it.page.locator("#training-legend .key").all_inner_texts() == ["cnn, mean of 3"]
        assert "an insensitive network" in it.page.inner_text("#reasons")
        it.clean(small)


@pytest.mark.slow
def test_scale_group_and_models_are_chosen(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        page = it.page
        page.wait_for_selector("#depth-chart svg")
        assert page.locator("#depth-chart svg").count() == 1
        page.locator("fieldset.switch span", has_text="Raw").click()
        it.settle("document.querySelectorAll('#depth-chart svg').length === 2")
        assert page.locator("#depth-chart figcaption strong").all_inner_texts() == ["channelwise", "softmax"]
        place = place_of(page, "#heat", "block2")
        rows = dict(zip(column(page, "#heat", 1), column(page, "#heat", place), strict=True))
        assert rows["beta"] == "−0.480"
        page.select_option("#context", label="D4 on 8 images of images")
        it.settle("document.querySelectorAll('#profile-chart .petal.wide svg').length === 2")
        # D4 has no polar chart: eight bars for each of the two models
        assert page.locator("#profile-chart .mark-rect path").count() == 16
        page.click("#models summary")
        page.locator("#models label", has_text="beta").click()
        it.settle("document.querySelectorAll('#profile-chart svg').length === 1")
        assert "beta" not in page.inner_text("#legend")
        it.clean(small)


def test_polar_chart_stands_at_its_angles(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        it.page.locator("#profile-chart").scroll_into_view_if_needed()
        it.page.wait_for_selector("#profile-chart svg")
        texts = it.page.locator("#profile-chart .petal:first-child svg text").all_text_contents()
        assert texts == ["0°", "90°", "180°", "270°"]
        box = {t: it.page.locator("#profile-chart .petal:first-child svg text", has_text=t).first.bounding_box()
               for t in ("90°", "270°")}  # fmt: skip
        # counter-clockwise: 90° stands on the left
        assert box["90°"]["x"] < box["270°"]["x"]
        worst = it.page.locator("#profile-chart .petal:first-child .note").inner_text()
        assert worst.startswith("worst at 180°")


def test_a_network_without_symmetry_stands_at_one_and_the_identity_is_left_out(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(collection(untrained(), before(untrained(name="old", path="old.onnx"))), path)
    with opened(running, path) as it:
        it.page.locator("#profile-chart").scroll_into_view_if_needed()
        it.settle("document.querySelectorAll('#profile-chart .petal svg').length === 2")
        new, old = (it.page.locator(f"#profile-chart .petal:nth-child({i})") for i in (1, 2))
        assert new.locator(".mark-rect path").count() == 1
        rules = [line.bounding_box()["y"] for line in new.locator(".mark-rule.role-mark line").all()]
        # of the lines at 0 and 1 the upper one is where unrelated images stand, and the top of its only bar
        assert len(rules) == 2
        assert new.locator(".mark-rect path").bounding_box()["y"] == pytest.approx(min(rules), abs=2)
        assert "worst at flip: 1" in new.inner_text()
        assert "left out: 0°, where unrelated images would not deviate either" in new.inner_text()
        assert old.locator(".mark-rect path").count() == 2
        assert old.locator(".mark-rule.role-mark line").count() == 0
        assert "above the optimum, not calibrated: these results have no floor and null by element" in old.inner_text()
        it.page.locator("fieldset.switch span", has_text="Raw").click()
        it.settle("document.querySelector('#profile-chart .petal').innerText.includes('worst at flip: 0.500')")
        # floor and null of each element
        assert new.locator(".mark-rule.role-mark line").count() == 4
        _, rows = saved(it.page, "#all-results .table-bar button")
        table = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
        assert [row["calibrated_by_element"] for row in table] == ["[null,1]", ""]
        assert [row["null_per_element"] for row in table] == ["[-1,-0.5]", ""]
        it.clean(path)


def test_the_profile_begins_with_a_map_that_the_models_have(running: Any, tmp_path: Path) -> None:
    deep = [result(name="deep", path="deep.onnx", sha256="d" * 64, tap=f"layer{i}") for i in range(9)]
    shallow = [
        result(name=f"net{m}", path=f"net{m}.onnx", sha256=f"{m}" * 64, tap=f"block{m}{i}")
        for m in range(3)
        for i in range(2)
    ]
    path = tmp_path / "page.html"
    write_page(collection(*deep, *shallow), path)
    with opened(running, path) as it:
        it.page.locator("#profile-chart").scroll_into_view_if_needed()
        it.settle("document.querySelectorAll('#profile-chart .petal svg').length >= 3")
        it.clean(path)


def test_sorting(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        page = it.page
        place = place_of(page, "#all-results", "Calibrated")
        head = page.locator(f"#all-results thead th:nth-child({place})")
        assert head.get_attribute("aria-sort") == "none"
        for clicks, way in ((1, "ascending"), (2, "descending")):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == way, clicks
            shown = column(page, "#all-results", place)
            numbers = [float(t.replace("−", "-")) for t in shown if t != "–"]
            assert numbers == sorted(numbers, reverse=way == "descending")
            # what has no number is last both ways
            assert shown[-2:] == ["–", "–"]
            assert len(numbers) == 21
        # by keyboard, and with numbers in names in their order
        place = place_of(page, "#all-results", "Tap")
        page.locator(f"#all-results thead th:nth-child({place}) button").focus()
        page.keyboard.press("Enter")
        taps = column(page, "#all-results", place)
        assert list(dict.fromkeys(taps)) == ["*", "block1", "block2", "block10", "scores"]
        # tables that came as HTML sort by the numbers they hold
        page.locator("#further th button", has_text="Number").click()
        assert column(page, "#further", 1) == ["a", "b"]


def test_filter_and_csv(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        page = it.page
        page.fill("#all-results input[type=search]", "BETA block1")
        it.settle("document.querySelector('#all-results .status').textContent === '4 of 23 rows'")
        name, rows = saved(page, "#all-results .table-bar button")
        assert name == "results.csv"
        head = rows[0]
        assert len(rows) == 5
        assert {row[head.index("model")] for row in rows[1:]} == {"beta"}
        first = dict(zip(head, rows[1], strict=True))
        # at full precision, with columns that are not shown
        assert (first["value"], first["tap"], first["group"], first["sha256"]) == ("-0.5", "block1", "C4", "ab" * 32)
        name, rows = saved(page, "#further .table-bar button")
        assert (name, rows) == ("table.csv", [["Name", "Number"], ["b", "10"], ["a", "9"]])
        name, rows = saved(page, "#heat .table-bar button")
        assert name == "side-by-side-calibrated.csv"
        assert rows[0][:2] == ["model", "block1 channelwise"]
        assert rows[1][:2] == ["alpha", "0.2"]


def test_svg_is_saved_with_plain_colours(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        it.page.wait_for_selector("#depth-chart svg")
        with it.page.expect_download() as waiting:
            it.page.click("button[data-save=depth-chart]")
        text = Path(waiting.value.path()).read_text(encoding="utf-8")
        assert waiting.value.suggested_filename == "depth-chart.svg"
        assert text.startswith("<svg")
        assert "var(" not in text


def test_names_of_others_do_nothing(running: Any, tmp_path: Path) -> None:
    results = [
        result(name=f"{i} {evil}", path=f"{evil}{i}.onnx", tap=evil, group="C4", data=f"data/{evil}", family=evil,
               model_seed=i, step=step, reason=evil, notes=(evil,), variant=evil, module=evil)
        for evil in EVIL for i in range(2) for step in (1, 2)
    ]  # fmt: skip
    found = collection(*results, failed(name=EVIL[0], reason=EVIL[1]), run={EVIL[0]: EVIL[1]},
                       suite=f"title = 'x'\n# {EVIL[1]}")  # fmt: skip
    verdict = judge(found.results, [Threshold(EVIL[0], -0.9)])
    path = tmp_path / "page.html"
    write_page(found, path, verdict=verdict, unjudged=EVIL[1], title=EVIL[0])
    with opened(running, path) as it:
        page = it.page
        for context in range(len(EVIL)):
            page.select_option("#context", index=context)
            for scale in ("Raw", "Calibrated"):
                page.locator("fieldset.switch span", has_text=scale).click()
                page.locator("#training-chart").scroll_into_view_if_needed()
                it.settle("document.querySelectorAll('#depth-chart svg, #training-chart svg').length === 2")
        page.locator("#depth-chart .mark-symbol path[d*=A]").first.hover(force=True)
        it.settle("!document.getElementById('tip').hidden")
        assert page.inner_text("#tip").split("\n")[1] == f"{EVIL[-1]} · {EVIL[-1]}"
        assert page.evaluate("window.__hit === undefined && Object.prototype.tip === undefined")
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 3
        assert page.inner_text("h1") == EVIL[0]
        taps = column(page, "#all-results", place_of(page, "#all-results", "Tap"))
        assert taps[0] == EVIL[0]
        assert "a\\u2028b\\udc80\\u202ec" in taps
        _, rows = saved(page, "#all-results .table-bar button")
        assert {row[rows[0].index("tap")] for row in rows[1:]} >= {"'=HYPERLINK(1)", EVIL[1], "__proto__"}
        it.clean(path)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_theme_follows_the_system_and_the_button(running: Any, small: Path, scheme: str) -> None:
    def ground(page: Any) -> int:
        colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(",")))

    with opened(running, small, color_scheme=scheme) as it:
        dark = scheme == "dark"
        assert (ground(it.page) < 200) is dark
        it.page.click("#theme")
        assert (ground(it.page) < 200) is not dark
        # paper is white
        it.page.emulate_media(media="print")
        assert ground(it.page) == 765
        it.clean(small)


def test_print_shows_whole_tables_and_no_controls(running: Any, small: Path) -> None:
    with opened(running, small) as it:
        page = it.page
        page.emulate_media(media="print")
        page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        assert page.locator("#all-results tbody tr").count() == 23
        assert not page.locator(".controls").is_visible()
        assert not page.locator("nav.top").is_visible()
        assert page.evaluate("getComputedStyle(document.querySelector('.table-box')).overflow") == "visible"
        assert len(page.pdf()) > 20_000
        it.clean(small)


def test_phone_does_not_scroll_sideways(running: Any, small: Path) -> None:
    with opened(running, small, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as it:
        it.page.wait_for_selector("#depth-chart svg")
        for _ in range(12):
            it.page.mouse.wheel(0, 800)
            it.page.wait_for_timeout(30)
        assert it.page.evaluate("document.documentElement.scrollWidth") <= 390
        # a wide table scrolls within its box
        assert it.page.evaluate(
            "(b => b.scrollWidth > b.clientWidth)(document.querySelector('#all-results .table-box'))"
        )
        it.clean(small)


@pytest.mark.slow
def test_lines_beyond_the_colours_are_refused(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(collection(*many(12, 2, 1)), path)
    with opened(running, path) as it:
        it.page.click("#models summary")
        boxes = it.page.locator("#models input[type=checkbox]")
        for i in range(12):
            boxes.nth(i).click()
        chosen = it.page.locator("#models input[type=checkbox]:checked").count()
        assert it.page.inner_text("#models summary").startswith(f"Models: {chosen} of 12")
        assert chosen <= 8
        it.clean(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "results",
    [[], [before(result())], [before(untrained())], [untrained(), before(untrained(path="b.onnx"))],
     [untrained(8, "C8")], [result(high=None)], [result(units=3)],
     [failed()], [failed(), failed(name="other")], [result()], [result(order=1, group="C1")],
     [result(value=None, calibrated=None, per_element=None, reason="zero spread")],
     [result(per_element=None)], [result(low=None, high=None, calibrated_low=None, calibrated_high=None)],
     [result(floor=None, null=None, calibrated=None, reason="no reference images")],
     [result(group="nobody's", order=6)], [result(data="a.npz"), result(data="b.npz", group="flip", order=2)]],
    ids=["empty", "old", "old flip", "old and new", "ring", "open end", "clusters", "failed",
         "all failed", "one", "one element", "no value", "no elements", "no interval", "no null",
         "unknown group", "several data"],
)  # fmt: skip
def test_whatever_there_is_renders(running: Any, tmp_path: Path, results: list[Any]) -> None:
    path = tmp_path / "page.html"
    write_page(collection(*results), path)
    with opened(running, path) as it:
        if it.page.locator("#explore").count():
            it.page.locator("fieldset.switch span", has_text="Raw").click()
            it.page.locator("#profile-chart").scroll_into_view_if_needed()
        it.page.wait_for_timeout(300)
        assert it.page.inner_text("h1")
        it.clean(path)


@pytest.mark.slow
def test_two_hundred_models_open_at_once(running: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_page(collection(*many(200, 12, 4)), path)
    assert path.stat().st_size < 15e6
    with opened(running, path) as it:
        it.page.wait_for_selector("#depth-chart svg")
        it.page.locator("#all-results th button", has_text="Value").click()
        assert it.page.locator("#all-results tbody tr").count() < 1000
        it.page.fill("#all-results input[type=search]", "77 layer3 distance1")
        it.settle("document.querySelector('#all-results .status').textContent === '2 of 9600 rows'")
        it.clean(path)
