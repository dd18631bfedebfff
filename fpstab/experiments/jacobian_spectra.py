"""Figures 5–7 of paper 1 anew: the spectrum of JJᵀ of random networks, the limiting law beside what is drawn.

The rules of the claims stand above each study and were written before any run. Figure 3 of the paper is schematic;
Figure 4 depicts the iteration that `fpstab.experiments.jacobian_spectra_equations` runs.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from fpstab.experiments.claims import Claim, Finding, Study
from fpstab.experiments.jacobian_spectra_pictures import (
    cauchy_picture,
    depth_picture,
    linear_picture,
)
from fpstab.theory import jacobian_esd

FULL: dict[str, dict[str, Any]] = {
    "linear_spectrum": {"width": 1000, "draws": 1000},
    "spectra_by_depth": {"width": 1000, "draws": 8},
    "cauchy_spectra": {"width": 1000, "draws": 100},
}
"""The paper's sizes, by function: keyword arguments. It gives width and samples of Figure 5 only."""

SAMPLES_MATCH = Claim(
    1,
    "Figure 5",
    "The spectrum of JJᵀ of linear networks, L = 2, N = 1000, agrees with the solution of (19).",
    "At least 8 draws of a width of at least 1000: Kolmogorov–Smirnov distance at most .005, and the first two moments "
    "within 4 standard errors.",
)
EDGE_IS_SOFT = Claim(
    1,
    "Figure 5",
    "The edge of the spectrum is random at finite width and deterministic at infinite width.",
    "At least 8 draws of a width of at least 1000: the mean of λ_max/λ₊ over the draws within .05 of 1, and λ_max differs between draws.",
    revised="the least width was added after a run at width 150",
)


def linear_spectrum(*, width: int = 1000, draws: int = 8, seed: int = 0) -> Study:
    """Figure 5: JJᵀ of linear networks of depth 2, drawn, and the limiting density.

    Args:
        width: N.
        draws: Networks.
        seed: Of the first network; the others follow.
    """
    check_sizes(width=width, draws=draws)
    law = _law("linear", 2)
    samples = draw_spectra("linear", 2, width, draws, seed)
    values = torch.cat([sample.eigenvalues for sample in samples])
    distance = jacobian_esd.ks_distance(values, law)
    scores = _scores(samples, jacobian_esd.moments("linear", 2, 2))
    tops = np.array([sample.scalars()["edge"] for sample in samples]) / law.edge
    said = (
        f"N = {width}, {draws} networks: KS distance {distance:.4f}; the first two moments differ by {scores[0]:+.1f} "
        f"and {scores[1]:+.1f} standard errors."
    )
    enough = draws >= 8 and width >= 1000
    held = distance <= 0.005 and max(map(abs, scores)) <= 4
    match = SAMPLES_MATCH.found(
        ("reproduced" if held else "not reproduced") if enough else "inconclusive", said, distance, None, draws
    )
    random = abs(tops.mean() - 1) <= 0.05 and tops.std() > 0
    edge = EDGE_IS_SOFT.found(
        ("reproduced" if random else "not reproduced") if enough else "inconclusive",
        f"λ_max/λ₊ is {tops.mean():.4f} ± {standard_error(tops):.4f}, from {tops.min():.4f} to {tops.max():.4f}; λ₊ = {law.edge:.4f}.",
        float(tops.mean()),
        standard_error(tops),
        draws,
    )
    rows = _histogram_rows(
        {"reading": "linear", "L": 2}, values, law, np.linspace(0, law.edge * 1.02, 61), draws * width
    )
    numbers = {"ks_distance": distance, "m1_score": scores[0], "m2_score": scores[1], "edge_ratio": float(tops.mean())}
    return Study(tuple(rows), (match, edge), lambda: linear_picture(rows, law), numbers)


