"""The linear deep-equilibrium model z* = Wz* + x at large width: moments of M = (I − W)⁻¹, tied and untied."""

import math
from dataclasses import dataclass

from fpstab.results import OK, AnalysisError, Status
from fpstab.theory.deq.families import Family, check_printed, check_v, elliptic_tau


@dataclass(frozen=True, slots=True, eq=False)
class LinearMoments:
    """Moments of z* = Mx, M = (I − W)⁻¹, as N → ∞; `None` where they diverge (see `status`).

    Attributes:
        mean: tr_N M, so that E z* = mean·x.
        m2: tr_N MᵀM, so that E z*·z* = m2·x·x.
        m4: tr_N (MᵀM)², which is N/2 of the length variance for x of independent standard Gaussian entries.
        status: `"ok"`, or `"diverges"` where V is not below its critical value.
    """

    mean: float | None
    m2: float | None
    m4: float | None
    status: Status = OK

    def length_variance(self, width: int, sigma_x2: float = 1.0) -> float | None:
        """The length variance σ² = Var[z*·z*]/N at width N: 2·m4·σ_x⁴/N, as (13) of paper 4 has it.

        By (12), (1/N)·Var[z·z] is 2·tr_N(MᵀM)²; what equals (2/N)·tr_N(MᵀM)² is Var[z·z/N], and that is given here.

        Args:
            width: N.
            sigma_x2: Variance of the entries of x.
        """
        return None if self.m4 is None else 2 * self.m4 * sigma_x2**2 / width

    def scalars(self) -> dict[str, float]:
        """The moments that there are."""
        named = {"mean": self.mean, "m2": self.m2, "m4": self.m4}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True, eq=False)
