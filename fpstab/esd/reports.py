"""The spectra of all weights of a network in one report."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from fpstab import guard
from fpstab.esd.spectra import Conv, WeightSpectrum, weight_spectrum
from fpstab.esd.tails import PowerLawFit, fit_power_law
from fpstab.esd.weights import Weight, network_weights, select
from fpstab.results import OK, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NOT_AN_ANSWER = {
    "not_finite",
    "meta",
    "quantized",
    "out_of_range",
    "no_convergence",
    "uninitialized",
    "error",
}


@dataclass(frozen=True, slots=True, eq=False)
class LayerESD:
    """The spectrum of one weight and the power law in its tail.

    Attributes:
        name: The weight's name in the network (see `fpstab.esd.weights.Weight`).
        kind: Class of the module that holds it, e.g. `"Conv2d"`.
        shape: Shape of the weight.
        spectrum: Its eigenvalues; `None` if it could not be read.
        fit: The power law in the tail; `None` where there is no spectrum to fit.
        status: `"ok"` with an exponent; otherwise why there is none: a code of `WeightSpectrum.status` or
            `PowerLawFit.status`, `"uninitialized"`, or `"error"`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    spectrum: WeightSpectrum | None
    fit: PowerLawFit | None
    status: Status

    @property
    def n(self) -> int:
        """Positive eigenvalues."""
        return self.spectrum.eigenvalues.numel() if self.spectrum else 0

    @property
    def alpha(self) -> float | None:
        """Exponent of the tail's density, or `None`."""
        return self.fit.alpha if self.fit else None

    @property
    def sigma(self) -> float | None:
        """Standard error of `alpha`."""
        return self.fit.sigma if self.fit else None

    @property
    def xmin(self) -> float | None:
        """Where the tail begins."""
        return self.fit.xmin if self.fit else None

    @property
    def ks_distance(self) -> float | None:
        """Kolmogorov–Smirnov distance of the tail to its power law."""
        return self.fit.ks_distance if self.fit else None

    @property
    def n_tail(self) -> int:
        """Eigenvalues in the tail."""
        return self.fit.n_tail if self.fit else 0

    @property
    def spectral_norm(self) -> float | None:
        """Largest singular value of the matrices of the weight."""
        return float(self.spectrum.eigenvalues[-1]) ** 0.5 if self.spectrum and self.n else None

    @property
    def failed(self) -> bool:
        """Whether the weight could not be analysed at all; too few or equal eigenvalues are an answer."""
        return self.status.code in _NOT_AN_ANSWER

    def scalars(self) -> dict[str, float]:
        """What is logged of a layer; nan where there is none."""
        values = {
            "alpha": self.alpha,
            "ks_distance": self.ks_distance,
            "n_tail": float(self.n_tail),
            "spectral_norm": self.spectral_norm,
        }
        return {key: float("nan") if value is None else value for key, value in values.items()}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the log–log density of the eigenvalues with its power law."""
        from fpstab.esd.plots import plot_layer

        return plot_layer(self, ax)


@dataclass(frozen=True, slots=True, eq=False)
class ESDReport:
    """The spectra of a network's weights.

    Attributes:
        layers: One `LayerESD` for each weight, in the network's order.
        status: `"ok"`, with a message if a pattern matched nothing; `"no_weights"` (the network holds no
            matrix); `"no_match"` (the patterns leave no layer). Other codes belong to the layers.
    """

    layers: tuple[LayerESD, ...]
    status: Status

    def __getitem__(self, name: str) -> LayerESD:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"{name!r} is none of the layers: {', '.join(layer.name for layer in self.layers)}")

    def scalars(self) -> dict[str, float]:
        """Aggregates over the layers with an exponent, then `<layer>/<quantity>`; nan where there is none."""
        alphas = [layer.alpha for layer in self.layers if layer.alpha is not None]
        scalars = {
            "alpha_median": statistics.median(alphas) if alphas else float("nan"),
            "alpha_min": min(alphas, default=float("nan")),
            "n_failed": float(sum(layer.failed for layer in self.layers)),
        }
        for layer in self.layers:
            scalars |= {f"{layer.name}/{key}": value for key, value in layer.scalars().items()}
        return scalars

    def table(self, initial: "ESDReport | None" = None) -> list[dict[str, object]]:
        """One row a layer; with `initial`, an earlier report, also how the exponent was then."""
        before = {layer.name: layer for layer in initial.layers} if initial else {}
        rows: list[dict[str, object]] = []
        for layer in self.layers:
            row: dict[str, object] = {
                "layer": layer.name,
                "kind": layer.kind,
                "shape": "×".join(map(str, layer.shape)),
                "n": layer.n,
                "alpha": layer.alpha,
                "sigma": layer.sigma,
                "xmin": layer.xmin,
                "ks_distance": layer.ks_distance,
                "n_tail": layer.n_tail,
                "spectral_norm": layer.spectral_norm,
                "status": layer.status.code,
            }
            if initial:
                then = before.get(layer.name)
                row["alpha_initial"] = then.alpha if then else None
                row["spectral_norm_initial"] = then.spectral_norm if then else None
            rows.append(row)
        return rows

    def plot(self) -> "Figure":
        """Draw the ESD of every layer, one panel each."""
        from fpstab.esd.plots import plot_report

        return plot_report(self)


def esd_report(
    module: nn.Module,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    conv: Conv = "flatten",
) -> ESDReport:
    """Analyse the spectrum of every weight of a network (papers 1 §III, 2 §II).

    Never fails for what a network holds: a layer that cannot be analysed says so in its status. The network,
    its modes, buffers, gradients and all random states are afterwards as before.

    Args:
        module: Any network.
        include: Shell patterns of layer names (`"encoder.*"`); a pattern also takes everything below the
            module it names. Default: all weights.
        exclude: Patterns of what to leave out.
        conv: How a convolution becomes matrices, see `weight_spectrum`.

    Raises:
        TypeError: If `module` is not a module, `include` or `exclude` no patterns.
        ValueError: If `conv` is unknown.

    >>> report = esd_report(nn.Linear(2, 100))
    >>> report.layers[0].n, report.layers[0].alpha, report.layers[0].status.code
    (2, None, 'too_few')
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"esd_report takes a torch.nn.Module, got {type(module).__name__}.")
    if conv not in ("flatten", "slices"):
        raise ValueError(f"conv={conv!r} is unknown: expected 'flatten' or 'slices'.")
    chosen, left_out = _patterns("include", include), _patterns("exclude", exclude)
    with guard.untouched(module), torch.no_grad():
        for submodule in module.modules():
            if isinstance(submodule, ParametrizationList):
                submodule.eval()  # in train mode, reading a spectral_norm weight advances its power iteration
        weights = {weight.name: weight for weight in network_weights(module)}
        names, idle = select(list(weights), chosen, left_out)
        layers = tuple(_layer(weights[name], conv) for name in names)
    return ESDReport(layers, _status(list(weights), idle, len(layers)))


