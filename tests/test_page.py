"""What the page says, before any browser sees it: contents, families, columns, escapes, files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_results import before, collection, failed, many, result, untrained
from scipy import stats

from geed_onnx.errors import DataError, GeedError, UsageError
from geed_onnx.gates import Threshold, judge
from geed_onnx.reports.page import Section, page_html, write_page
from geed_onnx.reports.page.contents import contents_of
from geed_onnx.reports.page.elements import calibrated_by_element, elements_of
from geed_onnx.reports.page.families import mean_of
from geed_onnx.reports.page.payload import as_json, payload
from geed_onnx.reports.page.slots import merged, slots_of
from geed_onnx.reports.page.summary import some


class Parsed(HTMLParser):
    """Elements, scripts and the visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.texts: list[str] = []
        self._script: dict[str, str | None] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._script = dict(attrs) if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts.append((self._script, data))
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def data(self, name: str = "geed-data") -> Any:
        [found] = [json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name]
        return found


def page(*results: Any, **options: Any) -> Parsed:
    return Parsed(page_html(collection(*results), **options))


# --- taps side by side --------------------------------------------------------------------------------------------


def labels(*models: list[tuple[str, str]]) -> list[str]:
    return [s.label for s in slots_of(dict(enumerate(models))).slots]


def test_taps_of_one_name_share_a_column() -> None:
    a = [("map", "stem"), ("map", "layer1"), ("map", "layer2"), ("vector", "pool"), ("probability", "scores")]
    b = [("map", "stem"), ("map", "layer2"), ("vector", "pool"), ("probability", "scores")]
    found = slots_of({0: a, 7: b})
    assert [s.label for s in found.slots] == ["stem", "layer1", "layer2", "pool", "scores"]
    assert [found.places[7, tap] for tap in b] == [0, 2, 3, 4]
    assert [found.slots[found.places[0, tap]].kind for tap in a] == [kind for kind, _ in a]


def test_other_names_stand_by_place_and_the_last_is_latent_and_scores() -> None:
    a = [("map", "a1"), ("map", "a2"), ("vector", "fc"), ("probability", "softmax")]
    b = [("map", "b1"), ("map", "b2"), ("map", "b3"), ("vector", "h1"), ("vector", "dense"), ("probability", "out")]
    assert labels(a, b) == ["map 1", "map 2", "map 3", "h1", "latent", "scores"]


def test_a_few_strangers_do_not_take_the_names_away() -> None:
    usual = [("map", "block1"), ("map", "block2")]
    assert {"block1", "block2"} < set(labels(usual, usual, usual, [("map", "odd")], [("map", "odder")]))


def test_one_name_of_two_kinds_is_two_columns() -> None:
    assert labels([("map", "x"), ("vector", "x")]) == ["x", "x (vector)"]


def test_scores_listed_first_still_come_last() -> None:
    assert labels([("probability", "scores"), ("map", "m"), ("vector", "v")]) == ["m", "v", "scores"]


def test_merged_keeps_every_order_and_survives_a_contradiction() -> None:
    rng = np.random.default_rng(3)
    whole = [f"t{i}" for i in range(12)]
    for _ in range(50):
        parts = [[t for t in whole if rng.random() < 0.6] for _ in range(4)]
        parts = [p for p in parts if p]
        found = merged(parts)
        assert sorted(found) == sorted({t for p in parts for t in p})
        for part in parts:
            assert [t for t in found if t in part] == part
    assert sorted(merged([["a", "b"], ["b", "a"]])) == ["a", "b"]


# --- families and trainings ---------------------------------------------------------------------------------------


def test_a_family_is_the_mean_with_t_over_its_models() -> None:
    values = [-0.81, -0.70, -0.74, -0.79]
    seeds = [result(value=v, calibrated=-v / 2, name=f"s{i}", family="cnn", model_seed=i) for i, v in enumerate(values)]
    found = mean_of(seeds)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.calibrated == pytest.approx(-np.mean(values) / 2)
    assert found.models == found.of == 4
    assert found.per_element == pytest.approx(np.mean([s.per_element for s in seeds], axis=0))


