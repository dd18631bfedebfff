"""Pointwise affine maps: at each point x a network is f(x) = A(x)x + b(x) (paper 3, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fpstab.jacobian.chains import Dense, NotAChain, evaluate_chain, read_chain
from fpstab.jacobian.elementwise import Mode, Side, check_mode
from fpstab.jacobian.linearising import Linearising
from fpstab.jacobian.points import Target, statistic
from fpstab.jacobian.products import jacobian_matrix
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SAME = 1e-9
_DENSE_ENTRIES = 2**25  # of the matrices of one layer at all points that are carried at a time


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """A(x) and b(x) with f(x) = A(x)x + b(x) at B points. They are not unique: see `affine_map`.

    Attributes:
        A: `[B, m, n]`.
        b: `[B, m]`.
        mode: Of the three factorisations.
        at_zero: Which derivative stands for an activation's factor at z = 0.
        frozen: Operations that are not elementwise and were made affine by freezing what they divide or multiply by.
        path: `"chain"` (recursion over dense layers) or `"generic"`.
        status: `"ok"`, or `"nonfinite"`: at some points.
    """

    A: Tensor
    b: Tensor
    mode: Mode
    at_zero: Side
    frozen: tuple[str, ...]
    path: str
    status: Status = OK

    @property
    def is_square(self) -> bool:
        """Whether A has eigenvalues."""
        return self.A.shape[1] == self.A.shape[2]

    def __call__(self, x: Tensor) -> Tensor:
        """A(x_i)x + b(x_i), row by row, `[B, m]`."""
        return torch.bmm(self.A, x.to(self.A).reshape(len(x), -1, 1))[:, :, 0] + self.b

    def eigenvalues(self) -> Tensor:
        """The eigenvalues of A `[B, n]`, complex128, the largest moduli first; NaN where A is not finite.

        Raises:
            ValueError: If A is not square.
        """
        if not self.is_square:
            raise ValueError(
                f"A is {self.A.shape[1]} by {self.A.shape[2]} and has no eigenvalues. Singular values exist: "
                "singular_values()."
            )
        finite = torch.isfinite(self.A).all(2).all(1)
        values = _eigenvalues(torch.where(finite[:, None, None], self.A, 0.0))
        values = values.gather(1, values.abs().argsort(dim=1, descending=True, stable=True))
        return torch.where(finite[:, None], values, complex(torch.nan, torch.nan))

    def singular_values(self) -> Tensor:
        """The singular values of A `[B, min(m, n)]`, the largest first; NaN where A is not finite."""
        finite = torch.isfinite(self.A).all(2).all(1)
        values: Tensor = torch.linalg.svdvals(torch.where(finite[:, None, None], self.A, 0.0))
        return torch.where(finite[:, None], values, torch.nan)

    def spectrum(self) -> Tensor:
        """Eigenvalues if A is square, else singular values."""
        return self.eigenvalues() if self.is_square else self.singular_values()

    def spectral_radius(self) -> Tensor:
        """ρ(A) `[B]`. It tells nothing certain of stability: see `fpstab.stability.stability_criteria`.

        Raises:
            ValueError: If A is not square.
        """
        return self.eigenvalues()[:, 0].abs()

    def scalars(self) -> dict[str, float]:
        """The numbers to log: largest singular values, and spectral radii if A is square."""
        sigma = self.singular_values()[:, 0]
        sigma = sigma[torch.isfinite(sigma)]
        numbers = {"sigma_max": statistic(sigma, torch.max), "sigma_mean": statistic(sigma, torch.mean)}
        if self.is_square:
            rho = self.spectral_radius()
            rho = rho[torch.isfinite(rho)]
            numbers |= {"rho_max": statistic(rho, torch.max), "rho_mean": statistic(rho, torch.mean)}
        return numbers

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the eigenvalues of A at all points, with the unit circle.

        Raises:
            ValueError: If A is not square.
        """
        from fpstab.jacobian.plots import plot_cloud

        return plot_cloud(self.eigenvalues(), ax)


