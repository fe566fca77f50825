"""The figures of the page of findings, and those of the paper's sections: each is drawn from results, and no more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.findings import figures_robustness as robustness
from experiments.findings.digits import BLOCKS, C8, CNN, LATENT, NAIVE, SCORES, SET, UNTRAINED
from experiments.findings.evidence import Evidence, evidence, mean
from experiments.findings.figures_drawing import (
    CALIBRATED,
    EQUIVARIANT,
    INVARIANT,
    Read,
    Row,
    bar,
    below,
    cut,
    dotted,
    grouped,
    level,
    line,
    logarithmic,
    save,
    sheet,
    some_mean,
)
from geed_onnx.reports.figures.drawing import style
from geed_onnx.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ITERATION = "training iteration"
ARCHITECTURES = ("ResNet", "LeViT")
STARTS = ("pretrained", "from scratch")
STAGES = ("stage1", "stage2", "stage3")
SPREADS = (10, 20, 50, 100, 200, 500, 1000)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic")


# --- section 4.1 -----------------------------------------------------------------------------------------------


def figure_2(training: Evidence) -> Figure:
    """Draw latent-l2 and softmax of CNN and C8-CNN against iteration."""
    made, (left, right) = sheet(1, 2, 2.9)
    _training(left, training, tap=LATENT, variant="latent-l2")
    left.set(title="latent space", ylabel=f"latent-l2 C8-EED\n({INVARIANT})")
    _training(right, training, tap=SCORES, variant="softmax")
    right.set(title="class scores", ylabel=f"softmax C8-EED\n({INVARIANT})")
    cut(left)
    cut(right)
    below(made, left)
    return made


def figure_7_depth(final: Evidence) -> Figure:
    """Draw channelwise by block at the end of training, raw with floors, and calibrated."""
    made, (left, right) = sheet(1, 2, 3.3)
    x = range(1, 7)
    for f in (CNN, C8, NAIVE):
        asked = [{"family": f, "tap": b, "variant": "channelwise"} for b in BLOCKS]
        line(left, x, Row(f, [mean(final.values("value", **a)) for a in asked]), errors=True)
        line(right, x, Row(f, [some_mean(final, _calibrated, **a)[0] for a in asked]), errors=True)
        dotted(left, x, Row(f, [some_mean(final, _floor, **a)[0] for a in asked]))
    left.set(title="raw", xlabel="block", ylabel=f"channelwise C8-EED\n({EQUIVARIANT})")
    right.set(title="calibrated", xlabel="block", ylabel=f"{CALIBRATED},\nlower: more equivariant")
    cut(left)
    cut(right)
    level(right, 0, 1)
    below(made, left, also=[("floor of each family", ":")])
    return made


def figure_7_training(training: Evidence) -> Figure:
    """Draw channelwise of each of the six blocks against iteration."""
    made, panels = sheet(2, 3, 4.4, sharex=True, sharey=True)
    for k, (axes, b) in enumerate(zip(panels, BLOCKS, strict=True)):
        _training(axes, training, tap=b, variant="channelwise")
        axes.set(title=f"block {b.removeprefix('block')}", xlabel=ITERATION if k > 2 else "")
    cut(*panels)
    made.supylabel(f"channelwise C8-EED ({EQUIVARIANT})".replace("\n", " "), fontsize=8)
    below(made, panels[0])
    return made


def figure_8(training: Evidence, final: Evidence) -> Figure:
    """Draw the cosine of the latent space with and without M against iteration, and with M of two latents of the C8-CNN."""
    made, (left, middle, right) = sheet(1, 3, 3.0)
    _training(left, training, tap=LATENT, variant="latent-cosine")
    left.set(title="with M: −c/M", ylabel=f"latent-cosine C8-EED\n({INVARIANT})")
    _training(middle, training, tap=LATENT, variant="vector:trivial:cosine")
    middle.set(title="without M: −c", ylabel=f"vector:trivial:cosine C8-EED\n(−1: invariant,\n{INVARIANT})")
    shown = ((CNN, CNN, LATENT, "CNN,\nlatent"), (C8, C8, LATENT, "C8-CNN,\nlatent"),
             ("C8-CNN, invariant", C8, "invariant", "C8-CNN,\ninvariant"))  # fmt: skip
    for x, (name, f, tap, _) in enumerate(shown):
        line(right, [x], Row(name, [mean(final.values(family=f, tap=tap, variant="latent-cosine"))]), errors=True)
    right.set_xticks(range(3), [label for *_, label in shown], fontsize=7)
    right.set(title="with M, at the end", ylabel=f"latent-cosine C8-EED\n({INVARIANT})", xlim=(-0.5, 2.5))
    cut(left)
    cut(middle)
    below(made, left, middle)
    return made


# --- section 4.2 -----------------------------------------------------------------------------------------------


def figure_3(ood: Evidence) -> Figure:
    """Draw latent-l2, softmax and calibrated softmax of three families for each data set."""
    made, (top, middle, bottom) = sheet(3, 1, 7.0, sharex=True)
    sets = ood.order("data")
    latent = _by_data(ood, lambda r: r.value, tap=LATENT, variant="latent-l2")
    scores = _by_data(ood, lambda r: r.value, tap=SCORES, variant="softmax")
    grouped(top, sets, latent)
    top.set(title="latent space", ylabel=f"latent-l2 C8-EED\n({INVARIANT})")
    grouped(middle, sets, scores, dots=True)
    logarithmic(middle, scores)
    middle.set(
        title="class scores (an interval that reaches 0 runs to the bottom)", ylabel=f"softmax C8-EED\n({INVARIANT})"
    )
    grouped(bottom, sets, _by_data(ood, _calibrated, tap=SCORES, variant="softmax"))
    bottom.set(title="class scores, calibrated (–: no model has such a value; k of n: mean over k models)",
               ylabel=f"softmax C8-EED\n({CALIBRATED},\n{INVARIANT})")  # fmt: skip
    bottom.margins(y=0.2)
    cut(bottom)
    level(bottom, 0)
    _slanted(bottom)
    cut(top)
    below(made, top)
    return made


def figure_3_sensitivity(ood: Evidence) -> Figure:
    """Draw how far the class scores of unrelated images lie apart, for each data set and family."""
    made, (axes,) = sheet(1, 1, 3.6)
    rows = _by_data(ood, lambda r: r.sensitivity, tap=SCORES, variant="softmax")
    grouped(axes, ood.order("data"), rows, dots=True)
    logarithmic(axes, rows)
    axes.set(
        title="an interval that reaches 0 runs to the bottom",
        ylabel="sensitivity of the class scores, nats\n(0: the same scores for every image)",
    )
    _slanted(axes)
    below(made, axes)
    return made


def _by_data(ood: Evidence, read: Read, **asked: Any) -> list[Row]:
    rows = []
    for f in (UNTRAINED, SET, CNN, C8):
        found = [some_mean(ood, read, family=f, data=d, **asked) for d in ood.order("data")]
        rows.append(Row(f, [e for e, _ in found], [note for _, note in found]))
    return rows


def _slanted(axes: Axes) -> None:
    axes.tick_params(axis="x", labelrotation=30, length=0)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


# --- section 4.3 -----------------------------------------------------------------------------------------------


def figure_4(pretraining: Evidence) -> Figure:
    """Draw latent-l2 under C8 against iteration, pretrained and from scratch."""
    return _pretraining(pretraining, "latent-l2 C8-EED", group="C8", tap=LATENT, variant="latent-l2")


def figure_10(pretraining: Evidence) -> Figure:
    """Draw latent-l2 under D8 against iteration, pretrained and from scratch."""
    return _pretraining(pretraining, "latent-l2 D8-EED", group="D8", tap=LATENT, variant="latent-l2")


def figure_16(pretraining: Evidence) -> Figure:
    """Draw softmax under C8 against iteration, pretrained and from scratch."""
    return _pretraining(pretraining, "softmax C8-EED", group="C8", tap=SCORES, variant="softmax")


def _pretraining(pretraining: Evidence, what: str, **asked: Any) -> Figure:
    made, panels = sheet(1, 2, 2.9)
    for axes, architecture in zip(panels, ARCHITECTURES, strict=True):
        for start in STARTS:
            _curve(axes, pretraining, f"{architecture}, {start}", start, **asked)
        axes.set(title=architecture, xlabel=ITERATION, ylabel=f"{what}\n({INVARIANT})")
        cut(axes)
    below(made, panels[0])
    return made


# --- section 4.4 -----------------------------------------------------------------------------------------------


def figure_5(methods: Evidence) -> Figure:
    """Draw latent-l2 and latent-cosine of each method at the end, under flip; each seed's own interval beside it."""
    made, panels = sheet(1, 2, 3.4)
    families = methods.order("family")
    for axes, variant in zip(panels, ("latent-l2", "latent-cosine"), strict=True):
        for x, f in enumerate(families):
            asked = {"family": f, "tap": LATENT, "variant": variant, "step": methods.steps(f)[-1]}
            bar(axes, x, Row(f, [mean(methods.values("value", **asked))]))
            _seeds(axes, x, methods.ask(**asked))
        axes.set_xticks(range(len(families)), families)
        _slanted(axes)
        axes.set(title=variant, ylabel=f"{variant} flip-EED\n({INVARIANT})")
    made.supxlabel(
        "bar: mean over seeds and its interval; dots: each seed and its interval over 100 images", fontsize=7.5
    )
    return made