def test_a_family_says_how_many_have_the_number_and_why_none_has() -> None:
    none = {"calibrated": None, "calibrated_low": None, "calibrated_high": None}
    found = mean_of([result(value=-0.5), result(value=None, reason="zero spread", **none)])
    assert (found.models, found.of, found.value, found.low) == (1, 2, -0.5, None)
    flat = result(calibrated_reason="insensitive: …", **none)
    for rows in ([flat, flat], [before(flat), before(flat)]):
        found = mean_of(rows)
        assert found.calibrated is None
        assert (found.value, found.reason) == (-0.7, None)
        assert found.why_uncalibrated == "no model of the family has it; the first says: insensitive: …"


def test_families_checkpoints_and_runs() -> None:
    rows = [
        result(name=f"{family} {seed}@{step}", path=f"{family}{seed}{step}", family=family, model_seed=seed, step=step)
        for family in ("cnn", "mlp")
        for seed in (0, 1)
        for step in (10, 2, 300)
    ]
    found = contents_of([*rows, *(result(name=f"solo-{s:04}", path=f"{s}", step=s) for s in (5, 50))])
    assert [r.label for r in found.runs] == ["cnn, mean of 2", "mlp, mean of 2", "solo-·"]
    assert [step for step, _ in found.runs[0].points] == [2, 10, 300]
    assert [found.entities[e].label for e in found.chosen] == [
        "cnn, mean of 2 at step 300", "mlp, mean of 2 at step 300", "solo-0050",
    ]  # fmt: skip
    assert len(found.means) == 6
    assert len(found.models) == 14


def test_one_seed_twice_is_no_family() -> None:
    rows = [result(name=n, path=n, family="cnn", model_seed=1) for n in ("a", "b")]
    assert contents_of(rows).means == ()


def test_the_first_lines_are_the_most_unlike() -> None:
    values = {"a": 0.1, "b": 0.11, "c": 0.12, "d": 0.9, "e": 0.5, "f": 0.3, "g": 0.7}
    found = contents_of([result(name=n, path=n, calibrated=v) for n, v in values.items()])
    assert "".join(found.entities[e].label for e in found.chosen) == "adefg"


# --- contexts and models ------------------------------------------------------------------------------------------


def test_groups_and_images_are_contexts_and_a_failed_cell_belongs_to_its_own() -> None:
    rows = [
        result(),
        result(group="flip", order=2),
        result(data="other/"),
        failed(group="flip", seed=0),
        failed(data="gone/"),
    ]
    found = contents_of(rows)
    assert [c.label for c in found.contexts] == [
        "C4 on 8 images of images", "flip on 8 images of images", "C4 on 8 images of other", "C4 on images of gone",
    ]  # fmt: skip
    assert [c.context for c in found.cells] == [0, 1, 2, 1, 3]
    assert [c.slot for c in found.cells] == [0, 0, 0, None, None]
    # the failed cells are of the same model, though they do not know its hash
    assert len(found.entities) == 1


def test_folders_of_one_name_are_told_apart() -> None:
    found = contents_of([result(data="a/test"), result(data="b/test")])
    assert [c.label for c in found.contexts] == ["C4 on 8 images of a/test", "C4 on 8 images of b/test"]


def test_unlike_images_under_one_name_are_said() -> None:
    found = payload(contents_of([result(), result(name="other", path="other", fingerprint="e" * 16)]))
    assert "did not see the same images here (2 sets)" in found["contexts"][0]["note"]


def test_the_same_number_twice_is_one_and_another_reading_is_another_model() -> None:
    a = result(key="k")
    found = contents_of([a, a, replace(a, value=-0.6, key="j")])
    assert found.repeated == 1
    assert [e.label for e in found.entities] == ["one", "one (2)"]


@pytest.mark.parametrize(
    ("path", "label"),
    [("runs/a/net.onnx", "net"), ("net.onnx", "net"), ("s3://b/net.onnx", "net"), ("a\\net.onnx", "net")],
)
def test_a_model_without_a_name_is_called_by_its_file(path: str, label: str) -> None:
    assert contents_of([result(path=path)]).entities[0].label == label


