"""Sections 4.1 and 4.2: C1 to C6."""

from __future__ import annotations

import statistics

from experiments.findings.evidence import (
    SCALES,
    Evidence,
    On,
    Values,
    above,
    averaged,
    below,
    change,
    gap,
    mean,
    number,
    said,
)
from experiments.findings.finding import Finding, joined, judged
from geed_onnx.estimators import Estimate

CNN, C8, NAIVE, UNTRAINED = "CNN", "C8-CNN", "C8-CNN, read naively", "untrained CNN"
SET = "untrained CNN, statistics set"
BLOCKS = tuple(f"block{i}" for i in range(1, 7))
LATENT, SCORES = "latent", "scores"
IN_DISTRIBUTION = "rotated MNIST"


def _blocks(final: Evidence, family: str, on: On = "value") -> list[dict[int, float]]:
    return [final.values(on, family=family, tap=b, variant="channelwise") for b in BLOCKS]


def _said_row(name: str, values: list[Estimate]) -> tuple[str, ...]:
    return (name, *(said(v, 2) for v in values))


def c1(final: Evidence) -> Finding:
    """Channelwise: the C8-CNN more equivariant in every block, and both decay with depth."""
    cnn, c8, naive = (_blocks(final, f) for f in (CNN, C8, NAIVE))
    gaps = [gap(a, b) for a, b in zip(cnn, c8, strict=True)]
    decays = {f: change(v[-1], v[0]) for f, v in ((CNN, cnn), (C8, c8))}
    calibrated = {f: change(v[-1], v[0]) for f in (CNN, C8) for v in [_blocks(final, f, "calibrated")]}
    parts = {"more equivariant": all(map(above, gaps)), **{f: above(d) for f, d in decays.items()}}
    worst = min(gaps, key=lambda g: g.value)
    at = BLOCKS[gaps.index(worst)]
    fall = joined([f"{f} {said(d, 2)}" for f, d in decays.items()])
    return Finding(
        key="C1",
        title="Are the blocks of the C8-CNN more equivariant than those of the CNN?",
        claim="In blocks 1 to 6 the C8-CNN is significantly more equivariant, and for both networks equivariance decays"
        " with depth.",
        verdict=judged(parts),
        sentence=f"The C8-CNN is the more equivariant network in {sum(map(above, gaps))} of 6 blocks, by at least"
        f" {number(worst.value, 2)} of cosine similarity; from block 1 to block 6 the raw deviation changes by"
        f" {fall} (above 0: less equivariant), the calibrated one by"
        f" {joined([f'{f} {said(d, 2)}' for f, d in calibrated.items()])}.",
        number=worst,
        of=f"channelwise C8-EED of the CNN minus that of the C8-CNN, {at}, where they are closest",
        figure="figure-7-depth",
        table=(
            ("family", *BLOCKS),
            *(_said_row(f"{f}, raw", [mean(v) for v in _blocks(final, f)]) for f in (CNN, C8, NAIVE)),
            *(
                _said_row(f"{f}, calibrated", [mean(v) for v in _blocks(final, f, "calibrated")])
                for f in (CNN, C8, NAIVE)
            ),
        ),
        check=f"Read naively, as if its channels stayed where they are, the C8-CNN would read"
        f" {number(mean(naive[-1]).value, 2)} in block 6 in place of {number(mean(c8[-1]).value, 2)}: the declared channel"
        " permutation is what makes it equivariant, and it is held against escnn's own representation for every element"
        " of the group when the file is written. The part of the claim that fails is the decay of the CNN, and it fails"
        " on both scales: its blocks are far from equivariant from the first one on, so there is little to lose, and its"
        f" last map, which is averaged into the latent vector, is the most equivariant of all (calibrated"
        f" {number(mean(_blocks(final, CNN, 'calibrated')[0]).value, 2)} in block 1,"
        f" {number(mean(_blocks(final, CNN, 'calibrated')[-1]).value, 2)} in block 6). What the C8-CNN loses is R6 and R7:"
        " it is all in the turns by 45°, and most of it is the floor."
        if not parts[CNN]
        else "",
    )