def _patterns(name: str, patterns: str | Iterable[str] | None) -> tuple[str, ...]:
    if patterns is None:
        return ()
    if isinstance(patterns, str):
        return (patterns,)
    if isinstance(patterns, Iterable):
        chosen = tuple(patterns)
        if all(isinstance(pattern, str) for pattern in chosen):
            return chosen
    raise TypeError(f"{name}={patterns!r} is not understood: expected a shell pattern or several.")


def _status(names: list[str], idle: list[str], n_layers: int) -> Status:
    if not names:
        return Status("no_weights", "The network holds no weight with two or more dimensions.")
    if idle or not n_layers:
        what = f"No weight matches {', '.join(map(repr, idle))}" if idle else "include and exclude leave no weight"
        return Status("ok" if n_layers else "no_match", f"{what}; the weights are: {', '.join(names)}.")
    return OK


def _layer(weight: Weight, conv: Conv) -> LayerESD:
    shape: tuple[int, ...] = ()
    try:
        tensor = weight.read()
        if nn.parameter.is_lazy(tensor):
            status = Status("uninitialized", f"{weight.name}: a lazy weight; run one forward pass first.")
            return LayerESD(weight.name, weight.kind, shape, None, None, status)
        shape = tuple(tensor.shape)
        spectrum = weight_spectrum(
            tensor,
            conv=conv if weight.is_conv else "flatten",
            groups=weight.groups if tensor.ndim > 2 else 1,  # a low-rank update beside the kernel has none
            throw=False,
        )
    except Exception as error:  # a user's parametrisation may raise anything; the other layers go on
        status = Status("error", f"{weight.name}: {type(error).__name__}: {error}")
        return LayerESD(weight.name, weight.kind, shape, None, None, status)
    fit, status = None, spectrum.status
    if status.ok or status.code == "rank_deficient":
        fit = fit_power_law(spectrum.eigenvalues, throw=False)
        status = fit.status
    if not status.ok:
        status = Status(status.code, f"{weight.name} {list(shape)}: {status.message}")
    return LayerESD(weight.name, weight.kind, shape, spectrum, fit, status)
