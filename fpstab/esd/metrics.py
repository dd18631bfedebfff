"""The numbers that users of WeightWatcher know, under its names, where they are well defined."""

import math

import numpy as np
from scipy.special import rel_entr, xlogy
from torch import Tensor

from fpstab.esd.bulk import MarchenkoPasturFit
from fpstab.esd.samples import Floats
from fpstab.esd.spectra import WeightSpectrum
from fpstab.esd.tails import PowerLawFit

# Averaged over the layers in `ESDReport.summary`.
SUMMARY = (
    "alpha",
    "alpha_weighted",
    "log_alpha_norm",
    "log_norm",
    "log_spectral_norm",
    "stable_rank",
    "entropy",
    "mp_softrank",
)


def spectrum_metrics(
    spectrum: WeightSpectrum, fit: PowerLawFit, bulk: MarchenkoPasturFit | None
) -> dict[str, float | None]:
    """Compute the metrics of one layer; `None` where one is not defined.

    Norms are of WᵀW's eigenvalues λ, as WeightWatcher has them: `norm` = Σλ = ‖W‖_F², `spectral_norm` = λ_max =
    ‖W‖₂². Logarithms are decimal. `alpha_weighted` = alpha · log₁₀ λ_max; `log_alpha_norm` = log₁₀ Σλ^alpha;
    `stable_rank` = Σλ/λ_max; `entropy` = −Σ p ln p / ln rank with p = λ/Σλ; `matrix_rank` and `rank_loss` count
    the eigenvalues that are positive and zero to rounding; `sigma_mp` = standard deviation of the entries in the
    bulk; `mp_softrank` = λ₊/λ_max; `detX_num` = how many of the largest eigenvalues, scaled to mean 1, have a
    product of at least 1, and the one after them; `detX_val` = the smallest of these, unscaled; `ERG_gap` =
    `detX_num` − `num_pl_spikes`.

    Args:
        spectrum: A spectrum with at least one eigenvalue.
        fit: Its power law.
        bulk: Its Marchenko–Pastur bulk, if there is one.
    """
    values: Floats = spectrum.eigenvalues.numpy()
    largest = float(values[-1])
    log_largest = math.log10(largest)
    relative = values / largest
    stable_rank = float(relative.sum())
    p = relative / stable_rank
    rank = values.size
    alpha = fit.alpha
    n_det, det_value = _unit_determinant(values)
    return {
        "alpha": alpha,
        "xmin": fit.xmin,
        "xmax": largest,
        "D": fit.ks_distance,
        "sigma": fit.sigma,
        "num_pl_spikes": float(fit.n_tail) if alpha is not None else None,
        "alpha_weighted": None if alpha is None else alpha * log_largest,
        "log_alpha_norm": None if alpha is None else alpha * log_largest + math.log10((relative**alpha).sum()),
        "norm": stable_rank * largest,
        "log_norm": math.log10(stable_rank) + log_largest,
        "spectral_norm": largest,
        "log_spectral_norm": log_largest,
        "stable_rank": stable_rank,
        "entropy": -float(xlogy(p, p).sum()) / math.log(rank) if rank > 1 else None,
        "matrix_rank": float(rank),
        "rank_loss": float(spectrum.n_zero),
        "num_spikes": float(bulk.n_spikes) if bulk and bulk.law else None,
        "sigma_mp": math.sqrt(bulk.law.variance) if bulk and bulk.law else None,
        "bulk_min": bulk.bulk_lower if bulk else None,
        "bulk_max": bulk.bulk_upper if bulk else None,
        "mp_softrank": bulk.bulk_upper / largest if bulk and bulk.bulk_upper is not None else None,
        "detX_num": n_det,
        "detX_val": det_value,
        "ERG_gap": None if n_det is None or alpha is None else n_det - fit.n_tail,
    }


def rand_distance(eigenvalues: Tensor, shuffled: Tensor) -> float | None:
    """Jensen–Shannon distance, in nats, between two sorted spectra, each divided by its sum.

    Args:
        eigenvalues: Ascending `[n]`.
        shuffled: Those of the same weight with its entries shuffled, ascending `[n]`.

    Returns:
        The distance, or `None` if the spectra are not of one length.

    >>> import torch
    >>> rand_distance(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0]))
    0.0
    """
    if eigenvalues.shape != shuffled.shape or not eigenvalues.numel():
        return None
    p, q = ((x / x.sum()).double().numpy() for x in (eigenvalues, shuffled))
    m = (p + q) / 2
    divergence = float((rel_entr(p, m) + rel_entr(q, m)).sum()) / 2
    return math.sqrt(max(divergence, 0.0))


def _unit_determinant(values: Floats) -> tuple[float | None, float | None]:
    relative = values[::-1] / values[-1]
    logs = np.cumsum(np.log(relative / relative.mean()))
    below = np.flatnonzero(logs < 0)
    if values.size < 2 or not below.size:  # equal eigenvalues: every product is 1
        return None, None
    n = int(below[0]) + 1
    return float(n), float(values[-n])
