"""Deep-equilibrium models drawn at a finite width, to be set beside the theory of infinite width."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import erf
from torch import Generator, Tensor

from fpstab.ensembles import init
from fpstab.results import OK, Status
from fpstab.theory.deq.families import Family, check_v, elliptic_tau
from fpstab.theory.deq.moments import LinearMoments
from fpstab.theory.deq.nonlinearities import Activation, nonlinearity


@dataclass(frozen=True, slots=True, eq=False)
class SampledEquilibrium:
    """One weight, some inputs, and where plain iteration of z ← φ(Wz) + x from 0 has come to.

    Attributes:
        weight: W, float64 `[N, N]`.
        x: The inputs, float64 `[B, N]`.
        z: The last iterates, float64 `[B, N]`.
        h: Wz, float64 `[B, N]`.
        residual: ‖φ(h) + x − z‖/‖z‖, float64 `[B]`.
        n_iter: Iterations made.
        activation: φ.
        status: `"ok"`, or `"not_converged"`: what is measured on some inputs is then of an iterate, not of an
            equilibrium.
    """

    weight: Tensor
    x: Tensor
    z: Tensor
    h: Tensor
    residual: Tensor
    n_iter: int
    activation: Activation
    status: Status = OK

    @property
    def sigma_h2(self) -> float:
        """The mean of h·h/N over the inputs."""
        return float(self.h.square().mean())

    def spectral_radius(self) -> Tensor:
        """Largest modulus of the eigenvalues of DW, D = diag φ'(h), for each input, float64 `[B]`; all are computed."""
        slopes = torch.from_numpy(nonlinearity(self.activation).slope(self.h.numpy()))
        symmetric = bool((self.weight == self.weight.T).all())
        return torch.stack([_spectral_radius(slope, self.weight, symmetric) for slope in slopes])

    def scalars(self) -> dict[str, float]:
        """σ_h² and how far the iteration came."""
        return {"sigma_h2": self.sigma_h2, "residual": float(self.residual.max()), "n_iter": float(self.n_iter)}


def sample_weight(family: Family, V: float, width: int, *, generator: Generator | None = None) -> Tensor:
    """Draw a weight of a family, float64 `[width, width]`, by `fpstab.ensembles.init`.

    Raises:
        ValueError: If V or the width is out of range, or the family is unknown.
    """
    check_v(V)
    if width < 1:
        raise ValueError(f"the width is {width}; expected at least 1.")
    w = torch.empty(width, width, dtype=torch.float64, device="cpu")
    tau = elliptic_tau(family)
    if tau is not None:
        named = {0.0: init.random_, 1.0: init.goe_, -1.0: init.antisymmetric_}
        if tau in named:
            return named[tau](w, V**0.5, generator=generator)
        return init.elliptic_(w, tau, V**0.5, generator=generator)
    if family == "orthogonal":
        return init.orthogonal_(w, V**0.5, generator=generator)
    return init.haar_normal_(w, V**0.5, "disc", generator=generator)