def c2(training: Evidence) -> Finding:
    """Channelwise equivariance does not improve in training."""
    changes: dict[tuple[str, str], Estimate] = {}
    calibrated: dict[tuple[str, str], Estimate] = {}
    for f in (CNN, C8):
        steps = training.steps(f)
        first, last = steps[1], steps[-1]
        for b in BLOCKS:
            for into, on in zip((changes, calibrated), SCALES, strict=True):
                at = [training.values(on, family=f, tap=b, variant="channelwise", step=s) for s in (last, first)]
                into[f, b] = change(*at)
    first, last = training.steps(CNN)[1], training.steps(CNN)[-1]
    better = [k for k, e in changes.items() if below(e)]
    also = sum(map(below, calibrated.values()))
    best = min(changes, key=lambda k: changes[k].value)
    parts = {f: not any(k[0] == f for k in better) for f in (CNN, C8)}
    named = joined([f"{b} of the {f}" for f, b in better]) if better else "none"
    return Finding(
        key="C2",
        title="Do blocks become more equivariant in training?",
        claim="For no layer of either model does channelwise equivariance increase beyond a small jump at the beginning.",
        verdict=judged(parts),
        sentence=f"From iteration {first} to {last} the raw deviation falls significantly in {len(better)} of 12 blocks"
        f" ({named}); on the calibrated scale in {also} of 12. The largest fall is that of {best[1]} of the"
        f" {best[0]}.",
        number=changes[best],
        of=f"change of the channelwise C8-EED, {best[1]} of the {best[0]}, iteration {first} to {last}",
        figure="figure-7-training",
        table=(
            ("family", *BLOCKS),
            *(_said_row(f"{f}, raw", [changes[f, b] for b in BLOCKS]) for f in (CNN, C8)),
            *(_said_row(f"{f}, calibrated", [calibrated[f, b] for b in BLOCKS]) for f in (CNN, C8)),
        ),
        check="Each change is within models, paired by seed, on the same images. The verdict is on the"
        " raw scale, which is the paper's; the calibrated rows tell how much of a change is the null's. The paper's maps may have been other ones: its CNN is described by its number of blocks alone, and where the last"
        " map is averaged into the latent vector, as here, what makes the vector invariant (C3) shows in that map."
        if better
        else "",
    )


def c3(training: Evidence, final: Evidence) -> Finding:
    """Latent-l2 and softmax: the C8-CNN more invariant, by less; both fall in training."""
    pairs = ((LATENT, "latent-l2"), (SCORES, "softmax"))
    gaps, calibrated, falls, rows = {}, {}, {}, []
    for tap, variant in pairs:
        both = [final.values(family=f, tap=tap, variant=variant) for f in (CNN, C8)]
        gaps[variant] = gap(*both)
        calibrated[variant] = gap(*(final.values("calibrated", family=f, tap=tap, variant=variant) for f in (CNN, C8)))
        for f in (CNN, C8):
            steps = training.steps(f)
            by_step = {s: training.values(family=f, tap=tap, variant=variant, step=s) for s in steps}
            falls[variant, f] = change(by_step[steps[-1]], by_step[steps[1]])
            rows.append((f"{f}, {variant}", *(said(mean(by_step[s]), 4) for s in (steps[0], steps[1], steps[-1]))))
    maps = [gap(a, b) for a, b in zip(_blocks(final, CNN, "calibrated"), _blocks(final, C8, "calibrated"), strict=True)]
    less = max(e.value for e in calibrated.values()) < min(e.value for e in maps)
    parts = {
        "more invariant": all(map(above, gaps.values())),
        "by less": less,
        "fall": all(map(below, falls.values())),
    }
    steps = training.steps(CNN)
    return Finding(
        key="C3",
        title="Are the latent space and the class scores of the C8-CNN more invariant?",
        claim="In latent-l2 and softmax the C8-CNN is more invariant, less dramatically than channelwise; both fall in"
        " training.",
        verdict=judged(parts),
        sentence=f"CNN minus C8-CNN is {said(gaps['latent-l2'])} in latent-l2 and {said(gaps['softmax'], 4)} in softmax;"
        f" calibrated, {number(calibrated['latent-l2'].value)} and {number(calibrated['softmax'].value, 4)}, where the"
        f" blocks differ by {number(min(e.value for e in maps), 2)} to {number(max(e.value for e in maps), 2)}; from"
        f" iteration {steps[1]} to {steps[-1]} {sum(map(below, falls.values()))} of the 4 curves fall.",
        number=gaps["latent-l2"],
        of="latent-l2 C8-EED of the CNN minus that of the C8-CNN, at the end",
        figure="figure-2",
        table=(("family, variant", *(f"iteration {s}" for s in (steps[0], steps[1], steps[-1]))), *rows),
        check="The deviations are read at the same taps and images for both families, and every fall or rise is within"
        " models, paired by seed. At iteration 0 the softmax of an untrained network is insensitive (its value is near"
        " 0 for that reason), so the curves are compared from the first checkpoint on."
        if not parts["fall"]
        else "",
    )