MARCHENKO_PASTUR = Claim(
    1,
    "Figure 6",
    "L = 1 with the linear activation is the Marchenko–Pastur distribution.",
    "Our solution of (19) within 1e-8 of √((4 − λ)/λ)/(2π), relatively, at 200 λ from 1e-3 to .99·4.",
)
PEAK_AT_ZERO = Claim(
    1,
    "Figure 6",
    "With increasing L the density forms a narrow peak at λ = 0, and tends to δ(λ) as L → ∞.",
    "The limiting law's mass at λ ≤ .1, the atom included, increases with every depth shown, in both readings.",
)
DEPTH_CONTRACTS = Claim(
    1,
    "Section V.A",
    "ρ → δ means that the eigenvalues of the Jacobian tend to zero, so that the map is a contraction with one fixed point.",
    "A contraction needs the largest eigenvalue of JJᵀ below 1. Reproduced if λ₊ < 1 at the greatest depth shown in both "
    "readings and decreasing from the one before; not reproduced if in one of them λ₊ > 1 and increasing.",
)
CAPTION_OR_TEXT = Claim(
    1,
    "Figure 6",
    "The activation for L > 1 is HardTanh (caption); it is Linear (text).",
    "They cannot both be if the two laws differ: corrected (both are drawn) if for every L > 1 shown the distribution "
    "functions differ by more than .01 somewhere; otherwise reproduced.",
)


def spectra_by_depth(
    *, depths: Sequence[int] = (1, 2, 3, 5, 10, 20), width: int = 400, draws: int = 2, seed: int = 0
) -> Study:
    """Figure 6: the limiting law for growing depths, both for HardTanh (caption) and for Linear (text), with samples.

    HardTanh's variances follow the recursion from q⁰ = 1 with σ_w = 1, σ_b = 0.

    Args:
        depths: L, increasing, at least two.
        width: N of the networks that are drawn.
        draws: Networks per depth and reading.
        seed: Of the first network; the others follow.
    """
    check_sizes(width=width, draws=draws)
    if len(depths) < 2 or min(depths) < 1 or list(depths) != sorted(set(depths)):
        raise ValueError(f"depths = {tuple(depths)}; expected at least two, increasing, from 1 on.")
    readings: tuple[jacobian_esd.Activation, ...] = ("linear", "hardtanh")
    laws = {(name, L): _law(name, L) for name in readings for L in depths}
    rows: list[dict[str, Any]] = []
    numbers: dict[str, float] = {}
    for (name, L), law in laws.items():
        samples = draw_spectra(name, L, width, draws, seed)
        values = torch.cat([sample.eigenvalues for sample in samples])
        numbers[f"{name}/L{L}/ks_distance"] = jacobian_esd.ks_distance(values, law)
        numbers[f"{name}/L{L}/edge"] = law.edge
        numbers[f"{name}/L{L}/sampled_edge"] = float(np.mean([sample.scalars()["edge"] for sample in samples]))
        numbers[f"{name}/L{L}/below_tenth"] = float(law.distribution(torch.tensor([0.1])))
        bins = np.geomspace(1e-3, 1.05 * law.edge, 41)
        rows += _histogram_rows({"reading": name, "L": L, "edge": law.edge, "atom": law.atom}, values, law, bins,
                                draws * width)  # fmt: skip
    findings = (
        _marchenko_pastur(),
        _peak(numbers, readings, depths),
        _contraction(laws, readings, depths),
        _readings_differ(laws, depths),
    )
    return Study(tuple(rows), findings, lambda: depth_picture(rows, laws), numbers)


def _marchenko_pastur() -> Finding:
    lam = np.linspace(1e-3, 0.99 * 4, 200)
    rho = jacobian_esd.density(lam, "linear", 1).rho.numpy()
    worst = float(np.abs(rho / (np.sqrt((4 - lam) / lam) / (2 * math.pi)) - 1).max())
    return MARCHENKO_PASTUR.found(
        "reproduced" if worst <= 1e-8 else "not reproduced",
        f"Largest relative deviation from the closed form {worst:.1e}.",
        worst,
        sample=len(lam),
    )


def _peak(numbers: dict[str, float], readings: Sequence[str], depths: Sequence[int]) -> Finding:
    masses = {name: [numbers[f"{name}/L{L}/below_tenth"] for L in depths] for name in readings}
    grows = all(b > a for found in masses.values() for a, b in pairwise(found))
    said = "; ".join(f"{name}: {found[0]:.3f} at L = {depths[0]} to {found[-1]:.3f} at L = {depths[-1]}"
                     for name, found in masses.items())  # fmt: skip
    return PEAK_AT_ZERO.found("reproduced" if grows else "not reproduced", f"Mass at λ ≤ .1, {said}.")


