"""Flax's pooling while jax2onnx traces it: by position or by keyword, with any padding.

jax2onnx puts its own functions in the place of Flax's `max_pool` and `avg_pool`. They refuse positional arguments, and
an explicit padding (`((1, 1), (1, 1))`) they leave out without a word. Flax's own functions all end in
`flax.linen.pooling.pool`, which jax2onnx lowers rightly where nothing but 'VALID' or 'SAME' is asked of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

NAMES = ("max_pool", "avg_pool", "min_pool")

#: (module, name, function) of each place where Flax's pooling can be found
Places = tuple[tuple[Any, str, Any], ...]


def flax_pooling() -> Places:
    """Return Flax's own pooling functions; to be called before jax2onnx replaces them."""
    from flax import linen, nnx
    from flax.linen import pooling

    return tuple((m, n, getattr(m, n)) for m in (nnx, linen, pooling) for n in NAMES if hasattr(m, n))


@contextlib.contextmanager
def own_pooling(places: Places) -> Iterator[None]:
    """Put Flax's functions back, with a `pool` below them that pads before it asks jax2onnx."""
    from flax.linen import pooling

    theirs = [(module, name, getattr(module, name)) for module, name, _ in places]
    pool = pooling.pool
    try:
        for module, name, function in places:
            setattr(module, name, function)
        pooling.pool = _padded_first(pool)
        yield
    finally:
        pooling.pool = pool
        for module, name, function in theirs:
            setattr(module, name, function)


def _padded_first(pool: Callable[..., Any]) -> Callable[..., Any]:
    def padded(inputs: Any, init: Any, reduce_fn: Any, window_shape: Any, strides: Any, padding: Any) -> Any:
        import jax.numpy as jnp

        if not isinstance(padding, str):
            # of the pixels only: batch comes first, channels last
            sides = [(0, 0), *map(tuple, padding), (0, 0)]
            inputs, padding = jnp.pad(inputs, sides, constant_values=init), "VALID"
        return pool(inputs, init, reduce_fn, window_shape, strides, padding)

    return padded