def test_files_of_one_name_keep_their_paths() -> None:
    found = contents_of([result(path="a/net.onnx"), result(path="b/net.onnx")])
    assert [e.label for e in found.entities] == ["a/net.onnx", "b/net.onnx"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"value": "0.5"}, "value is '0.5'; expected a number or null"),
        ({"value": True}, "value is True; expected a number or null"),
        ({"level": None}, "level is None; expected a number"),
        ({"per_element": ("a",)}, "per_element is ('a',); expected a list of numbers"),
        ({"null_per_element": (0.5,)}, "null_per_element is (0.5,); expected 4 numbers, as many as in per_element"),
        ({"units": "3"}, "units is '3'; expected a whole number or null"),
        ({"group": 8}, "name is 8; expected a text"),
        ({"variant": 3}, "variant is 3; expected a text"),
        ({"samples": "8"}, "samples is '8'; expected a whole number"),
        ({"step": "two"}, "model.step is 'two'; expected a number"),
        ({"calibrated": float("nan")}, "calibrated is nan; expected a number or null"),
    ],
)
def test_a_record_that_is_none_is_refused(changes: dict[str, Any], said: str) -> None:
    bad = replace(result(), **changes) if changes.keys() <= {"value", "per_element"} else result(**changes)
    with pytest.raises(DataError, match=re.escape(f"the result of 'nets/one.onnx', tap 'block1': {said}")):
        contents_of([bad])


def test_a_record_without_objects_is_refused() -> None:
    with pytest.raises(DataError, match="model is 'net'; expected an object"):
        contents_of([replace(result(), model="net")])  # type: ignore[arg-type]


# --- elements -----------------------------------------------------------------------------------------------------


def test_elements_have_names_and_rotations_angles() -> None:
    assert elements_of("C8", 8).angles == (0, 45, 90, 135, 180, 225, 270, 315)
    assert elements_of("C8", 8).names[3] == "135°"
    assert elements_of("D4", 8).names[4:] == ("flip", "flip 90°", "flip 180°", "flip 270°")
    assert elements_of("D4", 8).angles is elements_of("flip", 2).angles is elements_of("C2", 2).angles is None
    assert elements_of("flip", 2).names == ("0°", "flip")
    assert elements_of("T2", 4).names == ("0°", "roll 0,1/2", "roll 1/2,0", "roll 1/2,1/2")
    assert elements_of("S3@channel", 6).names[1] == "order 0-2-1"


@pytest.mark.parametrize(("group", "order"), [("flip", 2), ("C4", 4), ("C8", 8)])
def test_a_network_without_symmetry_reads_one_at_every_element_and_the_identity_is_left_out(
    group: str, order: int
) -> None:
    """Against the null of all elements, of which the identity's is at the optimum, it would read |G|/(|G| − 1)."""
    r = untrained(order, group)
    assert r.floor is not None
    assert r.null is not None
    assert r.per_element is not None
    assert (r.per_element[1] - r.floor) / (r.null - r.floor) == pytest.approx(order / (order - 1))
    assert calibrated_by_element(r) == pytest.approx((None, *[1.0] * (order - 1)))


def test_each_element_stands_between_its_own_floor_and_null() -> None:
    # exact elements at the optimum, resampled ones a third of the way from their floor to their null
    r = result(per_element=(-1.0, -0.8, -0.9, -0.8), floor_per_element=(-1.0, -0.9, -1.0, -0.9),
               null_per_element=(-1.0, -0.6, -0.5, -0.6))  # fmt: skip
    assert calibrated_by_element(r) == pytest.approx((None, 1 / 3, 0.2, 1 / 3))
    # the identity of a trivial action has a null of its own, and is there
    assert calibrated_by_element(result(per_element=(-0.69,) * 4)) == pytest.approx((0.5,) * 4)
    # a null that is above its floor by rounding, or below it, is none
    rounded = replace(r, null_per_element=(-1.0 + 1e-15, -0.6, -1.1, -0.6))
    assert calibrated_by_element(rounded) == pytest.approx((None, 1 / 3, None, 1 / 3))
    assert calibrated_by_element(before(r)) is calibrated_by_element(replace(r, calibrated=None)) is None