def _contraction(
    laws: dict[tuple[jacobian_esd.Activation, int], jacobian_esd.Density],
    readings: Sequence[Any],
    depths: Sequence[int],
) -> Finding:
    last = {name: (laws[name, depths[-2]].edge, laws[name, depths[-1]].edge) for name in readings}
    said = "; ".join(f"{name}: {before:.4g} at L = {depths[-2]}, {after:.4g} at L = {depths[-1]}"
                     for name, (before, after) in last.items())  # fmt: skip
    if all(after < 1 and after < before for before, after in last.values()):
        return DEPTH_CONTRACTS.found("reproduced", f"λ₊ falls below 1, {said}.")
    if any(after > 1 and after > before for before, after in last.values()):
        return DEPTH_CONTRACTS.found(
            "not reproduced", f"λ₊ grows with the depth although the mass gathers at 0, {said}: it does not follow."
        )
    return DEPTH_CONTRACTS.found("inconclusive", f"λ₊ neither below 1 nor growing, {said}.")


def _readings_differ(
    laws: dict[tuple[jacobian_esd.Activation, int], jacobian_esd.Density], depths: Sequence[int]
) -> Finding:
    gaps = []
    for L in depths:
        if L > 1:
            at = laws["linear", L].lam
            difference = laws["linear", L].distribution(at) - laws["hardtanh", L].distribution(at)
            gaps.append(float(difference.abs().max()))
    least = min(gaps)
    return CAPTION_OR_TEXT.found(
        "corrected" if least > 0.01 else "reproduced",
        f"The two laws differ by at least {least:.3f} in their distribution functions; both are drawn.",
        least,
    )


CAUCHY_PEAK = Claim(
    1,
    "Figure 7",
    "With Cauchy weights, too, the spectrum of JJᵀ takes a δ-like shape as L → ∞.",
    "At least 8 draws a depth: the mean share of eigenvalues at most .01, exact zeros included, increases with every "
    "depth shown, by more than a standard error of the difference from the first to the last.",
)
CAUCHY_CONTRACTS = Claim(
    1,
    "Figure 7",
    "The δ-like shape for heavy-tailed weights means that the eigenvalues of JJᵀ tend to zero.",
    "At least 8 draws a depth: reproduced if the median of λ_max is below 1 at the greatest depth shown; not reproduced "
    "if it is above 1 and larger than at the least depth; otherwise inconclusive.",
)


def cauchy_spectra(
    *, depths: Sequence[int] = (1, 2, 5, 10, 20), width: int = 300, draws: int = 8, seed: int = 0
) -> Study:
    """Figure 7: JJᵀ of HardTanh networks with Cauchy weights of scale 1/N, as histograms of log λ.

    Exact zeros, of neurons without a slope, are counted apart. No limiting law is known: the fourth moment is infinite.

    Args:
        depths: L, increasing, at least two.
        width: N.
        draws: Networks per depth.
        seed: Of the first network; the others follow.
    """
    check_sizes(width=width, draws=draws)
    if len(depths) < 2 or min(depths) < 1 or list(depths) != sorted(set(depths)):
        raise ValueError(f"depths = {tuple(depths)}; expected at least two, increasing, from 1 on.")
    rows: list[dict[str, Any]] = []
    numbers: dict[str, float] = {}
    shares, tops = {}, {}
    for L in depths:
        samples = draw_spectra("hardtanh", L, width, draws, seed, "cauchy")
        shares[L] = np.array([1 - float((sample.eigenvalues > 0.01).sum()) / width for sample in samples])
        tops[L] = np.array([sample.scalars()["edge"] for sample in samples])
        zeros = float(np.mean([sample.n_zero / width for sample in samples]))
        lost = float(np.mean([sample.unresolved / width for sample in samples]))
        numbers |= {f"L{L}/atom": zeros, f"L{L}/unresolved": lost, f"L{L}/below_hundredth": float(shares[L].mean()),
                    f"L{L}/median_largest": float(np.median(tops[L]))}  # fmt: skip
        resolved = torch.cat([sample.eigenvalues[sample.unresolved :] for sample in samples])
        counts, ends = np.histogram(resolved.log10().numpy(), 60, range=(-16, 16))
        rows += [
            {"L": L, "log10_low": a, "log10_high": b, "share": n / (draws * width), "atom": zeros, "unresolved": lost}
            for a, b, n in zip(ends[:-1].tolist(), ends[1:].tolist(), counts.tolist(), strict=True)
        ]
    findings = (_cauchy_peak(shares, draws), _cauchy_edge(tops, draws))
    return Study(tuple(rows), findings, lambda: cauchy_picture(rows), numbers)


