"""The largest singular value of a sparse operator."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.linalg import eigh_tridiagonal

#: Lanczos stops where the residual of its largest eigenvalue is below this share of it. An eigenvalue of a symmetric
#: operator is off by the square of its vector's error, so that digits beyond the tenth are lost, and no more.
RESIDUAL = 1e-5
#: It is looked at every so many steps.
EVERY = 10
MOST_STEPS = 2000


def spectral_norm(matrix: sparse.csr_array) -> float:
    """Return ‖D‖₂ of a real operator D `(n, n)`; 0.0 exactly where all its entries are 0.

    Lanczos steps on DᵀD from a fixed start vector, so that the same operator gives the same digits. Nothing is
    orthogonalised again: that costs copies of eigenvalues already found, and no digit of the largest one.
    """
    if not matrix.count_nonzero():
        return 0.0
    unit = float(abs(matrix).max())
    matrix = sparse.csr_array(matrix / unit)  # squares of very small entries would be 0
    back = sparse.csr_array(matrix.T)
    now = np.random.default_rng(0).standard_normal(matrix.shape[0])
    now /= _norm(now)
    before, beta = np.zeros_like(now), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    largest = 0.0
    for step in range(1, MOST_STEPS + 1):
        following = back @ (matrix @ now) - beta * before
        alpha = float((now * following).sum())
        following -= alpha * now
        beta = _norm(following)
        diagonal.append(alpha)
        # an invariant subspace is found once only rounding is left
        ended = beta <= 1e-14 * max(diagonal)
        if ended or step % EVERY == 0 or step == MOST_STEPS:
            values, vectors = eigh_tridiagonal(
                np.array(diagonal), np.array(beside), select="i", select_range=(step - 1, step - 1)
            )
            largest = float(values[0])
            if ended or beta * abs(float(vectors[-1, 0])) <= RESIDUAL * largest:
                break
        beside.append(beta)
        before, now = now, following / beta
    return unit * float(np.sqrt(largest))


def _norm(x: npt.NDArray[np.float64]) -> float:
    # sums of NumPy's own: those of BLAS depend on its number of threads, and threads cost more than they bring here
    return float(np.sqrt((x * x).sum()))
