"""What paper 4 prints of the linear deep-equilibrium model, beside samples: one claim a function.

Each draws weights of finite width and lets the sample decide between the printed formula and ours.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from fpstab.experiments.claims import Claim, Finding, Verdict
from fpstab.experiments.corrections.rules import Sampled, decide, rule, sampled
from fpstab.theory import deq

_WIDTH = 300
_DRAWS = 12
_SAMPLE = f"{_DRAWS} weights of width {_WIDTH}"

PARTIAL_SUM = Claim(
    4, "eq. (7)", "Var (z_t)_i = (x·x/N) Σ_{k=1}^t V^t.", rule(f"{_SAMPLE}, V = .3, t = 4", 0.02), "4·.3⁴ = .0324"
)
MEAN = Claim(
    4, "§2.1.2, after (9)", "E z* = x for every rotation-invariant family.", rule(f"{_SAMPLE}, GOE, V = .2", 0.02), "1"
)
IID_VARIANCE = Claim(4, "eq. (8), (60)", "iid: E z*·z* / x·x = 1/(1 − V).", rule(f"{_SAMPLE}, V = .3", 0.02), "1.4286")
ORTHOGONAL_VARIANCE = Claim(
    4, "eq. (60)", "Orthogonal: the same 1/(1 − V) as iid weights.", rule(f"{_SAMPLE}, V = .3", 0.02), "1.4286"
)
GOE_VARIANCE = Claim(
    4,
    "eq. (11)",
    "GOE: Var z*_i = 1/√(1−4V) − (1−√(1−4V))/(2V) − 1.",
    rule(f"{_SAMPLE}, V = .1; the variance is m₂ − mean²", 0.03),
    "−.836",
)
GOE_SECOND_MOMENT = Claim(
    4, "eq. (65), (66)", "GOE: E z*_i² = 1/√(1−4V) − (1−√(1−4V))/(2V).", rule(f"{_SAMPLE}, V = .15", 0.03), ".3558"
)
GOE_AT_ZERO = Claim(
    4,
    "eq. (66), V → 0",
    "GOE: E z*_i² = 1/√(1−4V) − (1−√(1−4V))/(2V), at V → 0, where z* = x.",
    "At V = 1e-8 the mean square of z* is 1 for any draw: the formula that is within 1e-3 of it stands.",
    "0",
    revised="the tolerance in words was not that of the code",
)
LENGTH_FACTOR = Claim(
    4,
    "eq. (12), (13), Lemma 2.2",
    "(1/N) Var_x[z·z] = (2/N) tr (MᵀM)².",
    rule("20,000 inputs to each of 6 iid weights of width 40, V = .2, relative to tr (MᵀM)²", 0.02),
    "2/N = .05",
)
UNTIED_IID = Claim(
    4,
    "eq. (14), (76)",
    "Untied iid weights: Nσ∞²/2 = 2/(1−V)² + 1/(1−V²)² − 2/(1−V²).",
    rule("12 orbits of 60 steps, width 120, V = .6", 0.03),
    "11.82",
)
UNTIED_GOE = Claim(
    4, "eq. (14), (76), GOE", "Untied GOE weights: the same.", rule("12 orbits of 60 steps, width 120, V = .6", 0.03), "11.82"
)  # fmt: skip
UNTIED_ORTHOGONAL = Claim(
    4,
    "eq. (15), (77)",
    "Untied orthogonal weights: Nσ∞²/2 = 2/(1−V)² − 1/(1−V²).",
    rule("12 orbits of 60 steps, width 120, V = .6", 0.03),
    "10.94",
)
UNTIED_EXPONENT = Claim(
    4,
    "§2.2.1, §2.2.3",
    "Untied weights: σ∞² = O(δ⁻²) for every family, δ = 1 − V.",
    "ln₂ of the ratio of Nσ∞²/2 at δ = .2 and δ = .4, 12 orbits each of 60 steps, iid, width 120. Within .15 of (14)'s own "
    "2.14: reproduced; of ours, 2.67 (on its way to 3): corrected; else not reproduced. Standard error at most .1.",
    "2",
)
ORTHOGONAL_LENGTH = Claim(
    4,
    "eq. (18)",
    "Orthogonal: σ² = 2/(1−V)³ − 1/(1−V)².",
    rule(f"{_SAMPLE}, V = .3: σ² = (2/N) tr (MᵀM)²", 0.03),
    "3.790",
)
IID_LENGTH = Claim(
    4,
    "eq. (19)",
    "iid: Nσ² = 2V²/(1−V)⁴ + 4V/(1−V)³ + 2/(1−V)².",
    rule(f"{_SAMPLE}, V = .2", 0.05),
    "4.883",
)
GOE_LENGTH = Claim(
    4,
    "eq. (20)",
    "GOE: Nσ² = (1/2V)[1/(1−4V)^(−5/2) − 1/(1−4V)^(−3/2)].",
    rule(f"{_SAMPLE}, V = .1", 0.08),
    "−.930",
)
GOE_FOURTH = Claim(
    4,
    "eq. (148)",
    "GOE: tr (MᵀM)² = (1/4V)[(1−4V)^(−5/2) − (1−4V)^(−3/2)].",
    rule(f"{_SAMPLE}, V = .1", 0.08),
    "3.586",
)
GOE_DIVERGENCE = Claim(
    4,
    "eq. (86)",
    "GOE, √V = 1/2 − δ: tr (MᵀM)² = δ^(−5/2)/8.",
    "The integral (81) by quadrature at δ = 1e-4, times δ^(5/2): within 1 % of 1/8 reproduced, of 1/32 corrected.",
    "1/8",
)
CONVERGENCE = Claim(
    4,
    "Lemma A.1",
    "iid, V < 1: z_t comes near z* uniformly in N, by ‖z* − z_t‖²/N of order V^t.",
    "‖z* − z_t‖²/N over V^(t+1)/(1 − V)·x·x/N for t = 0, 4, 8, 12 weights of width 300, V = .3, median: within 25 % of one.",
    revised="a larger sample",
)
GAUSSIAN = Claim(
    4,
    "Theorem A.2",
    "iid, V < 1: each z*_i becomes Gaussian as N → ∞.",
    "Kolmogorov–Smirnov distance of 6,000 entries, V = .5: at N = 300 below 1.5 times the 95 % point of as many Gaussian "
    "numbers, and smaller than at N = 10.",
)  # fmt: skip
TANGENT_KERNEL = Claim(
    4,
    "§2.1.2, App. B.1",
    "The linear model's tangent kernel is (E z*·z* / N)² x·x'.",
    rule("12 GOE weights of width 300, V = .1, a random readout and input each, relative to m₂²", 0.05),
)


def partial_sum(seed: int = 0) -> Finding:
    """(7): the variance of the t-th iterate of the linear model."""
    V, steps = 0.3, 4
    values = []
    for weight, x in _weights_and_inputs("iid", V, seed):
        z = torch.zeros_like(x)
        for _ in range(steps):
            z = weight @ z + x
        values.append(float((z - x).square().mean()))
    ours, printed = sum(V**k for k in range(1, steps)), steps * V**steps
    return _decided(PARTIAL_SUM, sampled(values), ours, printed, 0.02, "Σ_{k=1}^{t−1} V^k")


def mean(seed: int = 0) -> Finding:
    """E z* of symmetric weights: tr_N (I − W)⁻¹."""
    measured = _moments("goe", 0.2, seed, lambda moments: moments.mean)
    ours = deq.linear_moments("goe", 0.2).mean
    assert ours is not None
    return _decided(MEAN, measured, ours, 1.0, 0.02, "(1 − √(1−4V))/(2V)")


def iid_variance(seed: int = 0) -> Finding:
    """(8) and (60) of iid weights."""
    return _second(IID_VARIANCE, "iid", 0.3, 0.02, "1/(1 − V)", seed)


def orthogonal_variance(seed: int = 0) -> Finding:
    """(60) of orthogonal weights."""
    return _second(ORTHOGONAL_VARIANCE, "orthogonal", 0.3, 0.02, "1/(1 − V)", seed)


def goe_variance(seed: int = 0) -> Finding:
    """(11): a variance that is negative."""
    V = 0.1
    measured = _moments("goe", V, seed, lambda moments: (moments.m2 or 0.0) - (moments.mean or 0.0) ** 2)
    theory, printed = deq.linear_moments("goe", V), deq.linear_moments("goe", V, as_printed=True)
    assert theory.m2 is not None
    assert theory.mean is not None
    assert printed.m2 is not None
    ours = theory.m2 - theory.mean**2
    return _decided(GOE_VARIANCE, measured, ours, printed.m2 - 1, 0.03, "2/s − (1−s)/(2V) − ((1−s)/(2V))², s = √(1−4V)")


def goe_second_moment(seed: int = 0) -> Finding:
    """(65) and (66)."""
    return _second(GOE_SECOND_MOMENT, "goe", 0.15, 0.03, "2/s − (1−s)/(2V), s = √(1−4V)", seed)


def goe_at_zero(seed: int = 0) -> Finding:
    """(66) where W vanishes."""
    V = 1e-8
    measured = deq.sample_linear_moments("goe", V, width=50, generator=_generator(seed)).m2
    printed = 1 / math.sqrt(1 - 4 * V) - (1 - math.sqrt(1 - 4 * V)) / (2 * V)
    ours = deq.linear_moments("goe", V).m2
    assert measured is not None
    assert ours is not None
    near = [abs(value - measured) <= 1e-3 for value in (printed, ours)]  # V itself moves m₂ by √V/N
    verdict: Verdict = "reproduced" if near[0] else "corrected" if near[1] else "not reproduced"
    return GOE_AT_ZERO.found(
        verdict, f"Measured {measured:.6f}; printed {printed:.2g}; 2/s − (1−s)/(2V) gives {ours:.6f}.", measured
    )


def length_factor(seed: int = 0) -> Finding:
    """(12) and (13), whose two sides differ by N."""
    width, inputs, ratios = 40, 20_000, []
    for k in range(6):
        generator = _generator(seed, k)
        weight = deq.sample_weight("iid", 0.2, width, generator=generator)
        inverse = torch.linalg.inv(torch.eye(width, dtype=torch.float64) - weight)
        x = torch.randn(inputs, width, generator=generator, dtype=torch.float64)
        squares = (x @ inverse.T).square().sum(1)
        m4 = deq.weight_moments(weight).m4
        assert m4 is not None
        ratios.append(float(squares.var()) / width / m4)
    return _decided(LENGTH_FACTOR, sampled(ratios), 2.0, 2 / width, 0.02, "2 (it is Var[z·z/N] that has 2/N)")


def untied_iid(seed: int = 0) -> Finding:
    """(14) of iid weights."""
    return _untied(UNTIED_IID, "iid", "(1+2V−2V²)/((1−V)³(1+V))", seed)


def untied_goe(seed: int = 0) -> Finding:
    """(14) of the GOE."""
    return _untied(UNTIED_GOE, "goe", "(1+2V−2V²)/((1−V)³(1+V)) + 2V/(1−V²)", seed)


def untied_orthogonal(seed: int = 0) -> Finding:
    """(15)."""
    return _untied(UNTIED_ORTHOGONAL, "orthogonal", "2/(1−V)² − 1/(1−V²)", seed)


def untied_exponent(seed: int = 0) -> Finding:
    """The exponent of the divergence of untied iid weights."""
    near, far = _untied_sample("iid", 0.8, seed), _untied_sample("iid", 0.6, seed + 1)
    exponent = math.log2(near.mean / far.mean)
    error = math.hypot(near.error / near.mean, far.error / far.mean) / math.log(2)
    candidates = []
    for as_printed in (True, False):
        m4 = [deq.untied_moments("iid", V, as_printed=as_printed).m4 for V in (0.8, 0.6)]
        assert m4[0] is not None
        assert m4[1] is not None
        candidates.append(math.log2(m4[0] / m4[1]))
    said = f"δ^−{exponent:.2f} ± {error:.2f} between δ = .4 and .2; (14) has {candidates[0]:.2f}, ours {candidates[1]:.2f}."
    if error > 0.1:
        return UNTIED_EXPONENT.found("inconclusive", said, exponent, error, near.count)
    close = [abs(exponent - candidate) <= 0.15 for candidate in candidates]
    verdict: Verdict = "reproduced" if close[0] else "corrected" if close[1] else "not reproduced"
    return UNTIED_EXPONENT.found(verdict, said, exponent, error, near.count)


def orthogonal_length(seed: int = 0) -> Finding:
    """(18), which lacks 2/N."""
    V = 0.3
    m4 = _moments("orthogonal", V, seed, lambda moments: moments.m4)
    measured = Sampled(2 * m4.mean / _WIDTH, 2 * m4.error / _WIDTH, m4.count)
    printed = 2 / (1 - V) ** 3 - 1 / (1 - V) ** 2
    return _decided(ORTHOGONAL_LENGTH, measured, 2 * printed / _WIDTH, printed, 0.03, "2/N times that, as (79) has it")


def iid_length(seed: int = 0) -> Finding:
    """(19), which is 2/(1 − V)⁴."""
    V = 0.2
    printed = 2 * V**2 / (1 - V) ** 4 + 4 * V / (1 - V) ** 3 + 2 / (1 - V) ** 2
    measured = _moments("iid", V, seed, lambda moments: 2 * (moments.m4 or 0.0))
    return _decided(IID_LENGTH, measured, 2 / (1 - V) ** 4, printed, 0.05, "2/(1 − V)⁴, the same")


def goe_length(seed: int = 0) -> Finding:
    """(20), whose exponents have the wrong signs."""
    V = 0.1
    s = math.sqrt(1 - 4 * V)
    measured = _moments("goe", V, seed, lambda moments: 2 * (moments.m4 or 0.0))
    return _decided(GOE_LENGTH, measured, 2 / s**5, (s**5 - s**3) / (2 * V), 0.08, "2(1−4V)^(−5/2)")


def goe_fourth(seed: int = 0) -> Finding:
    """(148)."""
    V = 0.1
    s = math.sqrt(1 - 4 * V)
    measured = _moments("goe", V, seed, lambda moments: moments.m4)
    return _decided(GOE_FOURTH, measured, s**-5, (s**-5 - s**-3) / (4 * V), 0.08, "(1−4V)^(−5/2), the same")


def goe_divergence(seed: int = 0) -> Finding:
    """The constant of (86), from (81). Nothing is drawn."""
    from scipy.integrate import quad

    delta = 1e-4
    root = 0.5 - delta
    # x = 1 − y²: the weight √(1 − x²) and the pole beside x = 1 are both smooth in y
    value = quad(
        lambda y: 2 / math.pi * math.sqrt(2 - y * y) * y / (1 - 2 * root * (1 - y * y)) ** 4 * 2 * y,
        0,
        math.sqrt(2),
        points=(math.sqrt(delta), 10 * math.sqrt(delta)),
        limit=500,
        epsrel=1e-10,
    )[0]
    constant = value * delta**2.5
    near = [abs(constant / candidate - 1) <= 0.01 for candidate in (1 / 8, 1 / 32)]
    verdict: Verdict = "reproduced" if near[0] else "corrected" if near[1] else "not reproduced"
    return GOE_DIVERGENCE.found(
        verdict, f"The constant is 1/{1 / constant:.3f}; ∫√y/(1+y)⁴dy = π/16 makes it 1/32.", constant
    )


def convergence(seed: int = 0) -> Finding:
    """Lemma A.1, by the mean square that its proof bounds."""
    V, times = 0.3, (0, 4, 8)
    ratios: list[float] = []
    for weight, x in _weights_and_inputs("iid", V, seed):
        exact = torch.linalg.solve(torch.eye(len(weight), dtype=torch.float64) - weight, x)
        z = x.clone()
        for t in range(max(times) + 1):
            if t in times:
                ratios.append(float((exact - z).square().mean()) / (V ** (t + 1) / (1 - V)))
            z = weight @ z + x
    middle = sorted(ratios)[len(ratios) // 2]
    verdict: Verdict = "reproduced" if abs(middle - 1) <= 0.25 else "not reproduced"
    return CONVERGENCE.found(
        verdict,
        f"The median ratio is {middle:.3f}, from {min(ratios):.2f} to {max(ratios):.2f}.",
        middle,
        sample=_DRAWS,
    )


def gaussian(seed: int = 0) -> Finding:
    """Theorem A.2."""
    result = deq.gaussianity_by_width("iid", 0.5, widths=(10, 300), entries=6000, generator=_generator(seed))
    (small, large), noise = result.ks_distance.tolist(), float(result.noise[1])
    verdict: Verdict = "reproduced" if large < 1.5 * noise and large < small else "not reproduced"
    said = (
        f"Distance {small:.4f} at N = 10 and {large:.4f} at N = 300; as many Gaussian numbers stay below {noise:.4f}."
    )
    return GAUSSIAN.found(verdict, said, large, sample=int(result.n_entries[1]))


def tangent_kernel(seed: int = 0) -> Finding:
    """The linear model's kernel of one input, by the gradient Mᵀv z*ᵀ."""
    V = 0.1
    theory = deq.linear_moments("goe", V).m2
    assert theory is not None
    values = []
    for k, (weight, x) in enumerate(_weights_and_inputs("goe", V, seed)):
        inverse = torch.linalg.inv(torch.eye(len(weight), dtype=torch.float64) - weight)
        v = deq.sample_inputs(len(weight), generator=_generator(seed, 1000 + k))[0]
        gradient = torch.outer(inverse.T @ v, inverse @ x)
        values.append(float(gradient.square().sum()) / len(weight) ** 2 / theory**2)
    return _decided(TANGENT_KERNEL, sampled(values), 1.0, 1.0, 0.05, "the same, with m₂ of the family")


