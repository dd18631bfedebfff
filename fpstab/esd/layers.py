"""The analysis of one weight: its spectrum, the power law in its tail, the verdict, the metrics."""

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fpstab.esd.bulk import MarchenkoPasturFit
from fpstab.esd.metrics import rand_distance, spectrum_metrics
from fpstab.esd.spectra import Conv, WeightSpectrum, weight_spectrum
from fpstab.esd.tails import PowerLawFit
from fpstab.esd.verdicts import TailVerdict, judge, power_law_of, shuffled
from fpstab.esd.weights import Weight
from fpstab.results import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FAILURES = {"not_finite", "meta", "quantized", "out_of_range", "no_convergence", "uninitialized", "error"}


@dataclass(frozen=True, slots=True, eq=False)
class LayerESD:
    """The spectrum of one weight, the power law in its tail, and what that tail is.

    Attributes:
        name: The weight's name in the network (see `fpstab.esd.weights.Weight`).
        kind: Class of the module that holds it, e.g. `"Conv2d"`.
        shape: Shape of the weight.
        spectrum: Its eigenvalues; `None` if it could not be read.
        fit: The power law in the tail; `None` where there is no spectrum.
        verdict: Light or heavy, with its cause and evidence; `None` where there is no spectrum.
        metrics: Numbers under WeightWatcher's names, see `fpstab.esd.metrics.spectrum_metrics`; `None` where one
            is not defined.
        status: `"ok"` with an exponent; otherwise why there is none: a code of `WeightSpectrum.status` or
            `PowerLawFit.status`, `"uninitialized"`, or `"error"`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    spectrum: WeightSpectrum | None
    fit: PowerLawFit | None
    verdict: TailVerdict | None
    status: Status
    metrics: dict[str, float | None] = field(default_factory=dict)

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
    def bulk(self) -> MarchenkoPasturFit | None:
        """The Marchenko–Pastur bulk."""
        return self.verdict.evidence.bulk if self.verdict else None

    @property
    def spikes(self) -> int:
        """Eigenvalues above the bulk's Tracy–Widom edge."""
        return self.bulk.n_spikes if self.bulk else 0

    @property
    def largest_singular_value(self) -> float | None:
        """Largest singular value of the matrices of the weight."""
        return float(self.spectrum.eigenvalues[-1]) ** 0.5 if self.spectrum and self.n else None

    @property
    def failed(self) -> bool:
        """Whether the weight could not be analysed at all; too few or equal eigenvalues are an answer."""
        return self.status.code in _FAILURES

    def scalars(self) -> dict[str, float]:
        """What is logged of a layer; nan where there is none."""
        values = {
            "alpha": self.alpha,
            "ks_distance": self.ks_distance,
            "n_tail": float(self.n_tail),
            "n_spikes": float(self.spikes),
            "largest_singular_value": self.largest_singular_value,
            "verdict": float(self.verdict.code) if self.verdict else None,
        }
        return {key: math.nan if value is None else value for key, value in values.items()}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the log–log density of the eigenvalues with its power law and its bulk."""
        from fpstab.esd.plots import plot_layer

        return plot_layer(self, ax)


def analyse_weight(
    weight: Weight, conv: Conv = "flatten", *, randomize: bool = False, generator: torch.Generator | None = None
) -> LayerESD:
    """Analyse one weight of a network; whatever goes wrong is said in the status.

    Args:
        weight: The weight, read here.
        conv: How a convolution becomes matrices.
        randomize: Compute `rand_distance` too, from the spectrum of the shuffled entries.
        generator: Shuffles the entries.
    """
    shape: tuple[int, ...] = ()
    try:
        tensor = weight.read()
        if nn.parameter.is_lazy(tensor):
            status = Status("uninitialized", f"{weight.name}: a lazy weight; run one forward pass first.")
            return LayerESD(weight.name, weight.kind, shape, None, None, None, status)
        shape = tuple(tensor.shape)
        spectrum, fit, verdict, metrics = _analyse(tensor.detach(), weight, conv, randomize, generator)
    except Exception as error:  # a user's parametrisation may raise anything; the other layers go on
        status = Status("error", f"{weight.name}: {type(error).__name__}: {error}")
        return LayerESD(weight.name, weight.kind, shape, None, None, None, status)
    status = fit.status if fit else spectrum.status
    if not status.ok:
        status = Status(status.code, f"{weight.name} {list(shape)}: {status.message}")
    return LayerESD(weight.name, weight.kind, shape, spectrum, fit, verdict, status, metrics)


def _analyse(
    tensor: Tensor, weight: Weight, conv: Conv, randomize: bool, generator: torch.Generator | None
) -> tuple[WeightSpectrum, PowerLawFit | None, TailVerdict | None, dict[str, float | None]]:
    conv = conv if weight.is_conv else "flatten"
    groups = weight.groups if tensor.ndim > 2 else 1  # a low-rank update beside the kernel has none
    spectrum = weight_spectrum(tensor, conv=conv, groups=groups, throw=False)
    if not spectrum.eigenvalues.numel():
        return spectrum, None, None, {}
    fit = power_law_of(spectrum)
    verdict = judge(tensor, spectrum, fit, conv=conv, groups=groups, generator=generator)
    metrics = spectrum_metrics(spectrum, fit, verdict.evidence.bulk)
    if randomize:
        control = weight_spectrum(shuffled(tensor, generator), conv=conv, groups=groups, throw=False)
        metrics["rand_distance"] = rand_distance(spectrum.eigenvalues, control.eigenvalues)
    return spectrum, fit, verdict, metrics
