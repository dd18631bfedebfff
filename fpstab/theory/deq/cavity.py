"""The nonlinear deep-equilibrium model z* = φ(Wz*) + x at large width: its statistics, its stability, its critical V.

The cavity equations of the elliptic family with symmetry τ. Remove neuron i: the others feed it u_i = g_i + a·x_i with
g ~ N(0, V·E z²); put back, it hears its own echo a·φ(h_i) through the symmetric part of W:

    h = g + a·x + a·φ(h),   z = φ(h) + x,   a = τV·E[φ'/(1 − aφ')],   σ_h² = E h².

Without symmetry (iid, and orthogonal weights, τ = 0) a = 0 and these are paper 4's (25) and (30). With it, (25) and the
radius 2√(Vp) are wrong by factors: the weights and the equilibrium are not free of each other. For hard-tanh the
equations can be written out, and for φ(h) = h they give the linear model's exact moments; for other φ they are our
conjecture, which the tests and the documentation compare with samples. x has independent Gaussian entries (for τ = 0
any entries will do).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from scipy.optimize import brentq

from fpstab.results import OK, AnalysisError, Status
from fpstab.theory.deq.families import Family, check_printed, check_v, elliptic_tau
from fpstab.theory.deq.moments import linear_critical_v, linear_moments
from fpstab.theory.deq.nonlinearities import Activation, Floats, Nonlinearity, nonlinearity
from fpstab.theory.deq.quadrature import Field

_HUGE = 1e14  # a variance beyond so many times V·σ_x² counts as infinite


@dataclass(frozen=True, slots=True, eq=False)
class CavitySolution:
    """What the theory says of an equilibrium; `None` where there is none (see `status`).

    Attributes:
        sigma_h2: σ_h² = E h², h = Wz*.
        z2: E z²; the field of the other neurons has the variance V·z2.
        slope2: E φ'(h)².
        echo: a, a neuron's own echo through the symmetric part of W; 0 for iid and orthogonal weights.
        field_variance: Variance of u = g + a·x.
        spectral_radius: Of DW, D = diag φ'(h), the linearised iteration.
        status: `"ok"`, or `"no_equilibrium"` where the equations have no solution.
    """

    sigma_h2: float | None
    z2: float | None
    slope2: float | None
    echo: float | None
    field_variance: float | None
    spectral_radius: float | None
    status: Status = OK

    def scalars(self) -> dict[str, float]:
        """The numbers that there are."""
        names = ("sigma_h2", "z2", "slope2", "echo", "field_variance", "spectral_radius")
        values = ((name, getattr(self, name)) for name in names)
        return {name: value for name, value in values if value is not None}


def cavity_solution(
    family: Family,
    V: float,
    activation: Activation,
    sigma_x2: float = 1.0,
    *,
    mean_x: float = 0.0,
    as_printed: bool = False,
    throw: bool = True,
) -> CavitySolution:
    """Solve the cavity equations of a family.

    For iid and orthogonal weights the statistics exist also beyond the critical V, where they are those of an
    iteration that never settles; for families with τ > 0 they end there.

    Args:
        family: The family of W; `"haar_disc"` has a theory for the linear activation only, see `linear_moments`.
        V: Mean eigenvalue of WᵀW.
        activation: `"hardtanh"`, `"tanh"`, `"erf"`, `"relu"` or `"linear"`.
        sigma_x2: σ_x² = x·x/N.
        mean_x: Mean of the entries of x; it matters, as the C of (25), where E φ(h) is not 0.
        as_printed: As paper 4 has it: (25) for every family, and the GOE's radius from it (2√(Vp) for hard-tanh).
        throw: Raise where there is no solution; otherwise say so in the status.

    Raises:
        ValueError: If a number is out of range, a name is unknown, or paper 4 prints nothing for this family.
        AnalysisError: If the family has no theory (always), or, if `throw`, there is no solution.

    >>> solution = cavity_solution("goe", 0.25, "hardtanh")
    >>> round(solution.sigma_h2, 4), round(solution.spectral_radius, 4), round(solution.echo, 4)
    (0.7842, 0.8418, 0.2301)
    """
    phi = nonlinearity(activation)
    check_v(V)
    _check_x(sigma_x2, mean_x)
    tau = _tau(family, phi)
    echo_tau = 0.0 if as_printed and check_printed(family) else tau
    found = _solve(V, echo_tau, phi, sigma_x2, mean_x)
    if found is None:
        status = _no_equilibrium(family, V, phi, sigma_x2, mean_x, as_printed)
        if throw:
            raise AnalysisError(status)
        return CavitySolution(None, None, None, None, None, None, status)
    field, z2 = found
    h, w = field.nodes()
    slope = phi.slope(h)
    radius = _radius(V, tau, slope, w, phi.max_slope)
    return CavitySolution(float(w @ h**2), z2, float(w @ slope**2), field.a, field.variance, radius)


def sigma_h2(
    family: Family,
    V: float,
    activation: Activation,
    sigma_x2: float = 1.0,
    *,
    mean_x: float = 0.0,
    as_printed: bool = False,
) -> float:
    """The mean square σ_h² of the entries of h = Wz* (paper 4, eq. (25)); for the arguments see `cavity_solution`.

    Raises:
        ValueError: If a number is out of range or a name is unknown.
        AnalysisError: If the family has no theory, or there is no equilibrium.

    >>> round(sigma_h2("iid", 0.5, "linear"), 9), round(sigma_h2("haar_disc", 0.25, "linear"), 9)
    (1.0, 0.386294361)
    """
    if family == "haar_disc" and nonlinearity(activation).name == "linear":
        _check_x(sigma_x2, mean_x)
        moments = linear_moments(family, V, as_printed=as_printed)
        assert moments.m2 is not None and moments.mean is not None  # noqa: PT018 (it would have raised)
        return (moments.m2 - 2 * moments.mean + 1) * sigma_x2  # ‖z − x‖²
    solution = cavity_solution(family, V, activation, sigma_x2, mean_x=mean_x, as_printed=as_printed)
    return float(solution.scalars()["sigma_h2"])


def spectral_radius(
    family: Family,
    V: float,
    activation: Activation,
    sigma_x2: float = 1.0,
    *,
    mean_x: float = 0.0,
    as_printed: bool = False,
) -> float:
    """The spectral radius λ of DW, D = diag φ'(Wz*): plain iteration converges like λᵗ.

    Iid and orthogonal weights: λ² = V·E φ'² (paper 4, eq. (30)). Elliptic ones: the spectrum of DW is bounded by
    λ² = V·E[φ'²/(1 − rφ')²] with r·E[φ'²/(1 − rφ')²] = |τ|·E[φ'/(1 − rφ')], on the real axis for τ > 0, on the
    imaginary one for τ < 0; for hard-tanh it is (1 + |τ|)√(Vp). For the arguments see `cavity_solution`.

    Raises:
        ValueError: If a number is out of range or a name is unknown.
        AnalysisError: If the family has no theory, or there is no equilibrium.

    >>> round(spectral_radius("antisymmetric", 0.09, "linear"), 12)
    0.6
    """
    if family == "haar_disc" and nonlinearity(activation).name == "linear":
        check_v(V)
        return math.sqrt(2 * V)
    solution = cavity_solution(family, V, activation, sigma_x2, mean_x=mean_x, as_printed=as_printed)
    return float(solution.scalars()["spectral_radius"])


def critical_sqrt_v(
    family: Family,
    activation: Activation,
    sigma_x2: float = 1.0,
    *,
    mean_x: float = 0.0,
    as_printed: bool = False,
) -> float:
    """The √V at which the spectral radius is 1, where plain iteration ceases to converge.

    At finite N it ceases earlier; at N = 1000 by 5–8 %. For the arguments see `cavity_solution`.

    Raises:
        ValueError: If a number is out of range or a name is unknown.
        AnalysisError: If the family has no theory.

    >>> round(critical_sqrt_v("iid", "hardtanh"), 5), round(critical_sqrt_v("goe", "hardtanh"), 5)
    (1.72158, 1.01863)
    >>> round(critical_sqrt_v("goe", "hardtanh", as_printed=True), 3)
    0.526
    """
    phi = nonlinearity(activation)
    _check_x(sigma_x2, mean_x)
    if phi.name == "linear" and family == "haar_disc":
        return math.sqrt(linear_critical_v(family))
    tau = _tau(family, phi)
    echo_tau = 0.0 if as_printed and check_printed(family) else tau
    return math.sqrt(_critical(echo_tau, tau, phi, sigma_x2, mean_x)[1])


def _tau(family: Family, phi: Nonlinearity) -> float:
    """The symmetry that the cavity sees; 0 for orthogonal weights."""
    tau = elliptic_tau(family)
    if tau is None and family != "orthogonal":
        raise AnalysisError(
            Status(
                "no_theory",
                f"there is no theory of the equilibrium with {family} weights and {phi.name}: its symmetry makes the "
                "echo of a neuron neither zero nor Gaussian. The linear activation has one, and so have the families "
                "iid, orthogonal, goe, antisymmetric and Elliptic(tau).",
            )
        )
    return tau or 0.0


def _check_x(sigma_x2: float, mean_x: float) -> None:
    if not 0 < sigma_x2 < math.inf:
        raise ValueError(f"sigma_x2 is {sigma_x2}; expected a positive finite number, x·x/N.")
    if not mean_x**2 <= sigma_x2:
        raise ValueError(f"mean_x is {mean_x}, but sigma_x2 = {sigma_x2} is the mean square, at least mean_x².")


def _solve(V: float, tau: float, phi: Nonlinearity, sigma_x2: float, mean_x: float) -> tuple[Field, float] | None:
    """The law of h and E z² at V, or `None`.

    With a = τα the echo's equation reads V = α/E[φ'/(1 − aφ')]: every α gives a V, and one seeks the α of this V. Near
    the critical V of a symmetric family, where two solutions a of one V merge, α is still well determined.
    """
    if V == 0 or tau == 0:
        return _field(V, 0.0, phi, sigma_x2, mean_x)
    if tau > 0 and _critical(tau, tau, phi, sigma_x2, mean_x)[1] <= V:
        return None

    def excess(alpha: float) -> float:
        found = _at(alpha, tau, phi, sigma_x2, mean_x)
        return (found[1] if found else 2 * V + 1.0) - V  # beyond the last solution lies what is too large

    # E[φ'/(1 − aφ')] is at most max φ' for τ < 0; for τ > 0 the critical α is beyond
    top = _critical(tau, tau, phi, sigma_x2, mean_x)[0] if tau > 0 else V * phi.max_slope * (1 + 1e-12)
    if excess(top) <= 0:
        return None
    alpha = brentq(lambda alpha: excess(alpha) if alpha > 0 else -V, 0.0, top, xtol=1e-15, rtol=1e-13)
    return _field(V, tau * alpha, phi, sigma_x2, mean_x)


def _at(alpha: float, tau: float, phi: Nonlinearity, sigma_x2: float, mean_x: float) -> tuple[Field, float] | None:
    """The law of h, and V, where the echo is a = τα."""
    a = tau * alpha

    def v_of(variance: float) -> float:
        field = Field(phi, a, variance, a * mean_x)
        h, w = field.nodes()
        gain = float(w @ field.gain(h))
        return alpha / gain if gain > 0 else math.inf

    if phi.homogeneous and (mean_x == 0 or a == 0):  # V does not depend on the variance
        V = v_of(1.0)
        found = _field(V, a, phi, sigma_x2, mean_x)
        return (found[0], V) if found else None
    variance = _balance(v_of, a, phi, sigma_x2, mean_x)
    return None if variance is None else (Field(phi, a, variance, a * mean_x), v_of(variance))


def _field(V: float, a: float, phi: Nonlinearity, sigma_x2: float, mean_x: float) -> tuple[Field, float] | None:
    """The law of h and E z² at a given V and echo."""
    if V == 0:
        tiny = Field(phi, 0.0, 1e-300)
        return tiny, _z2(tiny, sigma_x2, mean_x)
    variance = _balance(lambda _: V, a, phi, sigma_x2, mean_x)
    if variance is None:
        return None
    field = Field(phi, a, variance, a * mean_x)
    return field, _z2(field, sigma_x2, mean_x)


def _balance(
    v_of: Callable[[float], float], a: float, phi: Nonlinearity, sigma_x2: float, mean_x: float
) -> float | None:
    """The variance v of u with v = V(v)·E z² + a²·Var x; `None` if it runs away."""
    var_x = sigma_x2 - mean_x**2

    def excess(log_v: float) -> float:
        """Of 1 over the right-hand side's share, negative where v is too small."""
        variance = math.exp(log_v)
        V = v_of(variance)
        target = V * _z2(Field(phi, a, variance, a * mean_x), sigma_x2, mean_x) + a**2 * var_x
        return 1 - target / variance if target < math.inf else -1.0

    start = math.log(sigma_x2)
    low = high = start
    while excess(low) >= 0:
        low -= 4
        if low < start - 700:
            return None
    while excess(high) < 0:
        high += 4
        if high > start + math.log(_HUGE):
            return None
    return math.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-14)) if high > low else math.exp(low)


