"""Zero padding before max pooling, kept as it is by ONNX Runtime.

Its optimiser makes one node of `Pad` and `MaxPool` (1.17 to 1.32 at least), and the padding of `MaxPool` is minus
infinity where that of `Pad` is zero: wrong wherever a window at the border holds negative values only, as in networks
that normalise after the pooling (ResNetV2, BiT). It leaves a `MaxPool` alone that gives the places of its maxima too.
"""

from __future__ import annotations

import onnx

from geed_exporters.graphs import graphs

FIRST_WITH_INDICES = 8  # opset


def keep_zero_padding(model: onnx.ModelProto) -> tuple[str, ...]:
    """Give each `MaxPool` behind a constant `Pad` its second output, in place, and return the outputs of those nodes.

    The graph computes the same; the second output is read by nobody.
    """
    version = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version < FIRST_WITH_INDICES:
        return ()
    kept: list[str] = []
    # a function holds nodes as a graph does
    scopes = [g for top in (model.graph, *model.functions) for g in graphs(top)]
    for nodes in [scope.node for scope in scopes]:
        makers = {name: node for node in nodes for name in node.output}
        for node in nodes:
            if node.op_type == "MaxPool" and len(node.output) == 1 and _padded(node.input[0], makers):
                kept.append(node.output[0])
                node.output.append(f"{node.output[0]}_indices")
    return tuple(kept)


def _padded(name: str, makers: dict[str, onnx.NodeProto]) -> bool:
    maker = makers.get(name)
    while maker is not None and maker.op_type == "Identity":  # the optimiser takes those out first
        maker = makers.get(maker.input[0])
    return maker is not None and maker.op_type == "Pad"
