"""The equilibria of a network's `FixedPointLayer`s: their solves, their spectral radii, their weights."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from fpstab import guard
from fpstab.equilibrium.configs import accurate
from fpstab.equilibrium.layers import FixedPointLayer, SolveStatistics
from fpstab.equilibrium.solving import solve_scalars
from fpstab.equilibrium.states import Layout
from fpstab.krylov import arnoldi
from fpstab.results import OK, AnalysisError, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PRODUCTS = 60  # of Arnoldi's method, at most: a tenth of a second with everything else; the error says what it costs


@dataclass(frozen=True, slots=True, eq=False)
class LayerEquilibrium:
    """One layer's equilibria at B points.

    Attributes:
        forward: How the layer's solver found them.
        backward: How the adjoint equation of a random gradient was solved; `None` where f has no gradient, or the layer
            takes a phantom gradient.
        fallback: Share of the points whose adjoint equation needed another solver.
        dropped: Share of the points without a gradient.
        rho: Spectral radius of ∂f/∂z at the equilibrium (where none was found, at the best iterate) `[B]`; nan where f or
            a product is not finite.
        rho_error: Estimate of its error `[B]`.
        eigenvalue: The leading eigenvalue `[B]`, complex128.
        tol: The layer's tolerance.
        weight: Measures of the inner weight: `symmetry_defect`, `orthogonality_defect`, `sqrt_v`; empty if f holds no
            square weight.
        training: What whoever trains the network knows of the layer, by name; empty if nothing.
    """

    forward: SolveStatistics
    backward: SolveStatistics | None
    fallback: float
    dropped: float
    rho: Tensor
    rho_error: Tensor
    eigenvalue: Tensor
    tol: float
    weight: dict[str, float]
    training: dict[str, float] = field(default_factory=dict)

    def scalars(self) -> dict[str, float]:
        """What a monitor logs of it."""
        numbers = {"fallback": self.fallback, "dropped": self.dropped}
        for name, each in (("forward", self.forward), ("backward", self.backward)):
            if each is not None:
                found = solve_scalars(each.converged, each.residual, each.iterations, each.rate)
                numbers |= {f"{name}/{key}": value for key, value in found.items()}
        rho = self.rho[self.rho.isfinite()]
        if len(rho):
            median = float(rho.median())
            numbers |= {
                "rho_max": float(rho.max()),
                "rho_median": median,
                "rho_error_max": float(self.rho_error[self.rho.isfinite()].max()),
                "share_expanding": float((rho >= 1).double().mean()),
            }
            below = 0 < median < 1
            measured = float(self.forward.rate.nanmedian())
            numbers["predicted_iterations"] = math.log(self.tol) / math.log(median) if below else math.nan
            numbers["speedup"] = math.log(measured) / math.log(median) if below and measured > 0 else math.nan
        return numbers | self.weight | {f"train/{key}": value for key, value in self.training.items()}


@dataclass(frozen=True, slots=True, eq=False)
class EquilibriumReport:
    """The equilibria of a network's layers.

    Attributes:
        layers: By their paths.
        status: `"ok"`; its message names layers that were not reached. `"no_equilibrium"`: none was.
    """

    layers: dict[str, LayerEquilibrium]
    status: Status = OK

    def prefixed(self) -> Iterator[tuple[str, LayerEquilibrium]]:
        """The layers, each with what stands before its keys: nothing if there is only one."""
        for name, layer in self.layers.items():
            yield ("" if len(self.layers) == 1 else f"{name}/"), layer

    def scalars(self) -> dict[str, float]:
        """What a monitor logs."""
        numbers = {f"{prefix}{key}": value for prefix, each in self.prefixed() for key, value in each.scalars().items()}
        if len(self.layers) > 1:
            numbers["rho_max"] = max(numbers.get(f"{name}/rho_max", math.nan) for name in self.layers)
        return numbers

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the measured rate against ρ, point by point; on the diagonal is plain iteration."""
        from fpstab.equilibrium.plots import plot_rates

        return plot_rates(self, ax)


def equilibrium_report(
    module: nn.Module,
    points: Tensor,
    *,
    layer: str | None = None,
    map: str | None = None,  # noqa: A002
    rtol: float = 1e-2,
    seed: int = 0,
) -> EquilibriumReport:
    """Look at the equilibria z = f(z, x) of a network's `FixedPointLayer`s, in eval mode (paper 4).

    Each layer's equilibrium is solved by the layer's own solver, and its adjoint equation for a random gradient; there,
    the spectral radius ρ of ∂f/∂z is computed by Arnoldi's method (a Rayleigh quotient would be far off where the
    leading eigenvalues are a complex pair). The network is left as it was.

    Args:
        module: Holds the layers.
        points: What the network is fed, `[B, *shape]`; goes to its device and, of floats, to its dtype.
        layer: Path from the module to one `FixedPointLayer`, or to a part that holds some; `None`: all.
        map: Path to what the points are fed to; `None`: the module itself.
        rtol: Relative error of ρ.
        seed: Of the random gradient, and of Arnoldi's start.

    Raises:
        AnalysisError: If there is no layer, or f has no derivative in z.

    >>> network = nn.Sequential(nn.Linear(2, 2), FixedPointLayer(lambda z: 0.5 * torch.sin(z)))
    >>> round(equilibrium_report(network, torch.ones(1, 2)).scalars()["rho_max"], 2)  # at z = 0
    0.5
    """
    layers = equilibrium_layers(module, layer)
    if not layers:
        where = type(module).__name__ + (f".{layer}" if layer else "")
        raise AnalysisError(Status("no_layer", f"{where} holds no fpstab.equilibrium.FixedPointLayer."))
    parameter = next((each for each in module.parameters() if each.is_floating_point()), points)
    network: Any = module
    for part in map.split(".") if map else ():
        network = getattr(network, part)
    with guard.untouched(module):
        module.eval()
        points = points.to(parameter.device)
        points = points.to(parameter.dtype) if points.is_floating_point() else points  # with weights of half precision
        calls = layer_calls(network, points, layers)
        found = {name: measure_layer(layers[name], call, rtol=rtol, seed=seed) for name, call in calls.items()}
    missing = ", ".join(name for name in layers if name not in calls)
    said = f"The forward does not call {missing}: nothing is known of it." if missing else ""
    return EquilibriumReport(found, Status(message=said) if found else Status("no_equilibrium", said))


