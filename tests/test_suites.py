"""Suites that are good: what is read, which files are found, what they are called, and the way back to TOML."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

import fsspec
import pytest
import tomli_w
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from geed_onnx.errors import UsageError
from geed_onnx.gates import Threshold, suite_thresholds
from geed_onnx.requests import Data, Model, Runtime, Settings
from geed_onnx.suites import Suite, SuiteError, load_suite, suite_toml
from geed_onnx.suites.entries import distinct
from geed_onnx.suites.paths import as_typed, find_models

ROOT = Path(__file__).resolve().parent.parent
DOCS = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(*names: str) -> None:
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def loaded(text: str, name: str = "suite.toml", **options: Any) -> Suite:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text, encoding="utf-8")
    return load_suite(name, **options)


def models(pattern: str, **more: Any) -> list[Model]:
    put("x.npz")
    table = tomli_w.dumps({"group": "C8", "data": "x.npz", "models": [{"path": pattern, **more}]})
    return list(loaded(table).models)


# --- what is read -----------------------------------------------------------------------------------------------


def test_the_smallest_suite_has_every_default(desk: Path) -> None:
    put("a.onnx", "x.npz")
    suite = loaded('group = "C8"\nmodels = "a.onnx"\ndata = "x.npz"')
    assert suite == Suite(
        path="anything",
        title="suite",
        models=(Model("a.onnx", "a"),),
        data=(Data("x.npz", "x"),),
        groups=("C8",),
        samples=(None,),  # 50, or as many as there are
        seeds=(0,),
    )
    assert suite.path == "suite.toml"
    jobs = [(j.model.name, j.data.name, j.group, j.settings.samples, j.settings.seed) for j in suite.jobs()]
    assert jobs == [("a", "x", "C8", None, 0)]


def test_the_complete_example_of_the_documentation(desk: Path) -> None:
    put(*(f"checkpoints/cnn-{seed}/step{step}.onnx" for seed in (0, 1, 2) for step in (100, 200, 1000)))
    put("exported/classifier.onnx", "exported/mask.npy", "test.parquet", "released/results.jsonl")
    for smallest in EXAMPLES[:1]:
        put("checkpoints/best.onnx")
        assert [m.path for m in loaded(smallest).models] == ["checkpoints/best.onnx"]
    suite = loaded(EXAMPLES[1])
    assert (suite.title, suite.output, suite.groups, suite.samples, suite.seeds) == (
        "Digits",
        "runs/digits",
        ("C8", "flip"),
        (50, "all"),
        (0, 1),
    )
    assert suite.settings == Settings(
        variants=("channelwise", "softmax"),
        spread_samples=100,
        reference_samples=64,
        floor=True,
        mask="disc",
        batch_size=64,
    )
    assert suite.runtime == Runtime("cpu", 4)
    assert suite.baseline == "released/results.jsonl"
    assert [m.name for m in suite.models] == [
        *(f"cnn {seed}@{step}" for seed in (0, 1, 2) for step in (100, 200, 1000)),
        "released",
    ]
    assert {m.taps for m in suite.models[:-1]} == {("block*", "scores:probability")}
    assert suite.models[-1] == Model(
        path="exported/classifier.onnx",
        name="released",
        family="production",
        seed=3,
        step=20000,
        taps=("features.7", "logits:probability"),
        acts={"logits": "permute:1:1,0"},
        declared_action=False,
        scores={"logits": "logits"},
        input="image",
        layout="NHWC",
        constants={"temperature": 1.0, "mask": "exported/mask.npy"},
        preprocessing={
            "size": "32x32",
            "fit": "crop",
            "resize": 36,
            "colour": "rgb",
            "range": [0, 1],
            "mean": [0.5, 0.5, 0.5],
            "std": 0.25,
            "resample": "bilinear",
        },
    )
    assert suite.data == (
        Data("test.parquet", "test", "image", None, True, False, {"fit": "crop"}),
        Data("hf:mnist:test", "mnist:test"),
    )
    assert suite.thresholds == (
        Threshold("softmax", 0.05, on="calibrated", model="cnn *", prove=True),
        Threshold("softmax", 0.001, on="calibrated", below=True, family_wise=True),
        # the name of a data set stands for the address that its results will have
        Threshold(
            "channelwise", 0.02, relative=True, tap="features*", model="released", group="C8", data="test.parquet"
        ),
    )
    assert len(list(suite.jobs())) == 10 * 2 * 2 * 2 * 2


def test_the_faults_of_the_documentation(desk: Path) -> None:
    put("x.npz")
    with pytest.raises(SuiteError) as caught:
        loaded(
            'groups = ["c8"]\ndata = "x.npz"\n[[models]]\npath = "runs/*.onxn"\n'
            '[[thresholds]]\nvariant = "softmax"\nworse_by = 0.02',
            "digits.toml",
        )
    assert f"```\n{caught.value}\n```" in DOCS


def test_the_documentation_names_every_key() -> None:
    from geed_onnx.suites import schema

    for table in (schema.SuiteTable, schema.ModelTable, schema.DataTable, schema.ThresholdTable):
        for name, field in table.model_fields.items():
            assert f"`{field.alias or name}`" in DOCS.replace("[[", "`").replace("]]", "`").replace(
                "[measure]", "`measure`"
            )
    assert all(
        f"`{name}`" in DOCS for name in [*schema.MeasureTable.model_fields, *schema.PreprocessingTable.model_fields]
    )


SAME = {
    "groups": ["C8", "flip"],
    "samples": [10, "all"],
    "models": [{"path": "a.onnx", "constants": {"t": 1}, "taps": ["1:30", "on"]}, {"path": "b.onnx", "seed": 10}],
    "data": ["x.npz"],
    "thresholds": [{"variant": "softmax", "on": "calibrated", "above": 1e-3}],
}


@pytest.mark.parametrize("suffix", ["toml", "yaml", "yml", "json"])
def test_every_format_says_the_same(desk: Path, suffix: str) -> None:
    put("a.onnx", "b.onnx", "x.npz")
    written = {"toml": tomli_w.dumps, "json": json.dumps}.get(suffix, yaml.safe_dump)(SAME)
    expected = loaded(tomli_w.dumps(SAME), "expected.toml")
    assert loaded(written, f"suite.{suffix}") == replace(expected, title="suite")


def test_yaml_is_read_by_the_rules_of_1_2(desk: Path) -> None:
    """In 1.1 `on` is true, `1e-3` and `no` are no number and false, `010` is eight and `1:30` is ninety."""
    put("a.onnx", "x.npz")
    suite = loaded(
        """
