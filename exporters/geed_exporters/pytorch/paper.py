"""The architectures of the paper's sections 4.3 and 4.4 by name: `paper:resnet50` … `paper:simclr-resnet50`.

Each knows its module paths (blocks, latent, scores), what its authors do to an image, where they publish weights, and
which forms its checkpoints have. docs/architectures.md is the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geed_exporters.errors import ExportError
from geed_exporters.export import InputSpec
from geed_exporters.loaded import SEED, Loaded
from geed_exporters.pytorch import alexnet, published_weights
from geed_exporters.pytorch.checkpoints import Adapt, load_state, seeded
from geed_exporters.pytorch.timm_models import load_timm
from geed_onnx.errors import UnknownName, UsageError

IMAGENET = InputSpec(
    name="image",
    shape=(3, 224, 224),
    layout="NCHW",
    colour="rgb",
    range=(0.0, 1.0),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    fit="crop",
    resize=256,
    resample="bilinear",
)
DINO = "https://dl.fbaipublicfiles.com/dino/"
DAMPING = 0.2
VISSL = "https://dl.fbaipublicfiles.com/vissl/model_zoo/"


@dataclass(frozen=True)
class Download:
    """A file of weights on its authors' server."""

    url: str
    file: str
    """Its name among torch's downloads."""
    sha256: str | None = None
    """The first digits, where the authors say them."""


@dataclass(frozen=True)
class Architecture:
    """One network of the paper.

    Attributes
    ----------
    timm : str or None
        Its name in timm, with the tag of its pretrained weights; None: it is built here.
    build : function of the number of classes or None
        What builds it.
    weights : Download or None
        The authors' own file; None: timm's.
    input : InputSpec or None
        What the authors do to an image; None: what timm records.
    containers : tuple of str
        Modules whose children are the blocks.
    blocks : tuple of str
        The blocks themselves, where they are no children of a list.
    latent, scores : str
        Module paths; no scores for a network without classifier.
    drop : tuple of str
        Beginnings (or globs) of the names in a checkpoint that are no part of the network.
    """

    timm: str | None = None
    build: Callable[[int], Any] | None = None
    weights: Download | None = None
    input: InputSpec | None = None
    containers: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    latent: str | None = None
    scores: str | None = None
    adapt: Adapt | None = None
    drop: tuple[str, ...] = ()
    arrays: bool = False
    """Whether `.npz` files of BiT fit it."""
    damped: str | None = None
    """The module of each block whose scale is made small in random weights."""
    options: dict[str, Any] = field(default_factory=dict)
    """For `timm.create_model`."""


RESNET = ("layer1", "layer2", "layer3", "layer4")
STAGES = ("stages.0.blocks", "stages.1.blocks", "stages.2.blocks")

ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": Architecture(timm="resnet50.tv_in1k", containers=RESNET, latent="global_pool", scores="fc"),
    "alexnet": Architecture(
        build=alexnet.alexnet,
        weights=Download(
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "alexnet-owt-7be5be79.pth", "7be5be79"
        ),
        input=IMAGENET,
        blocks=alexnet.BLOCKS,
        latent=alexnet.LATENT,
        scores=alexnet.SCORES,
        adapt=published_weights.without_module,
    ),
    "densenet121": Architecture(
        timm="densenet121.tv_in1k",
        # torchvision's own preprocessing; the weights are the same, and timm records bicubic
        input=IMAGENET,
        blocks=(
            *("features.denseblock1", "features.transition1", "features.denseblock2", "features.transition2"),
            *("features.denseblock3", "features.transition3", "features.denseblock4"),
        ),
        latent="global_pool",
        scores="classifier",
        adapt=published_weights.undotted_dense_layers,
    ),
    # with 1x1 convolutions in place of linear layers: the same function, and its blocks give maps instead of tokens
    "levit192": Architecture(
        timm="levit_conv_192.fb_dist_in1k",
        containers=STAGES,
        latent="head.input",  # the mean over pixels, before the batch norms of the two heads
        adapt=published_weights.linear_as_convolution,
        drop=("*attention_bias_idxs",),
    ),
    "bit-resnetv2-101": Architecture(
        timm="resnetv2_101x1_bit.goog_in21k_ft_in1k",
        containers=(*STAGES, "stages.3.blocks"),
        latent="head.global_pool",
        scores="head.flatten",
        arrays=True,
        damped="norm3",
    ),
    "dino-resnet50": Architecture(
        timm="resnet50",
        options={"num_classes": 0},
        weights=Download(f"{DINO}dino_resnet50_pretrain/dino_resnet50_pretrain.pth", "dino_resnet50_pretrain.pth"),
        input=replace(IMAGENET, resample="bicubic"),
        containers=RESNET,
        latent="global_pool",
        drop=published_weights.PROJECTORS,
    ),
    "simclr-resnet50": Architecture(
        timm="resnet50",
        options={"num_classes": 0},
        weights=Download(
            f"{VISSL}simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1/model_final_checkpoint_phase799.torch",
            "vissl_simclr_rn50_800ep.torch",
        ),
        input=IMAGENET,
        containers=RESNET,
        latent="global_pool",
        adapt=published_weights.named_children,
        drop=published_weights.PROJECTORS,
    ),
    "dino-vits16": Architecture(
        timm="vit_small_patch16_224.dino",
        options={"num_classes": 0},
        input=replace(IMAGENET, resample="bicubic"),
        containers=("blocks",),
        latent="fc_norm",  # the class token, after the last norm
        drop=published_weights.PROJECTORS,
    ),
}


