"""Light or heavy, and why: the verdict on a spectrum, with its evidence."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpstab.esd.bulk import MarchenkoPasturFit, fit_marchenko_pastur
from fpstab.esd.comparisons import TailComparison, against_exponential
from fpstab.esd.entries import EntryTail, entry_tail
from fpstab.esd.samples import MIN_EIGENVALUES, dense
from fpstab.esd.spectra import Conv, WeightSpectrum, weight_spectrum
from fpstab.esd.tails import PowerLawFit, fit_power_law
from fpstab.results import OK, AnalysisError, Status

Label = Literal["too_few", "light", "light+spikes", "heavy", "not_heavy", "undecided"]
Cause = Literal["entries", "correlations"]

LABELS: tuple[Label, ...] = ("too_few", "light", "light+spikes", "heavy", "not_heavy", "undecided")
_SIGNIFICANT = 0.05
_FINITE_VARIANCE = 2.0  # tail index below which entries have no variance; a few of them can look light when shuffled


@dataclass(frozen=True, slots=True, eq=False)
class TailEvidence:
    """What a verdict rests on; `None` where it was not needed or not to be had.

    Attributes:
        bulk: The Marchenko–Pastur bulk and the spikes above it.
        fit: The power law in the tail.
        exponential: That power law against an exponential law of the same tail.
        shuffled: The verdict on the same entries in random places; only where the label is `"heavy"`.
        entries: Statistics of the entries; where there are too few eigenvalues, and where the label is `"heavy"`.
    """

    bulk: MarchenkoPasturFit | None = None
    fit: PowerLawFit | None = None
    exponential: TailComparison | None = None
    shuffled: "TailVerdict | None" = None
    entries: EntryTail | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TailVerdict:
    """What the tail of a spectrum is.

    Attributes:
        label: `"too_few"` (a matrix has fewer than 20 positive eigenvalues); `"light"` (the Marchenko–Pastur
            bulk of independent light-tailed entries); `"light+spikes"` (such a bulk and at most a tenth of
            the eigenvalues, or six, above it); `"heavy"` (neither, and a power law explains the tail better than an
            exponential law: p < 0.05, at least max(10, n/10) eigenvalues); `"not_heavy"` (the exponential law
            explains it better, or all eigenvalues are equal); `"undecided"`.
        cause: Of a heavy tail: `"entries"` (the tail stays heavy when the entries are shuffled, as with Cauchy
            weights) or `"correlations"` (it becomes light, and the entries' tail index is above 2: training
            arranged them); `None` if neither.
        evidence: The fits and comparisons behind it.
        status: `"ok"`, or why there is no spectrum to judge (then the label is `"undecided"`).
    """

    label: Label
    cause: Cause | None
    evidence: TailEvidence
    status: Status = OK

    @property
    def code(self) -> int:
        """The label as a number to log: 0 too_few, 1 light, 2 light+spikes, 3 heavy, 4 not_heavy, 5 undecided."""
        return LABELS.index(self.label)

    def __str__(self) -> str:
        return f"{self.label} ({self.cause})" if self.cause else self.label


def tail_verdict(
    weight: Tensor | NDArray[np.generic],
    *,
    conv: Conv = "flatten",
    groups: int = 1,
    generator: torch.Generator | None = None,
    throw: bool = True,
) -> TailVerdict:
    """Say whether the spectrum of a weight has a heavy tail, and why (papers 1 §III, 2 §II).

    Independent Gaussian or uniform entries, also with spikes, are called heavy in less than 1 % of draws,
    Cauchy entries in more than 90 % (at 100×100).

    Args:
        weight: `[p, n]`, or `[out, in/groups, *kernel]`, as for `weight_spectrum`.
        conv: How a convolution becomes matrices, as for `weight_spectrum`.
        groups: Groups of a convolution.
        generator: Shuffles the entries for the cause; by default one with seed 0.
        throw: Raise where there is no spectrum; otherwise say so in the status.

    Raises:
        ValueError: As `weight_spectrum`.
        AnalysisError: If `throw` and the weight has no spectrum.

    >>> g = torch.Generator().manual_seed(0)
    >>> str(tail_verdict(torch.randn(100, 100, generator=g)))
    'light'
    >>> str(tail_verdict(torch.empty(100, 100).cauchy_(generator=g)))
    'heavy (entries)'
    """
    tensor = dense(weight)
    spectrum = weight_spectrum(tensor, conv=conv, groups=groups, throw=False)
    verdict = judge(tensor, spectrum, power_law_of(spectrum), conv=conv, groups=groups, generator=generator)
    if throw and not verdict.status.ok:
        raise AnalysisError(verdict.status)
    return verdict


def power_law_of(spectrum: WeightSpectrum) -> PowerLawFit:
    """The power law in the tail of a weight's spectrum; none where the spectrum has no tail."""
    if spectrum.status.code in ("ok", "rank_deficient"):
        return fit_power_law(spectrum.eigenvalues, throw=False)
    return PowerLawFit(None, None, None, 0, None, spectrum.eigenvalues.numel(), spectrum.status)


