"""Is a network stable as a dynamical system x⁺ = f(x)? What is proved, and, apart from it, what only looks so."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fpstab import guard
from fpstab.fixed_points import find_fixed_points
from fpstab.jacobian import affine_map
from fpstab.jacobian.chains import Dense, NotAChain, evaluate_chain, read_chain
from fpstab.lipschitz.bounds import seconds_to_solve
from fpstab.lipschitz.extraction import UnsupportedLayer, extract, sample_shape
from fpstab.lipschitz.problem import Feedforward, General
from fpstab.maps import SelfMap
from fpstab.proofs import certify_contraction
from fpstab.results import OK, AnalysisError, Status
from fpstab.stability.certificates import (
    LARGEST,
    StabilityCertificate,
    discontinuous,
    no_nonzero_fixed_point,
    norm_products,
    refused,
    sector_products,
)
from fpstab.stability.local import MAX_INPUTS, local_certificate
from fpstab.stability.quadratic import multiplier_certificate, vertex_certificate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REACH = 6.0  # paper 3's pictures show [−6, 6]²
_POINTS = 64
_SAME = 1e-3
_LOCAL = 8  # attracting fixed points that are certified one by one
_MAX_VALUES = 256  # of a sample, up to which A is computed at points


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """What paper 3 and others look at. None of it proves anything: its theorem 6 is false in both directions.

    relu(Wx) with W = [[2, 2], [−2, −2]] has ρ(W) = 0 and diverges, and there are globally stable networks with
    ρ(A(x)) > 1 somewhere.

    Attributes:
        points: Where A(x) was looked at `[B, n]`.
        rho: ρ(A(x)) `[B]`, in mode `"shifted"`; empty where A could not be computed.
        norm: ‖A(x)‖₂ `[B]`.
        weight_rho: Spectral radius of each square weight, NaN for others; empty if the network is no chain.
        activations: Names of the activations; empty if the network is no chain.
        paper_criterion: What paper 3's criterion would say: `"met"`, `"not met"` or `"unknown"`.
        status: `"ok"`, or `"unsupported"`: A could not be computed.
    """

    points: Tensor
    rho: Tensor
    norm: Tensor
    weight_rho: tuple[float, ...]
    activations: tuple[str, ...]
    paper_criterion: str
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers to log."""
        return {
            "rho_affine_max": float(self.rho.max()) if len(self.rho) else float("nan"),
            "rho_affine_min": float(self.rho.min()) if len(self.rho) else float("nan"),
            "norm_affine_max": float(self.norm.max()) if len(self.norm) else float("nan"),
        }

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw ρ(A(x)) against ‖A(x)‖₂ at the points."""
        from fpstab.stability.plots import plot_diagnostics

        return plot_diagnostics(self, ax)


@dataclass(frozen=True, slots=True, eq=False)
class StabilityReport:
    """What is proved of x⁺ = f(x), and what was merely seen.

    Attributes:
        certificates: All attempts, those that hold and those that do not, each with its value and its hypothesis.
        diagnostics: What proves nothing.
        status: `"ok"`; `"unsupported"`: a layer is not understood, so some certificates were not attempted.
    """

    certificates: tuple[StabilityCertificate, ...]
    diagnostics: Diagnostics
    status: Status = OK

    @property
    def certified(self) -> bool:
        """Whether it is proved that one fixed point attracts all orbits."""
        return any(each.holds and each.scope == "global" for each in self.certificates)

    @property
    def holding(self) -> tuple[StabilityCertificate, ...]:
        """The certificates that hold, local ones and those about the number of fixed points too."""
        return tuple(each for each in self.certificates if each.holds)

    def scalars(self) -> dict[str, float]:
        """What a monitor logs: whether certified, the least value of a global certificate, and the diagnostics."""
        values = [each.value for each in self.certificates if each.scope == "global"]
        numbers = {
            "certified": float(self.certified),
            "value": min(values, default=float("inf")),
            "n_local": float(sum(each.scope == "local" for each in self.holding)),
        }
        return numbers | {f"diagnostic/{name}": value for name, value in self.diagnostics.scalars().items()}

    def table(self) -> list[dict[str, Any]]:
        """One row a certificate."""
        return [
            {
                "name": each.name,
                "holds": each.holds,
                "scope": each.scope,
                "value": each.value,
                "margin": each.margin,
                "statement": each.statement,
                "hypothesis": each.hypothesis,
                "domain": each.domain,
            }
            for each in self.certificates
        ]

    def __str__(self) -> str:
        lines = [str(each) for each in self.certificates if each.holds] or ["Nothing is proved."]
        return "\n".join([*lines, f"Diagnostic: paper 3's criterion is {self.diagnostics.paper_criterion}."])


def stability_criteria(
    net: nn.Module,
    example: Any = None,
    *,
    points: Any = None,
    quadratic: bool = True,
    time_limit: float | None = None,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> StabilityReport:
    """Try to prove that a network x⁺ = f(x) is stable, in all ways that are known here (paper 3, repaired).

    * R1: a product of norms of weights and Lipschitz constants, in the 1-, 2- and ∞-norm: a contraction.
    * R2: the same with sup|σ(z)/z|, without biases and with σ(0) = 0: the origin attracts everything.
    * R3: `lipsdp`: a certified Lipschitz constant; `sector`, `contraction`: a linear matrix inequality with a free P.
    * R4: one quadratic Lyapunov function at the vertices of all slopes, for some ten neurons.
    * R5: attracting fixed points that are enclosed, at most 8 (local).
    * R6: no fixed point but the origin, for bias-free networks of ReLU type.

    A certificate holds only with a value below 1 − 1e-4, where everything is rounded outward. All are about the
    network in evaluation mode with the stored weights taken as exact numbers.

    Args:
        net: A module that maps a space to itself.
        example: A batch in its input shape `[B, *shape]`; needed where its first layer does not tell the shape.
        points: Where the diagnostics look, and where the search for fixed points starts; by default 64 points uniform
            in [−6, 6]^n.
        quadratic: Whether to solve the semidefinite programs of R3 and R4 (about 0.1 s each for some ten neurons; that of
            `R3-lipsdp` a second for some hundred).
        time_limit: Seconds for the program of `R3-lipsdp`; not attempted if it would take longer, by an estimate.
        generator: Draws the points; by default one with seed 0.
        throw: Raise where a layer is not understood; otherwise say so in the status.

    Raises:
        TypeError: If `net` is no module.
        ValueError: If it does not map a space to itself (offers singular values), or a weight is not finite.
        UnsupportedLayer: If `throw`, for a layer that no bound is known of.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.copy_(torch.tensor([[0.0, 0.9], [0.0, 0.0]])), net[0].bias.fill_(1.0)
    >>> report = stability_criteria(net)
    >>> report.certified, [each.name for each in report.holding][:2]
    (True, ['R1-1', 'R1-2'])
    """
    if not isinstance(net, nn.Module):
        raise TypeError(f"net: expected an nn.Module, got {type(net).__name__}.")
    shape = sample_shape(net, example)
    zeros = torch.zeros(1, *shape)
    function = SelfMap(net, zeros)
    function.require_square("Stability criteria")
    if points is None:
        generator = generator or torch.Generator().manual_seed(0)
        draw = torch.rand(_POINTS, function.n_in, generator=generator, dtype=torch.float64, device=generator.device)
        x = function.flatten(_REACH * (2 * draw - 1))
    else:
        if not len(points):
            raise ValueError("points: expected one or more, got none.")
        x = function.flatten(points)
    layers = _layers(net, function, zeros)
    problem = _problem(net, zeros)
    domain = f"all of R^{function.n_in}"
    certificates = tuple(_attempts(net, function, layers, problem, x, domain, quadratic, time_limit))
    status = OK
    if isinstance(problem, UnsupportedLayer):
        status = Status("unsupported", str(problem))
        if throw:
            raise problem
    return StabilityReport(certificates, _diagnostics(function, x, layers), status)


def _attempts(
    net: nn.Module,
    function: SelfMap,
    layers: tuple[Dense, ...] | str,
    problem: Feedforward | General | UnsupportedLayer,
    x: Tensor,
    domain: str,
    quadratic: bool,
    time_limit: float | None,
) -> Iterator[StabilityCertificate]:
    about = "f is the network in evaluation mode, in real arithmetic with the stored weights, taken as exact numbers"
    unbiased = f"{about}; it has no biases, and each activation has σ(0) = 0."
    any_bias = f"{about}; biases may be anything."
    if isinstance(problem, UnsupportedLayer):
        yield refused("R1", str(problem), any_bias)
    else:
        yield from norm_products(problem, domain, any_bias)
        if quadratic:
            yield _lipsdp(problem, domain, any_bias, time_limit)
    if isinstance(layers, str) or (jump := discontinuous(layers)):
        why = (
            f"the network is no chain of dense layers ({layers})"
            if isinstance(layers, str)
            else f"{jump} is discontinuous"
        )
        yield refused("R2", why, unbiased)
        yield refused("R3-sector", why, unbiased)
        yield refused("R4-sector", why, unbiased)
        yield refused("R5", why, any_bias, "local")
        yield refused("R6-patterns", why, unbiased, "count")
        return
    yield from sector_products(layers, domain, unbiased)
    if quadratic:
        for attempt in (multiplier_certificate, vertex_certificate):
            yield attempt(layers, "sector", domain, unbiased)
            yield attempt(layers, "contraction", domain, any_bias)
    if function.n_in > MAX_INPUTS:
        yield refused("R5", f"more than {MAX_INPUTS} inputs", any_bias, "local")
    else:
        for index, point in enumerate(_attracting(function, x)):
            yield local_certificate(layers, point.numpy(), f"R5-{index}", any_bias)
    yield no_nonzero_fixed_point(layers, domain, unbiased)


def _lipsdp(
    problem: Feedforward | General, domain: str, hypothesis: str, time_limit: float | None
) -> StabilityCertificate:
    expected = seconds_to_solve(problem)
    if time_limit is not None and expected > time_limit:
        why = f"the program would take about {expected:.2g} s, more than time_limit={time_limit:.3g}"
        return refused("R3-lipsdp", why, hypothesis)
    proof = certify_contraction(problem, time_limit=time_limit)
    holds = proof.holds and proof.value < LARGEST
    statement = proof.statement if holds or not proof.holds else f"Not proved: {proof.value:.6g} is not below 1 − 1e-4."
    return StabilityCertificate("R3-lipsdp", holds, proof.value, statement, hypothesis, domain)


def _layers(net: nn.Module, function: SelfMap, zeros: Tensor) -> tuple[Dense, ...] | str:
    """The layers of a chain, with the weights as they are stored, or why it is none."""
    dtype = next((p.dtype for p in net.parameters() if p.is_floating_point()), torch.float32)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    with guard.untouched(net):
        net.eval()
        try:
            read = read_chain(net, zeros.to(device, dtype))
        except NotAChain as error:
            return str(error)
    layers = tuple(Dense(each.weight.cpu(), each.bias.cpu(), each.activation) for each in read)
    x = torch.randn(4, function.n_in, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        value = function(x.to(function.device)).cpu()
        wrong = float((evaluate_chain(layers, x) - value).abs().max())
    # weights that are computed, as those of parametrisations, are stored with the digits of their type
    if wrong > _SAME * float(value.abs().max()):
        return "it computes something else than its layers"
    return layers


def _problem(net: nn.Module, zeros: Tensor) -> Feedforward | General | UnsupportedLayer:
    try:
        return extract(net, zeros)
    except UnsupportedLayer as error:
        return error


def _attracting(function: SelfMap, x: Tensor) -> Tensor:
    found = find_fixed_points(function, x, throw=False)
    return found.points[found.attracting[:_LOCAL]]


def _diagnostics(function: SelfMap, x: Tensor, layers: tuple[Dense, ...] | str) -> Diagnostics:
    empty = torch.empty(0, dtype=torch.float64)
    rho, norm, status = empty, empty, OK
    if function.n_in > _MAX_VALUES:
        status = Status("unsupported", f"A has {function.n_in}² entries: not computed beyond {_MAX_VALUES}².")
    else:
        try:
            affine = affine_map(function, x, throw=False)
            rho, norm = affine.spectral_radius(), affine.singular_values()[:, 0]
        except AnalysisError as error:
            status = error.status
    weights: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    if not isinstance(layers, str):
        names = tuple(layer.name for layer in layers)
        weights = tuple(
            float(torch.linalg.eigvals(W).abs().max()) if W.shape[0] == W.shape[1] else float("nan")
            for W in (layer.weight for layer in layers)
        )
    finite = torch.isfinite(rho)
    criterion = "unknown"
    if len(rho):
        criterion = "met" if bool(finite.all()) and bool((rho < 1).all()) else "not met"
    return Diagnostics(x.cpu(), rho, norm, weights, names, criterion, status)
