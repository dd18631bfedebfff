"""The equations of section V of paper 1: whether its iteration (20) solves (19), and its generating functions (24)."""

import math
from typing import Any

import numpy as np

from fpstab.experiments.claims import Claim, Study
from fpstab.experiments.jacobian_spectra import check_sizes, draw_spectra, standard_error
from fpstab.experiments.jacobian_spectra_pictures import generating_picture, iteration_picture
from fpstab.theory import jacobian_esd

FULL: dict[str, dict[str, Any]] = {
    "solving_iteration": {"points": 200},
    "generating_functions": {"width": 1000, "draws": 100},
}
"""Larger sizes, by function: keyword arguments. The paper gives none."""

_GOOD = 0.01  # a density within this of the robust solution, relatively, is called found
_INTERIOR = (0.05, 0.8)  # of λ₊: away from both ends of the support

START_AT_ZERO = Claim(
    1,
    "eqs. (17)–(20)",
    "Starting from w₀ = 0 at |z| ≫ 1, (20) arrives at the root that is wanted, without further verification.",
    "Linear, L = 2 and 5, at λ from .05 to .8 of λ₊: reproduced if the density is within 1 % of the robust solver's at "
    "95 % of λ; corrected if it is not, but is from w₀ = μ₁ᴸ/z; otherwise not reproduced.",
    "w₀ = 0",
)
SINGLE_LAYER = Claim(
    1,
    "eqs. (20)–(21)",
    "With ε = 1e-5 and N₀ = 50 the iteration finds the solution, L = 1 included.",
    "Linear, L = 1, w₀ = μ₁/z, at λ from .05 to .8 of λ₊: reproduced if it has converged with a density within 1 % of "
    "the robust solver's at 95 % of λ; corrected if it does with the damping ½; otherwise not reproduced.",
    "ε = 10⁻⁵, N₀ = 50",
)


def solving_iteration(*, points: int = 60, seed: int = 0) -> Study:
    """Figure 4 and eqs. (17)–(22): where paper 1's iteration arrives, against the solution by Newton's method.

    Args:
        points: λ per case, over .05 to .8 of λ₊.
        seed: Not used, nothing is drawn; that every study has one.
    """
    check_sizes(points=points)
    rows: list[dict[str, Any]] = []
    good: dict[tuple[str, int, str, float], float] = {}
    cases = [("linear", 1), ("linear", 2), ("linear", 5), ("hardtanh", 2), ("hardtanh", 5)]
    variants: tuple[tuple[Any, float], ...] = (("zero", 0.0), ("asymptotic", 0.0), ("asymptotic", 0.5))
    for name, L in cases:
        top = jacobian_esd.edges(name, L, q=1.0).upper
        lam = np.linspace(_INTERIOR[0] * top, _INTERIOR[1] * top, points)
        exact = jacobian_esd.density(lam, name, L, q=1.0).rho
        for start, damping in variants:
            found = jacobian_esd.paper_iteration(lam, name, L, q=1.0, start=start, damping=damping, throw=False)
            error = (found.rho / exact - 1).abs()
            arrived = found.converged & (error <= _GOOD)
            good[name, L, start, damping] = float(arrived.double().mean())
            rows += [
                {"activation": name, "L": L, "start": start, "damping": damping, "lam": x, "exact": e, "found": f,
                 "converged": c}
                for x, e, f, c in zip(lam.tolist(), exact.tolist(), found.rho.tolist(), found.converged.tolist(),
                                      strict=True)
            ]  # fmt: skip
    zero = min(good["linear", L, "zero", 0.0] for L in (2, 5))
    mended = min(good["linear", L, "asymptotic", 0.0] for L in (2, 5))
    single, damped = good["linear", 1, "asymptotic", 0.0], good["linear", 1, "asymptotic", 0.5]
    findings = (
        START_AT_ZERO.found(
            "reproduced" if zero >= 0.95 else "corrected" if mended >= 0.95 else "not reproduced",
            f"The density is found at {zero:.0%} of λ from w₀ = 0, where w = 0 is a solution of its own, and at {mended:.0%} "
            "from w₀ = μ₁ᴸ/z (the smaller share of L = 2 and 5).",
            zero,
            sample=points,
        ),
        SINGLE_LAYER.found(
            "reproduced" if single >= 0.95 else "corrected" if damped >= 0.95 else "not reproduced",
            f"L = 1: found at {single:.0%} of λ, with the damping ½ at {damped:.0%}.",
            single,
            sample=points,
        ),
    )
    numbers = {f"{name}/L{L}/{start}/{damping:g}": share for (name, L, start, damping), share in good.items()}
    return Study(tuple(rows), findings, lambda: iteration_picture(rows), numbers)