def c4(final: Evidence) -> Finding:
    """Latent-cosine: with M the C8-CNN less invariant, without M more."""

    def both(variant: str, tap: str = LATENT) -> tuple[Values, Values]:
        return final.values(family=C8, tap=tap, variant=variant), final.values(family=CNN, tap=LATENT, variant=variant)

    with_m, without = gap(*both("latent-cosine")), gap(*both("vector:trivial:cosine"))
    bounded = gap(*both("latent-cosine-bounded"))
    before, bare = gap(*both("latent-cosine", "invariant")), gap(*both("vector:trivial:cosine", "invariant"))
    spreads = {
        name: mean(
            {int(r.model["seed"]): float(r.spread or 0) for r in final.ask(family=f, tap=tap, variant="latent-cosine")}
        )
        for name, f, tap in ((CNN, CNN, LATENT), ("C8-CNN, latent", C8, LATENT), ("C8-CNN, invariant", C8, "invariant"))
    }
    parts = {"with M": above(with_m), "without M": below(without)}
    earlier = "the paper's" if above(before) else "not the paper's either"
    return Finding(
        key="C4",
        title="Does the cosine turn the order over?",
        claim="With M the C8-CNN is less invariant than the CNN in latent-cosine; without M it is more invariant.",
        verdict=judged(parts),
        sentence=f"C8-CNN minus CNN is {said(with_m, 2)} with M and {said(without, 4)} without M at the vector that the last"
        f" linear layer sees; one layer earlier, at the maximum over turns, it is {said(before, 2)} with M and"
        f" {said(bare, 4)} without: the order with M is decided by M"
        f" ({joined([f'{n} {number(e.value, 2)}' for n, e in spreads.items()])}), not by the orbits.",
        number=with_m,
        of="latent-cosine C8-EED (with M) of the C8-CNN minus that of the CNN; above 0: the C8-CNN is less invariant",
        figure="figure-8",
        table=(
            ("latent", "M", "with M: −c/M", "without M: −c", "bounded: (1−c)/(1−M)"),
            *(
                (
                    name,
                    said(spreads[name], 2),
                    said(mean(final.values(family=f, tap=t, variant="latent-cosine")), 2),
                    said(mean(final.values(family=f, tap=t, variant="vector:trivial:cosine")), 4),
                    said(mean(final.values(family=f, tap=t, variant="latent-cosine-bounded")), 4),
                )
                for name, f, t in (
                    (CNN, CNN, LATENT),
                    ("C8-CNN, latent", C8, LATENT),
                    ("C8-CNN, invariant", C8, "invariant"),
                )
            ),
        ),
        check="Equation (6) with cosine is −c/M. For features that are nearly invariant c is nearly 1, so the value is"
        " −1/M whatever the orbits do. Features after a ReLU are not negative, their M is large; features after batch"
        " norm and ELU are centred, their M is small. Our CNN's latent is of the first kind, our C8-CNN's of the second;"
        " its own vector one layer earlier is of the first kind, and there the order with M is"
        f" {earlier} ({said(before, 2)}). On the scale that does not flip, (1−c)/(1−M), the C8-CNN minus the CNN is"
        f" {said(bounded, 4)}. M itself is held against a slow mean over pairs in the tests.",
    )