def _z2(field: Field, sigma_x2: float, mean_x: float) -> float:
    """E z² = E φ² + 2·E φx + σ_x²; x is correlated with u = g + a·x."""
    h, w = field.nodes()
    value = field.phi.value(h)
    with_x = mean_x * float(w @ value) + field.a * (sigma_x2 - mean_x**2) * float(w @ field.gain(h))  # Stein's lemma
    return float(w @ value**2) + 2 * with_x + sigma_x2


def _radius(V: float, tau: float, slope: Floats, w: Floats, max_slope: float) -> float:
    """Where the boundary of the spectrum of DW meets its longer axis."""

    def second(r: float) -> float:
        return float(w @ (slope / (1 - r * slope)) ** 2)

    r = 0.0
    if tau != 0:
        balance = lambda r: r * second(r) - abs(tau) * float(w @ (slope / (1 - r * slope)))  # noqa: E731
        r = float(brentq(balance, 0.0, (1 - 1e-9) / max_slope, xtol=1e-15, rtol=1e-13))
    return math.sqrt(V * second(r))


@lru_cache(maxsize=256)
def _critical(echo_tau: float, tau: float, phi: Nonlinearity, sigma_x2: float, mean_x: float) -> tuple[float, float]:
    """The smallest α with a spectral radius of 1, and V there. `echo_tau` is the symmetry in the echo's equation."""

    def excess(alpha: float) -> float:
        if phi.homogeneous:  # the variance of h diverges just there; the law of φ' does not depend on it
            field = Field(phi, echo_tau * alpha, 1.0)
            h, w = field.nodes()
            V = alpha / float(w @ field.gain(h))
        else:
            found = _at(alpha, echo_tau, phi, sigma_x2, mean_x)
            if found is None:
                return math.inf
            field, V = found
            h, w = field.nodes()
        v_at[alpha] = V
        if echo_tau == tau >= 0:
            # λ = 1 where V·E[gain²] = 1 (r = a in the radius), which crosses 1 where λ may only touch it from below
            return V * float(w @ field.gain(h) ** 2) - 1
        return _radius(V, tau, phi.slope(h), w, phi.max_slope) - 1

    v_at: dict[float, float] = {}
    edge = 1 / (echo_tau * phi.max_slope) if echo_tau > 0 else math.inf
    low, step = 0.0, 0.02
    while True:  # the first crossing: beyond it symmetric families have another, unphysical, stable branch
        high = low + step if low + step < edge else (low + edge) / 2
        if excess(high) >= 0:
            break
        low, step = high, step * 1.1
    alpha = float(brentq(lambda a: excess(a) if a > 0 else -1.0, low, high, xtol=1e-15, rtol=1e-13))
    excess(alpha)
    return alpha, v_at[alpha]


def _no_equilibrium(
    family: Family, V: float, phi: Nonlinearity, sigma_x2: float, mean_x: float, as_printed: bool
) -> Status:
    critical = critical_sqrt_v(family, phi.name, sigma_x2, mean_x=mean_x, as_printed=as_printed)
    return Status(
        "no_equilibrium",
        f"the equations of {phi.name} with {family} weights have no solution at sqrt(V) = {math.sqrt(V):.6g}: the "
        f"equilibrium is stable up to sqrt(V) = {critical:.6g} only. Choose a smaller V.",
    )
