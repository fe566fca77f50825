"""Bad suites: every fault has its place, its value and its own words, and all of them are named at once."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geed_onnx.errors import UsageError
from geed_onnx.suites import MISSING, Fault, SuiteError, load_suite, suite_toml

GOOD = 'groups = ["C8"]\nmodels = ["a.onnx"]\ndata = "x.npz"\n'
NAMES = "path, name, family, seed, step, taps, acts, declared_action, scores, input, layout, constants, preprocessing"


@pytest.fixture(autouse=True)
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.onnx", "b.onnx", "runs/cnn-0/best.onnx", "runs/cnn-1/best.onnx", "x.npz", "y.npz", "mask.npy"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "notes.txt").write_text("no images")
    (tmp_path / "base.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(text: str | bytes, suffix: str = "toml") -> list[str]:
    """The lines of what is wrong with a suite; without the headline."""
    name = f"suite.{suffix}"
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SuiteError) as caught:
        load_suite(name)
    error = caught.value
    count = "1 fault" if len(error.faults) == 1 else f"{len(error.faults)} faults"
    assert error.said[0] == f"suite '{name}': {count}"
    assert str(error) == "\n".join(error.said)
    assert error.exit_code == 2
    assert all("\n" not in line for line in error.said)
    return list(error.said[1:])


def tables(**given: str) -> str:
    """A suite that is good but for the lines given: `head`, `measure`, `model`, `data`, `threshold`."""
    return "\n".join(
        [
            "" if "group" in given.get("head", "") else 'groups = ["C8"]',
            given.get("head", ""),
            "[measure]",
            given.get("measure", ""),
            "[[models]]",
            "" if "path" in given.get("model", "").split("[[")[0] else 'path = "a.onnx"',
            given.get("model", ""),
            "[[data]]",
            "" if "source" in given.get("data", "").split("[[")[0] else 'source = "x.npz"',
            given.get("data", ""),
            *(["[[thresholds]]", given["threshold"]] if "threshold" in given else []),
        ]
    )


def test_the_frame_of_these_tests_is_good() -> None:
    Path("suite.toml").write_text(GOOD)
    assert load_suite("suite.toml").groups == ("C8",)
    Path("suite.toml").write_text(tables(threshold='variant = "softmax"\nabove = 0.1'))
    assert len(load_suite("suite.toml").thresholds) == 1


FORMS = "forms: C<n>, D<n>, flip, flip-ud, T<k>x<l>, S<n>@<axis>"
CASES: dict[str, tuple[dict[str, str], str]] = {
    # before the tables
    "no groups": ({"head": "# group"}, 'groups: missing – expected a list of groups, as in groups = ["C8"]'),
    "no such group": ({"head": 'group = "c8"'}, f"group: 'c8' – unknown group: did you mean 'C8'?; {FORMS}"),
    "group of no product": (
        {"head": 'groups = ["flip", "C8xD4"]'},
        "groups[1]: 'C8xD4' – C8xD4 is no direct product on pictures: element 1 of C8 and element 4 of D4 do not"
        " commute; use one group that holds both (D<n> for rotations with flips)",
    ),
    "group that is a number": ({"head": 'groups = ["C8", 4]'}, "groups[1]: 4 – expected a group, or a list of groups"),
    "no group at all": (
        {"head": "groups = []"},
        "groups: [] – expected a group, or a list of groups; this is empty",
    ),
    "a group twice": ({"head": 'groups = ["C8", "C08"]'}, "groups[1]: 'C08' – groups[0] is the same; leave it out"),
    "group and groups": (
        {"head": 'groups = ["C8"]\ngroup = "C4"'},
        "group: 'C4' – group and groups are both given; give one",
    ),
    "unknown key": ({"head": 'outptu = "x"'}, "outptu: 'x' – unknown key: did you mean 'output'?"),
    "schema": (
        {"head": 'schema = "geed-suite/9"'},
        "schema: 'geed-suite/9' – unknown schema: did you mean 'geed-suite/1'?",
    ),
    "title": ({"head": "title = 3"}, "title: 3 – expected a text"),
    "output": ({"head": 'output = ""'}, "output: '' – expected the path of a folder; this is empty"),
    "samples as text": (
        {"head": 'samples = "fifty"'},
        "samples: 'fifty' – expected a positive whole number or \"all\"",
    ),
    "samples, nearly all": (
        {"head": 'samples = [3, "al"]'},
        "samples[1]: 'al' – expected a positive whole number or \"all\"; did you mean 'all'?",
    ),
    "no samples": ({"head": "samples = 0"}, 'samples: 0 – expected a positive whole number or "all"'),
    "samples as a boolean": ({"head": "samples = true"}, 'samples: true – expected a positive whole number or "all"'),
    "samples as a fraction": ({"head": "samples = 1.5"}, 'samples: 1.5 – expected a positive whole number or "all"'),
    "samples beyond reason": (
        {"head": f"samples = 0x{'f' * 5000}"},
        'samples: a number of 20000 bits – expected a positive whole number or "all"',
    ),
    "negative seed": ({"head": "seed = -1"}, "seed: -1 – expected a whole number from 0, or a list of them"),
    "a seed twice": ({"head": "seeds = [1, 2, 1]"}, "seeds[2]: 1 – seeds[0] is the same; leave it out"),
    "seeds as text": (
        {"head": 'seeds = [1, "2"]'},
        "seeds[1]: '2' – expected a whole number from 0, or a list of them",
    ),
    "variant": ({"head": 'variants = "softmx"'}, "variants: 'softmx' – unknown variant: did you mean 'softmax'?"),
    "distance in a variant": (
        {"head": 'variants = ["softmax", "map:pixels:relatve-l2"]'},
        "variants[1]: 'map:pixels:relatve-l2' – unknown distance 'relatve-l2': did you mean 'relative-l2'?",
    ),
    "parts that do not go together": (
        {"head": 'variants = "probability:pixels:kl"'},
        "variants: 'probability:pixels:kl' – the action 'pixels' moves the grid of a map, and a probability has none",
    ),
    "kind of a tap": (
        {"head": 'taps = ["scores:probabilty"]'},
        "taps[0]: 'scores:probabilty' – unknown kind of tap: did you mean 'scores:probability'?; a tensor really called"
        " so: 'scores:?*'",
    ),
    "tap without a name": (
        {"head": 'taps = ":map"'},
        "taps: ':map' – expected NAME:map; there is no name before the colon",
    ),
    "tap of two kinds": (
        {"head": 'taps = ["x:map", "x:vector"]'},
        "taps[1]: 'x:vector' – 'x' is a map in taps[0]; choose one kind",
    ),
    "baseline": (
        {"head": 'baseline = "bse.jsonl"'},
        "baseline: 'bse.jsonl' – no such file or folder: 'bse.jsonl'; did you mean 'base.jsonl'?",
    ),
    "baseline without results": (
        {"head": 'baseline = "runs"'},
        "baseline: 'runs' – this folder holds no results.jsonl: geed-onnx run writes one",
    ),
    # measure
    "level in percent": (
        {"measure": "level = 95"},
        "measure.level: 95 – expected a number between 0 and 1 (95 % is written 0.95)",
    ),
    "level nan": (
        {"measure": "level = nan"},
        "measure.level: nan – expected a number between 0 and 1 (95 % is written 0.95)",
    ),
    "mask": ({"measure": 'mask = "disk"'}, "measure.mask: 'disk' – unknown mask: did you mean 'disc'?"),
    "interpolation": (
        {"measure": 'interpolation = "bilinaer"'},
        "measure.interpolation: 'bilinaer' – unknown interpolation: did you mean 'bilinear'?",
    ),
    "provider": ({"measure": 'provider = "cdua"'}, "measure.provider: 'cdua' – unknown provider: did you mean 'cuda'?"),
    "spread samples": ({"measure": "spread_samples = 1"}, "measure.spread_samples: 1 – expected a whole number from 2"),
    "batch size": ({"measure": "batch_size = 0"}, "measure.batch_size: 0 – expected a whole number from 1"),
    "threads": ({"measure": "threads = 1.5"}, "measure.threads: 1.5 – expected a whole number from 1"),
    "floor": ({"measure": 'floor = "yes"'}, "measure.floor: 'yes' – expected true or false"),
    "unknown key of measure": ({"measure": "flor = true"}, "measure.flor: true – unknown key: did you mean 'floor'?"),
    "key in the wrong table": (
        {"measure": "samples = 3"},
        "measure.samples: 3 – unknown key: 'samples' belongs before the first table",
    ),
    # models
    "file that is not there": (
        {"model": 'path = "a.onxn"'},
        "models[0].path: 'a.onxn' – no such file: 'a.onxn'; did you mean 'a.onnx' or 'b.onnx'?",
    ),
    "folder that is not there": (
        {"model": 'path = "rnus/a.onnx"'},
        "models[0].path: 'rnus/a.onnx' – no such file: 'rnus/a.onnx'; there is no folder 'rnus'",
    ),
    "home folder": (
        {"model": 'path = "~/a.onnx"'},
        "models[0].path: '~/a.onnx' – no such file: '~/a.onnx'; there is no folder '~'; '~' is not read as your home"
        " folder: write the path out",
    ),
    "absolute path": (
        {"model": 'path = "/nowhere/to/be/found/a.onnx"'},
        "models[0].path: '/nowhere/to/be/found/a.onnx' – no such file: '/nowhere/to/be/found/a.onnx'; there is no"
        " folder '/nowhere/to/be/found'",
    ),
    "pattern without matches": (
        {"model": 'path = "rnus/*.onnx"'},
        "models[0].path: 'rnus/*.onnx' – no file matches 'rnus/*.onnx'",
    ),
    "folder for a model": (
        {"model": 'path = "runs"'},
        "models[0].path: 'runs' – expected an ONNX file, this is a folder; 'runs/*.onnx' would take the files in it",
    ),
    "empty model": ({"model": 'path = "empty.onnx"'}, "models[0].path: 'empty.onnx' – the file is empty (0 bytes)"),
    "placeholder": (
        {"model": 'path = "runs/{famly}-{seed}/best.onnx"'},
        "models[0].path: 'runs/{famly}-{seed}/best.onnx' – unknown placeholder {famly}; did you mean 'family'?",
    ),
    "lone brace": (
        {"model": 'path = "runs/{seed/best.onnx"'},
        "models[0].path: 'runs/{seed/best.onnx' – a brace stands alone; write {{ for a brace in a name",
    ),
    "seed that is text": (
        {"model": 'path = "runs/{family}{seed}/best.onnx"\nseed = "3"'},
        "models[0].seed: '3' – expected a whole number from 0",
    ),
    "seed twice": (
        {"model": 'path = "runs/cnn-{seed}/best.onnx"\nseed = 3'},
        "models[0].seed: 3 – given twice: path has {seed} already ('0' in 'runs/cnn-0/best.onnx'); give one",
    ),
    "placeholder in a name": (
        {"model": 'name = "{stepp}"'},
        "models[0].name: '{stepp}' – unknown placeholder {stepp}; did you mean 'step' or 'stem'?",
    ),
    "placeholder without a value": (
        {"model": 'name = "x{seed}"'},
        "models[0].name: 'x{seed}' – {seed} has no value here: give seed, or put {seed} in path",
    ),
    "one name for two": (
        {"model": 'path = "runs/*/best.onnx"\nname = "cnn"'},
        "models[0].name: 'cnn' – 'runs/cnn-1/best.onnx' gets the name that 'runs/cnn-0/best.onnx' has already"
        " (models[0]); names must differ: give each its own, or put {family}, {seed}, {step}, {name} or {stem} into"
        " name",
    ),
    "family without seeds": (
        {"model": 'path = "runs/*/best.onnx"\nfamily = "cnn"'},
        "models[0].family: 'cnn' – 'runs/cnn-1/best.onnx' and 'runs/cnn-0/best.onnx' both have no seed and no step:"
        " give seed and step, or {seed} and {step} in path",
    ),
    "a model twice": (
        {"model": '[[models]]\npath = "./a.onnx"\nname = "again"'},
        "models[1].path: 'a.onnx' – the same model with the same settings is in models[0] already; leave it out, or"
        " measure it in another way",
    ),
    "a file twice without names": (
        {"model": '[[models]]\npath = "a.onnx"\ndeclared_action = false'},
        "models[1].name: 'a' – 'a.onnx' gets the name that the same file has already (models[0]); names must differ:"
        " give each its own, or put {family}, {seed}, {step}, {name} or {stem} into name",
    ),
    "action": (
        {"model": 'acts = { logits = "permut:1:1,0" }'},
        "models[0].acts.logits: 'permut:1:1,0' – unknown action 'permut': did you mean 'permute'?",
    ),
    "action with words for numbers": (
        {"model": 'acts = { "a.b" = "pixels+roll:1:x" }'},
        "models[0].acts.'a.b': 'pixels+roll:1:x' – expected roll:AXIS:STEPS with whole numbers, as in roll:1:-4",
    ),
    "action for another group": (
        {"model": 'acts = { x = "roll:1:1;1" }'},
        "models[0].acts.x: 'roll:1:1;1' – C8 has 1 generator(s), so expected as many permutations separated by ';'"
        " (D<n>: rotation, then reflection), got 2",
    ),
    "scores": (
        {"model": 'scores = { out = "logit" }'},
        "models[0].scores.out: 'logit' – unknown word for scores: did you mean 'logits'?",
    ),
    "acts as text": (
        {"model": 'acts = "trivial"'},
        "models[0].acts: 'trivial' – expected a table of actions by tap, as in { logits = \"permute:1:1,0\" }",
    ),
    "layout": ({"model": 'layout = "NCWH"'}, "models[0].layout: 'NCWH' – unknown layout: did you mean 'NCHW'?"),
    "declared action": (
        {"model": "declared_action = 0"},
        "models[0].declared_action: 0 – expected true or false",
    ),
    "constant": (
        {"model": 'constants = { t = "one" }'},
        "models[0].constants.t: 'one' – expected a number, or the path of a .npy file",
    ),
    "constant beyond every float": (
        {"model": f"constants = {{ t = 1{'0' * 400} }}"},
        "models[0].constants.t: a number of 1329 bits – expected a number, or the path of a .npy file",
    ),
    "constant that is not there": (
        {"model": 'constants = { t = "maks.npy" }'},
        "models[0].constants.t: 'maks.npy' – no such file: 'maks.npy'; did you mean 'mask.npy'?",
    ),
    "no taps": ({"model": "taps = []"}, "models[0].taps: [] – expected NAME[:KIND], or a list of them; this is empty"),
    "unknown key of a model": (
        {"model": "declared = true"},
        "models[0].declared: true – unknown key: did you mean 'declared_action'?",
    ),
    "nothing near": (
        {"model": "zzz = 1"},
        f"models[0].zzz: 1 – unknown key; known: {', '.join(sorted(NAMES.split(', '))[:12])}, … (13 in all)",
    ),
    "size": (
        {"model": 'preprocessing = { size = "32by32" }'},
        "models[0].preprocessing.size: '32by32' – expected a side or height and width, as in \"224x224\", [224, 224] or"
        " 224",
    ),
    "fit": (
        {"model": 'preprocessing = { fit = "crp" }'},
        "models[0].preprocessing.fit: 'crp' – unknown fit: did you mean 'crop'?",
    ),
    "range": (
        {"data": "preprocessing = { range = [1, 1] }"},
        "data[0].preprocessing.range: [1, 1] – expected two different numbers, what black and white become, as in [0,"
        ' 1] or "0,255"',
    ),
    "mean": (
        {"data": "preprocessing = { mean = [0.1, 0.2] }"},
        "data[0].preprocessing.mean: [0.1, 0.2] – expected one number or three, one a channel, as in [0.485, 0.456,"
        ' 0.406] or "0.5"',
    ),
    "std": (
        {"data": "preprocessing = { std = 0 }"},
        "data[0].preprocessing.std: 0 – expected numbers other than 0: the input is divided by them",
    ),
    "unknown key of preprocessing": (
        {"data": 'preprocessing = { color = "grey" }'},
        "data[0].preprocessing.color: 'grey' – unknown key: did you mean 'colour'?",
    ),
    # data
    "data that are not there": (
        {"data": 'source = "z.npz"'},
        "data[0].source: 'z.npz' – no such file or folder: 'z.npz'; did you mean 'y.npz' or 'x.npz'?",
    ),
    "pattern of data": (
        {"data": 'source = "*.npz"'},
        "data[0].source: '*.npz' – no such file or folder: '*.npz'; did you mean 'y.npz' or 'x.npz'?; a data set is one"
        " file or one folder: patterns are for models",
    ),
    "no images": (
        {"data": 'source = "notes.txt"'},
        "data[0].source: 'notes.txt' – nobody reads this as images; there are FILE.npz or FILE.npy, a folder of images,"
        " a Parquet, Arrow or CSV file, hf:NAME[:SPLIT]",
    ),
    "data twice": (
        {"data": '[[data]]\nsource = "x.npz"'},
        "data[1].source: 'x.npz' – the same data set is there already",
    ),
    "one name for two data sets": (
        {"data": 'name = "x"\n[[data]]\nsource = "y.npz"\nname = "x"'},
        "data[1].name: 'x' – expected a name that no other data set has; 'y.npz' and 'x.npz' have the same: give each a"
        " name",
    ),
    "skip_bad": ({"data": 'skip_bad = "no"'}, "data[0].skip_bad: 'no' – expected true or false"),
    # thresholds
    "no limit": (
        {"threshold": 'variant = "softmax"'},
        "thresholds[0].above: missing – expected above = NUMBER, below = NUMBER, or worse_by = NUMBER with a baseline",
    ),
    "two limits": (
        {"head": 'baseline = "base.jsonl"', "threshold": 'variant = "softmax"\nabove = 1\nworse_by = 0.1'},
        "thresholds[0].worse_by: 0.1 – above and worse_by in one threshold; give one, and another [[thresholds]] for"
        " the other",
    ),
    "both ways in one": (
        {"threshold": 'variant = "softmax"\nabove = 1\nbelow = 0.1'},
        "thresholds[0].below: 0.1 – above and below in one threshold; give one, and another [[thresholds]] for the"
        " other",
    ),
    "a limit from below that is none": (
        {"threshold": 'variant = "softmax"\nbelow = "0.1"'},
        "thresholds[0].below: '0.1' – expected a finite number",
    ),
    "no flag to prove": (
        {"threshold": 'variant = "softmax"\nabove = 1\nprove = "yes"'},
        "thresholds[0].prove: 'yes' – expected true or false",
    ),
    "no flag of a family": (
        {"threshold": 'variant = "softmax"\nabove = 1\nfamily_wise = 1'},
        "thresholds[0].family_wise: 1 – expected true or false",
    ),
    "no baseline": (
        {"threshold": 'variant = "softmax"\nworse_by = 0.1'},
        'thresholds[0].worse_by: 0.1 – there is no baseline to be worse than: give baseline = "FOLDER or FILE.jsonl"'
        " before the tables",
    ),
    "infinite limit": (
        {"threshold": 'variant = "softmax"\nabove = inf'},
        "thresholds[0].above: inf – expected a finite number",
    ),
    "limit that is no number": (
        {"threshold": 'variant = "softmax"\nabove = nan'},
        "thresholds[0].above: nan – expected a finite number",
    ),
    "negative part": (
        {"head": 'baseline = "base.jsonl"', "threshold": 'variant = "softmax"\nworse_by = -0.1'},
        "thresholds[0].worse_by: -0.1 – expected a finite number from 0 (2 % is written 0.02)",
    ),
    "variant that is not measured": (
        {"head": 'variants = ["softmax"]', "threshold": 'variant = "channelwise"\nabove = 0'},
        "thresholds[0].variant: 'channelwise' – this variant is not measured; variants are softmax",
    ),
    "no variant": ({"threshold": "above = 0"}, "thresholds[0].variant: missing – expected a variant"),
    "unknown variant of a threshold": (
        {"threshold": 'variant = "soft-max"\nabove = 0'},
        "thresholds[0].variant: 'soft-max' – unknown variant: did you mean 'softmax'?",
    ),
    "moving optimum": (
        {"head": 'baseline = "base.jsonl"', "threshold": 'variant = "latent-cosine"\nworse_by = 0.1'},
        'thresholds[0].worse_by: 0.1 – its optimum moves with the data, so no part of it is "worse": set on ='
        ' "calibrated"',
    ),
    "on": (
        {"threshold": 'variant = "softmax"\nabove = 0\non = "calibated"'},
        "thresholds[0].on: 'calibated' – unknown word: did you mean 'calibrated'?",
    ),
    "glob of models": (
        {"threshold": 'variant = "softmax"\nabove = 0\nmodel = "b*"'},
        "thresholds[0].model: 'b*' – matches no model's name of this suite; there are a",
    ),
    "glob of groups": (
        {"threshold": 'variant = "softmax"\nabove = 0\ngroup = "C4"'},
        "thresholds[0].group: 'C4' – matches no group of this suite; there are C8",
    ),
    "glob of data": (
        {"threshold": 'variant = "softmax"\nabove = 0\ndata = "x.npy"'},
        "thresholds[0].data: 'x.npy' – matches no data set's name or address of this suite; did you mean 'x.npz'?",
    ),
    "a threshold twice": (
        {"threshold": 'variant = "softmax"\nabove = 0\n[[thresholds]]\nvariant = "softmax"\nabove = 0.0'},
        "thresholds[1]: 'softmax' – the same threshold is in thresholds[0] already",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_has_its_own_words(case: str) -> None:
    given, line = CASES[case]
    assert faults(tables(**given)) == [line]


def test_there_are_enough_of_them_and_no_two_say_the_same() -> None:
    lines = [line for _, line in CASES.values()]
    assert len(set(lines)) == len(lines) >= 25


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('group = "C8"\ndata = "x.npz"', ["models: missing – expected at least one table [[models]] with path"]),
        ('group = "C8"\nmodels = "a.onnx"', ["data: missing – expected at least one table [[data]] with source"]),
        (
            'group = "C8"\nmodels = []\ndata = "x.npz"',
            ["models: [] – expected at least one table [[models]] with path; this is empty"],
        ),
        (
            'group = "C8"\nmodels = ["a.onnx", 3]\ndata = "x.npz"',
            ["models[1]: 3 – expected a table [[models]], or the text that its path would be"],
        ),
        (
            'group = "C8"\nmodels = "z.onnx"\ndata = "x.npz"',
            ["models.path: 'z.onnx' – no such file: 'z.onnx'; did you mean 'b.onnx' or 'a.onnx'?"],
        ),
        (
            'group = "C8"\nmodels = ["a.onnx", "*.onnx", "?.onnx"]\ndata = "x.npz"',
            [
                "models[1].path: 'a.onnx' – the same model with the same settings is in models[0] already; leave it"
                " out, or measure it in another way",
                "models[2].path: 'a.onnx' – the same model with the same settings is in models[0] already; leave it"
                " out, or measure it in another way",
                "models[2].path: 'b.onnx' – the same model with the same settings is in models[1] already; leave it"
                " out, or measure it in another way",
            ],
        ),
        (
            GOOD + "thresholds = 3",
            ["thresholds: 3 – expected a table [[thresholds]]"],
        ),
        (GOOD + "measure = 3", ["measure: 3 – expected a table [measure]"]),
        (
            'group = "C8"\ndata = "x.npz"\n[[models]]\nname = "x"',
            ["models[0].path: missing – expected the path of an ONNX file, or a pattern of paths"],
        ),
    ],
)
def test_what_is_missing_or_of_another_form(text: str, lines: list[str]) -> None:
    assert faults(text) == lines


@pytest.mark.parametrize(
    ("text", "suffix", "line"),
    [
        ("groups = [C8]", "toml", "line 1, column 11: 'groups = [C8]' – expected TOML text; Invalid value"),
        ('a = 1\ngroups = ["C8"', "toml", "line 2: 'groups = [\"C8\"' – expected TOML text; Unclosed array"),
        ("seed = 1\nseed = 2", "toml", "line 2: 'seed = 2' – expected TOML text; Cannot overwrite a value"),
        ("seed: 1\nseed: 2", "yaml", "line 2, column 1: 'seed: 2' – expected YAML text; the key 'seed' is there twice"),
        (
            "a: {b: 1, b: 2}",
            "yml",
            "line 1, column 11: 'a: {b: 1, b: 2}' – expected YAML text; the key 'b' is there twice",
        ),
        (
            "groups: [C8\nseed: 2",
            "yaml",
            "line 2, column 5: 'seed: 2' – expected YAML text; expected ',' or ']', but got ':'",
        ),
        (
            "a: !!python/object:os.system x",
            "yaml",
            "line 1, column 4: 'a: !!python/object:os.system x' – expected YAML text; could not determine a constructor"
            " for the tag 'tag:yaml.org,2002:python/object:os.system'",
        ),
        ("a: &a [*a]", "yaml", "line 1, column 4: 'a: &a [*a]' – expected YAML text; an alias leads back to itself"),
        ("3: x", "yaml", "(file): 3 – expected a key that is text; put it in quotes"),
        ("models: [{true: x}]", "yaml", "models[0]: true – expected a key that is text; put it in quotes"),
        ("[1, 2]", "yaml", "(file): 'suite.yaml' – expected a table with groups, models and data; this is a list"),
        (
            '{"a": 1 "b": 2}',
            "json",
            "line 1, column 9: '{\"a\": 1 \"b\": 2}' – expected JSON text; Expecting ',' delimiter",
        ),
        ('{"a": 1, "a": 2}', "json", "(file): 'suite.json' – expected JSON text; the key 'a' is there twice"),
        ("x", "txt", "(file): 'suite.txt' – expected a file that ends in .toml, .yaml, .yml or .json"),
        (
            " \n",
            "toml",
            "(file): 'suite.toml' – expected at least groups, [[models]] and [[data]]; the file is empty",
        ),
        (
            b"title = 'caf\xe9'",
            "toml",
            "(file): 'suite.toml' – expected UTF-8 text; byte 12 is 0xe9: save the file as UTF-8",
        ),
        (
            "a = " + "[" * 5000,
            "toml",
            "(file): 'suite.toml' – expected tables in tables; these are nested too deeply",
        ),
        ("a: " + "[" * 1500, "yaml", "(file): 'suite.yaml' – expected tables in tables; these are nested too deeply"),
        ("#" * 5_000_000, "toml", "(file): 'suite.toml' – expected at most 4 MB of text"),
    ],
)
def test_text_that_is_none_of_its_format(text: str | bytes, suffix: str, line: str) -> None:
    assert faults(text, suffix) == [line]


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ['a: &a ["x", "x", "x", "x", "x", "x", "x", "x", "x"]']
    lines += [f"{b}: &{b} [{', '.join(['*' + a] * 9)}]" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)]
    assert faults("\n".join(lines), "yaml") == [
        "(file): 'suite.yaml' – expected YAML text; its aliases come to more than 200000 values once they are followed"
    ]


def test_a_suite_that_cannot_be_read(desk: Path) -> None:
    for path, line in (
        ("gone.toml", "(file): 'gone.toml' – expected a file that can be read; no such file or directory"),
        ("folder.toml", "(file): 'folder.toml' – expected a file; this is a folder"),
        (
            "nothing://x/s.toml",
            "(file): 'nothing://x/s.toml' – expected an address that fsspec can read; Protocol not known: nothing",
        ),
    ):
        (desk / "folder.toml").mkdir(exist_ok=True)
        with pytest.raises(SuiteError) as caught:
            load_suite(path)
        assert caught.value.said == (f"suite {path!r}: 1 fault", line)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing://b/*.onnx", "cannot be reached: Protocol not known: nothing"),
        ("memory://none/*.onnx", "no file matches 'memory://none/*.onnx'"),
        ("memory://none/a.onnx", "no such file: 'memory://none/a.onnx'"),
        ("memory://none/{sed}.onnx", "unknown placeholder {sed}; did you mean 'seed'?"),
    ],
)
def test_remote_models_that_are_not_there(path: str, message: str) -> None:
    assert faults(f'group = "C8"\nmodels = "{path}"\ndata = "x.npz"') == [f"models.path: '{path}' – {message}"]


def test_all_faults_are_named_at_once_in_the_order_of_the_file() -> None:
    text = """
        groups = ["C8", "Q8"]
        samples = "fifty"
        variants = ["softmax", "softmx"]
        [measure]
        level = 95
        [[models]]
        path = "a.onnx"
        sample = 50
        seed = true
        [[models]]
        path = "nope/*.onnx"
        acts = { logits = "permut:1:1,0" }
        [[models]]
        path = "b.onnx"
        taps = ["ok", ""]
        [[data]]
        source = "z.npz"
        skip_bad = 1
        [[thresholds]]
        variant = "channelwise"
        above = nan
        group = "C8"
        [[thresholds]]
        variant = "softmax"
        worse_by = 0.1
        group = "D*"
    """
    found = faults(text)
    assert [line.split(": ")[0] for line in found] == [
        "groups[1]",
        "samples",
        "variants[1]",
        "measure.level",
        "models[0].seed",
        "models[0].sample",
        "models[1].acts.logits",
        "models[1].path",
        "models[2].taps[1]",
        "data[0].skip_bad",
        "data[0].source",
        "thresholds[0].above",
        "thresholds[1].worse_by",
    ]
    assert "models[0].sample: 50 – unknown key: did you mean 'samples', which belongs before the first table" in found


def test_what_depends_on_a_fault_is_not_blamed_too() -> None:
    """A glob of models or of groups may well match what is not read yet."""
    limit = '[[thresholds]]\nvariant = "softmax"\nabove = 0\nmodel = "m"\ngroup = "D4"'
    assert faults(f'group = "q"\nmodels = "z/*.onnx"\ndata = "x.npz"\n{limit}') == [
        f"group: 'q' – unknown group; known: C4, D4, S4@channel, T4, flip, flip-ud; {FORMS}",
        "models.path: 'z/*.onnx' – no file matches 'z/*.onnx'",
    ]
    assert faults(tables(threshold='variant = "softmax"\nabov = 0.1')) == [
        "thresholds[0].abov: 0.1 – unknown key: did you mean 'above'?"
    ]


def test_faults_are_data() -> None:
    Path("suite.toml").write_text('models = "a.onnx"\ndata = "x.npz"\nsamples = -1')
    with pytest.raises(UsageError) as caught:
        load_suite("suite.toml")
    error = caught.value
    assert isinstance(error, SuiteError)
    samples, groups = error.faults
    assert (groups.path, groups.value, samples.path, samples.value) == ("groups", MISSING, "samples", -1)
    assert groups.expected == 'a list of groups, as in groups = ["C8"]'
    again = pickle.loads(pickle.dumps(error))
    assert (again.faults, again.said, str(again)) == (error.faults, error.said, str(error))
    assert again.faults[1].value is MISSING


def test_hostile_names_stay_in_one_line() -> None:
    found = faults(
        '{"groups": "C8\\n\\u001b[31m", "models": "\\u2028.onnx", "data": "x.npz", "a\\nb": "' + "y" * 500 + '"}',
        "json",
    )
    assert all(line.isprintable() and len(line) < 400 for line in found), found
    assert any(line.startswith("'a\\nb': 'yyy") for line in found)
    # no UTF-8 can hold a lone surrogate, so no suite can
    assert faults('{"groups": "C8", "models": "a.onnx", "data": "x.npz", "title": "\\ud800"}', "json") == [
        "title: '\\ud800' – expected a text"
    ]


def test_a_fault_without_a_value_says_so() -> None:
    assert str(Fault("models", MISSING, "models", "expected models")) == "models: missing – expected models"


HEAD = "groups group samples seeds seed taps variants baseline measure models data thresholds title root x"
SOURCES = "source name column skip_bad streaming preprocessing x"
LIMITS = "variant above worse_by on tap model group data x"
MEASURES = "spread_samples reference_samples level floor mask interpolation batch_size provider threads tf32 x"
IMAGES = "size fit resize colour range mean std resample x"
WORDS = st.sampled_from(
    [
        *(
            "",
            "C8",
            "all",
            "softmax",
            "a:b:c",
            "map:pixels:kl:none",
            "T4x4",
            "S9@1",
            "C8xflip",
            "value",
            "0,255",
            "1x2x3",
        ),
        *(
            "a.onnx",
            "*.onnx",
            "**",
            "{seed}.onnx",
            "{",
            "}}",
            "runs/{family}-{seed}/*",
            "x.npz",
            "k.npy",
            "..",
            "/",
            "~",
        ),
        *("memory://none/*", "foo://x", "hf:", "hf:a:b", "roll:1:1", "permute:1:1,0", "pixels+", "+", "\x00", "\u2028"),
    ]
)
NUMBERS = st.integers(-3, 3) | st.sampled_from([10**400, 1e308, float("nan"), float("-inf"), 0.5])
PLAIN = WORDS | NUMBERS | st.booleans() | st.none()
VALUES = st.recursive(PLAIN, lambda v: st.lists(v, max_size=3) | st.dictionaries(WORDS, v, max_size=3), max_leaves=6)


def table(keys: str, **good: object) -> st.SearchStrategy[dict[str, object]]:
    """A good table in which a few keys have any value at all."""
    wrong = st.dictionaries(st.sampled_from(keys.split()), VALUES, max_size=3)
    return wrong.map(lambda values: {**good, **values})


@st.composite
def documents(draw: st.DrawFn) -> dict[str, object]:
    model = draw(table(NAMES.replace(",", ""), path="a.onnx"))
    data = draw(table(SOURCES, source="x.npz", preprocessing=draw(table(IMAGES))))
    limit = draw(table(LIMITS, variant="softmax", above=1))
    parts = {"models": [model, "b.onnx"], "data": [data], "thresholds": [limit], "measure": draw(table(MEASURES))}
    return draw(table(HEAD, groups=["C8"], **parts))


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents())
def test_whatever_is_written_is_a_suite_or_has_faults(written: dict[str, object]) -> None:
    Path("suite.json").write_text(json.dumps(written))
    found: tuple[Fault, ...] = ()
    try:
        suite = load_suite("suite.json")
    except SuiteError as error:
        found = error.faults
        assert found
    else:
        assert list(suite.jobs())
        Path("again.toml").write_text(suite_toml(suite), encoding="utf-8", newline="")
        assert load_suite("again.toml") == suite
    assert all(fault.path and fault.message and fault.expected and str(fault).isprintable() for fault in found)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text("abc:[]{}=\"'&*!<-? \n\t#|>%@,1.e", max_size=40), st.sampled_from(["toml", "yaml", "json"]))
def test_whatever_text_is_read_or_has_a_fault(text: str, suffix: str) -> None:
    Path(f"suite.{suffix}").write_text(text)
    with pytest.raises(SuiteError) as caught:
        load_suite(f"suite.{suffix}")
    assert all(line.isprintable() for line in caught.value.said)