def sample_inputs(width: int, count: int = 1, sigma_x2: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Draw inputs of Gaussian entries, scaled so that x·x/N is exactly σ_x²; float64 `[count, width]`."""
    x = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return x * (sigma_x2 * width / x.square().sum(1, keepdim=True)).sqrt()


def sample_equilibrium(
    family: Family,
    V: float,
    activation: Activation,
    sigma_x2: float = 1.0,
    *,
    width: int = 1000,
    inputs: int = 1,
    tol: float = 1e-10,
    max_iter: int = 3000,
    generator: Generator | None = None,
) -> SampledEquilibrium:
    """Draw a weight and inputs, and iterate z ← φ(Wz) + x from 0.

    Args:
        family: The family of W.
        V: Mean eigenvalue of WᵀW.
        activation: Of the model.
        sigma_x2: σ_x² = x·x/N.
        width: N.
        inputs: How many inputs the one weight gets.
        tol: Relative residual at which the iteration stops, for every input.
        max_iter: Iterations at most.
        generator: Source of randomness.

    Raises:
        ValueError: If a number is out of range or a name is unknown.

    >>> sample = sample_equilibrium("iid", 0.5, "tanh", width=300, generator=torch.Generator().manual_seed(0))
    >>> sample.status.ok, round(sample.sigma_h2, 1), round(float(sample.spectral_radius()), 1)
    (True, 0.7, 0.5)
    """
    phi = nonlinearity(activation)
    if not (0 < sigma_x2 < float("inf") and tol > 0 and max_iter >= 1 and inputs >= 1):
        raise ValueError(
            f"sigma_x2 = {sigma_x2}, inputs = {inputs}, tol = {tol}, max_iter = {max_iter}; expected positive numbers."
        )
    weight = sample_weight(family, V, width, generator=generator)
    x = sample_inputs(width, inputs, sigma_x2, generator=generator)
    w, source = weight.numpy().T, x.numpy()
    z, h = np.zeros_like(source), np.zeros_like(source)
    residual, n_iter = np.full(inputs, np.inf), 0
    for n_iter in range(1, max_iter + 1):  # noqa: B007 (how many there were is part of the result)
        h = z @ w
        new = phi.value(h) + source
        size = np.linalg.norm(z, axis=1)
        residual = np.linalg.norm(new - z, axis=1) / np.where(size > 0, size, 1e-300)
        if (residual <= tol).all() or size.max() > 1e100:  # unbounded φ beyond the critical V
            break
        z = new
    status = OK
    if not (residual <= tol).all():
        status = Status(
            "not_converged",
            f"plain iteration has a relative residual of up to {residual.max():.2g} after {n_iter} iterations at "
            f"sqrt(V) = {V**0.5:.4g}. Choose a smaller V, or a larger max_iter.",
        )
    tensors = [torch.from_numpy(values) for values in (z, h, residual)]
    return SampledEquilibrium(weight, x, tensors[0], tensors[1], tensors[2], n_iter, phi.name, status)


def sample_linear_moments(
    family: Family, V: float, *, width: int = 1000, generator: Generator | None = None
) -> LinearMoments:
    """The moments of M = (I − W)⁻¹ of one weight, for whatever V: `linear_moments` measured.

    Args:
        family: The family of W.
        V: Mean eigenvalue of WᵀW.
        width: N.
        generator: Source of randomness.

    Returns:
        The moments; `"singular"` if I − W has no inverse.
    """
    return weight_moments(sample_weight(family, V, width, generator=generator))


def weight_moments(weight: Tensor) -> LinearMoments:
    """tr_N M, tr_N MᵀM and tr_N (MᵀM)² of M = (I − W)⁻¹, for any square weight `[N, N]`.

    Raises:
        ValueError: If the weight is not square.
    """
    if weight.dim() != 2 or weight.shape[0] != weight.shape[1]:
        raise ValueError(f"a weight of shape {tuple(weight.shape)}; expected a square matrix.")
    shifted = torch.eye(len(weight), dtype=torch.float64) - weight.detach().double().cpu()
    inverse, info = torch.linalg.inv_ex(shifted)
    if int(info):
        return LinearMoments(None, None, None, Status("singular", "I − W has no inverse: W has the eigenvalue 1."))
    gram = inverse.T @ inverse
    n = len(gram)
    return LinearMoments(float(inverse.trace()) / n, float(gram.trace()) / n, float(gram.square().sum()) / n)


def gaussian_ks_distance(sample: Tensor) -> float:
    """Kolmogorov–Smirnov distance of a sample, any shape, to the standard Gaussian law.

    >>> round(gaussian_ks_distance(torch.tensor([0.0])), 6)
    0.5
    """
    x = np.sort(sample.detach().double().cpu().numpy().ravel())
    cdf = (1 + erf(x / 2**0.5)) / 2
    ranks = np.arange(x.size + 1) / x.size
    return float(max((ranks[1:] - cdf).max(), (cdf - ranks[:-1]).max()))


def _spectral_radius(slope: Tensor, weight: Tensor, symmetric: bool) -> Tensor:
    kept = slope > 0  # a neuron without a slope only adds eigenvalues 0
    if not kept.any():
        return torch.zeros((), dtype=torch.float64)
    slope, weight = slope[kept], weight[kept][:, kept]
    root = slope.sqrt()  # DW is similar to √D W √D
    matrix = root[:, None] * weight * root
    values: Tensor = torch.linalg.eigvalsh(matrix) if symmetric else torch.linalg.eigvals(matrix)
    return values.abs().amax()