class UntiedMoments:
    """Moments of z_t as t → ∞ where every step has a weight of its own, z_{t+1} = W_t z_t + x; N → ∞.

    Attributes:
        m2: E z·z / x·x.
        m4: N/2 of the length variance σ∞².
        status: `"ok"`, or `"diverges"` for V ≥ 1.
    """

    m2: float | None
    m4: float | None
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The moments that there are."""
        named = {"m2": self.m2, "m4": self.m4}
        return {name: value for name, value in named.items() if value is not None}


def linear_critical_v(family: Family) -> float:
    """V at which the moments of the linear model diverge (inf: never).

    1 for iid and orthogonal weights, 1/4 for the GOE, 1/(1 + τ)² for elliptic ones, 1/2 for `"haar_disc"`.

    >>> linear_critical_v("goe"), linear_critical_v("antisymmetric")
    (0.25, inf)
    """
    tau = elliptic_tau(family)
    if tau is not None:
        return math.inf if tau == -1 else (1 + tau) ** -2
    return 1.0 if family == "orthogonal" else 0.5


def linear_moments(family: Family, V: float, *, as_printed: bool = False, throw: bool = True) -> LinearMoments:
    """Moments of the linear model's equilibrium, z* = Wz* + x with one weight for all steps.

    For elliptic families, with c = (1 − √(1 − 4τV))/(2τV), from planar diagrams of the resolvent and of its
    Hermitisation: mean = c, m2 = c²/(1 − Vc²), m4 = (m2⁴/c⁴)·(1 + τVc²)/(1 − τVc²). At τ = 0 these are 1, 1/(1 − V),
    1/(1 − V)⁴; at τ = 1, with s = √(1 − 4V), (1 − s)/(2V), 2/s − (1 − s)/(2V), s⁻⁵; at τ = −1,
    (√(1 + 4V) − 1)/(2V) twice and (1 + 4V)^(−1/2). Orthogonal: 1, 1/(1 − V), (1 + V)/(1 − V)³. `"haar_disc"`, normal
    with eigenvalues uniform in a disc: 1, −ln(1 − 2V)/(2V), (1 − 2V)⁻².

    As printed: mean = 1 for every family (after (9) of paper 4); m2 of the GOE by (66), which is 0 at V = 0 and lacks
    a factor 2 near V = 1/4; its m4 by (20), with the signs of the exponents wrong, so that it is negative ((148) is
    right). (18) lacks the factor 2/N that (79) has; (19) is right, and simplifies.

    Args:
        family: The family of W.
        V: Mean eigenvalue of WᵀW.
        as_printed: Give paper 4's formulas, (9), (11), (18)–(20), (60), (66), errors and all.
        throw: Raise where the moments diverge; otherwise say so in the status.

    Raises:
        ValueError: If V is negative or not finite, the family is unknown, or the paper prints nothing for it.
        AnalysisError: If `throw` and V is not below its critical value.

    >>> moments = linear_moments("goe", 0.24)
    >>> round(moments.mean, 9), round(moments.m2, 9), round(moments.m4, 6)
    (1.666666667, 8.333333333, 3125.0)
    """
    check_v(V)
    printed = check_printed(family) if as_printed else None
    critical = linear_critical_v(family)
    if not critical > V:
        status = _diverges(family, V, critical)
        if throw:
            raise AnalysisError(status)
        return LinearMoments(None, None, None, status)
    if printed == "goe":
        return _printed_goe(V)
    tau = elliptic_tau(family)
    if tau is not None:
        return _elliptic(tau, V)
    if family == "orthogonal":
        return LinearMoments(1.0, 1 / (1 - V), (1 + V) / (1 - V) ** 3)
    return LinearMoments(1.0, -math.log1p(-2 * V) / (2 * V) if V else 1.0, (1 - 2 * V) ** -2)


def untied_moments(family: Family, V: float, *, as_printed: bool = False, throw: bool = True) -> UntiedMoments:
    """Moments of the linear model with independent weights at every step, z_{t+1} = W_t z_t + x, as t → ∞.

    m2 = 1/(1 − V) for every family. With κ = tr_N (WᵀW)²/V² (2 for elliptic families, 1 for orthogonal matrices, 4/3
    for `"haar_disc"`) and τV = tr_N W², freeness of the steps gives m4(1 − V²) = 1 + 4Vm2 + (κ − 1)V²m2² + 2τV:
    orthogonal 2/(1 − V)² − 1/(1 − V²), iid (1 + 2V − 2V²)/((1 − V)³(1 + V)), GOE the same plus 2V/(1 − V²). For all but
    orthogonal weights this grows like δ⁻³ as δ = 1 − V → 0; (14) of paper 4, and its claim of δ⁻², are wrong.

    Args:
        family: The family of the W_t.
        V: Mean eigenvalue of WᵀW.
        as_printed: Give paper 4's (14) and (15).
        throw: Raise for V ≥ 1; otherwise say so in the status.

    Raises:
        ValueError: If V is negative or not finite, the family is unknown, or the paper prints nothing for it.
        AnalysisError: If `throw` and V ≥ 1.

    >>> moments = untied_moments("iid", 0.5)
    >>> moments.m2, round(moments.m4, 9)
    (2.0, 8.0)
    """
    check_v(V)
    printed = check_printed(family) if as_printed else None
    if V >= 1:
        status = _diverges(family, V, 1.0)
        if throw:
            raise AnalysisError(status)
        return UntiedMoments(None, None, status)
    m2 = 1 / (1 - V)
    if printed in ("iid", "goe"):
        return UntiedMoments(m2, 2 * m2**2 + (1 - V**2) ** -2 - 2 / (1 - V**2))
    tau = elliptic_tau(family)
    kappa = 2.0 if tau is not None else 1.0 if family == "orthogonal" else 4 / 3
    total = 1 + 4 * V * m2 + (kappa - 1) * (V * m2) ** 2 + 2 * (tau or 0.0) * V
    return UntiedMoments(m2, total / (1 - V**2))


def _elliptic(tau: float, V: float) -> LinearMoments:
    c = 2 / (1 + math.sqrt(1 - 4 * tau * V))  # (1 − √(1 − 4τV))/(2τV), which would be 0/0 at τV = 0
    m2 = c**2 / (1 - V * c**2)
    ladder = tau * V * c**2
    return LinearMoments(c, m2, (m2 / c) ** 4 * (1 + ladder) / (1 - ladder))


def _printed_goe(V: float) -> LinearMoments:
    s = math.sqrt(1 - 4 * V)
    return LinearMoments(1.0, 1 / s - 2 / (1 + s), -(s**3))  # half of (20) is (s⁵ − s³)/(4V) = −s³


def _diverges(family: Family, V: float, critical: float) -> Status:
    return Status(
        "diverges",
        f"the moments of the linear model with {family} weights diverge at V = {critical:g}; V is {V:g}. "
        f"Choose sqrt(V) below {math.sqrt(critical):.6g}.",
    )