def test_where_it_breaks_is_told_against_each_elements_own_floor() -> None:
    # 90° deviates most, and all of it is resampling; 180° is what the network does
    r = result(per_element=(-1.0, -0.6, -0.7, -1.0), floor_per_element=(-1.0, -0.6, -1.0, -1.0),
               null_per_element=(-1.0, -0.5, -0.5, -0.5), tap="a")  # fmt: skip
    found = page(r, before(replace(r, tap={**r.tap, "name": "b"}))).data()
    [worst] = [c["values"] for c in found["columns"] if c["key"] == "worst_element"]
    assert [found["texts"][i] for i in worst] == ["180°", "90°"]
    assert found["cells"]["calibrated_by_element"] == [[None, 0.0, 0.6, 0.0], None]
    assert found["cells"]["null_per_element"] == [[-1.0, -0.5, -0.5, -0.5], None]


def test_a_familys_profile_is_the_mean_of_its_models_profiles() -> None:
    rows = [untrained(4, "C4"), result(per_element=(-1.0, -0.8, -0.9, -0.8), floor_per_element=(-1.0,) * 4,
                                       null_per_element=(-1.0, -0.6, -0.5, -0.6))]  # fmt: skip
    found = mean_of(rows)
    assert found.calibrated_by_element == pytest.approx((None, 0.75, 0.6, 0.75))
    assert found.null_per_element == pytest.approx((-1.0, -0.55, -0.5, -0.55))
    # what only one of them knows is its own
    assert mean_of([before(rows[0]), rows[1]]).calibrated_by_element == calibrated_by_element(rows[1])


def test_the_disc_and_clusters_are_said_and_stand_apart() -> None:
    plain, disc, grouped = result(), replace(result(), data={**result().data, "mask": "disc"}), result(units=3)
    assert [c.label for c in contents_of([plain, disc, grouped]).contexts] == [
        "C4 on 8 images of images",
        "C4 on 8 images of images, inside the inscribed disc",
        "C4 on 3 clusters (8 images) of images",
    ]
    assert "on 8 images of images, inside the inscribed disc." in page(disc).text
    assert "some of it inside the inscribed disc" in page(plain, disc).text
    assert "height 8, width 8, inside the inscribed disc" in page(disc).text
    text = page(grouped).text
    assert "on 3 clusters (8 images) of images." in text
    assert "95 % interval over clusters" in text
    assert "95 % interval over images" in page(plain).text


def test_an_open_end_is_said() -> None:
    assert "– for an end of an interval: no upper end: no variance" in page(result(high=None)).text
    assert "no upper end" not in page(result()).text


@pytest.mark.parametrize(("name", "order"), [("nobody", 3), ("C4", 3), ("C9999999999", 3), ("<b>", 3)])
def test_elements_of_an_unknown_group_are_numbered(name: str, order: int) -> None:
    assert elements_of(name, order).names == ("identity", "g1", "g2")


# --- words and numbers on the page --------------------------------------------------------------------------------


def test_every_number_is_in_the_payload_exactly() -> None:
    rows = many(3, 4, 2)
    found = page(*rows).data()
    columns = {c["key"]: c["values"] for c in found["columns"]}
    for name in ("value", "low", "high", "floor", "null", "calibrated", "calibrated_low", "calibrated_high"):
        assert columns[name] == [getattr(r, name) for r in rows]
    assert [found["texts"][i] for i in columns["tap"]] == [r.tap["name"] for r in rows]
    worst = [found["texts"][i] for i in columns["worst_element"]]
    assert worst == [f"{45 * int(np.argmax(r.per_element or ()))}°" for r in rows]
    assert np.allclose(found["cells"]["per_element"], [r.per_element for r in rows], rtol=1e-6, atol=0)


def test_columns_that_never_differ_are_not_shown_but_saved() -> None:
    shown = {c["key"]: c["shown"] for c in page(result(), result(tap="b")).data()["columns"]}
    assert not any(shown[k] for k in ("family", "step", "data", "group", "seed", "sha256", "key"))
    assert all(shown[k] for k in ("model", "tap", "variant", "value", "calibrated"))
    assert {c["key"]: c["shown"] for c in page(result(), result(group="flip", order=2)).data()["columns"]}["group"]