def figure_5_stages(final: Evidence) -> Figure:
    """Draw channelwise by stage under flip, each method at the end and the untrained network."""
    made, (left, right) = sheet(1, 2, 3.2)
    families = final.order("family")
    for k, f in enumerate(families):
        x = [n + 1 + (k - (len(families) - 1) / 2) * 0.05 for n in range(len(STAGES))]
        asked = [{"family": f, "tap": s, "variant": "channelwise"} for s in STAGES]
        line(left, x, Row(f, [mean(final.values("value", **a)) for a in asked]), errors=True)
        line(right, x, Row(f, [some_mean(final, _calibrated, **a)[0] for a in asked]), errors=True)
    left.set(title="raw", ylabel=f"channelwise flip-EED\n({EQUIVARIANT})")
    right.set(title="calibrated", ylabel=f"{CALIBRATED},\nlower: more equivariant")
    level(right, 0, 1)
    for axes in (left, right):
        cut(axes)
        axes.set(xlabel="stage", xlim=(0.8, len(STAGES) + 0.2))
        axes.set_xticks(range(1, len(STAGES) + 1))
    below(made, left, columns=3)
    return made


def _seeds(axes: Axes, x: float, results: Sequence[Result]) -> None:
    ordered = sorted(results, key=lambda r: int(r.model["seed"]))
    for k, r in enumerate(ordered):
        if r.value is not None:
            at = x + 0.32 * (k + 1) / len(ordered)  # right of the interval of the mean
            reach = [[max(0.0, r.value - (r.value if r.low is None else r.low))],
                     [max(0.0, (r.value if r.high is None else r.high) - r.value)]]  # fmt: skip
            axes.errorbar([at], [r.value], reach, fmt="o", ms=2, color="0.25", elinewidth=0.6, capsize=0)


