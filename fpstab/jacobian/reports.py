"""The Jacobian of a network at its data: spectral radii, residuals, and on demand the whole spectrum at one point."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fpstab.esd import TailVerdict
from fpstab.jacobian.clouds import EigenvalueCloud, jacobian_eigenvalues, jacobian_tails
from fpstab.jacobian.spectra import JacobianSpectrum, jacobian_spectrum
from fpstab.maps import SelfMap, analysis_modes, as_map
from fpstab.results import Status


@dataclass(frozen=True, slots=True, eq=False)
class JacobianReport:
    """The Jacobian of a network, at points.

    Attributes:
        spectrum: Spectral radius (and norm) at every point.
        residual: ‖Φ(x) − x‖₂ at every one of the data `[B]`, also where the spectrum is at other points.
        cloud: All eigenvalues of J at the first point, or `None` if they were not asked for.
        tail: Verdict on the eigenvalues of JJᵀ there, or `None`.
        status: `"ok"`, also where some points have no result (the message says so); else that of the spectrum.
    """

    spectrum: JacobianSpectrum
    residual: Tensor
    cloud: EigenvalueCloud | None
    tail: TailVerdict | None
    status: Status

    def scalars(self) -> dict[str, float]:
        """The numbers to log."""
        residual = self.residual[self.residual.isfinite()]
        scalars = self.spectrum.scalars()
        if len(residual):
            scalars |= {"residual_max": float(residual.max()), "residual_mean": float(residual.mean())}
        if self.tail is not None and self.tail.status.ok:
            scalars["tail_verdict"] = float(self.tail.code)
        return scalars


def jacobian_report(
    map: SelfMap | nn.Module | Callable[..., Any],  # noqa: A002
    data: Any,
    *,
    at: Any = None,
    sigma: bool = False,
    rtol: float = 1e-2,
    max_products: int = 100,
    whole: bool = False,
) -> JacobianReport:
    """Look at a network's Jacobian at its data, or at other points (papers 1 §V, 2 §V).

    Args:
        map: A `SelfMap`, a module, or a callable of float64 batches; from a space to itself.
        data: `[B, *shape]` or `[B, n]`.
        at: Where to look, e.g. at fixed points, `[K, *shape]` or `[K, n]`; `None`: at the data.
        sigma: Also ‖J‖₂.
        rtol: Relative error of ρ to reach, see `jacobian_spectrum`.
        max_products: Products at most for each point.
        whole: Also all eigenvalues of J, and the verdict on those of JJᵀ, at the first point: n products and two
            decompositions of an n × n matrix.

    Raises:
        ValueError: If the map is not from a space to itself, or an argument is out of range.

    >>> report = jacobian_report(lambda x: torch.tanh(2 * x), torch.tensor([[0.0, 0.0]]))
    >>> report.spectrum.rho, report.residual
    (tensor([2.], dtype=torch.float64), tensor([0.], dtype=torch.float64))
    """
    with analysis_modes():
        function = as_map(map, data)
        function.require_square("Eigenvalues of the Jacobian")
        x = function.flatten(data)
        points = x if at is None else function.flatten(at)
        with torch.no_grad():
            residual = torch.linalg.vector_norm(function(x) - x, dim=1).cpu()
        spectrum = jacobian_spectrum(function, points, sigma=sigma, rtol=rtol, max_products=max_products, throw=False)
        usable = bool(spectrum.rho.isfinite().any())
        return JacobianReport(
            spectrum=spectrum,
            residual=residual,
            cloud=jacobian_eigenvalues(function, points[:1], throw=False) if whole else None,
            tail=jacobian_tails(function, points[:1])[0] if whole else None,
            status=Status(message=spectrum.status.message) if usable else spectrum.status,
        )