def test_the_verdict_stands_at_the_top() -> None:
    rows = [result(name="good", path="g", value=-0.9), result(name="bad", path="b", value=-0.3)]
    limits = [Threshold("channelwise", -0.5), Threshold("channelwise", 0.9, on="calibrated", tap="block1")]
    verdict = judge(rows, limits)
    text = page(*rows, verdict=verdict).text
    assert "✕ 1 of 2 thresholds is crossed. 1 of 4 numbers lie beyond" in text
    assert "channelwise at most -0.5" in text
    assert "calibrated channelwise at most 0.9, tap block1" in text
    assert "What crossed" in text
    good = judge(rows, limits[1:])
    text = page(*rows, verdict=good).text
    assert "✓ The threshold holds. 2 numbers judged." in text
    assert "What crossed" not in text
    assert "No thresholds were set." in page(*rows).text
    text = page(*rows, unjudged="no such baseline").text
    assert "✕ Thresholds could not be judged. no such baseline" in text
    assert "No thresholds were set." not in text


def test_what_is_undecided_is_shown_and_so_is_a_limit_from_below() -> None:
    rows = [result(name="near", path="n", value=-0.5), result(name="far", path="f", value=-0.9)]
    above, below = Threshold("channelwise", -0.5), Threshold("channelwise", -0.87, below=True)
    text = page(*rows, verdict=judge(rows, [above])).text
    assert "? The threshold is not crossed. 2 numbers judged. 1 undecided: the limit lies in the interval." in text
    assert "What is undecided" in text
    assert "What crossed" not in text
    assert "Undecided Closest or worst channelwise at most -0.5 2 0 1 " in text
    # the interval [-0.95, -0.85] holds the limit from below, at its upper end
    text = page(*rows, verdict=judge(rows, [below])).text
    assert "channelwise at least -0.87 2 0 1 " in text
    assert "far block1 channelwise C4 -0.900 -0.850 ≥ -0.870 " in text
    lower = page(*rows, verdict=judge(rows, [replace(below, limit=-0.6)])).text
    assert "✕ 1 of 1 threshold is crossed. 1 of 2 numbers lie beyond, or nothing shows that they hold." in lower
    assert "What is undecided" not in lower
    proven = page(*rows, verdict=judge(rows, [replace(above, prove=True)])).text
    assert "channelwise at most -0.5, proven 2 1 1 " in proven
    assert "What crossed" in proven
    assert "What is undecided" not in proven


def test_what_has_no_number_is_said_with_its_reason() -> None:
    flat = replace(result(tap="scores"), calibrated=None, calibrated_reason="an insensitive network")
    old = before(replace(flat, tap={**flat.tap, "name": "old"}))
    rows = [flat, old, failed(name="a", path="a"), failed(name="b", path="b"), result()]
    text = page(*rows).text
    assert "✕ 2 of 5 cells failed." in text
    assert "failed 2 the model does not run: no such file a: all taps, b: all taps" in text
    assert "not calibrated 2 an insensitive network one: scores, one: old" in text
    columns = {c["key"]: c for c in page(*rows).data()["columns"]}
    assert [columns["reason"]["values"][i] for i in (0, 1, 4)] == [None] * 3
    assert columns["calibrated_reason"]["values"][0] == columns["calibrated_reason"]["values"][1] is not None
    assert columns["reason"]["shown"]
    assert columns["calibrated_reason"]["shown"]


def test_provenance_has_hashes_versions_run_and_suite() -> None:
    found = collection(result(notes=("careful",)), run={"geed_onnx": "9.9"}, suite='title = "Belt"\n[[models]]\n')
    text = Parsed(page_html(found)).text
    for said in ("Belt", "ab" * 32, "CPUExecutionProvider", "geed-onnx 0.1.0, onnx 1.0", '"geed_onnx": "9.9"',
                 "[[models]]", "f" * 16, "height 8, width 8", "careful", "jackknife",
                 "Read from runs/made-up"):  # fmt: skip
        assert said in text


