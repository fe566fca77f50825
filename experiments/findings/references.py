"""With which statistics floors and nulls were made: read off the results, so that the page says it of these alone."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.findings.evidence import Evidence
from experiments.findings.finding import joined
from geed_onnx.results import Result


def earlier(r: Result) -> bool:
    """Say whether a result is from before each element of the group had a null of its own."""
    return r.null is not None and r.null_per_element is None


def statistics(several: Sequence[Evidence]) -> str:
    """Return the paragraph on the statistics that these suites were measured with."""
    before = {e.name: [r for r in e.results if earlier(r)] for e in several}
    old = [name for name, results in before.items() if results]
    if not old:
        return f"**With which statistics.** Floor and null are of {_images(several)}; every element has its own."
    whose = "The results were" if len(old) == len(several) else f"The results of {joined([f'`{n}`' for n in old])} were"
    masked = sorted({str(r.data["mask"]) for results in before.values() for r in results if r.data.get("mask")})
    told = f", unless a suite asks for the {joined(masked)}" if masked else ""
    return (
        f"**With which statistics.** {whose} made with earlier statistics than `geed-onnx` computes now: floors and nulls"
        f" of {_images([Evidence(n, tuple(before[n])) for n in old])} in the order of the draw, each compared with the"
        " next; one null, averaged over all elements of the group at once, the identity among them; floors of latent"
        " vectors and scores that count two resamplings in full, where the value has one; no mask"
        f"{told}; divergences of scores not in log space. This touches floors, nulls and every calibrated number, and of"
        " the raw ones the last digits of divergences at most. The full results are made anew when the networks are"
        " trained again; `make paper-fast` measures with the new ones."
    )


def _images(several: Sequence[Evidence]) -> str:
    """Return how many images floor and null are of."""
    counts = sorted({r.reference_samples for e in several for r in e.results if r.null is not None})
    if not counts:
        return "no images"
    return f"{counts[0]} images" if len(counts) == 1 else f"{counts[0]} to {counts[-1]:,} images"
