"""The paper's networks with every parameter drawn, and checkpoints of them as they are found in the wild."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from geed_exporters.pytorch.paper import load_paper


def drawn(name: str, seed: int = 1) -> Any:
    """Return the network with drawn norms: initial values hide blocks (a last norm of zero) and folded statistics."""
    model = load_paper(name).model
    draw = torch.Generator().manual_seed(seed)

    def uniform(like: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=draw)

    with torch.no_grad():
        for module in model.modules():
            kind = type(module).__name__
            if "Norm" in kind and getattr(module, "weight", None) is not None and module.weight.ndim == 1:
                # group norms undo any growth, and rounding grows with what each block of BiT's 33 adds: less of it
                low, high = (0.05, 0.2) if "Group" in kind else (0.5, 1.5)
                module.weight.copy_(uniform(module.weight, low, high))
                module.bias.copy_(uniform(module.bias, -0.2, 0.2))
            if getattr(module, "running_var", None) is not None:
                module.running_mean.copy_(uniform(module.running_mean, -0.2, 0.2))
                module.running_var.copy_(uniform(module.running_var, 0.5, 1.5))
        for parameter in model.parameters():
            if not parameter.any():  # a bias that begins as zero
                parameter.copy_(uniform(parameter, -0.1, 0.1))
        classes = [m for m in model.modules() if getattr(m, "weight", None) is not None and len(m.weight) == 1000]
        if classes:
            size = model(torch.randn(2, 3, 224, 224, generator=draw)).std()
            for layer in classes:  # a softmax that is no 0 or 1: deep networks of drawn weights grow large
                layer.weight /= size
                layer.bias /= size
    return model.eval()


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    """Return the state dict with a prefix before every name."""
    return {prefix + k: v for k, v in state.items()}


def head(prefix: str = "") -> dict[str, Any]:
    """Return a projection head, which is no part of the network."""
    return {f"{prefix}0.weight": torch.ones(8, 2048), f"{prefix}2.weight": torch.ones(4, 8)}


def save_torchvision_densenet(model: Any, path: Path) -> None:
    """Write the names of torchvision's file of 2017: `denselayer1.norm.1.weight`; it has no counters."""
    state = {k: v for k, v in model.state_dict().items() if "num_batches" not in k}
    for number in ("1", "2"):
        for part in ("norm", "conv"):
            state = {
                k.replace(f".{part}{number}.", f".{part}.{number}.") if ".denselayer" in k else k: v
                for k, v in state.items()
            }
    torch.save(state, path)


def save_levit_of_linear_layers(model: Any, path: Path) -> None:
    """Write the weights as timm's `levit_192` has them: linear layers, and the indices that old files hold too."""
    state = {
        k: v.reshape(v.shape[:2]) if k.startswith("stages.") and v.ndim == 4 else v
        for k, v in model.state_dict().items()
    }
    state["stages.0.blocks.0.attn.attention_bias_idxs"] = torch.zeros(4, dtype=torch.int64)
    torch.save({"model": state}, path)


def save_bit_arrays(model: Any, path: Path, classes: int | None = None) -> None:
    """Write the arrays of a BiT release: TensorFlow's order of axes and names."""

    def array(tensor: torch.Tensor) -> Any:
        a = tensor.detach().numpy()
        return a.transpose(2, 3, 1, 0) if a.ndim == 4 else a

    conv = "standardized_conv2d/kernel"
    found = {
        f"root_block/{conv}": array(model.stem.conv.weight),
        "group_norm/gamma": array(model.norm.weight),
        "group_norm/beta": array(model.norm.bias),
        "head/conv2d/kernel": array(model.head.fc.weight)[..., :classes],
        "head/conv2d/bias": array(model.head.fc.bias)[:classes],
    }
    for i, stage in enumerate(model.stages, 1):
        for j, block in enumerate(stage.blocks, 1):
            unit = f"block{i}/unit{j:02d}"
            for letter, number in zip("abc", (1, 2, 3), strict=True):
                norm = getattr(block, f"norm{number}")
                found[f"{unit}/{letter}/{conv}"] = array(getattr(block, f"conv{number}").weight)
                found[f"{unit}/{letter}/group_norm/gamma"] = array(norm.weight)
                found[f"{unit}/{letter}/group_norm/beta"] = array(norm.bias)
            if block.downsample is not None:
                found[f"{unit}/a/proj/{conv}"] = array(block.downsample.conv.weight)
    np.savez(path, **{f"resnet/{k}": v for k, v in found.items()})


def save_dino(model: Any, path: Path) -> None:
    """Write a checkpoint of DINO's training: the student (other weights), the teacher, the command line."""
    state = model.state_dict()
    student = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    contents = {
        "student": prefixed("module.backbone.", student) | head("module.head.mlp."),
        "teacher": prefixed("backbone.", state) | head("head.mlp."),
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 800,
        "args": argparse.Namespace(arch="resnet50", patch_size=16),
    }
    torch.save(contents, path)


def save_lightning(model: Any, path: Path) -> None:
    """Write what PyTorch Lightning writes of a module that holds the network as `self.model`."""
    contents = {
        "epoch": 1,
        "global_step": 10,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model.", model.state_dict()),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "optimizer_states": [],
        "hyper_parameters": {"lr": 0.1},
    }
    torch.save(contents, path)


def save_vissl(model: Any, path: Path) -> None:
    """Write what VISSL writes: the network as `trunk`, four tables deep, its projection head beside it."""
    trunk = prefixed("_feature_blocks.", model.state_dict())
    inner = {"model": {"trunk": trunk, "heads": head("0.clf.")}, "optimizer": {}, "meters": {}}
    torch.save({"phase_idx": 799, "classy_state_dict": {"base_model": inner, "phase_idx": 799}}, path)


def save_safetensors(model: Any, path: Path) -> None:
    """Write safetensors."""
    save_file(model.state_dict(), path)