def _generator(seed: int, draw: int = 0) -> Generator:
    return Generator().manual_seed(1009 * seed + draw)


def _weights_and_inputs(family: deq.FamilyName, V: float, seed: int) -> list[tuple[Tensor, Tensor]]:
    pairs = []
    for k in range(_DRAWS):
        generator = _generator(seed, k)
        weight = deq.sample_weight(family, V, _WIDTH, generator=generator)
        pairs.append((weight, deq.sample_inputs(_WIDTH, generator=generator)[0]))
    return pairs


def _moments(family: deq.FamilyName, V: float, seed: int, pick: Callable[[deq.LinearMoments], float | None]) -> Sampled:
    found = (
        pick(deq.sample_linear_moments(family, V, width=_WIDTH, generator=_generator(seed, k))) for k in range(_DRAWS)
    )
    return sampled([value for value in found if value is not None])


def _second(claim: Claim, family: deq.FamilyName, V: float, relative: float, words: str, seed: int) -> Finding:
    measured = _moments(family, V, seed, lambda moments: moments.m2)
    ours, printed = deq.linear_moments(family, V).m2, deq.linear_moments(family, V, as_printed=True).m2
    assert ours is not None
    assert printed is not None
    return _decided(claim, measured, ours, printed, relative, words)


def _untied(claim: Claim, family: deq.FamilyName, words: str, seed: int) -> Finding:
    V = 0.6
    ours, printed = deq.untied_moments(family, V).m4, deq.untied_moments(family, V, as_printed=True).m4
    assert ours is not None
    assert printed is not None
    return _decided(claim, _untied_sample(family, V, seed), ours, printed, 0.03, words)


