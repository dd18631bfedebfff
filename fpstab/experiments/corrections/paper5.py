"""What paper 5 prints of Lipschitz constants, of its Theorem 1 and of Table 2, by small computations."""

import math
import statistics
from itertools import pairwise

import torch
from torch import Generator, Tensor

from fpstab.experiments.claims import Claim, Finding, Verdict
from fpstab.experiments.resnet_paper import TABLE_2
from fpstab.orbits import Orbits, expansivity

THEOREM_1 = Claim(
    5,
    "Theorem 1",
    "φ continuous and g-expansive, g Lipschitz and bounded-to-bounded: Sh_g(φ) ≤ Lip(g)·T_g(φ).",
    "X = {0, 1} × {0, 1/n, …, 1}, φ = id, g the first coordinate (Lip 1), n = 10, 100, 1000. Every δ-pseudo-orbit with δ < 1 "
    "shadowed with ε = 0, so that Sh_g is infinite; no map H of condition (i) at ε = .4 for the shift by 1/n, so that T_g ≤ "
    "1/(.4n) → 0: broken. With (i) read as d_g(H, id) ≤ ε an H for each: corrected.",
)
LIPSCHITZ_SUPREMUM = Claim(
    5,
    "§2.4, Lip(g)",
    "Lip(g) = sup{K > 0: d(g(x), g(y)) ≤ K·d(x, y) for all x, y}.",
    "A random linear g on 20 dimensions, 20,000 pairs and the direction of σ_max: 1,000·σ_max must be such a K, so that the "
    "supremum is infinite; and .999·σ_max none, so that σ_max is the infimum: corrected.",
)
PSEUDO_ORBIT = Claim(
    5,
    "App. A, pseudo-orbits",
    "(x_i) is a (δ, g)-pseudo-orbit if d_g(φ^i(x_i), x_{i+1}) ≤ δ for all i.",
    "True orbits (20, 8 steps) of a random contraction of the plane, g = id: δ as printed above 1e-6 says that they are none; "
    "with φ(x_i), as in §2.3, δ = 0: corrected.",
)
SHADOWING_RATIO = Claim(
    5,
    "Table 2, MNIST, ResNet-50",
    "g-shadowing constant .0031, with δ = .0004 and ε = .1565.",
    "The quotients of all numbers that round to δ and ε: .0031 (±.00005) among them reproduces it; among those of numbers that "
    "are cut off to δ and ε: inconclusive; else not reproduced.",
    ".0031",
)
SHADOWING_RATIOS = Claim(
    5,
    "Table 2, other rows, δ/ε",
    "g-shadowing constants 2.3583, .9867, 1.0023 with their δ and ε.",
    "Each among the quotients of the numbers that round to δ and ε.",
    "2.3583, .9867, 1.0023",
)
STABILITY_RATIO = Claim(
    5,
    "Table 2, T_g",
    "T_g = Sh_g/Lip(g): .6977, .0017, .2811, .4229.",
    "Each within the quotients of the numbers that round to Sh and Lip, to its own last digit.",
    ".6977, .0017, .2811, .4229",
)
SAMPLE_SIZE = Claim(
    5,
    "Definition 1, Table 2, g-expansive",
    "The g-expansive constant is one of the network.",
    "Points of a connected space, [0, 1], under two steps of x ← x/2 + .2, g = id, all pairs: the constant at N = 800 less than a "
    "quarter of that at N = 100 (median of 20 draws each) says that it is one of the sample: not reproduced.",
)
PROBABILITY_CONSTANT = Claim(
    5,
    "Table 2, Lip(g) with distances of probabilities",
    "Lip(g) of the linear layer goes with distances between probabilities.",
    "A random linear layer of 10 classes, softmax after it, 20,000 pairs and the steepest direction: above σ_max/2 nowhere, and "
    "(√2/4)·max ‖w_i − w_j‖ met to 1 %: corrected, that is the constant of the probabilities.",
)
LIPSDP_HEAD = Claim(
    5,
    "§3, LipSDP behind an identity layer",
    "LipSDP-Neuron on (identity, W) gives Lip(g) of the linear layer.",
    "3 random layers, 10 classes, 24 features: its optimum is σ_max(W) to 1e-5.",
)


