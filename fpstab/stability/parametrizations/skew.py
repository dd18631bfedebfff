"""Skew-symmetric weights: flows that keep or lose energy, and their exact steps (paper 3, appendix B)."""

import math
from typing import Literal

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fpstab.stability.parametrizations._checks import check_number, check_shape, check_weight
from fpstab.stability.parametrizations._rounding import (
    cast_number,
    damping,
    defect,
    gamma,
    shrinkage,
    unit,
    working,
)
from fpstab.stability.parametrizations.certificates import NormCertificate

_TURNS = 1e3
"""‖hS‖_F up to which a step is taken as it is: beyond hundreds of radians an exponential is noise."""


class Skew(nn.Module):
    """W = L − Lᵀ − γI (paper 3, eq. (24)): ẋ = Wx contracts at the rate γ; or an exact step of that flow.

    With `discrete=None` the eigenvalues of W have the real part −γ, and the logarithmic 2-norm is −γ. This is for
    continuous time: ‖W‖ has no bound, and the iteration x ← Wx may diverge. For discrete time:

    - `discrete="expm"`: W = exp(h(S − γI)) = e^(−γh)·exp(hS), S = L − Lᵀ;
    - `discrete="cayley"`: W = e^(−γh)·(I − hS/2)⁻¹(I + hS/2). The damping stands outside, as the Cayley transform of
      S − γI itself has no norm below 1 that holds for all S.

    Both are e^(−γh) times a rotation: ‖W‖₂ = e^(−γh) (rounding shrinks it by 1e-6 in float32), and all eigenvalues have
    this modulus. hS is scaled back to ‖hS‖_F = 1000 where it is larger.

    Assigning a matrix keeps its skew-symmetric part, for discrete time the nearest rotation; a member of the family is
    unchanged (but the Cayley transform does not reach half turns).

    Args:
        gamma: γ ≥ 0, the damping.
        discrete: `None`, `"cayley"` or `"expm"`.
        step: h > 0; for discrete time only.

    Raises:
        ValueError: An argument is not of this kind.
        TypeError: `gamma` or `step` is no number.

    >>> layer = nn.Linear(3, 3)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", Skew(0.5))
    >>> layer.parametrizations.weight[0].certificate().bound
    -0.5
    >>> bool((layer.weight + layer.weight.T == -torch.eye(3)).all())
    True
    """

    def __init__(
        self, gamma: float = 0.0, *, discrete: Literal["cayley", "expm"] | None = None, step: float = 1.0
    ) -> None:
        super().__init__()
        check_number("Skew", "gamma", gamma, "a finite number ≥ 0")
        check_number("Skew", "step", step, "a finite number > 0")
        if gamma < 0:
            raise ValueError(f"Skew: gamma must be ≥ 0, got {gamma!r}: a negative damping feeds energy in.")
        if step <= 0:
            raise ValueError(f"Skew: step must be > 0, got {step!r}.")
        if discrete not in (None, "cayley", "expm"):
            raise ValueError(f"Skew: discrete must be None, 'cayley' or 'expm', got {discrete!r}.")
        self.gamma, self.discrete, self.step = float(gamma), discrete, float(step)

    def forward(self, x: Tensor) -> Tensor:
        """The weight `[n, n]` of a free matrix `x` `[n, n]`, of which the strict lower triangle is L."""
        check_shape("Skew", x, square=True)
        n = len(x)
        eye = torch.eye(n, dtype=x.dtype, device=x.device)
        if self.discrete is None:
            lower = x.tril(-1)
            return lower - lower.mT - cast_number(self.gamma, x.dtype, towards_zero=False) * eye
        free = working(x).tril(-1)
        largest = math.sqrt(torch.finfo(free.dtype).max) / (1e4 * n) / max(1.0, self.step)
        lower = free.clamp(-largest, largest) * self.step
        S = lower - lower.mT
        S = S * (_TURNS / torch.linalg.matrix_norm(S).clamp_min(_TURNS))
        Q = torch.matrix_exp(S) if self.discrete == "expm" else _cayley(S)
        size = damping(self.gamma, self.step)
        roundings = gamma(n + 24, Q.dtype) + unit(x.dtype) * math.sqrt(n)
        size *= (1.0 - 2.0**-50) * shrinkage(roundings, n, size, x.dtype)
        weight: Tensor = Q * (size / (1.0 + defect(Q)).sqrt())
        return weight.to(x.dtype)

    def right_inverse(self, w: Tensor) -> Tensor:
        """The free matrix behind a weight `[n, n]`, strictly lower triangular.

        Raises:
            ValueError: The weight is not finite, or not square.
            TypeError: The weight is of no floating-point type.
        """
        check_weight("Skew", w, square=True)
        W = w.detach().double().cpu()
        if self.discrete is None:
            skew = (W - W.mT) / 2
        else:
            skew = torch.from_numpy(_logarithm(W.numpy(), cayley=self.discrete == "cayley")) / self.step
        return skew.tril(-1).to(device=w.device, dtype=w.dtype)

    def certificate(self) -> NormCertificate:
        """μ₂(W) ≤ −γ for continuous time, ‖W‖₂ ≤ e^(−γh) for discrete time."""
        if self.discrete is None:
            statement = f"μ₂(W) ≤ {-self.gamma:g}: ẋ = Wx contracts at this rate; no norm is bounded for x ← Wx"
            return NormCertificate("Skew", "log 2", -self.gamma, statement)
        bound = damping(self.gamma, self.step)
        return NormCertificate("Skew", "2", bound, f"‖W‖₂ ≤ {bound:g}; all eigenvalues have this modulus")

    def extra_repr(self) -> str:
        """The damping and the time."""
        return f"gamma={self.gamma:g}, discrete={self.discrete!r}, step={self.step:g}"


