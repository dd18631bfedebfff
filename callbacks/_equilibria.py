"""What the EquilibriumMonitor measures of a `FixedPointLayer`: its solves, its spectral radius, its weight."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from fpstab.ensembles import orthogonality_defect, symmetry_defect
from fpstab.equilibrium import FixedPointLayer, SolveStatistics
from fpstab.equilibrium.configs import accurate
from fpstab.equilibrium.solving import solve_scalars
from fpstab.equilibrium.states import Layout
from fpstab.jacobian import JacobianProducts
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
        training: Means over the training batches since the last measurement; empty if there were none.
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
    training: dict[str, float]

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

    @classmethod
    def of(cls, layers: dict[str, LayerEquilibrium], missing: Sequence[str]) -> "EquilibriumReport":
        """Make a report, with what there is to say of layers that the network's forward did not call."""
        said = f"The forward does not call {', '.join(missing)}: nothing is known of it." if missing else ""
        return cls(layers, Status(message=said) if layers else Status("no_equilibrium", said))

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
        if ax is None:
            from matplotlib.figure import Figure

            ax = Figure(figsize=(4.5, 4), layout="constrained").subplots()
        top = 1.05
        for name, layer in self.layers.items():
            ax.scatter(layer.rho, layer.forward.rate, s=12, label=name)
            finite = layer.rho[layer.rho.isfinite()]
            top = max(top, float(finite.max())) if len(finite) else top
        ax.plot([0, top], [0, top], "-", lw=0.8, color="0.5")
        ax.axvline(1, ls=":", lw=0.8, color="0.5")
        ax.set_xlabel("predicted rate of plain iteration, ρ(∂f/∂z)")
        ax.set_ylabel("measured rate of the solver")
        ax.legend(fontsize="small")
        return ax


class Tally:
    """Adds up what a layer did in training batches.

    Args:
        layer: The layer; its `last` is read, and nothing of it is changed.
    """

    def __init__(self, layer: FixedPointLayer) -> None:
        self._layer = layer
        self._seen: object = layer.last
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self) -> None:
        """Count the last batch, if the layer has been called in it."""
        last = self._layer.last
        if last is None or last is self._seen:
            return
        self._seen = last
        numbers = {"fallback": last.fallback / len(last.forward.converged)}
        numbers["dropped"] = last.dropped / len(last.forward.converged)
        for name, each in (("forward", last.forward), ("backward", last.backward)):
            if each is not None:
                numbers[f"{name}_iterations"] = float(each.iterations.double().mean())
                numbers[f"{name}_unconverged"] = 1 - float(each.converged.double().mean())
        for key, value in numbers.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1

    def take(self) -> dict[str, float]:
        """The means since the last time, by name."""
        means = {key: total / self._counts[key] for key, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means


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


def measure_layer(
    layer: FixedPointLayer, call: tuple[Any, ...], training: dict[str, float], *, rtol: float, seed: int
) -> LayerEquilibrium:
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
        training=training,
    )


def _leading(
    f: Callable[..., Any], layout: Layout, rows: Tensor, args: Sequence[Any], generator: Generator, rtol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Spectral radius of ∂f/∂z, its error, and the eigenvalue, a row of z `[B, d]` each: by Arnoldi's method on Jᵀ."""
    products = JacobianProducts(lambda z: layout.pack(f(layout.unpack(z), *args)), rows)
    start = accurate(torch.randn(rows.shape, generator=generator, dtype=torch.float64).to(rows))
    found = arnoldi(lambda w: products.vjp(w.to(rows.dtype)).to(start.dtype), start, tol=rtol, max_products=_PRODUCTS)
    eigenvalue = found.eigenvalue.detach().cpu()
    return eigenvalue.abs(), found.error.detach().cpu(), eigenvalue


def _weight_measures(f: object) -> dict[str, float]:
    """Measures of the largest square weight that f holds, as it is in force (after a parametrisation)."""
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