def theorem_1(seed: int = 0) -> Finding:
    """The identity on two intervals, seen through the number of the interval. Nothing is drawn."""
    shadowed, bounds, corrected = True, [], True
    for n in (10, 100, 1000):
        height = torch.arange(n + 1, dtype=torch.float64) / n
        # seen through g the points are 0 and 1: a step below 1 stays, so the start itself traces its pseudo-orbit
        values = torch.tensor([0.0, 1.0]).repeat_interleave(n + 1)
        steps = (values[:, None] - values).abs()
        shadowed &= bool((steps[steps < 1] == 0).all())
        # φ̂ moves down by 1/n and rests at 0. H(x) ⊆ H(φ̂x) and H(x) within ε of x, so H(x) lies within ε of all φ̂^k(x)
        lows, highs = torch.cummax(height - 0.4, 0).values, torch.cummin(height + 0.4, 0).values
        room = [bool(((height >= low) & (height <= high)).any()) for low, high in zip(lows, highs, strict=True)]
        bounds.append(math.inf if all(room) else 1 / n / 0.4)
        corrected &= bool((values[: n + 1] == values[0]).all())  # with d_g the whole interval is an H
    broken = shadowed and all(bound < math.inf for bound in bounds) and bounds[-1] < bounds[0]
    verdict: Verdict = ("corrected" if corrected else "not reproduced") if broken else "reproduced"
    said = f"Sh_g = ∞, and T_g is at most {', '.join(f'{bound:.3g}' for bound in bounds)} for n = 10, 100, 1000, with Lip(g) = 1."
    return THEOREM_1.found(verdict, said, bounds[-1], sample=3)


def lipschitz_supremum(seed: int = 0) -> Finding:
    """The set that the supremum is taken of has no upper end."""
    generator = Generator().manual_seed(seed)
    w = torch.randn(10, 20, generator=generator, dtype=torch.float64)
    _, values, right = torch.linalg.svd(w)
    sigma = float(values[0])
    steps = torch.cat((torch.randn(20_000, 20, generator=generator, dtype=torch.float64), right[:1]))
    ratios = (steps @ w.T).norm(dim=1) / steps.norm(dim=1)
    largest = float(ratios.amax())
    unbounded, least = largest <= 1000 * sigma, largest > 0.999 * sigma
    verdict: Verdict = "corrected" if unbounded and least and largest <= sigma * (1 + 1e-12) else "reproduced"
    said = f"The largest ratio is {largest:.6g} = σ_max: every larger K is one, up to any size; the least is meant."
    return LIPSCHITZ_SUPREMUM.found(verdict, said, largest, sample=len(steps))


def pseudo_orbit(seed: int = 0) -> Finding:
    """True orbits are no pseudo-orbits as printed in the appendix."""
    generator = Generator().manual_seed(seed)
    w = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    w *= 0.8 / torch.linalg.matrix_norm(w, 2)
    b = torch.randn(2, generator=generator, dtype=torch.float64)

    def phi(x: Tensor, times: int = 1) -> Tensor:
        for _ in range(times):
            x = x @ w.T + b
        return x

    orbit = [torch.randn(20, 2, generator=generator, dtype=torch.float64)]
    for _ in range(8):
        orbit.append(phi(orbit[-1]))
    deltas = [
        max(float((phi(x, i if printed else 1) - y).norm(dim=1).amax()) for i, (x, y) in enumerate(pairwise(orbit)))
        for printed in (True, False)
    ]
    verdict: Verdict = "reproduced" if deltas[0] <= 1e-6 else "corrected" if deltas[1] == 0 else "not reproduced"
    said = f"δ of true orbits is {deltas[0]:.3g} as printed, {deltas[1]:g} with φ(x_i)."
    return PSEUDO_ORBIT.found(verdict, said, deltas[0], sample=20)


def shadowing_ratio(seed: int = 0) -> Finding:
    """.0031 against .0004/.1565. Nothing is drawn."""
    row = TABLE_2["mnist", 50]
    delta, epsilon, sh = row["delta"], row["epsilon"], row["sh"]
    low, high = (delta - 5e-5) / (epsilon + 5e-5), (delta + 5e-5) / (epsilon - 5e-5)
    cut = (delta + 1e-4) / epsilon
    if low <= sh + 5e-5 and sh - 5e-5 <= high:
        verdict: Verdict = "reproduced"
    else:
        verdict = "inconclusive" if sh - 5e-5 < cut else "not reproduced"
    said = f"δ/ε is {delta / epsilon:.5f}; with rounded δ and ε from {low:.5f} to {high:.5f}, with δ cut off up to {cut:.5f}."
    return SHADOWING_RATIO.found(verdict, said, delta / epsilon)


def shadowing_ratios(seed: int = 0) -> Finding:
    """The other three rows. Nothing is drawn."""
    rows = [row for key, row in TABLE_2.items() if key != ("mnist", 50)]
    fits = [
        (row["delta"] - 5e-5) / (row["epsilon"] + 5e-5) <= row["sh"] <= (row["delta"] + 5e-5) / (row["epsilon"] - 5e-5)
        for row in rows
    ]
    said = ", ".join(f"{row['delta'] / row['epsilon']:.4f} against {row['sh']:.4f}" for row in rows)
    return SHADOWING_RATIOS.found("reproduced" if all(fits) else "not reproduced", f"{said}.", sample=len(rows))