def _untied_sample(family: deq.FamilyName, V: float, seed: int) -> Sampled:
    """tr_N (MᵀM)² where every step has a weight of its own, z_{t+1} = W_t z_t + x."""
    width, values = 120, []
    for k in range(_DRAWS):
        generator = _generator(seed, 5000 + k)
        m = eye = torch.eye(width, dtype=torch.float64)
        for _ in range(60):
            m = eye + deq.sample_weight(family, V, width, generator=generator) @ m
        values.append(float((m.T @ m).square().sum()) / width)
    return sampled(values)


def _decided(claim: Claim, measured: Sampled, ours: float, printed: float, relative: float, words: str) -> Finding:
    verdict: Verdict = decide(measured, ours, printed, relative)
    said = f"Measured {measured}; as printed {printed:.4g}; {words}: {ours:.4g}."
    return claim.found(verdict, said, measured.mean, measured.error, measured.count)


CHECKS = (
    partial_sum,
    mean,
    iid_variance,
    orthogonal_variance,
    goe_variance,
    goe_second_moment,
    goe_at_zero,
    length_factor,
    untied_iid,
    untied_goe,
    untied_orthogonal,
    untied_exponent,
    orthogonal_length,
    iid_length,
    goe_length,
    goe_fourth,
    goe_divergence,
    convergence,
    gaussian,
    tangent_kernel,
)
"""All of them, in the order of the paper."""
