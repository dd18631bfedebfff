"""Watches the spectra of a network's weights."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from fpstab.callbacks._lightning import LightningModule, Trainer
from fpstab.callbacks.base import Monitor
from fpstab.callbacks.every import Every
from fpstab.esd import ESDReport, esd_report
from fpstab.esd.plots import plot_bulk, plot_exponents, plot_report
from fpstab.esd.spectra import Conv

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ESDMonitor(Monitor[ESDReport]):
    """Logs the spectrum of every weight and the power law in its tail while a network trains.

    Scalars: `fpstab/esd/alpha_median` (on the progress bar), `alpha_min`, `n_heavy` (layers whose tail is heavy),
    `n_spikes`, `n_failed`, `seconds`, `failed`, and for each layer `fpstab/esd/<layer>/alpha`, `ks_distance`,
    `n_tail`, `n_spikes`, `largest_singular_value` and `verdict` (0 too_few, 1 light, 2 light+spikes, 3 heavy,
    4 not_heavy, 5 undecided). Histograms of the log₁₀ eigenvalues, and at every tenth measurement and the last
    figures of all layers (spectra with their power laws, bulks with their Marchenko–Pastur laws, exponents over
    time) go to loggers that take them. Every full result is a line of `fpstab.jsonl` in the log folder. See
    `fpstab.esd.esd_report`.

    Args:
        include: Shell patterns of the layers to watch, by name (`"net.encoder.*"`; a pattern also takes all
            below the module it names). Default: all.
        exclude: Patterns of the layers to leave out.
        conv: How a convolution becomes matrices: `"flatten"` or `"slices"`.
        every: When to measure.
        budget: Largest share of the training time, or `None`.
        histogram: Whether to log histograms of the eigenvalues.
        strict: Raise where the analysis fails.
        name: Stands in the keys `fpstab/<name>/…`; two of these monitors need two names.

    Raises:
        ValueError: If an argument is out of range, at construction.
        TypeError: If an argument is of the wrong type.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[ESDMonitor()], logger=False)
    """

    analysis = "esd"
    on_progress_bar = "alpha_median"
    gathers = True

    def __init__(
        self,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        conv: Conv = "flatten",
        every: Every = Every(1, "epoch"),
        budget: float | None = 0.02,
        histogram: bool = True,
        strict: bool = False,
        name: str = "esd",
    ) -> None:
        super().__init__(every=every, budget=budget, strict=strict, name=name)
        if conv not in ("flatten", "slices"):
            raise ValueError(f"conv={conv!r}: expected 'flatten' or 'slices'.")
        for argument, patterns in (("include", include), ("exclude", exclude)):
            if isinstance(patterns, str) or patterns is None:
                continue
            if not isinstance(patterns, Sequence) or not all(isinstance(p, str) for p in patterns):
                raise TypeError(f"{argument}={patterns!r}: expected a pattern or a list of patterns.")
        self.include, self.exclude, self.conv, self.histogram = include, exclude, conv, histogram

    def measure(self, trainer: Trainer, module: LightningModule) -> ESDReport:  # noqa: D102
        return esd_report(module, include=self.include, exclude=self.exclude, conv=self.conv)

    def figures(self, result: ESDReport) -> Mapping[str, "Figure"]:  # noqa: D102
        prefix = f"fpstab/{self.name}/"
        exponents = {layer.name: self.history.series(f"{prefix}{layer.name}/alpha") for layer in result.layers}
        return {
            "spectra": result.plot(),
            "bulks": plot_report(result, plot_bulk),
            "exponents": plot_exponents({name: each for name, each in exponents.items() if len(each[0])}),
        }

    def histograms(self, result: ESDReport) -> Mapping[str, Tensor]:  # noqa: D102
        if not self.histogram:
            return {}
        return {
            f"{layer.name}/log10_eigenvalues": layer.spectrum.eigenvalues.log10()
            for layer in result.layers
            if layer.spectrum is not None and layer.n
        }