def affine_map(
    net: Target,
    x: Any,
    *,
    mode: Mode = "shifted",
    at_zero: Side = "left",
    freeze: bool = True,
    throw: bool = True,
) -> AffineMap:
    """Write a network as f(x) = A(x)x + b(x) at every point (paper 3, eq. (5) to (9)).

    Each activation is replaced by a diagonal factor, σ(z) = Λz + c, in one of three ways:

    * `"shifted"`: Λ = (σ(z) − σ(0))/z, c = σ(0).
    * `"paper"`: Λ = σ(z)/z, c = 0. Not finite at z = 0 if σ(0) ≠ 0, and huge near it.
    * `"tangent"`: Λ = σ'(z): A is the Jacobian.

    All are exact. They agree if σ(cz) = cσ(z) for c > 0, as for ReLU. At z = 0 (a dead layer makes it common) Λ is the
    derivative from the side `at_zero`; from the left it is that of torch for ReLU.

    Chains of dense layers go by a recursion with one matrix product a layer. Other networks are run once, with every
    activation, functional ones too, replaced by its factor; A is the derivative of that. Convolutions, batch norms,
    pooling, sums and the like are affine, or select. Layer, group and RMS norms and gated linear units are
    made so by freezing the standard deviation or the gate at the point: `frozen` names them. All else is refused.

    Args:
        net: A `SelfMap`, a module, or a callable of float64 batches, also between spaces of different sizes.
        x: Points `[B, *shape]` or `[B, n]`, one or more.
        mode: See above.
        at_zero: Side of the derivative at z = 0.
        freeze: Whether operations that are not elementwise may be frozen; otherwise they are refused.
        throw: Raise where A is not finite at some point; otherwise say so in the status.

    Raises:
        ValueError: If there are no points, the mode is unknown, or their shape is wrong.
        AnalysisError: For an operation that is not understood (`"unsupported"`; names it), whatever `throw` is; and if
            `throw`, and A is not finite somewhere.

    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Sigmoid())
    >>> with torch.no_grad():
    ...     _ = [torch.nn.init.constant_(parameter, 1.0) for parameter in net.parameters()]
    >>> at = affine_map(net, torch.ones(1, 1))
    >>> round(float(at.A), 4), round(float(at.A + at.b), 4)  # (σ(2) − σ(0))/2 and f(1) = σ(2)
    (0.1904, 0.8808)
    """
    check_mode(mode, at_zero)
    if not len(x):
        raise ValueError("x: expected one point or more, [B, *shape] or [B, n], got none.")
    function = as_map(net, x)
    points = function.flatten(x)
    frozen: tuple[str, ...] = ()
    with analysis_modes():
        layers = _chain(function, points)
        if layers is None:
            A, b, frozen = _generic(function, points, mode, at_zero, freeze)
        else:
            A, b = _recursion(layers, points, mode, at_zero)
    A, b = A.detach().cpu(), b.detach().cpu()
    status = _judge(function, A, b, mode)
    if throw and not status.ok:
        raise AnalysisError(status)
    return AffineMap(A, b, mode, at_zero, frozen, "generic" if layers is None else "chain", status)


def _judge(function: SelfMap, A: Tensor, b: Tensor, mode: Mode) -> Status:
    finite = torch.isfinite(A).all(2).all(1) & torch.isfinite(b).all(1)
    if bool(finite.all()):
        return OK
    why = " mode='paper' is not finite where z = 0 and σ(0) ≠ 0: use 'shifted'." if mode == "paper" else ""
    return Status(
        "nonfinite",
        f"{function.name}: A or b is not finite at {int((~finite).sum())} of {len(finite)} points (the first: row "
        f"{int((~finite).nonzero()[0])}).{why}",
    )


def _chain(function: SelfMap, points: Tensor) -> tuple[Dense, ...] | None:
    """The layers of a map that is a plain chain."""
    if function._args or function._kwargs:
        return None
    some = points[:4]
    try:
        layers = read_chain(function._call, function.unflatten(some).clone())
    except NotAChain:
        return None
    with torch.no_grad():  # what no operation of torch shows, as code of one's own in place
        value = function(some)
        read = evaluate_chain(layers, some)
    return layers if torch.allclose(read, value, rtol=_SAME, atol=_SAME, equal_nan=True) else None


def _recursion(layers: Sequence[Dense], points: Tensor, mode: Mode, side: Side) -> tuple[Tensor, Tensor]:
    """Aᵀ and bᵀ of the layers so far, as rows of one matrix, through one product a layer."""
    n = points.shape[1]
    widest = max(max(layer.weight.shape) for layer in layers)
    parts = []
    for some in torch.split(points, max(1, _DENSE_ENTRIES // ((n + 1) * widest))):
        h = some
        rows = torch.eye(n + 1, n, dtype=some.dtype, device=some.device).expand(len(some), n + 1, n)
        for layer in layers:
            h = torch.addmm(layer.bias, h, layer.weight.T)
            rows = (rows.reshape(-1, rows.shape[2]) @ layer.weight.T).reshape(len(some), n + 1, -1)
            rows[:, n] += layer.bias
            if layer.activation is not None:
                slope, offset = layer.activation.factors(h, mode, side)
                h = layer.activation(h)
                rows = rows * slope[:, None]
                rows[:, n] += offset
        parts.append(rows)
    both = torch.cat(parts)
    return both[:, :n].mT.contiguous(), both[:, n].contiguous()


def _generic(
    function: SelfMap, points: Tensor, mode: Mode, side: Side, freeze: bool
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    frozen: dict[str, None] = {}

    def linearised(x: Tensor) -> Tensor:
        x = x.clone()  # the network may work in place
        linearising = Linearising(x, mode, side, freeze)
        with linearising:
            y = function(x)
        linearising.require_seen(y, "the output")
        frozen.update(linearising.frozen)
        return y

    A = jacobian_matrix(linearised, points)
    with torch.no_grad():
        value = function(points)
    return A, value - torch.bmm(A, points[:, :, None])[:, :, 0], tuple(frozen)


def _eigenvalues(matrices: Tensor) -> Tensor:
    """Of `[B, n, n]`; those of 2 by 2 matrices in closed form, some hundred times faster on a grid."""
    if matrices.shape[1] != 2:
        values: Tensor = torch.linalg.eigvals(matrices)
        return values
    a, b, c, d = (matrices[:, i, j] for i in range(2) for j in range(2))
    half, mean = (a - d) / 2, (a + d) / 2
    root = torch.complex(half * half + b * c, torch.zeros_like(a)).sqrt()
    # the larger one by a sum without cancellation, the other one by the product only where that loses nothing
    return torch.stack((mean + root, mean - root), 1)
