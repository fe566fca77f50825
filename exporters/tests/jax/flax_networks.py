"""Small networks in nnx and linen, and the same activations computed by hand; also a file of factories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

Array = np.ndarray[Any, Any]
SIZE = 13
FACTS = {"size": (SIZE, SIZE), "channels": 3, "colour": "rgb", "range": (0.0, 1.0), "mean": (0.5,), "std": (0.25,)}


# --------------------------------------------------------------------------------------------------------------- nnx


class Block(nnx.Module):
    """Convolution, batch norm, ReLU, and the input added where the widths agree."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(inputs, outputs, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(outputs, rngs=rngs)
        self.residual = inputs == outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm(self.conv(x)))
        return x + y if self.residual else y


class Net(nnx.Module):
    """Two blocks in a list, pooling between, a block that runs twice, dropout, a linear classifier."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.blocks = nnx.List([Block(3, 8, rngs=rngs), Block(8, 8, rngs=rngs)])
        self.again = Block(8, 8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.fc = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.blocks[0](x)
        x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))
        x = self.blocks[1](x)
        x = self.again(self.again(x))
        x = nnx.avg_pool(x, window_shape=(2, 2), strides=(1, 1))
        return self.fc(self.drop(x.mean((1, 2))))


def unsettle(model: nnx.Module, seed: int = 7) -> None:
    """Give batch norms statistics and scales that are not those of a fresh network."""
    draw = np.random.default_rng(seed)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.BatchNorm):
            shape = module.mean[...].shape
            module.mean[...] = jnp.asarray(draw.normal(0, 0.3, shape), jnp.float32)
            module.var[...] = jnp.asarray(draw.uniform(0.3, 2, shape), jnp.float32)
            module.scale[...] = jnp.asarray(draw.normal(1, 0.3, shape), jnp.float32)
            module.bias[...] = jnp.asarray(draw.normal(0, 0.3, shape), jnp.float32)


def net() -> tuple[nnx.Module, dict[str, Any]]:
    model = Net(rngs=nnx.Rngs(0))
    unsettle(model)
    return model, FACTS


def by_hand(model: Any, images: Array) -> Mapping[str, Array]:
    """Return every module's output of `Net`, `(B, H, W, C)` or `(B, N)`, by calling its modules one by one."""
    model.eval()
    found: dict[str, Array] = {}

    def block(name: str, module: Any, x: jax.Array, again: str = "") -> jax.Array:
        conv = module.conv(x)
        norm = module.norm(conv)
        y = jnp.maximum(norm, 0)
        y = x + y if module.residual else y
        found.update({f"{name}.conv{again}": conv, f"{name}.norm{again}": norm, f"{name}{again}": y})
        return y

    x = block("blocks.0", model.blocks[0], jnp.asarray(images))
    x = nnx.max_pool(x, window_shape=(3, 3), strides=(2, 2))
    x = block("blocks.1", model.blocks[1], x)
    x = block("again", model.again, x)
    x = block("again", model.again, x, "#1")
    x = nnx.avg_pool(x, window_shape=(2, 2), strides=(1, 1)).mean((1, 2))
    found["drop"] = x
    found["fc"] = model.fc(x)
    return {name: np.asarray(value) for name, value in found.items()}


# ------------------------------------------------------------------------------------------------------------- linen


class LinenBlock(linen.Module):
    width: int

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = linen.Conv(self.width, (3, 3))(x)
        y = linen.BatchNorm(use_running_average=not train)(y)
        y = linen.relu(y)
        return x + y if x.shape == y.shape else y


class LinenNet(linen.Module):
    """Two blocks, pooling between, a setup-style list of convolutions, dropout, two linear layers, softmax."""

    def setup(self) -> None:
        self.block = [LinenBlock(8), LinenBlock(8)]
        self.twice = linen.Conv(8, (3, 3))
        self.drop = linen.Dropout(0.5)
        self.hidden = linen.Dense(6)
        self.head = linen.Dense(4)

    def __call__(self, x: jax.Array, train: bool = True) -> jax.Array:
        x = self.block[0](x, train)
        x = linen.max_pool(x, (3, 3), strides=(2, 2))
        x = self.block[1](x, train)
        x = self.twice(self.twice(x))
        x = linen.avg_pool(x, (2, 2))
        x = self.drop(x.mean((1, 2)), deterministic=not train)
        x = linen.relu(self.hidden(x))
        return linen.softmax(self.head(x))


def unsettled(variables: Any, seed: int = 7) -> Any:
    """Return linen variables with batch statistics that are not those of a fresh network."""
    draw = np.random.default_rng(seed)
    stats = jax.tree.map(lambda a: jnp.asarray(draw.uniform(0.3, 2, a.shape), jnp.float32), variables["batch_stats"])
    return {**variables, "batch_stats": stats}


def linen_net() -> tuple[linen.Module, Any, dict[str, Any]]:
    module = LinenNet()
    variables = module.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)), train=False)
    return module, unsettled(variables), FACTS


def linen_by_hand(variables: Any, images: Array) -> Mapping[str, Array]:
    """Return outputs of `LinenNet`'s modules by arithmetic on its variables."""
    params, stats = variables["params"], variables["batch_stats"]
    found: dict[str, jax.Array] = {}

    def conv(p: Any, x: jax.Array) -> jax.Array:
        kernel = jax.lax.conv_general_dilated(
            x, p["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
        )
        return kernel + p["bias"]

    def block(name: str, x: jax.Array) -> jax.Array:
        p, s = params[name], stats[name]["BatchNorm_0"]
        y = found[f"{name}/Conv_0"] = conv(p["Conv_0"], x)
        n = p["BatchNorm_0"]
        y = found[f"{name}/BatchNorm_0"] = (y - s["mean"]) / jnp.sqrt(s["var"] + 1e-5) * n["scale"] + n["bias"]
        y = jnp.maximum(y, 0)
        found[name] = x + y if x.shape == y.shape else y
        return found[name]

    x = block("block_0", jnp.asarray(images))
    x = linen.max_pool(x, (3, 3), strides=(2, 2))
    x = block("block_1", x)
    x = found["twice"] = conv(params["twice"], x)
    x = found["twice#1"] = conv(params["twice"], x)
    x = found["drop"] = linen.avg_pool(x, (2, 2)).mean((1, 2))
    x = found["hidden"] = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
    x = found["head/input"] = jnp.maximum(x, 0)
    x = found["head"] = x @ params["head"]["kernel"] + params["head"]["bias"]
    found["output"] = jax.nn.softmax(x)
    return {name: np.asarray(value) for name, value in found.items()}