ERF_CONSTANT = Claim(
    1,
    "after eq. (24)",
    "For Erf the generating function is z/√(2πq)·Φ(z, ½, (1 + πq)/(πq)).",
    "E Kᵏ, K = φ'² of φ = erf(√π·x/2), by quadrature, q = .5, k = 1 … 4: reproduced if the printed coefficients are "
    "within 1e-10; corrected if they are not, but those with 1/√(πq) are; otherwise not reproduced.",
    "1/√(2πq)",
)
WRONG_LABEL = Claim(
    1,
    "eq. (24)",
    "z/(1 − z), and those of the other activations, are the generating functions m_{M^L} of the network's JJᵀ.",
    "Linear, L = 2, at least 8 draws: reproduced if the second coefficient, 1, is within 4 standard errors of the mean "
    "second moment; corrected if it is not, but that of (19) with this function as m_K is; otherwise not reproduced.",
    "m_{M^L}(z)",
)


def generating_functions(*, width: int = 400, draws: int = 8, seed: int = 0) -> Study:
    """The functions after eq. (24): Erf's constant, and whose generating functions they are.

    Args:
        width: N of the networks that are drawn.
        draws: Networks.
        seed: Of the first network; the others follow.
    """
    check_sizes(width=width, draws=draws)
    q, alpha = 0.5, 1 + 1 / (math.pi * 0.5)
    exact = jacobian_esd.slope_law("erf", q).moments(4)
    rows: list[dict[str, Any]] = [
        {"function": "erf", "k": k, "measured": float(exact[k - 1]), "error": None,
         "printed": (k - 1 + alpha) ** -0.5 / math.sqrt(2 * math.pi * q),
         "corrected": (k - 1 + alpha) ** -0.5 / math.sqrt(math.pi * q)}
        for k in range(1, 5)
    ]  # fmt: skip
    off = {key: max(abs(row[key] - row["measured"]) for row in rows) for key in ("printed", "corrected")}
    constant = ERF_CONSTANT.found(
        "reproduced" if off["printed"] <= 1e-10 else "corrected" if off["corrected"] <= 1e-10 else "not reproduced",
        f"E K = {exact[0]:.6f}; as printed {rows[0]['printed']:.6f}, with 1/√(πq) {rows[0]['corrected']:.6f}: √2 is too much.",
        float(exact[0]),
    )
    samples = draw_spectra("linear", 2, width, draws, seed)
    measured = np.array([sample.scalars()["m2"] for sample in samples])
    theory = float(jacobian_esd.moments("linear", 2, 2)[1])
    error = standard_error(measured) if draws > 1 else math.inf
    rows.append({"function": "linear, L = 2: second moment of JJᵀ", "k": 2, "measured": float(measured.mean()),
                 "error": error, "printed": 1.0, "corrected": theory})  # fmt: skip
    within = {key: abs(measured.mean() - rows[-1][key]) <= 4 * error for key in ("printed", "corrected")}
    label = WRONG_LABEL.found(
        "inconclusive"
        if draws < 8
        else "reproduced"
        if within["printed"]
        else "corrected"
        if within["corrected"]
        else "not reproduced",
        f"Second moment {measured.mean():.3f} ± {error:.3f}; of z/(1 − z) as m_{{M^L}} 1, as m_K in (19) {theory:.3f}: they "
        "belong to one layer's K.",
        float(measured.mean()),
        error,
        draws,
    )
    numbers = {"erf_mean_slope2": float(exact[0]), "linear_second_moment": float(measured.mean())}
    return Study(tuple(rows), (constant, label), lambda: generating_picture(q), numbers)