def equilibrium_layers(module: nn.Module, path: str | None) -> dict[str, FixedPointLayer]:
    """The `FixedPointLayer`s of a module, or of the part at a path, by their paths from the module."""
    part: Any = module
    for step in path.split(".") if path else ():
        part = getattr(part, step)
    if not isinstance(part, nn.Module):
        return {}
    found = part.named_modules(prefix=path or "")
    return {name or "layer": each for name, each in found if isinstance(each, FixedPointLayer)}


def layer_calls(
    network: Callable[..., Any], points: Tensor, layers: Mapping[str, FixedPointLayer]
) -> dict[str, tuple[Any, ...]]:
    """The arguments (z0, *args) of the first call of every layer, while the network is fed the points."""
    calls: dict[str, tuple[Any, ...]] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            detached = tuple(_detached(each) for each in arguments)
            calls.setdefault(name, detached)

        return hook

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of samples that have not converged: that is what is measured
            network(points)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def measure_layer(layer: FixedPointLayer, call: tuple[Any, ...], *, rtol: float, seed: int) -> LayerEquilibrium:
    """Solve a layer's equation and its adjoint once more, and look at ∂f/∂z there."""
    z0, *args = call
    # A layer of the same settings: what the training's own has last done, and has said, stays with it.
    probe = FixedPointLayer(
        layer.f,
        layer.solver,
        layer.backward,
        tol=layer.tol,
        backward_tol=layer.backward_tol,
        on_failure="warn",
        compact=layer.compact,
    )
    generator = Generator().manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inputs = [each.detach().requires_grad_() if _is_real(each) else each for each in args]
        z = probe(z0, *inputs)
        layout = Layout.of(z)
        rows = layout.pack(z)
        random = torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows)
        leaves = [x for x in (*inputs, *_parameters(layer.f)) if isinstance(x, Tensor) and x.requires_grad]
        if rows.requires_grad and leaves:
            torch.autograd.grad(rows, leaves, random, allow_unused=True)
    last = probe.last
    assert last is not None
    frozen = [_detached(each) for each in args]
    try:
        rho, error, eigenvalue = _leading(layer.f, layout, rows.detach(), frozen, generator, rtol)
    except (AnalysisError, RuntimeError) as reason:
        raise AnalysisError(Status("no_jacobian", f"The derivative of f in z cannot be computed: {reason}")) from reason
    points = len(rows)
    return LayerEquilibrium(
        forward=last.forward,
        backward=last.backward,
        fallback=last.fallback / points,
        dropped=last.dropped / points,
        rho=rho,
        rho_error=error,
        eigenvalue=eigenvalue,
        tol=layer.tol,
        weight=_weight_measures(layer.f),
    )


def _leading(
    f: Callable[..., Any], layout: Layout, rows: Tensor, args: Sequence[Any], generator: Generator, rtol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Spectral radius of ∂f/∂z, its error, and the eigenvalue, a row of z `[B, d]` each: by Arnoldi's method on Jᵀ."""
    from fpstab.jacobian import JacobianProducts

    products = JacobianProducts(lambda z: layout.pack(f(layout.unpack(z), *args)), rows)
    start = accurate(torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows))
    found = arnoldi(lambda w: products.vjp(w.to(rows.dtype)).to(start.dtype), start, tol=rtol, max_products=_PRODUCTS)
    eigenvalue = found.eigenvalue.detach().cpu()
    return eigenvalue.abs(), found.error.detach().cpu(), eigenvalue


def _weight_measures(f: object) -> dict[str, float]:
    """Measures of the largest square weight that f holds, as it is in force (after a parametrisation)."""
    from fpstab.ensembles import orthogonality_defect, symmetry_defect

    if not isinstance(f, nn.Module):
        return {}
    square: list[Tensor] = []
    with torch.no_grad():
        for part in f.modules():
            names = {name for name, _ in part.named_parameters(recurse=False)} | {"weight"}
            weights = (getattr(part, name, None) for name in sorted(names))
            square += [w for w in weights if isinstance(w, Tensor) and w.ndim == 2 and w.shape[0] == w.shape[1]]
        if not square:
            return {}
        weight = max(square, key=len).detach().double()
        if not bool(weight.isfinite().all()):
            return {}
        return {
            "symmetry_defect": symmetry_defect(weight),
            "orthogonality_defect": orthogonality_defect(weight),
            "sqrt_v": float(torch.linalg.matrix_norm(weight)) / math.sqrt(len(weight)),
        }


def _parameters(f: object) -> list[nn.Parameter]:
    return list(f.parameters()) if isinstance(f, nn.Module) else []


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _detached(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_detached(each) for each in value)
    return value.detach() if isinstance(value, Tensor) else value