# --- all of them -----------------------------------------------------------------------------------------------


def _calibrated(r: Result) -> float | None:
    return r.calibrated


def _floor(r: Result) -> float | None:
    return r.floor


def _curve(axes: Axes, training: Evidence, family: str, name: str, **asked: Any) -> None:
    steps = training.steps(family)
    line(axes, steps, Row(name, [mean(training.values("value", family=family, step=s, **asked)) for s in steps]))


def _training(axes: Axes, training: Evidence, **asked: Any) -> None:
    for f in (CNN, C8):
        _curve(axes, training, f, f, **asked)
    axes.set(xlabel=ITERATION)


#: {stem of the file: (what draws it, the suites that it is drawn from)}
FIGURES: Mapping[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    "figure-2": (figure_2, ("augmentation/suite",)),
    "figure-3": (figure_3, ("out_of_distribution/suite",)),
    "figure-3-sensitivity": (figure_3_sensitivity, ("out_of_distribution/suite",)),
    "figure-4": (figure_4, ("pretraining/suite",)),
    "figure-5": (figure_5, ("self_supervision/suite",)),
    "figure-5-stages": (figure_5_stages, ("self_supervision/final",)),
    "figure-7-depth": (figure_7_depth, ("augmentation/final",)),
    "figure-7-training": (figure_7_training, ("augmentation/suite",)),
    "figure-8": (figure_8, ("augmentation/suite", "augmentation/final")),
    "figure-10": (figure_10, ("pretraining/suite",)),
    "figure-16": (figure_16, ("pretraining/suite",)),
    "r1-images": (robustness.images, ("robustness/images",)),
    "r2-spread": (robustness.spread, tuple(f"robustness/spread/{n}" for n in SPREADS)),
    "r3-interpolation": (robustness.interpolation, tuple(f"robustness/interpolation/{i}" for i in INTERPOLATIONS)),
    "r4-mask": (robustness.mask, ("robustness/interpolation/bilinear", "robustness/mask/disc")),
    "r5-sizes": (robustness.sizes, ("robustness/sizes",)),
    "r6-floor": (robustness.floor, ("robustness/interpolation/bilinear",)),
    "r7-parts": (robustness.parts, ("robustness/interpolation/bilinear",)),
}


def draw_all(work: Path | None, folder: Path, stems: Sequence[str] = tuple(FIGURES)) -> list[Path]:
    """Draw the figures from the results in the repository, or from those of a work folder; returns the PNG files.

    Raises
    ------
    DataError
        If a suite was not measured, or lacks a result that a figure shows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = dict.fromkeys(name for stem in stems for name in FIGURES[stem][1])
    suites = {name: evidence(name, work) for name in named}
    with style():
        return [save(FIGURES[s][0](*(suites[n] for n in FIGURES[s][1])), folder, s) for s in stems]