groups: [C8]
seeds: [010]
taps: [on, no, 1:30]
measure: {floor: true, level: 9e-1, mask: none}
models:
- &a {path: a.onnx, name: one, declared_action: false}
- {<<: *a, name: two, declared_action: true}
data: x.npz
thresholds:
- {variant: softmax, on: calibrated, above: 1e-3}
""",
        "suite.yaml",
    )
    assert suite.seeds == (10,)
    assert [(m.name, m.taps, m.declared_action) for m in suite.models] == [
        ("one", ("on", "no", "1:30"), False),
        ("two", ("on", "no", "1:30"), True),
    ]
    assert (suite.settings.floor, suite.settings.level, suite.settings.mask) == (True, 0.9, "none")
    assert suite.thresholds == (Threshold("softmax", 0.001, on="calibrated"),)


def test_a_byte_order_mark_is_no_fault(desk: Path) -> None:
    put("a.onnx", "x.npz")
    Path("suite.toml").write_bytes(b'\xef\xbb\xbfgroup = "C8"\r\nmodels = "a.onnx"\r\ndata = "x.npz"\r\n')
    assert load_suite(Path("suite.toml")).groups == ("C8",)


def test_the_same_file_in_two_ways(desk: Path) -> None:
    put("a.onnx")
    put("x.npz")
    suite = loaded(
        'group = "C8"\ndata = "x.npz"\n[[models]]\npath = "a.onnx"\n[[models]]\npath = "a.onnx"\nname = "naive"\n'
        "declared_action = false"
    )
    assert [(m.path, m.name, m.declared_action) for m in suite.models] == [
        ("a.onnx", "a", True),
        ("a.onnx", "naive", False),
    ]


def test_a_provider_of_another_machine_is_no_fault(desk: Path) -> None:
    put("a.onnx", "x.npz")
    suite = loaded('group = "C8"\nmodels = "a.onnx"\ndata = "x.npz"\n[measure]\nprovider = "tensorrt"')
    assert suite.runtime.provider == "tensorrt"


# --- which files, and what they are called ----------------------------------------------------------------------


def test_patterns_capture_and_numbers_are_sorted_as_numbers(desk: Path) -> None:
    put(*(f"runs/{f}-{s}/step{t}.onnx" for f in ("res-net", "vit") for s in (0, 10, 2) for t in (5, 40)))
    put(
        "runs/res-net-x/step5.onnx",
        "runs/vit-1/stepA.onnx",
        "runs/vit-1/step7.onnx/inside.onnx",
        "runs/vit-1/step8.txt",
    )
    found = models("runs/{family}-{seed}/step{step}.onnx", name="{family}/{seed}/{step}/{stem}")
    assert [(m.family, m.seed, m.step) for m in found] == [
        (f, s, t) for f in ("res-net", "vit") for s in (0, 2, 10) for t in (5, 40)
    ]
    assert found[1].name == "res-net/0/40/step40"
    assert found[1].path == "runs/res-net-0/step40.onnx"


def test_wildcards_stay_within_one_part_and_two_stars_do_not(desk: Path) -> None:
    put("a.onnx", "d/b.onnx", "d/e/c.onnx", "d/.hidden.onnx", ".h/d.onnx", "d/readme.md", "d[1]/x.onnx")

    def found(pattern: str) -> list[str]:
        return [m.path for m in find_models("", pattern)]

    assert found("*.onnx") == ["a.onnx"]
    assert found("?.onnx") == ["a.onnx"]
    assert found("**/*.onnx") == ["a.onnx", "d/b.onnx", "d/e/c.onnx", "d[1]/x.onnx"]
    assert found("d/**/*.onnx") == ["d/b.onnx", "d/e/c.onnx"]
    assert found("d/*") == ["d/b.onnx"]
    assert found("d/**") == ["d/b.onnx", "d/e/c.onnx"]
    assert found("d/*.md") == ["d/readme.md"]
    assert found("d[1]/*.onnx") == ["d[1]/x.onnx"]
    assert found("*/{name}.onnx") == ["d/b.onnx", "d[1]/x.onnx"]


def test_a_placeholder_that_comes_again_stands_for_the_same(desk: Path) -> None:
    put("r/a/a.onnx", "r/a/b.onnx", "r/b/b.onnx", "r/{x}/c.onnx", "r/3/s03.onnx")
    assert [m.path for m in find_models("", "r/{name}/{name}.onnx")] == ["r/a/a.onnx", "r/b/b.onnx"]
    assert [m.path for m in find_models("", "r/{{x}}/{name}.onnx")] == ["r/{x}/c.onnx"]
    assert [m.path for m in find_models("", "r/{x}/c.onnx")] == ["r/{x}/c.onnx"]  # it is there as it is written
    assert models("r/3/s{seed}.onnx", name="n{seed}")[0].name == "n3"


def test_captured_names_and_filled_families(desk: Path) -> None:
    put("r/small-0.onnx", "r/small-1.onnx", "r/la{r}ge-0.onnx")
    found = models("r/{name}-{seed}.onnx", family="digits {name}", name="{{{name}}} {family}.{seed}")
    assert [(m.name, m.family, m.seed) for m in found] == [
        ("{la{r}ge} digits la{r}ge.0", "digits la{r}ge", 0),
        ("{small} digits small.0", "digits small", 0),
        ("{small} digits small.1", "digits small", 1),
    ]
    put("one/net.onnx")
    assert models("{name}/net.onnx")[0].name == "one"


def test_default_names_are_as_short_as_they_may_be(desk: Path) -> None:
    put("a/x/best.onnx", "b/x/best.onnx", "b/y/last.onnx", "other.onnx")
    assert [m.name for m in models("*/*/*.onnx")] == ["a/x/best", "b/x/best", "b/y/last"]
    put("x.npz")
    suite = loaded('group = "C8"\ndata = "x.npz"\nmodels = ["a/x/best.onnx", "b/x/best.onnx", "b/y/last.onnx"]')
    assert [m.name for m in suite.models] == ["a/x/best", "b/x/best", "last"]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4), min_size=1, max_size=8))
def test_paths_that_differ_get_names_that_differ(parts: list[list[str]]) -> None:
    names = distinct([""] * len(parts), parts, range(len(parts)))
    for name, own in zip(names, parts, strict=True):
        assert "/".join(own).endswith(name)
    for i, name in enumerate(names):
        for j in range(i):
            # a whole path may be the end of another: nothing shorter tells them apart
            assert (name == names[j]) <= (parts[i] == parts[j])


def test_data_sets_of_one_stem_are_told_apart(desk: Path) -> None:
    put("a.onnx", "p/test.npz", "q/test.npz")
    suite = loaded(
        'group = "C8"\nmodels = "a.onnx"\ndata = ["p/test.npz", "q/test.npz", "hf:u/test:train", "s3://b/z.npz"]'
    )
    assert [(d.name, d.source) for d in suite.data] == [
        ("p/test", "p/test.npz"),
        ("q/test", "q/test.npz"),
        ("test:train", "hf:u/test:train"),
        ("z", "s3://b/z.npz"),
    ]


def test_thresholds_may_name_data_sets_by_name_or_address(desk: Path) -> None:
    put("a.onnx", "sub/p[1].npz", "sub/q.npz")
    text = """
        group = "T4"
        models = "../a.onnx"
        [[data]]
        source = "p[1].npz"
        name = "first"
        [[data]]
        source = "q.npz"
        name = "second"
        [[thresholds]]
        variant = "softmax"
        above = 1
    """
    for pattern, expected in (
        ("*", ["*"]),
        ("sub/q*", ["sub/q*"]),
        ("first", [escape("sub/p[1].npz")]),
        ("p[1].npz", [escape("sub/p[1].npz")]),  # a set of one character, and the very address
        ("sub/p[1].npz", [escape("sub/p[1].npz")]),
        ("*b/*", ["*b/*"]),
        ("*ir*", [escape("sub/p[1].npz")]),
        ("*[td]", [escape("sub/p[1].npz"), "sub/q.npz"]),
        ("q.npz", ["sub/q.npz"]),
    ):
        assert [t.data for t in loaded(f'{text}data = "{pattern}"', "sub/suite.toml").thresholds] == expected


def test_a_threshold_may_name_a_model_with_brackets(desk: Path) -> None:
    put("a[1].onnx", "a1.onnx", "x.npz")
    text = 'group = "C8"\nmodels = "*.onnx"\ndata = "x.npz"\n[[thresholds]]\nvariant = "softmax"\nabove = 1\n'
    assert [t.model for t in loaded(text + 'model = "a[1]"').thresholds] == ["a[1]"]
    os.remove("a1.onnx")
    assert [t.model for t in loaded(text + 'model = "a[1]"').thresholds] == ["a[1]"]  # no glob of it, but its name


def test_paths_are_as_one_would_type_them_here(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("project/models/a.onnx", "project/data/x.npz", "project/sub/deep/k.npy")
    text = f"""group = "C8"
        data = "{(desk / "project/data/x.npz").as_posix()}"
        [[models]]
        path = "../models/../models/a.onnx"
        constants = {{ k = "deep/k.npy" }}"""

    def typed(suite: Suite) -> list[str]:
        return [suite.models[0].path, str(suite.models[0].constants["k"]), suite.data[0].source]

    suite = loaded(text, "project/sub/suite.toml")
    assert typed(suite) == ["project/models/a.onnx", "project/sub/deep/k.npy", "project/data/x.npz"]
    monkeypatch.chdir("project")
    assert typed(load_suite("sub/suite.toml")) == ["models/a.onnx", "sub/deep/k.npy", "data/x.npz"]
    monkeypatch.chdir("sub/deep")
    assert typed(load_suite("../suite.toml")) == ["../../models/a.onnx", "k.npy", "../../data/x.npz"]
    assert typed(load_suite(desk / "project/sub/suite.toml")) == typed(load_suite("../suite.toml"))


def test_a_root_that_is_given_goes_over_the_suites_own(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for work in ("work", "other"):
        put(f"{work}/m/a-0.onnx", f"{work}/m/a-1.onnx", f"{work}/d/x.npz", f"{work}/k.npy", f"{work}/base.jsonl")
    put("elsewhere/x")
    text = """
        group = "C8"
        root = "../elsewhere"
        baseline = "base.jsonl"
        data = "d/x.npz"
        [[models]]
        path = "m/{family}-{seed}.onnx"
        constants = { k = "k.npy" }
        [[thresholds]]
        variant = "softmax"
        worse_by = 0.1
        data = "x"
    """
    with pytest.raises(SuiteError, match="3 faults"):
        loaded(text, "suites/suite.toml")
    for root in ("work", Path("work"), "./suites/../work/", str(desk / "work")):
        suite = load_suite("suites/suite.toml", root=root)
        assert [m.path for m in suite.models] == ["work/m/a-0.onnx", "work/m/a-1.onnx"]
        assert (suite.data[0].source, suite.baseline) == ("work/d/x.npz", "work/base.jsonl")
        assert suite.models[0].constants == {"k": "work/k.npy"}
        assert suite.thresholds[0].data == "work/d/x.npz"
    assert load_suite("suites/suite.toml", root="other").models[0].path == "other/m/a-0.onnx"
    # the suite as it was resolved leads back without being told again, and has no trace of the other root
    Path("work/run").mkdir()
    Path("work/run/suite.toml").write_text(suite_toml(suite, "work/run"), encoding="utf-8")
    assert load_suite("work/run/suite.toml") == suite
    assert "elsewhere" not in Path("work/run/suite.toml").read_text(encoding="utf-8")
    monkeypatch.chdir("work")
    assert load_suite("../suites/suite.toml", root=".").models[0].path == "m/a-0.onnx"


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("wrok", "root: no such file or folder: 'wrok'; did you mean 'work'?"),
        ("no/such", "root: no such file or folder: 'no/such'; there is no folder 'no'"),
        ("a.onnx", "root: expected a folder, 'a.onnx' is none"),
        ("", "root: expected a folder, '' is none"),
    ],
)
def test_a_root_that_is_no_folder(desk: Path, root: str, said: str) -> None:
    put("a.onnx", "x.npz", "work/y")
    loaded('group = "C8"\nmodels = "a.onnx"\ndata = "x.npz"')
    with pytest.raises(UsageError, match=f"^{re.escape(said)}$"):
        load_suite("suite.toml", root=root)
    # where no file is looked at, no folder is either
    assert load_suite("suite.toml", root=root, files=False).models[0].path == "a.onnx"


def test_a_path_is_typed_the_shorter_way(desk: Path) -> None:
    assert as_typed("/") == "/"
    assert as_typed("a/../b.onnx") == "b.onnx"
    assert as_typed(os.path.join("..", desk.name, "b.onnx")) == "b.onnx"
    assert as_typed("s3://bucket//a/../b") == "s3://bucket//a/../b"


def test_remote_patterns_are_followed_where_they_are(desk: Path) -> None:
    files = fsspec.filesystem("memory")
    for name in ("cnn-0/step9.onnx", "cnn-0/step10.onnx", "cnn-1/step9.onnx", "cnn-1/notes.txt", "odd{1}.onnx"):
        files.pipe(f"/suites-test/{name}", b"x")
    put("a.onnx", "local/b.onnx")
    try:
        found = models("memory://suites-test/{family}-{seed}/step{step}.onnx", name="{family}{seed}{step}")
        assert [(m.path, m.seed, m.step) for m in found] == [
            ("memory://suites-test/cnn-0/step9.onnx", 0, 9),
            ("memory://suites-test/cnn-0/step10.onnx", 0, 10),
            ("memory://suites-test/cnn-1/step9.onnx", 1, 9),
        ]
        assert models("memory://suites-test/odd{1}.onnx")[0].name == "odd{1}"
        assert [m.name for m in models("memory://suites-test/*/*.onnx")] == [
            "cnn-0/step9",
            "cnn-0/step10",
            "cnn-1/step9",
        ]
        address = (desk / "local").as_uri()
        assert models(f"{address}/*.onnx")[0].path == f"{address}/b.onnx"
        # a suite that is remote itself: its own paths are, too
        text = 'group = "C8"\nmodels = "cnn-0/step{step}.onnx"\ndata = "hf:mnist"'
        files.pipe("/suites-test/suite.toml", text.encode())
        remote = load_suite("memory://suites-test/suite.toml")
        assert [m.path for m in remote.models] == [m.path for m in found[:2]]
        Path("again.toml").write_text(suite_toml(remote))
        assert load_suite("again.toml") == remote
        # a suite here over models there
        Path("here.toml").write_text(files.cat("/suites-test/suite.toml").decode(), encoding="utf-8")
        assert load_suite("here.toml", root="memory://suites-test").models == remote.models
    finally:
        files.rm("/suites-test", recursive=True)


# --- the way back -----------------------------------------------------------------------------------------------


def test_a_resolved_suite_leads_back_from_anywhere(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("p/m/a-0.onnx", "p/m/a-1.onnx", "p/d/x.npz", "p/base.jsonl")
    text = """
        group = "C8"
        baseline = "../base.jsonl"
        data = "../d/x.npz"
        [[models]]
        path = "../m/{family}-{seed}.onnx"
        [[thresholds]]
        variant = "softmax"
        worse_by = 0.1
        data = "x"
    """
    monkeypatch.chdir("p")
    suite = loaded(text, "s/suite.toml")
    Path("runs/one").mkdir(parents=True)
    written = suite_toml(suite, "runs/one")
    assert str(desk) not in written  # no folder above the working directory
    assert 'root = "../.."' in written
    Path("runs/one/suite.toml").write_text(written, encoding="utf-8")
    assert load_suite("runs/one/suite.toml") == suite
    assert load_suite("runs/one/suite.toml", files=False) == suite
    for folder in ("runs/one", ".."):
        here = os.getcwd()
        monkeypatch.chdir(folder)
        there = load_suite(os.path.join(here, "runs/one/suite.toml"))
        assert [os.path.abspath(m.path) for m in there.models] == [os.path.join(here, m.path) for m in suite.models]
        assert os.path.abspath(there.baseline or "") == os.path.join(here, "base.jsonl")
        assert [t.data for t in there.thresholds] == [there.data[0].source]
        assert os.path.samefile(there.data[0].source, os.path.join(here, suite.data[0].source))
        renamed = [replace(m, path="") for m in there.models]
        assert renamed == [replace(m, path="") for m in suite.models]
        monkeypatch.chdir(here)
    # elsewhere, and where nobody says, the full path is all there is
    for folder_of in (None, str(desk / "q"), "memory://x/y"):
        Path("away.toml").write_text(suite_toml(suite, folder_of), encoding="utf-8")
        assert load_suite("away.toml") == suite
        assert f'root = "{desk / "p"}"' in Path("away.toml").read_text()


def test_models_that_have_moved_are_looked_for_only_when_asked(desk: Path) -> None:
    put("a.onnx", "x.npz")
    suite = loaded('group = "C8"\nmodels = "a.onnx"\ndata = "x.npz"')
    Path("run.toml").write_text(suite_toml(suite, "."))
    os.remove("a.onnx")
    os.remove("x.npz")
    assert load_suite("run.toml", files=False) == suite
    with pytest.raises(SuiteError, match=r"^suite 'run.toml': 2 faults\n"):
        load_suite("run.toml")


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
ODD = ("a.onnx", "b [1].onnx", "c{seed}.onnx", "{d}.onnx", "e*?.onnx", "sub/a.onnx", "sub/é\t.onnx", "#'\".onnx")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(0, 2**63 - 1)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


PREPROCESSING = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from(["32x32", 32, [3, 4]]),
        "fit": st.sampled_from(["crop", "pad"]),
        "range": st.sampled_from([[0, 1], "0,255", [-1.5, 2.0]]),
        "mean": st.sampled_from([[0.1, 0.2, 0.3], 0, "0.5"]),
        "std": NUMBERS.filter(bool),
    },
)
MODELS = st.builds(
    Model,
    path=st.sampled_from(ODD),
    name=TEXTS,
    family=optional(TEXTS),
    seed=optional(WHOLE),
    step=optional(WHOLE),
    taps=optional(st.sampled_from([("x",), ("a:map", "b*:vector", "c:0")])),
    acts=st.dictionaries(TEXTS, st.sampled_from(["trivial", "pixels+permute:1:1,0", "roll:1:-4"]), max_size=2),
    declared_action=st.booleans(),
    scores=st.dictionaries(TEXTS, st.sampled_from(["logits", "probabilities"]), max_size=2),
    input=optional(TEXTS),
    layout=optional(st.sampled_from(["NCHW", "NHWC"])),
    constants=st.dictionaries(TEXTS, NUMBERS | st.just("k.npy"), max_size=2),
    preprocessing=PREPROCESSING,
)
DATA = st.builds(
    Data,
    source=st.sampled_from(["x.npz", "sub/y.npz", "sub", "hf:mnist:test", "s3://bucket/z.parquet"]),
    name=TEXTS,
    column=optional(TEXTS),
    skip_bad=st.booleans(),
    streaming=optional(st.booleans()),
    preprocessing=PREPROCESSING,
)
SETTINGS = st.builds(
    Settings,
    variants=optional(st.sampled_from([("softmax", "channelwise"), ("softmax", "map:pixels:relative-l2")])),
    spread_samples=optional(st.integers(2, 1000)),
    reference_samples=optional(WHOLE),
    level=st.floats(0, 1, exclude_min=True, exclude_max=True),
    floor=st.booleans(),
    mask=st.sampled_from(["auto", "disc", "none"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic"]),
    batch_size=optional(st.integers(1, 1000)),
)
RUNTIMES = st.builds(
    Runtime, provider=st.sampled_from(["auto", "cpu"]), threads=optional(st.integers(1, 64)), tf32=st.booleans()
)


@st.composite
def suites(draw: st.DrawFn) -> Suite:
    """A suite as `load_suite` could have returned it."""
    chosen = draw(st.lists(MODELS, min_size=1, max_size=4, unique_by=lambda m: m.name))
    chosen = [m for i, m in enumerate(chosen) if m.path not in [o.path for o in chosen[:i]]]
    copies = {(m.family, m.seed, m.step) if m.family else m.name: m for m in chosen}
    data = draw(st.lists(DATA, min_size=1, max_size=3, unique_by=(lambda d: d.name, lambda d: d.source)))
    threshold = st.builds(
        Threshold,
        variant=st.just("softmax"),
        limit=st.floats(0, 1e9),
        on=st.sampled_from(["value", "calibrated"]),
        relative=st.booleans(),
        tap=TEXTS,
        model=st.sampled_from(["*", *(escape(m.name) for m in copies.values())]),
        group=st.sampled_from(["*", "C*"]),
        data=st.sampled_from(["*", *(escape(d.source) for d in data)]),
    )
    return Suite(
        path="",
        title=draw(TEXTS),
        models=tuple(copies.values()),
        data=tuple(data),
        groups=tuple(draw(st.sampled_from([["C8"], ["flip", "C4", "C8"]]))),
        samples=tuple(draw(st.lists(st.integers(1, 99) | st.just("all"), min_size=1, max_size=3, unique=True))),
        seeds=tuple(draw(st.lists(WHOLE, min_size=1, max_size=3, unique=True))),
        settings=draw(SETTINGS),
        runtime=draw(RUNTIMES),
        thresholds=tuple(draw(st.lists(threshold, max_size=3, unique=True))),
        baseline="base.jsonl",
        output=draw(optional(TEXTS)),
    )


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    here = os.getcwd()
    os.chdir(folder)
    put(*ODD, "x.npz", "sub/y.npz", "k.npy", "base.jsonl")
    Path("out/deep").mkdir(parents=True)
    os.chdir(here)
    return folder


@settings(max_examples=60)
@given(suite=suites())
def test_what_is_written_loads_back_to_the_same_suite(odd_files: Path, suite: Suite) -> None:
    here = os.getcwd()
    os.chdir(odd_files)
    try:
        file = Path("out/deep/suite.toml")
        file.write_text(suite_toml(suite, file.parent), encoding="utf-8", newline="")
        again = load_suite(file)
        assert again == suite
        file.write_text(suite_toml(again, file.parent), encoding="utf-8", newline="")
        assert suite_toml(load_suite(file), file.parent) == suite_toml(again, file.parent)
        assert load_suite(file, files=False) == suite
        # the gate reads the thresholds of a run's suite by itself
        gate = suite_thresholds(file.read_text(encoding="utf-8"), "suite.toml")
        assert (gate.thresholds, gate.baseline) == (suite.thresholds, suite.baseline)
        file.write_text(suite_toml(suite), encoding="utf-8", newline="")
        assert load_suite(file.absolute()) == suite
    finally:
        os.chdir(here)


# --- the demo ---------------------------------------------------------------------------------------------------


def test_the_demo_suite_has_every_shipped_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from geed_onnx.cli import demo

    monkeypatch.chdir(ROOT)
    suite = load_suite("models/demo.toml")
    assert {m.path for m in suite.models} == {as_typed(str(p)) for p in Path("models/shipped").glob("*.onnx")}
    assert len({m.path for m in suite.models}) == 8
    names = {m.name: m for m in suite.models}
    told = (demo.TRAINED, demo.UNTRAINED, demo.INT8, demo.COPIED, demo.KERAS, demo.FLAX, demo.C8, demo.NAIVE)
    assert {*told, "scikit-learn MLP"} == set(names)
    # one file in two ways
    assert names[demo.C8].path == names[demo.NAIVE].path
    assert [m.name for m in suite.models if not m.declared_action] == [demo.NAIVE]
    assert [d.source for d in suite.data] == ["models/shipped/digits-test.parquet"]
    assert (suite.groups, suite.samples, suite.seeds) == (("C8",), (50,), (0,))
    assert load_suite(ROOT / "models" / "demo.toml") == suite


@pytest.mark.slow
def test_the_demo_keeps_its_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    from geed_onnx import measure

    monkeypatch.chdir(ROOT)
    suite = load_suite("models/demo.toml")
    held = dict.fromkeys(suite.thresholds, 0)
    for job in suite.jobs():
        options: dict[str, Any] = {
            "samples": job.settings.samples,
            "seed": job.settings.seed,
            "declared_action": job.model.declared_action,
        }
        for result in measure(job.model.path, job.data.source, job.group, **options):
            named = replace(result, model={**result.model, "name": job.model.name})
            for threshold in suite.thresholds:
                if threshold.applies_to(named):
                    assert threshold.on == "calibrated"
                    assert result.calibrated is not None
                    assert result.calibrated <= threshold.limit
                    held[threshold] += 1
    assert all(held.values())