def load_paper(
    name: str, *, checkpoint: Path | None = None, pretrained: bool = False, classes: int | None = None
) -> Loaded:
    """Return one of the paper's networks in eval mode, with random weights unless others are asked for.

    Parameters
    ----------
    checkpoint
        The authors' file, or one that a training framework wrote: a state dict, alone or under a key, its names with
        or without a prefix; the teacher of a DINO checkpoint; `.npz` for BiT. Projection heads are left out.
    pretrained
        Whether to fetch the weights from where their authors publish them.
    classes
        How many classes the network tells apart, for weights that were trained on others than ImageNet's.

    Raises
    ------
    UnknownName
        If there is no such network.
    UsageError
        If classes are given to a network without classifier.
    ExportError
        If the checkpoint does not fit, or pretrained weights cannot be fetched.
    MissingFramework
        If torch or timm is not installed.
    """
    if name not in ARCHITECTURES:
        raise UnknownName("architecture of the paper", name, ARCHITECTURES)
    architecture = ARCHITECTURES[name]
    if classes is not None and architecture.options.get("num_classes") == 0:
        raise UsageError(f"--classes: paper:{name} has no classifier; leave it out")
    model, spec = _made(architecture, pretrained, classes)
    loaded = Loaded(
        model.eval(),
        architecture.input or spec,
        weights="pretrained" if pretrained else "random",
        name=f"paper:{name}",
        blocks=_blocks(model, architecture),
        latent=architecture.latent,
        # without classes, what comes out is the latent vector
        scores="" if getattr(model, "num_classes", None) == 0 else architecture.scores,
    )
    if checkpoint is not None:
        return loaded.with_checkpoint(checkpoint, _filled(model, architecture, checkpoint))
    if not pretrained:
        notes: tuple[str, ...] = (f"random weights of seed {SEED}{_damp(model, architecture)}",)
    elif architecture.weights is None:
        notes = (f"weights of timm:{architecture.timm}",)
    else:
        filled = _filled(model, architecture, downloaded(architecture.weights, loaded.name))
        notes = (*filled, f"weights of {architecture.weights.url}")
    return replace(loaded, notes=notes)


def _made(architecture: Architecture, pretrained: bool, classes: int | None) -> tuple[Any, InputSpec]:
    if architecture.build is not None:
        with seeded():
            return architecture.build(classes or 1000), IMAGENET
    assert architecture.timm is not None
    from_timm = pretrained and architecture.weights is None
    options = architecture.options if classes is None else {**architecture.options, "num_classes": classes}
    loaded = load_timm(architecture.timm, pretrained=from_timm, **options)
    return loaded.model, loaded.input


def _blocks(model: Any, architecture: Architecture) -> tuple[str, ...]:
    found = [f"{c}.{n}" for c in architecture.containers for n, _ in model.get_submodule(c).named_children()]
    return (*architecture.blocks, *found)


def _damp(model: Any, architecture: Architecture) -> str:
    """Scale down what each block adds, where nothing else keeps rounding from growing with the depth; say so."""
    if architecture.damped is None:
        return ""
    for block in _blocks(model, architecture):
        scale = model.get_submodule(f"{block}.{architecture.damped}").weight
        scale.data *= DAMPING
    return f", the scale of each block's {architecture.damped} times {DAMPING:g} against the growth of rounding"


def _filled(model: Any, architecture: Architecture, path: Path) -> tuple[str, ...]:
    if path.suffix == ".npz" and architecture.arrays:
        return published_weights.load_bit_arrays(model, path)
    return load_state(
        model, path, prefixes=published_weights.PREFIXES, drop=architecture.drop, adapt=architecture.adapt
    )


def downloaded(weights: Download, name: str) -> Path:
    """Return the file among torch's downloads, fetched if it is not there.

    Raises
    ------
    ExportError
        If it cannot be fetched, or is not the file its authors described.
    """
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.file
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(weights.url, str(path), hash_prefix=weights.sha256, progress=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash is a RuntimeError
        raise ExportError(
            f"{name}: pretrained weights cannot be had from {weights.url} ({error}); fetch them where there is a"
            f" network and give the file: --checkpoint {weights.file}"
        ) from error
    return path
