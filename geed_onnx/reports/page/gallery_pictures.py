"""Arrays as small pictures in the page itself: PNG (or JPEG for photographs) as `data:` addresses."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

#: CSS pixels that a small picture is brought to, by whole factors, and that a large one is shrunk to.
AIM, MOST = 88, 112
#: A PNG beyond this is tried as JPEG too; a smaller picture shows its artefacts.
LARGE_BYTES = 6000
#: Perceptually even, dark to light, told apart with any colour vision: every 32nd colour of viridis.
_VIRIDIS = ("440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725")
#: Less and more than nothing; nothing itself is transparent, on any ground.
LESS, MORE = "1d6fd1", "d1491d"


class Picture(NamedTuple):
    """An address for `src`, the size in CSS pixels, and whether every pixel is to be seen as a square."""

    src: str
    width: int
    height: int
    exact: bool

    def html(self, alt: str, classes: str = "gx-pic") -> str:
        """Return the element; `alt` is escaped already."""
        kind = f"{classes} gx-exact" if self.exact else classes
        return f'<img class="{kind}" src="{self.src}" width="{self.width}" height="{self.height}" alt="{alt}">'


def photograph(pixels: Bytes) -> Picture:
    """Return a picture of (H, W) or (H, W, 3) uint8."""
    from PIL import Image

    image = _shrunk(Image.fromarray(np.ascontiguousarray(pixels)))
    found, kind = _encoded(image, "PNG", optimize=True), "png"
    if len(found) > LARGE_BYTES:
        other = _encoded(image, "JPEG", quality=85)
        found, kind = (other, "jpeg") if len(other) < len(found) else (found, kind)
    return _sized(found, kind, image, max(image.size) < AIM)


def sequential(plane: Array, low: float, high: float) -> Picture:
    """Return a picture of (H, W) values from `low` (dark) to `high` (light); all dark where the two are equal."""
    share = (plane.astype(np.float64) - low) / (high - low) if high > low else np.zeros(plane.shape)
    index = np.rint(255 * np.clip(share, 0, 1)).astype(np.uint8)
    return _indexed(index, _ramp(), None)


def diverging(plane: Array, scale: float) -> Picture:
    """Return a picture of (H, W) values: blue below 0, red above, the more opaque the nearer to ±`scale`."""
    share = plane.astype(np.float64) / scale if scale > 0 else np.zeros(plane.shape)
    index = (127 + np.rint(127 * np.clip(share, -1, 1))).astype(np.uint8)
    palette = np.array([_rgb(LESS)] * 127 + [_rgb(MORE)] * 129, dtype=np.uint8)
    alpha = np.minimum(255, np.rint(np.abs(np.arange(256) - 127) * 255 / 127)).astype(np.uint8)
    return _indexed(index, palette, bytes(alpha))


def gradient() -> str:
    """Return the colours of `sequential` as stops of a CSS gradient."""
    return ", ".join(f"#{c}" for c in _VIRIDIS)


def _ramp() -> Bytes:
    stops = np.array([_rgb(c) for c in _VIRIDIS], dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, 256)
    return np.stack([np.rint(np.interp(at, np.arange(len(stops)), s)) for s in stops.T], axis=1).astype(np.uint8)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[:2], 16), int(colour[2:4], 16), int(colour[4:], 16)


def _indexed(index: Bytes, palette: Bytes, alpha: bytes | None) -> Picture:
    from PIL import Image

    step = -(-max(index.shape) // MOST)
    # a large map is thinned out, so that every pixel shown is a value that is there
    image = Image.fromarray(np.ascontiguousarray(index[step // 2 :: step, step // 2 :: step]))
    image.putpalette(palette.tobytes())
    options: dict[str, Any] = {} if alpha is None else {"transparency": alpha}
    return _sized(_encoded(image, "PNG", **options), "png", image, True)


def _shrunk(image: Image) -> Image:
    if max(image.size) <= MOST:
        return image
    factor = MOST / max(image.size)
    width, height = (max(1, round(side * factor)) for side in image.size)
    return image.resize((width, height))


def _encoded(image: Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _sized(found: bytes, kind: str, image: Image, exact: bool) -> Picture:
    factor = max(1, AIM // max(image.size))
    text = base64.b64encode(found).decode("ascii")
    return Picture(f"data:image/{kind};base64,{text}", image.width * factor, image.height * factor, exact)