def _ood(ood: Evidence) -> list[str]:
    return [d for d in ood.order("data") if d != IN_DISTRIBUTION]


def _by_data(ood: Evidence, family: str, tap: str, variant: str, on: On = "value") -> dict[str, dict[int, float]]:
    return {d: ood.values(on, family=family, tap=tap, variant=variant, data=d) for d in ood.order("data")}


def c5(ood: Evidence) -> Finding:
    """Out of distribution, latent-l2: the random CNN far less invariant; the C8-CNN slightly better than the CNN."""
    sets = _ood(ood)
    by = {f: _by_data(ood, f, LATENT, "latent-l2") for f in (UNTRAINED, SET, CNN, C8)}
    set_worse = {d: gap(by[SET][d], by[CNN][d]) for d in sets}
    set_overall = gap(averaged([by[SET][d] for d in sets]), averaged([by[CNN][d] for d in sets]))
    random_worse = {d: gap(by[UNTRAINED][d], by[CNN][d]) for d in sets}
    c8_better = {d: gap(by[CNN][d], by[C8][d]) for d in sets}
    overall = {
        "random − CNN": gap(averaged([by[UNTRAINED][d] for d in sets]), averaged([by[CNN][d] for d in sets])),
        "CNN − C8-CNN": gap(averaged([by[CNN][d] for d in sets]), averaged([by[C8][d] for d in sets])),
    }
    calibrated = {f: _by_data(ood, f, LATENT, "latent-l2", "calibrated") for f in (UNTRAINED, CNN, C8)}
    said_calibrated = {f: mean(averaged([calibrated[f][d] for d in sets])) for f in calibrated}
    counts = sum(map(above, random_worse.values())), sum(map(above, c8_better.values()))
    parts = {
        "random worst": counts[0] == len(sets),
        "C8 better": above(overall["CNN − C8-CNN"]),
        "slightly": overall["CNN − C8-CNN"].value < overall["random − CNN"].value,
    }
    return Finding(
        key="C5",
        title="Does learned invariance of the latent space hold out of distribution?",
        claim="In latent-l2 the untrained CNN is far less invariant than the augmented one on other data; the C8-CNN is"
        " slightly more invariant than the augmented CNN.",
        verdict=judged(parts),
        sentence=f"The untrained CNN is less invariant than the trained one on {counts[0]} of {len(sets)} data sets and the"
        f" C8-CNN more invariant on {counts[1]}; averaged over them, untrained minus trained CNN is"
        f" {said(overall['random − CNN'])} and CNN minus C8-CNN {said(overall['CNN − C8-CNN'])}; calibrated, the three"
        f" read {joined([f'{f} {number(e.value, 2)}' for f, e in said_calibrated.items()])}.",
        number=overall["random − CNN"],
        of=f"latent-l2 C8-EED of the untrained minus the trained CNN, mean over {len(sets)} data sets out of distribution",
        figure="figure-3",
        table=(
            ("data", UNTRAINED, SET, CNN, C8),
            *((d, *(said(mean(by[f][d]), 2) for f in (UNTRAINED, SET, CNN, C8))) for d in by[CNN]),
        ),
        check="It hangs on what untrained means. Before its first step the batch norms of a network hold mean 0 and"
        " variance 1, so its maps shrink from block to block and biases dominate; the paper does not say what its random"
        " networks did there. Given the statistics of 20 batches of digits, and no training, the same weights are less"
        f" invariant than the trained CNN on {sum(map(above, set_worse.values()))} of {len(sets)} data sets, by"
        f" {said(set_overall)} on average; the table shows each set. Every network is measured on"
        " the same images of each set, with M from those."
        if not all(parts.values())
        else "",
    )


