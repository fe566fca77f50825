"""Graph reading and exposing: an ONNX file in, its tensors listed, classified, resolved, chosen, and drawn off.

::

    graph = read_graph("model.onnx")
    taps = resolve_taps(graph, ["layer4", "features*:map"]) or choose_taps(graph)
    model = exposed(graph, [t.name for t in taps])
"""

from __future__ import annotations

from geed_onnx.taps.centre import Obstacle, lost_centre
from geed_onnx.taps.choice import choose_taps, list_taps, resolve_taps
from geed_onnx.taps.expose import exposed, save_exposed
from geed_onnx.taps.graph import (
    Graph,
    Port,
    external_files,
    file_sha256,
    graph_of,
    image_input,
    image_inputs,
    model_sha256,
    read_graph,
)
from geed_onnx.taps.listing import Tap, declaration_problems
