"""The limiting density of the eigenvalues of JJᵀ, and its distribution function."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from fpstab.results import OK, AnalysisError, Status
from fpstab.theory.jacobian_esd.iteration import solve_paper
from fpstab.theory.jacobian_esd.layers import Layers, Variances, as_layers
from fpstab.theory.jacobian_esd.newton import Root, solve_newton
from fpstab.theory.jacobian_esd.polynomial import solve_polynomial
from fpstab.theory.jacobian_esd.slopes import Activation, Floats
from fpstab.theory.jacobian_esd.supports import find_atom, find_edges

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Solver = Literal["newton", "paper", "polynomial"]

_ACCEPTED: dict[Solver, float] = {"newton": 1e-11, "polynomial": 1e-9, "paper": 1e-4}  # residuals


@dataclass(frozen=True, slots=True, eq=False)
class Density:
    """The limiting spectrum of JJᵀ at some λ.

    Attributes:
        lam: λ, float64 `[K]`.
        rho: Density of the part above the atom, with the mass 1 − atom; 0 outside the support, infinite at λ = 0 where
            it diverges, NaN where no solution was found, float64 `[K]`.
        cdf: Share of the eigenvalues that are at most λ, the atom included, float64 `[K]`.
        atom: Mass at zero.
        edge: Right end λ₊ of the support.
        lower_edge: Left end λ₋ of the part above the atom; mostly 0.
        activation: φ.
        q: Variances of the pre-activations, float64 `[L]`.
        solver: What was used.
        residual: Largest residual of the equation for log z over the λ inside the support (of `"paper"`, its ε).
        status: `"ok"`, or `"not_converged"`: at some λ.
    """

    lam: Tensor
    rho: Tensor
    cdf: Tensor
    atom: float
    edge: float
    lower_edge: float
    activation: Activation
    q: Tensor
    solver: Solver
    residual: float
    status: Status = OK

    @property
    def depth(self) -> int:
        """L."""
        return len(self.q)

    def distribution(self, at: Tensor) -> Tensor:
        """The distribution function anywhere, interpolated between the λ of the density (below the least of them its value there).

        To five digits if these are a grid over the support, `Edges.grid`; no λ may occur twice.

        Args:
            at: Where, any shape.

        Raises:
            ValueError: If there are fewer than two λ inside the support with a solution.
        """
        from scipy.interpolate import PchipInterpolator

        kept = (self.lam > max(self.lower_edge, 0.0)) & (self.lam < self.edge) & torch.isfinite(self.cdf)
        lam, order = self.lam[kept].sort()
        if len(lam) < 2:
            raise ValueError(f"{len(lam)} of {len(self.lam)} values of lam are inside the support; expected a grid.")
        x, y = lam.log(), self.cdf[kept][order]
        if self.edge > float(lam[-1]):
            x, y = torch.cat([x, torch.tensor([math.log(self.edge)], dtype=x.dtype)]), torch.cat([y, y.new_ones(1)])
        values = at.detach().double().cpu()
        inside = values.clamp(float(lam[0]), self.edge).log().clamp(float(x[0]), float(x[-1]))
        found = torch.from_numpy(np.asarray(PchipInterpolator(x.numpy(), y.numpy())(inside.numpy())))
        gap = (values <= 0) | (values < self.lower_edge)
        below = torch.where(gap, self.atom * (values >= 0), found)
        return torch.where(values >= self.edge, 1.0, below)

    def scalars(self) -> dict[str, float]:
        """Atom and edges."""
        return {"atom": self.atom, "edge": self.edge, "lower_edge": self.lower_edge}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw ρ against λ, with a logarithmic ordinate as in paper 1, and the edge.

        Args:
            ax: Where to draw; by default on a new figure.
        """
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(6, 4), layout="constrained").subplots()
        order = self.lam.argsort()
        lam, rho = self.lam[order], self.rho[order]
        drawn = (rho > 0) & torch.isfinite(rho)
        label = f"{self.activation}, L = {self.depth}" + (f", atom {self.atom:.3g}" if self.atom else "")
        (line,) = ax.plot(lam[drawn].numpy(), rho[drawn].numpy(), lw=1.5, label=label)
        ax.axvline(self.edge, ls=":", lw=1, color=line.get_color())
        ax.set_yscale("log")
        ax.set_xlabel("λ, eigenvalue of JJᵀ")
        ax.set_ylabel("density ρ(λ)")
        ax.legend(fontsize="small")
        return ax


