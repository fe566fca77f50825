"""What the self-supervised methods minimise: SimCLR's contrastive loss and DINO's distillation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return the normalised temperature-scaled cross-entropy of two views `(B, D)` of the same images.

    For each of the 2B vectors: −log of exp(cos/τ) with the other view of its image, over the sum of exp(cos/τ) with all
    other vectors of the batch; the mean of these (eq. (1) of Chen et al., SimCLR, 2020).
    """
    z = F.normalize(torch.cat([one, other]), dim=1)
    similar = z @ z.T / temperature
    similar.fill_diagonal_(-torch.inf)
    count = len(one)
    partner = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(similar, partner)


def distillation(student: Tensor, teacher: Tensor, centre: Tensor, *, student_t: float, teacher_t: float) -> Tensor:
    """Return the mean cross-entropy between a teacher's views and every other view of the same images.

    Parameters
    ----------
    student
        `(V, B, K)`: logits of all views, those that the teacher saw first, in its order.
    teacher
        `(T, B, K)`: logits of the first T views; no gradient goes through them.
    centre
        `(K,)`: what is taken off the teacher's logits, so that no output is ahead for all images.
    student_t, teacher_t
        Temperatures; the teacher's is the lower, which sharpens it (Caron et al., DINO, 2021).

    Raises
    ------
    ValueError
        If there is no pair of two different views.
    """
    if len(student) < 2 or not len(teacher):
        raise ValueError(f"expected two views or more, one of them the teacher's; got {len(student)}, {len(teacher)}")
    said = ((teacher.detach() - centre) / teacher_t).softmax(2)
    heard = (student / student_t).log_softmax(2)
    pairs = -torch.einsum("tbk,vbk->tv", said, heard) / said.shape[1]
    other = ~torch.eye(len(teacher), len(student), dtype=torch.bool, device=pairs.device)
    return pairs[other].mean()


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Move each parameter of the teacher towards the student's: θ_t ← m θ_t + (1 − m) θ_s.

    Buffers stay the teacher's own: its batch norms keep statistics of what it has seen itself, as in DINO.
    """
    for mine, its in zip(teacher.parameters(), student.parameters(), strict=True):
        mine.lerp_(its, 1 - momentum)