def _cauchy_peak(shares: dict[int, Any], draws: int) -> Finding:
    means = [found.mean() for found in shares.values()]
    first, last = next(iter(shares.values())), list(shares.values())[-1]
    error = math.hypot(standard_error(first), standard_error(last)) if draws > 1 else math.inf
    grows = all(b > a for a, b in pairwise(means)) and means[-1] - means[0] > error
    said = ", ".join(f"{mean:.3f} at L = {L}" for L, mean in zip(shares, means, strict=True))
    verdict = ("reproduced" if grows else "not reproduced") if draws >= 8 else "inconclusive"
    return CAUCHY_PEAK.found(
        verdict,  # type: ignore[arg-type]  # mypy widens conditional expressions of literals
        f"Share of eigenvalues at most .01: {said}.",
        float(means[-1]),
        standard_error(last),
        draws,
    )


def _cauchy_edge(tops: dict[int, Any], draws: int) -> Finding:
    medians = [float(np.median(found)) for found in tops.values()]
    said = "Median of λ_max: " + ", ".join(f"{top:.3g} at L = {L}" for L, top in zip(tops, medians, strict=True)) + "."
    if draws < 8:
        return CAUCHY_CONTRACTS.found("inconclusive", said, medians[-1], None, draws)
    if medians[-1] < 1:
        return CAUCHY_CONTRACTS.found("reproduced", said, medians[-1], None, draws)
    if medians[-1] > medians[0]:
        return CAUCHY_CONTRACTS.found(
            "not reproduced", f"{said} The mass at 0 grows, and so does λ_max.", medians[-1], None, draws
        )
    return CAUCHY_CONTRACTS.found("inconclusive", said, medians[-1], None, draws)


def check_sizes(**sizes: int) -> None:
    """Refuse sizes below 2.

    Raises:
        ValueError: Naming the size.
    """
    for name, size in sizes.items():
        if size < 2:
            raise ValueError(f"{name} = {size}; expected at least 2.")


def _law(activation: str, depth: int) -> jacobian_esd.Density:
    """The limiting law on a grid over its support."""
    grid = jacobian_esd.edges(activation, depth).grid()
    return jacobian_esd.density(grid, activation, depth)


def draw_spectra(
    activation: str,
    depth: int,
    width: int,
    draws: int,
    seed: int,
    distribution: jacobian_esd.Distribution = "normal",
) -> list[jacobian_esd.SampledSpectrum]:
    """Spectra of JJᵀ of networks with the seeds seed, seed + 1, …; see `jacobian_esd.sample_spectrum`."""
    return [
        jacobian_esd.sample_spectrum(
            activation,
            depth,
            width=width,
            distribution=distribution,
            generator=Generator().manual_seed(seed + draw),
        )
        for draw in range(draws)
    ]


def _scores(samples: Sequence[jacobian_esd.SampledSpectrum], moments: Tensor) -> tuple[float, float]:
    """By how many standard errors the first two moments differ from the theory's."""
    found = np.array([[sample.scalars()[name] for name in ("m1", "m2")] for sample in samples])
    errors = found.std(0, ddof=1) / math.sqrt(len(found))
    first, second = ((found.mean(0) - moments.numpy()) / errors).tolist()
    return first, second


def standard_error(values: Any) -> float:
    """Standard error of the mean."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))


def _histogram_rows(
    common: dict[str, Any], values: Tensor, law: jacobian_esd.Density, bins: Any, total: int
) -> list[dict[str, Any]]:
    """Mean density of each bin, measured and by the law; all eigenvalues, zeros too, are the whole."""
    counts, _ = np.histogram(values.numpy(), bins)
    masses = np.diff(law.distribution(torch.from_numpy(np.asarray(bins))).numpy())
    return [
        common | {"low": low, "high": high, "measured": n / total / (high - low), "theory": mass / (high - low)}
        for low, high, n, mass in zip(
            bins[:-1].tolist(), bins[1:].tolist(), counts.tolist(), masses.tolist(), strict=True
        )
    ]
