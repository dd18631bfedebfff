"""Jacobians of networks drawn at a finite width, to be set beside the limit."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from scipy.special import erf
from torch import Generator, Tensor

from fpstab.results import OK, Status
from fpstab.theory.jacobian_esd.densities import Density
from fpstab.theory.jacobian_esd.slopes import Activation, check_activation

Distribution = Literal["normal", "cauchy"]


@dataclass(frozen=True, slots=True, eq=False)
class SampledSpectrum:
    """The eigenvalues of JJᵀ of one network at one input.

    Attributes:
        eigenvalues: Those that are not zero by their rank, ascending, float64 `[N − n_zero]`.
        n_zero: Exact zeros: N minus the least number of neurons of a layer with a slope.
        unresolved: How many of `eigenvalues` are below the rounding error of the singular values, (N·ε·σ_max)²: they
            are small, and no more is known.
        q: Mean square of the pre-activations, float64 `[L]`.
        active: Share of the neurons with a slope, float64 `[L]`; of ReLU it scatters about ½ by ½/√N, and the smallest
            eigenvalues follow it.
        status: `"ok"`.
    """

    eigenvalues: Tensor
    n_zero: int
    unresolved: int
    q: Tensor
    active: Tensor
    status: Status = OK

    @property
    def width(self) -> int:
        """N."""
        return len(self.eigenvalues) + self.n_zero

    def scalars(self) -> dict[str, float]:
        """The share of zeros, the largest eigenvalue, and the first two moments."""
        top = float(self.eigenvalues[-1]) if len(self.eigenvalues) else 0.0
        first, second = (float((self.eigenvalues**k).sum()) / self.width for k in (1, 2))
        return {"atom": self.n_zero / self.width, "edge": top, "m1": first, "m2": second}


def sample_spectrum(
    activation: str,
    depth: int,
    *,
    width: int = 1000,
    distribution: Distribution = "normal",
    scale: float | None = None,
    q0: float = 1.0,
    sigma_b: float = 0.0,
    generator: Generator | None = None,
) -> SampledSpectrum:
    """Draw a network and an input, and take the eigenvalues of JJᵀ there.

    Args:
        activation: φ; `"erf"` is erf(√π·x/2).
        depth: L.
        width: N of every layer.
        distribution: Of weights and biases, `"normal"` or `"cauchy"`.
        scale: Of the weights: the standard deviation, by default 1/√N, or Cauchy's scale, by default 1/N.
        q0: Mean square of the pre-activations of the first layer that is aimed at: the input's is q0 − σ_b² by normal
            weights of the default scale.
        sigma_b: Scale of the biases.
        generator: Source of randomness.

    Raises:
        ValueError: If a number is out of range or a name unknown.

    >>> spectrum = sample_spectrum("relu", 2, width=200, generator=torch.Generator().manual_seed(0))
    >>> 0.4 < spectrum.scalars()["atom"] < 0.6
    True
    """
    name = check_activation(activation)
    if distribution not in get_args(Distribution):
        raise ValueError(f"distribution is {distribution!r}; expected one of {', '.join(get_args(Distribution))}.")
    if depth < 1 or width < 1 or q0 < sigma_b**2 or sigma_b < 0 or (scale is not None and not scale > 0):
        raise ValueError(
            f"depth = {depth}, width = {width}, q0 = {q0}, sigma_b = {sigma_b}, scale = {scale}; expected at least one "
            "layer and neuron, q0 ≥ sigma_b² and a positive scale."
        )
    if scale is None:
        scale = width**-0.5 if distribution == "normal" else 1 / width
    x = torch.randn(width, dtype=torch.float64, generator=generator)
    x *= ((q0 - sigma_b**2) * width / x.square().sum()).sqrt()
    jacobian, active, variances = torch.eye(width, dtype=torch.float64), [], []
    for _ in range(depth):
        weight = _draw((width, width), distribution, generator) * scale
        h = weight @ x
        if sigma_b:
            h += _draw((width,), distribution, generator) * sigma_b
        value, slope = _activate(name, h)
        active.append(int((slope != 0).sum()))
        variances.append(float(h.square().mean()))
        jacobian = slope[:, None] * (weight @ jacobian)
        x = value
    rows, least = jacobian[(jacobian != 0).any(1)], min(active)
    found = torch.linalg.svdvals(rows).flip(0)[-least:] if least else torch.zeros(0, dtype=torch.float64)
    error = width * torch.finfo(torch.float64).eps * float(found[-1]) if least else 0.0
    return SampledSpectrum(
        eigenvalues=found**2,
        n_zero=width - len(found),
        unresolved=int((found < error).sum()),
        q=torch.tensor(variances, dtype=torch.float64),
        active=torch.tensor(active, dtype=torch.float64) / width,
    )


def ks_distance(eigenvalues: Tensor, spectrum: Density) -> float:
    """Kolmogorov–Smirnov distance of a sample to the part of the limiting law above its atom.

    Args:
        eigenvalues: Those that are not zero, of one or more networks, `[S]`.
        spectrum: The law, on a grid over its support (`Edges.grid`); it is interpolated.

    Raises:
        ValueError: If the sample is empty or the density is not on a grid.
    """
    values = eigenvalues.detach().double().cpu().sort().values
    if not len(values):
        raise ValueError("the sample is empty; expected eigenvalues above the atom.")
    cdf = ((spectrum.distribution(values) - spectrum.atom) / (1 - spectrum.atom)).numpy()
    ranks = np.arange(len(cdf) + 1) / len(cdf)
    return float(max((ranks[1:] - cdf).max(), (cdf - ranks[:-1]).max()))


def _draw(shape: tuple[int, ...], distribution: Distribution, generator: Generator | None) -> Tensor:
    values = torch.empty(shape, dtype=torch.float64)
    return values.normal_(generator=generator) if distribution == "normal" else values.cauchy_(generator=generator)


def _activate(name: Activation, h: Tensor) -> tuple[Tensor, Tensor]:
    """φ and φ' of h `[N]`."""
    if name == "linear":
        return h, torch.ones_like(h)
    if name == "relu":
        return h.clamp(min=0), (h > 0).double()
    if name == "hardtanh":
        return h.clamp(-1, 1), (h.abs() < 1).double()
    if name == "tanh":
        return h.tanh(), 1 / h.clamp(-350, 350).cosh() ** 2
    return torch.from_numpy(erf(h.numpy() * np.pi**0.5 / 2)), (-torch.pi / 4 * h**2).exp()
