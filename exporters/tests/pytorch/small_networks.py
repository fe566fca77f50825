"""Small networks of PyTorch, one for each thing that an exporter can get wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def images(n: int, size: int = 15, channels: int = 3) -> np.ndarray[Any, Any]:
    """Random images `(n, channels, size, size)`, float32."""
    return np.random.default_rng(0).standard_normal((n, channels, size, size)).astype(np.float32)


def with_statistics(model: nn.Module, seed: int = 1) -> nn.Module:
    """Give every batch norm a mean and a variance of its own: those of a new network do nothing."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(getattr(module, "running_mean", None), Tensor):
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=draw) * 0.2)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=draw) + 0.5)
    return model


class Block(nn.Module):
    """Convolution, batch norm, ReLU in place: the ReLU writes over what the batch norm gave."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class Small(nn.Module):
    """Three blocks in a list, the mean over pixels (no module gives it), a dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 6), Block(6, 8), Block(8, 8))
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.blocks(x)).mean((2, 3)))


def small() -> nn.Module:
    return with_statistics(Small())


def described() -> tuple[nn.Module, dict[str, Any]]:
    """The same with every fact that a factory can give."""
    facts = {
        "size": (15, 15),
        "channels": 3,
        "colour": "bgr",
        "range": (0, 255),
        "mean": (103.9, 116.8, 123.7),
        "std": (1, 1, 1),
        "fit": "crop",
        "resize": 17,
        "resample": "bicubic",
        "input": "picture",
        "blocks": ["blocks.?"],
        "latent": "pool",
        "scores": "fc",
        "weights": {"seed": 0},
        "notes": ["made for a test"],
        "actions": {"pool": {"group": "C4", "fields": [{"type": "trivial", "count": 8}]}},
    }
    return small(), facts


class Softmaxed(nn.Module):
    """A latent module, a classifier and a softmax, as in the shipped network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.latent = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(4, 5)
        self.scores = nn.Softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.scores(self.classifier(self.latent(self.stem(x))))


class PointClassifier(nn.Module):
    """A 1×1 convolution as classifier, whose output is flattened without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(self.stem(x))).flatten(1)


class Shared(nn.Module):
    """One activation called three times, a dict and a tuple as outputs of modules, an attention layer, an LSTM."""

    class Both(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Any]:
            return {"low": x.clamp(max=0), "pair": (x * 2, x * 3), "count": x.shape[0]}

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.both = self.Both()
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        x = self.act(x - 1)
        parts = self.both(x)
        x = self.act(x + parts["low"] + parts["pair"][0] - parts["pair"][1])
        tokens, _ = self.lstm(x.flatten(2).transpose(1, 2))
        tokens = self.layer(tokens)
        tokens, _ = self.attention(tokens, tokens, tokens)
        return self.fc(tokens.mean(1))


class ChannelsLast(nn.Module):
    """Convolutions on (B, C, H, W), a layer norm and a linear layer on (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.LayerNorm(6)
        self.act = nn.GELU()
        self.mlp = nn.Linear(6, 8)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(8, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        x = self.drop(self.mlp(self.act(x))).permute(0, 3, 1, 2)
        return self.fc(self.last(x).mean((2, 3)))


class Features(nn.Module):
    """No classes: a map, and beside it a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.output = nn.ReLU()  # a module that is called as the exporter calls a network's own output

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.output(self.conv(x))
        return x * 2, x.mean((2, 3))


# ------------------------------------------------------------------------------------------------ what has no ONNX form


class Several(Small):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x * mask)


class Branching(Small):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.sum() > 0:
            y = -y
        return y


class Counting(Small):
    def forward(self, x: Tensor) -> Tensor:
        n = int(x.abs().sum().item()) % 3 + 1
        return super().forward(x.repeat(1, 1, n, 1))


class SingularValues(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * torch.linalg.svd(x)[1][..., None])


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() * 2)


class OwnFunction(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_Twice.apply(x))


class FixedBatch(Small):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super(FixedBatch, self).forward(x[i : i + 1]) for i in range(len(x))])


class Chance(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.dropout(x, 0.5, training=True))


class ClassesOnly(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1)


def no_model() -> Any:
    return [nn.ReLU(), 3]


def wrong_fact() -> Any:
    return small(), {"sise": (15, 15)}


def fails() -> Any:
    raise ValueError("no data here")
