"""The three ways in which an encoder learns: from labels, from contrast (SimCLR), from itself (DINO-like).

A method is a module that holds the encoder and whatever trains it. Called with images it returns a loss; `after` comes
after the step of gradient descent. `encoder` is what is measured in the end: heads for projection are left out.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.networks import ResNet, normalised
from experiments.self_supervision.objectives import distillation, follow, nt_xent
from experiments.self_supervision.views import Plan, view

CLASSES = 10
WIDTH = 64  # of the latent vector


@dataclass(frozen=True)
class Plans:
    """The views that a method takes of an image."""

    whole: Plan
    """Views of most of the image: one for labels, two for the others."""
    part: Plan | None = None
    """Two smaller views, where a method has them."""


def plans(name: str, flips: bool) -> Plans:
    """Return the views of a method: `supervised`, `simclr` or `dino`; without reflections if `flips` is false."""
    if name == "supervised":
        return Plans(Plan(area=(0.2, 1), flips=flips))
    if name == "simclr":
        return Plans(Plan(area=(0.2, 1), flips=flips, colour=0.8, grey=0.2))
    if name == "dino":
        whole = Plan(area=(0.4, 1), flips=flips, colour=0.8, grey=0.2)
        return Plans(whole, Plan(size=16, area=(0.25, 0.6), flips=flips, colour=0.8, grey=0.2))
    raise ValueError(f"expected supervised, simclr or dino; got {name!r}")


def method(name: str, flips: bool) -> Supervised | SimCLR | DINO:
    """Return a method at its start.

    The encoder is made first, so that one seed of torch gives every method the same untrained encoder.
    """
    net = ResNet(CLASSES).to(memory_format=torch.channels_last)  # the faster layout for convolutions on a CPU
    chosen = plans(name, flips)
    if name == "supervised":
        return Supervised(net, chosen)
    return SimCLR(net, chosen) if name == "simclr" else DINO(net, chosen)


def headless(net: ResNet) -> ResNet:
    """Return the same network with its latent vector as output, in place."""
    net.classifier, net.scores = nn.Identity(), nn.Identity()
    return net


class Supervised(nn.Module):
    """Cross-entropy with the labels."""

    def __init__(self, net: ResNet, chosen: Plans) -> None:
        super().__init__()
        self.plans, self.encoder = chosen, net

    def forward(self, x: Tensor, labels: Tensor, draw: np.random.Generator, progress: float) -> Tensor:
        """Return the loss of images `(B, 3, 32, 32)` in 0..1; `progress` runs from 0 to 1 over the training."""
        return F.cross_entropy(self.encoder.logits(seen(x, self.plans.whole, draw)), labels)

    def after(self, progress: float) -> None:
        """Do nothing."""


class SimCLR(nn.Module):
    """NT-Xent between two views, after a head of two linear layers; labels are not looked at."""

    TEMPERATURE = 0.5

    def __init__(self, net: ResNet, chosen: Plans) -> None:
        super().__init__()
        self.plans, self.encoder = chosen, headless(net)
        self.head = nn.Sequential(
            nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)
        )

    def forward(self, x: Tensor, labels: Tensor, draw: np.random.Generator, progress: float) -> Tensor:
        """Return the loss of images `(B, 3, 32, 32)` in 0..1."""
        both = torch.cat([seen(x, self.plans.whole, draw) for _ in range(2)])
        one, other = self.head(self.encoder(both)).chunk(2)
        return nt_xent(one, other, self.TEMPERATURE)

    def after(self, progress: float) -> None:
        """Do nothing."""


class DINO(nn.Module):
    """Distillation from a teacher that is the moving average of its student; labels are not looked at.

    The teacher sees two views of most of the image, the student these and two smaller ones. The teacher's outputs are
    centred and sharpened, without which all images come to one output. The teacher is the encoder, as in DINO.
    """

    STUDENT_T, TEACHER_T = 0.1, 0.03
    MOMENTUM = 0.97  # of the teacher; rises to 1 (DINO: 0.996, in a training a hundred times as long)
    CENTRE_MOMENTUM = 0.9
    FROZEN = 0.1  # share of the training in which the prototypes stay as they are

    def __init__(self, net: ResNet, chosen: Plans) -> None:
        super().__init__()
        if chosen.part is None:
            raise ValueError("expected a plan for the smaller views")
        self.plans, self.part = chosen, chosen.part
        self.encoder, self.head = headless(net), Prototypes()
        self.student, self.student_head = copy.deepcopy(self.encoder), copy.deepcopy(self.head)
        self.encoder.requires_grad_(False)
        self.head.requires_grad_(False)
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(Prototypes.COUNT))

    def forward(self, x: Tensor, labels: Tensor, draw: np.random.Generator, progress: float) -> Tensor:
        """Return the loss of images `(B, 3, 32, 32)` in 0..1; moves the centre."""
        whole = torch.cat([seen(x, self.plans.whole, draw) for _ in range(2)])
        part = torch.cat([seen(x, self.part, draw) for _ in range(2)])
        with torch.no_grad():
            teacher = self.head(self.encoder(whole))
        latent = torch.cat([self.student(whole), self.student(part)])
        student = self.student_head(latent, frozen=progress < self.FROZEN)
        views = (-1, len(x), Prototypes.COUNT)
        loss = distillation(
            student.view(views), teacher.view(views), self.centre, student_t=self.STUDENT_T, teacher_t=self.TEACHER_T
        )
        self.centre.lerp_(teacher.mean(0), 1 - self.CENTRE_MOMENTUM)
        return loss

    def after(self, progress: float) -> None:
        """Let the teacher follow."""
        momentum = 1 - (1 - self.MOMENTUM) * 0.5 * (1 + math.cos(math.pi * progress))
        follow(self.encoder, self.student, momentum)
        follow(self.head, self.student_head, momentum)


class Prototypes(nn.Module):
    """DINO's head: linear layers to a vector of length 1, and its cosines with prototypes."""

    COUNT = 256
    HIDDEN = 128

    def __init__(self) -> None:
        super().__init__()
        widths = (WIDTH, self.HIDDEN, self.HIDDEN)
        hidden = [
            part
            for inputs, outputs in pairwise(widths)
            for part in (nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.GELU())
        ]
        self.layers = nn.Sequential(*hidden, nn.Linear(self.HIDDEN, WIDTH))
        self.prototypes = nn.Parameter(torch.randn(self.COUNT, WIDTH))

    def forward(self, latent: Tensor, frozen: bool = False) -> Tensor:
        """Return cosines `(B, COUNT)` for latent vectors `(B, WIDTH)`; no gradient to prototypes that are frozen."""
        prototypes = self.prototypes.detach() if frozen else self.prototypes
        return F.normalize(self.layers(latent), dim=1) @ F.normalize(prototypes, dim=1).T


def seen(x: Tensor, plan: Plan, draw: np.random.Generator) -> Tensor:
    """Return a view of each image as the network takes it."""
    return normalised(view(x, plan, draw)).contiguous(memory_format=torch.channels_last)