def judge(
    tensor: Tensor,
    spectrum: WeightSpectrum,
    fit: PowerLawFit,
    *,
    conv: Conv = "flatten",
    groups: int = 1,
    generator: torch.Generator | None = None,
) -> TailVerdict:
    """`tail_verdict` of a weight whose spectrum and power law are known."""
    n = spectrum.eigenvalues.numel()
    if not n and spectrum.status.code != "all_zero":
        return TailVerdict("undecided", None, TailEvidence(), spectrum.status)
    if n < MIN_EIGENVALUES or min(spectrum.matrix_shape) < MIN_EIGENVALUES:
        largest = float(spectrum.eigenvalues[-1]) if n and spectrum.n_matrices == 1 else None
        entries = entry_tail(tensor, largest=largest, generator=generator, throw=False)
        return TailVerdict("too_few", None, TailEvidence(fit=fit, entries=entries))
    label, evidence = _label(spectrum, fit)
    if label != "heavy":
        return TailVerdict(label, None, evidence)
    shuffled_spectrum = weight_spectrum(shuffled(tensor, generator), conv=conv, groups=groups, throw=False)
    control_label, control = _label(shuffled_spectrum, power_law_of(shuffled_spectrum))
    entries = entry_tail(tensor, generator=generator, throw=False)
    cause: Cause | None = "entries" if control_label == "heavy" else None
    if control_label in ("light", "light+spikes") and (entries.hill_index or 0.0) > _FINITE_VARIANCE:
        cause = "correlations"
    control_verdict = TailVerdict(control_label, None, control)
    return TailVerdict("heavy", cause, replace(evidence, shuffled=control_verdict, entries=entries))


def shuffled(tensor: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The entries of a weight in random places, in its own shape; by default those of seed 0."""
    generator = generator or torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (1,), generator=generator, device=generator.device))
    flat = dense(tensor).to("cpu").flatten()
    flat = flat if flat.dtype in (torch.float32, torch.float64) or flat.is_complex() else flat.float()
    # numpy shuffles a copy in place; torch would first make an index of eight bytes for every entry
    return torch.from_numpy(np.random.default_rng(seed).permutation(flat.numpy())).reshape(tensor.shape)


def _label(spectrum: WeightSpectrum, fit: PowerLawFit) -> tuple[Label, TailEvidence]:
    n = spectrum.eigenvalues.numel()
    bulk = fit_marchenko_pastur(
        spectrum.eigenvalues,
        spectrum.matrix_shape,
        n_zero=spectrum.n_zero,
        n_matrices=spectrum.n_matrices,
        throw=False,
    )
    exponential = None
    if fit.alpha is not None:
        exponential = against_exponential(spectrum.eigenvalues.numpy()[-fit.n_tail :], fit)
    evidence = TailEvidence(bulk, fit, exponential)
    if bulk.is_bulk and bulk.n_spikes <= max(6, n / 10):
        return ("light+spikes" if bulk.n_spikes else "light"), evidence
    if exponential is None:
        return "not_heavy", evidence  # all eigenvalues are equal
    if exponential.p_value < _SIGNIFICANT:
        if exponential.log_likelihood_ratio < 0:
            return "not_heavy", evidence
        if fit.n_tail >= max(10, n / 10):
            return "heavy", evidence
    return "undecided", evidence