def test_title_is_the_given_the_suites_or_the_models() -> None:
    assert "Equivariance of one" in page(result()).text
    assert "Equivariance of 2 models" in page(result(), result(path="two.onnx")).text
    assert "Mine" in page(result(), title="Mine").text
    assert "Equivariance of one" in Parsed(page_html(collection(result(), suite="not = [toml"))).text
    assert "Nothing was measured" in page().text


def test_long_lists_say_how_many_more() -> None:
    assert some(list("abc"), 3) == "a, b, c"
    assert some(list("abcde"), 3) == "a, b, c and 2 more"


# --- names of others ----------------------------------------------------------------------------------------------

EVIL = (
    "<script>alert(1)</script>",
    "</script><img onerror=alert(1)>",
    '"><b x="',
    "a\u2028\u2029b",
    "\udc80",
    "\x00\x1b[2J",
)


def test_names_are_text_and_the_page_is_whole() -> None:
    rows = [result(name=e, path=e, tap=e, variant=e, data=e, group=e, family=e, reason=e, notes=(e,)) for e in EVIL]
    found = collection(*rows, failed(name=EVIL[0], reason=EVIL[1]), suite=f"# {EVIL[1]}", run={EVIL[1]: EVIL[0]})
    plain = Parsed(page_html(collection(result())))
    text = page_html(found, title=EVIL[1])
    text.encode("utf-8")
    parsed = Parsed(text)
    assert len(parsed.scripts) == len(plain.scripts) == 3
    assert not [t for t, a in parsed.tags if t == "img" or "onerror" in a]
    assert EVIL[1] in parsed.text
    assert not re.search("[\u2028\u2029\x00\x1b]", text)
    assert EVIL[0] in parsed.data()["texts"]


def test_json_ends_no_script_and_reads_back() -> None:
    data = {"</script><!--": ["\u2028", "\udc80", "&amp;", "<b>"]}
    text = as_json(data)
    assert text.isascii()
    assert not set("<>&") & set(text)
    assert json.loads(text) == data


def test_policy_lets_exactly_the_pages_scripts_run() -> None:
    text = page_html(collection(result()))
    [policy] = [a["content"] for t, a in Parsed(text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    bodies = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(b.encode()).digest()).decode()}'" for b in bodies]
    assert len(hashes) == 2
    assert policy is not None
    assert f"script-src {' '.join(hashes)};" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy


def test_the_page_names_no_address_to_fetch() -> None:
    found = Parsed(page_html(collection(result())))
    addresses = [a[k] for _, a in found.tags for k in ("src", "href", "action", "srcset") if k in a]
    assert all(a is not None and a.startswith(("#", "data:")) for a in addresses)


def test_the_same_results_make_the_same_page() -> None:
    rows = many(3, 2, 2)
    assert page_html(collection(*rows)) == page_html(collection(*rows))


# --- sections and files -------------------------------------------------------------------------------------------


def test_sections_stand_on_the_page_with_escaped_titles() -> None:
    found = page(result(), sections=[Section("worst", "a <b>", "<p id='x'>trusted</p>")])
    assert ("section", {"id": "worst"}) in found.tags
    assert ("p", {"id": "x"}) in found.tags
    assert "a <b>" in found.text


@pytest.mark.parametrize("ids", [["results"], ["a", "a"], ["a b"], ["1"], ['x"']])
def test_sections_need_ids_of_their_own(ids: list[str]) -> None:
    with pytest.raises(UsageError, match="expected an id of letters, digits and hyphens, once on the page"):
        page(result(), sections=[Section(i, "t", "") for i in ids])


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page.html"
    target.write_text("before", encoding="utf-8")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(GeedError, match=r"cannot write the page to '.*page\.html': No space left on device"):
            write_page(collection(result()), target)
    assert os.listdir(tmp_path) == ["page.html"]
    assert target.read_text(encoding="utf-8") == "before"
    write_page(collection(result()), target)
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert target.stat().st_mode & 0o044


def test_unwritable_targets_are_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is a folder; give a file name in it"):
        write_page(collection(result()), tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder '.*gone'"):
        write_page(collection(result()), tmp_path / "gone" / "page.html")
