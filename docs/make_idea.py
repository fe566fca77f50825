"""Draw `docs/idea.svg` from the shipped network itself: `python docs/make_idea.py`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from geed_onnx.actions import GridAction
from geed_onnx.groups import parse_group
from geed_onnx.sessions import RuntimeOptions, open_session
from geed_onnx.sources import normalised, open_source, preprocessing_for, sized
from geed_onnx.taps import image_input, read_graph, resolve_taps

HERE = Path(__file__).resolve().parent
SHIPPED = HERE.parent / "models" / "shipped"
ELEMENT, TAP, CHANNEL = 1, "block2", None


def picture(x: np.ndarray, warm: bool = False) -> str:
    """Return a plane as a PNG data address, scaled up without smoothing."""
    span = float(x.max() - x.min()) or 1.0
    grey = (255 * (x - x.min()) / span).astype(np.uint8)
    if warm:
        rgb = np.stack([grey, (grey * 0.72).astype(np.uint8), 255 - grey // 2 - 100], axis=-1)
        image = Image.fromarray(rgb)
    else:
        image = Image.fromarray(grey)
    image = image.resize((116, 116), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    graph = read_graph(SHIPPED / "digits-cnn.onnx")
    port = image_input(graph)
    how = preprocessing_for(
        input_shape=(None, 1, 29, 29), input_layout="NCHW", input_dtype="float32",
        metadata=graph.metadata, model_folder=None, flags={},
    )  # fmt: skip
    [(_, raw)] = open_source(str(SHIPPED / "digits-test.parquet")).items([7])
    x = sized(raw, how)[None]
    group = parse_group("C8")
    moved = GridAction(group, x.shape[1:])(ELEMENT, x)
    [tap] = resolve_taps(graph, [TAP])
    session = open_session(graph, [tap], port, RuntimeOptions(provider="cpu"))
    maps = session.run(normalised(np.concatenate([x, moved]), how))[TAP]
    expected = GridAction(group, maps.shape[1:])(ELEMENT, maps[:1])
    channel = int(maps[0].reshape(maps.shape[1], -1).std(axis=1).argmax())
    a, b = maps[1, channel].ravel(), expected[0, channel].ravel()
    cosine = float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def tile(left: int, top: int, plane: np.ndarray, label: str, warm: bool = False) -> str:
        return (
            f'<image x="{left}" y="{top}" width="116" height="116" href="{picture(plane, warm)}"/>'
            f'<rect x="{left}" y="{top}" width="116" height="116" fill="none" stroke="#8a8a8a"/>'
            f'<text x="{left + 58}" y="{top + 136}" class="label">{label}</text>'
        )

    def arrow(x1: int, y1: int, x2: int, y2: int, label: str, dx: int, dy: int) -> str:
        return (
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" marker-end="url(#tip)"/>'
            f'<text x="{(x1 + x2) // 2 + dx}" y="{(y1 + y2) // 2 + dy}" class="arrow">{label}</text>'
        )

    svg = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 400" font-family="sans-serif">
<style>.label{{font-size:15px;text-anchor:middle;fill:#555}}.arrow{{font-size:14px;text-anchor:middle;fill:#777}}
line{{stroke:#888;stroke-width:1.6}}.big{{font-size:16px;fill:#555}}.note{{font-size:13px;fill:#777}}
@media (prefers-color-scheme: dark){{.label,.big{{fill:#ccc}}.arrow,.note{{fill:#aaa}}}}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="#888"/></marker></defs>
{tile(20, 20, x[0, 0], "image x")}{tile(20, 220, moved[0, 0], "g·x (a turn by 45°)")}
{arrow(78, 164, 78, 214, "g", 14, 4)}
{arrow(146, 78, 236, 78, "network f", 0, -8)}{arrow(146, 278, 430, 278, "network f", 0, -8)}
{tile(246, 20, maps[0, channel], "f(x), one feature map", True)}
{arrow(372, 78, 430, 78, "g", 0, -8)}
{tile(440, 20, expected[0, channel], "g·f(x)", True)}{tile(440, 220, maps[1, channel], "f(g·x)", True)}
<text x="498" y="193" class="label" style="font-size:26px">≟</text>
<text x="576" y="150" class="big">equivariant: equal</text>
<text x="576" y="176" class="note">here cosine {cosine:.2f},</text>
<text x="576" y="194" class="note">so the deviation is {-cosine:.2f}</text>
<text x="576" y="212" class="note">(−1 would be exact)</text>
</svg>
"""
    (HERE / "idea.svg").write_text(svg, encoding="utf-8")
    print(f"docs/idea.svg: channel {channel} of {TAP}, cosine {cosine:.3f}")


if __name__ == "__main__":
    main()