def density(
    lam: ArrayLike | Tensor,
    activation: str,
    depth: int,
    *,
    q: Variances | None = None,
    q0: float = 1.0,
    sigma_w: float = 1.0,
    sigma_b: float = 0.0,
    solver: Solver = "newton",
    throw: bool = True,
) -> Density:
    """The limiting density of the eigenvalues of JJᵀ, J = ∏ DˡWˡ, of wide networks with random weights.

    D = diag φ'(pre-activations), Var W = σ_w²/N with any finite fourth moment, all layers of the width N → ∞
    (paper 1, eqs. (10)–(23), corrected). The generating function w = −1 − z·f(z) of the Stieltjes transform f solves
    w = m_l(u_l) for every layer and z = σ_w²ᴸ(1 + w)wᴸ⁻¹/∏u_l with m_l(u) = E[uK/(1 − uK)], K = φ'(√qˡ g)².

    Args:
        lam: λ, `[K]`; anything but NaN. Outside the support the density is 0.
        activation: `"linear"`, `"relu"`, `"hardtanh"`, `"erf"` or `"tanh"`. **`"erf"` is erf(√π·x/2)**, of slope 1 at 0.
        depth: L, the number of layers, each with its weights and its activation.
        q: Variance of the pre-activations, one number or one for each layer; 0 and infinity are limits. By default
            `q_recursion` from `q0`.
        q0: That of the first layer, σ_w²·|x|²/n + σ_b², if `q` is not given.
        sigma_w: √N times the standard deviation of the weights.
        sigma_b: Standard deviation of the biases; enters the recursion only.
        solver: `"newton"` follows the solution from far away; `"polynomial"` takes the roots of a polynomial (for
            linear, ReLU and hard-tanh); `"paper"` is paper 1's iteration (20), good to about three digits for L ≥ 2, of
            equal layers only, see `paper_iteration`.
        throw: Raise where no solution was found; otherwise say so in the status, with NaN there.

    Raises:
        TypeError: If the depth is not an integer.
        ValueError: If λ is NaN, a number is out of range, a name is unknown, or the solver cannot do the layers.
        AnalysisError: If `throw`, and at some λ no solution was found.

    >>> spectrum = density([0.5, 7.0], "linear", 2)
    >>> spectrum.rho.round(decimals=6).tolist(), round(spectrum.edge, 6)
    ([0.31831, 0.0], 6.75)
    >>> density([1.0], "hardtanh", 2, q=1.0).rho.round(decimals=6).tolist()
    [0.143573]
    """
    values = _as_lam(lam)
    if solver not in _ACCEPTED:
        raise ValueError(f"solver is {solver!r}; expected one of {', '.join(_ACCEPTED)}.")
    layers = as_layers(activation, depth, q, q0, sigma_w, sigma_b)
    support, mass = find_edges(layers), find_atom(layers)
    inside = (values > support.lower) & (values < support.upper)
    rho = np.zeros_like(values)
    cdf = np.where(values >= support.upper, 1.0, np.where(values < 0, 0.0, mass))
    rho[(values == 0) & (support.lower == 0) & (support.upper > 0)] = math.inf
    residual, status = 0.0, OK
    if inside.any():
        root = _solve(values[inside], layers, support.upper, solver)
        good = root.residual <= _ACCEPTED[solver]
        rho[inside] = np.where(good, _rho(values[inside], root), math.nan)
        cdf[inside] = np.where(good, _cdf(layers, root), math.nan)
        residual = float(root.residual.max())
        if not good.all():
            status = _not_converged(values[inside][~good], int(inside.sum()), layers, solver)
    if throw and not status.ok:
        raise AnalysisError(status)
    return Density(
        torch.from_numpy(values),
        torch.from_numpy(rho),
        torch.from_numpy(cdf),
        atom=mass,
        edge=support.upper,
        lower_edge=support.lower,
        activation=layers.activation,
        q=torch.tensor(layers.q, dtype=torch.float64),
        solver=solver,
        residual=residual,
        status=status,
    )


def _as_lam(lam: ArrayLike | Tensor) -> Floats:
    array = lam.detach().cpu().double().numpy() if isinstance(lam, Tensor) else lam
    values = np.atleast_1d(np.array(array, dtype=np.float64))
    if values.ndim != 1:
        raise ValueError(f"lam has the shape {values.shape}; expected one dimension, [K].")
    if np.isnan(values).any():
        raise ValueError(f"lam has {int(np.isnan(values).sum())} NaN among its {values.size} values; expected numbers.")
    return values


def _solve(lam: Floats, layers: Layers, edge: float, solver: Solver) -> Root:
    if solver == "newton":
        return solve_newton(lam, layers, edge)
    return solve_polynomial(lam, layers) if solver == "polynomial" else solve_paper(lam, layers)


def _rho(lam: Floats, root: Root) -> Floats:
    """−Im((1 + w)/z)/π at z = λ + i0."""
    return np.asarray(np.maximum(-root.one_plus_w.imag / (math.pi * lam), 0.0), dtype=np.float64)


def _cdf(layers: Layers, root: Root) -> Floats:
    """1 − Im G/π, where G(w) = L·w + (L − 1)·log w − Σ (log u_l − E log(1 − u_l K_l)) has dG = (1 + w) dlog z.

    ∫ρ over (λ, ∞) is Im G(λ)/π, since G is real beyond the edge: no integration is needed.
    """
    L = layers.depth
    total = L * root.w.imag + (L - 1) * np.angle(root.w)
    for g, (law, n) in enumerate(zip(layers.laws(), layers.counts, strict=True)):
        total -= n * (root.b[:, g].imag - law.logarithm(np.exp(root.b[:, g])).imag)
    return np.asarray(np.clip(1 - total / math.pi, 0.0, 1.0), dtype=np.float64)


def _not_converged(lam: Floats, count: int, layers: Layers, solver: Solver) -> Status:
    remedy = 'use solver="newton"' if solver != "newton" else "leave out λ this close to an end of the support"
    return Status(
        "not_converged",
        f"the solver {solver!r} found no solution at {lam.size} of {count} values of lam inside the support, from "
        f"{lam.min():.6g} to {lam.max():.6g} ({layers.activation}, L = {layers.depth}): {remedy}.",
    )