def stability_ratio(seed: int = 0) -> Finding:
    """T_g of all four rows. Nothing is drawn."""
    rows = list(TABLE_2.values())
    fits = [
        (row["sh"] - 5e-5) / (row["lip"] + 5e-3) - 5e-5 <= row["t"] <= (row["sh"] + 5e-5) / (row["lip"] - 5e-3) + 5e-5
        for row in rows
    ]
    said = ", ".join(f"{row['sh'] / row['lip']:.4f} against {row['t']:.4f}" for row in rows)
    return STABILITY_RATIO.found("reproduced" if all(fits) else "not reproduced", f"{said}.", sample=len(rows))


def sample_size(seed: int = 0) -> Finding:
    """Definition 1's constant of finite samples from an interval."""
    medians = []
    for count in (100, 800):
        values = []
        for k in range(20):
            x = torch.rand(count, 1, generator=Generator().manual_seed(1009 * seed + k), dtype=torch.float64)
            states = torch.stack((x, x / 2 + 0.2, x / 4 + 0.3), 1)
            found = expansivity(Orbits(states, torch.zeros(count, dtype=torch.int64), space="logit"), pairs="distinct")
            values.append(found.definition.value)
        medians.append(statistics.median(values))
    verdict: Verdict = "not reproduced" if medians[1] < medians[0] / 4 else "reproduced"
    said = f"The median is {medians[0]:.2g} for N = 100 and {medians[1]:.2g} for N = 800: it goes to 0."
    return SAMPLE_SIZE.found(verdict, said, medians[1] / medians[0], sample=20)


def probability_constant(seed: int = 0) -> Finding:
    """Softmax behind a linear layer."""
    generator = Generator().manual_seed(seed)
    w = torch.randn(10, 64, generator=generator, dtype=torch.float64)
    sigma = float(torch.linalg.matrix_norm(w, 2))
    gaps = torch.cdist(w, w, compute_mode="donot_use_mm_for_euclid_dist")
    i, j = divmod(int(gaps.argmax()), len(w))
    bound = 2**0.5 / 4 * float(gaps.max())
    x = torch.randn(20_000, 64, generator=generator, dtype=torch.float64) / 8
    y = x + torch.randn(20_000, 64, generator=generator, dtype=torch.float64) / 80
    # the bound is met where two classes share the probability and x moves along w_i − w_j
    logits = torch.full((10, 1), -40.0, dtype=torch.float64)
    logits[[i, j]] = 0
    centre = torch.linalg.lstsq(w, logits).solution[:, 0]
    along = (w[i] - w[j]) * (1e-4 / float(gaps.max()))
    x, y = torch.cat((x, (centre - along)[None])), torch.cat((y, (centre + along)[None]))
    moved = ((x @ w.T).softmax(1) - (y @ w.T).softmax(1)).norm(dim=1)
    largest = float((moved / (x - y).norm(dim=1)).amax())
    holds = largest <= sigma / 2 and 0.99 * bound <= largest <= bound * (1 + 1e-6)
    verdict: Verdict = "corrected" if holds else "reproduced" if largest > 0.99 * sigma else "not reproduced"
    said = f"Probabilities move {largest:.4f} at most; (√2/4)·max ‖w_i − w_j‖ = {bound:.4f}, the logits' constant {sigma:.4f}."
    return PROBABILITY_CONSTANT.found(verdict, said, largest, sample=len(x))


def lipsdp_head(seed: int = 0) -> Finding:
    """The semidefinite program of a linear layer, and its norm."""
    from fpstab.lipschitz import head_by_lipsdp

    off = 0.0
    for k in range(3):
        w = torch.randn(10, 24, generator=Generator().manual_seed(1009 * seed + k), dtype=torch.float64)
        sigma = float(torch.linalg.matrix_norm(w, 2))
        off = max(off, abs(head_by_lipsdp(w, backend="native").lipsdp / sigma - 1))
    verdict: Verdict = "reproduced" if off <= 1e-5 else "not reproduced"
    return LIPSDP_HEAD.found(verdict, f"The largest relative difference from σ_max is {off:.1g}.", off, sample=3)


CHECKS = (
    sample_size,
    theorem_1,
    lipschitz_supremum,
    pseudo_orbit,
    shadowing_ratio,
    shadowing_ratios,
    stability_ratio,
    probability_constant,
    lipsdp_head,
)
"""All of them, in the order of the paper."""