def c6(ood: Evidence) -> Finding:
    """Out of distribution, softmax: random CNN most invariant, then C8-CNN, then CNN; what is behind it."""
    sets = _ood(ood)
    by = {f: _by_data(ood, f, SCORES, "softmax") for f in (UNTRAINED, SET, CNN, C8)}
    first = {d: gap(by[C8][d], by[UNTRAINED][d]) for d in sets}
    second = {d: gap(by[CNN][d], by[C8][d]) for d in sets}
    overall = gap(averaged([by[C8][d] for d in sets]), averaged([by[UNTRAINED][d] for d in sets]))
    between = gap(averaged([by[CNN][d] for d in sets]), averaged([by[C8][d] for d in sets]))
    some = ood.ask(family=UNTRAINED, variant="softmax")
    mute = sum(r.calibrated is None for r in some)
    sensitivity = {f: mean(_sensitivity(ood, f, sets)) for f in (UNTRAINED, SET, CNN, C8)}
    calibrated = {f: [r.calibrated for r in ood.ask(family=f, variant="softmax")] for f in (SET, CNN, C8)}
    medians = {f: statistics.median(c for c in some if c is not None) for f, some in calibrated.items() if any(some)}
    told = [r.calibrated for r in some if r.calibrated is not None]
    counts = sum(map(above, first.values())), sum(map(above, second.values()))
    parts = {"random first": counts[0] == len(sets), "then C8": above(between)}
    if told:
        least = f"; the other {len(told)} lie at {number(min(told), 2)} to {number(max(told), 2)} of the way from floor to null"
    else:
        least = ""
    return Finding(
        key="C6",
        title="Does the untrained CNN win on the class scores?",
        claim="In softmax the untrained CNN is the most invariant on other data, then the C8-CNN, then the trained CNN.",
        verdict=judged(parts),
        sentence=f"The untrained CNN is more invariant than the C8-CNN on {counts[0]} of {len(sets)} data sets, and the C8-CNN"
        f" more than the CNN on {counts[1]}. The win is insensitivity: its scores of two unrelated images differ by"
        f" {number(sensitivity[UNTRAINED].value)} nats (CNN {number(sensitivity[CNN].value, 2)}, C8-CNN"
        f" {number(sensitivity[C8].value, 2)}), and {mute} of {len(some)} of its measurements get no calibrated value"
        f" for that reason{least}. With batch norm statistics set, the untrained CNN is sensitive enough to be judged"
        f" ({number(sensitivity[SET].value)} nats), and the win is gone: calibrated, the median over data sets and"
        f" networks is {joined([f'{number(m, 3)} ({f})' for f, m in medians.items()])}.",
        number=overall,
        of=f"softmax C8-EED of the C8-CNN minus that of the untrained CNN, mean over {len(sets)} data sets",
        figure="figure-3",
        table=(
            ("data", UNTRAINED, SET, CNN, C8),
            *((d, *(said(mean(by[f][d]), 4) for f in (UNTRAINED, SET, CNN, C8))) for d in by[CNN]),
        ),
        check="The value of softmax is the Jensen-Shannon divergence of the orbit, 0 for any constant network; the column"
        " `sensitivity` and the null beside each value tell a constant network from an invariant one."
        if not all(parts.values())
        else "",
    )


def _sensitivity(ood: Evidence, family: str, sets: list[str]) -> dict[int, float]:
    return averaged(
        [
            {
                int(r.model["seed"]): float(r.sensitivity or 0.0)
                for r in ood.ask(family=family, variant="softmax", data=d)
            }
            for d in sets
        ]
    )