class BlockSkew(nn.Module):
    """W = [[0, A], [−Aᵀ, 0]] (paper 3, eq. (25), there "Hamiltonian"): skew-symmetric, so ẋ = Wx keeps ‖x‖.

    The eigenvalues are ±i times the singular values of A, of any size: the spectral radius is not 1, as the paper says,
    and the iteration x ← Wx diverges when ‖A‖₂ > 1. Assigning a matrix keeps the nearest member of the family.

    >>> layer = nn.Linear(4, 4)
    >>> _ = torch.nn.utils.parametrize.register_parametrization(layer, "weight", BlockSkew())
    >>> bool((layer.weight == -layer.weight.T).all())
    True
    """

    def forward(self, a: Tensor) -> Tensor:
        """The weight `[2m, 2m]` of a free matrix `a` `[m, m]`."""
        check_shape("BlockSkew", a, square=True)
        zero = torch.zeros_like(a)
        return torch.cat((torch.cat((zero, a), 1), torch.cat((-a.mT, zero), 1)))

    def right_inverse(self, w: Tensor) -> Tensor:
        """A `[m, m]` of a weight `[2m, 2m]`.

        Raises:
            ValueError: The weight is not finite, not square, or of odd size.
            TypeError: The weight is of no floating-point type.
        """
        check_weight("BlockSkew", w, square=True)
        if len(w) % 2:
            raise ValueError(
                f"BlockSkew: a weight of shape {tuple(w.shape)}; expected an even size: its two halves rotate into "
                "each other. Skew takes odd sizes."
            )
        m = len(w) // 2
        return ((w[:m, m:] - w[m:, :m].mT) / 2).detach()

    def certificate(self) -> NormCertificate:
        """μ₂(W) = 0: energy is kept in continuous time."""
        statement = "μ₂(W) = 0: ẋ = Wx keeps ‖x‖₂; no norm is bounded for x ← Wx"
        return NormCertificate("BlockSkew", "log 2", 0.0, statement)


def _cayley(S: Tensor) -> Tensor:
    eye = torch.eye(len(S), dtype=S.dtype, device=S.device)
    rotation: Tensor = torch.linalg.solve(eye - S / 2, eye + S / 2)
    return rotation


def _logarithm(W: NDArray[np.float64], *, cayley: bool) -> NDArray[np.float64]:
    """S such that exp(S), or the Cayley transform of S, is the rotation next to W `[n, n]`."""
    U, _, Vh = np.linalg.svd(W)
    Q = U @ Vh
    if np.linalg.slogdet(Q)[0] < 0:
        U[:, -1] *= -1  # the last has the smallest singular value, so the nearest rotation turns it
        Q = U @ Vh
    T, Z = scipy.linalg.schur(Q, output="real")
    n = len(T)
    S = np.zeros((n, n))
    halves: list[int] = []  # where the eigenvalue is −1: there are two of them, or four
    i = 0
    while i < n:
        if i + 1 < n and T[i + 1, i] != 0.0:
            angle = math.atan2((T[i + 1, i] - T[i, i + 1]) / 2, (T[i, i] + T[i + 1, i + 1]) / 2)
            _turn(S, i, i + 1, angle, cayley=cayley)
            i += 2
        else:
            if T[i, i] < 0:
                halves.append(i)
            i += 1
    for first, second in zip(halves[::2], halves[1::2], strict=False):
        _turn(S, first, second, math.pi, cayley=cayley)
    skew: NDArray[np.float64] = Z @ S @ Z.T
    return (skew - skew.T) / 2


def _turn(S: NDArray[np.float64], i: int, j: int, angle: float, *, cayley: bool) -> None:
    # a half turn is at infinity for Cayley: 1e-2 short of it, where the transform still moves
    size = 2.0 * math.tan(max(-math.pi + 1e-2, min(math.pi - 1e-2, angle)) / 2) if cayley else angle
    S[j, i], S[i, j] = size, -size
