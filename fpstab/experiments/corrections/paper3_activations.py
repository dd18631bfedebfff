"""Figure 1 of paper 3: each activation that it puts into the wrong class, and its Lemmas 8 and 10.

What decides is a scan of the activation itself; the table of `fpstab.activations` stands beside it.
"""

from functools import partial
from typing import Literal

import torch
from torch import nn

from fpstab.activations import activation_info
from fpstab.experiments.claims import Claim, Finding, Verdict

_SCAN = "σ at 80,001 points of [−20, 20]: slopes of neighbouring chords, |σ(z)/z|, and jumps"
_BROKEN = "corrected if the paper's class does not hold, with the class that does (the scan's and the table's agree)"

Kind = Literal["contractive", "nonexpansive", "sector", "expansive", "discontinuous"]


def _claim(name: str, says: str) -> Claim:
    return Claim(3, f"Figure 1, {name}", f"{name} is {says}.", f"{_SCAN}; {_BROKEN}; else reproduced.", says)


_STABLE, _UNSTABLE = "asymptotically stable, as σ(0) = 0 and K ≤ 1", "unstable somewhere"

SIGMOID = _claim("Sigmoid", _UNSTABLE)
HARDSIGMOID = _claim("Hardsigmoid", _UNSTABLE)
SOFTPLUS = _claim("Softplus", _UNSTABLE)
LOGSIGMOID = _claim("LogSigmoid", _UNSTABLE)
HARDSWISH = _claim("Hardswish", _UNSTABLE)
GELU = _claim("GELU", _STABLE)
HARDSHRINK = _claim("Hardshrink", _STABLE)
PRELU = _claim("PReLU", _STABLE)
LEAKY_RELU = _claim("LeakyReLU", _STABLE)
ELU = _claim("ELU", _STABLE)
SELU = _claim("SELU", _UNSTABLE)
TANH = _claim("Tanh", _STABLE)
LEMMA_8 = Claim(
    3,
    "Lemma 8",
    "σ(0) = 0 and Lipschitz constant K < 1: z ← σ(z) goes to 0.",
    "σ(z) = .9 tanh(z), .9 relu(z), .9 sin(z), from 1,000 points each of [−20, 20]: all below 1e-6 after 200 steps.",
)
LEMMA_10 = Claim(
    3,
    "Lemma 10",
    "|σ(z)/z| ≤ 1 outside of a bounded interval: bounded inputs give bounded outputs.",
    "x ← σ(x + u) with σ = 4 tanh, Sigmoid, and 4 sin, |u| ≤ 5, 1,000 orbits of 500 steps each: none beyond 1e3.",
)


def judge(activation: nn.Module) -> tuple[Kind, float, float]:
    """What a scan says of an activation: its class, the largest slope of a chord in size, the largest |σ(z)/z|."""
    z = torch.linspace(-20, 20, 80_001, dtype=torch.float64)
    with torch.no_grad():
        values = activation.double()(z)
    slopes = (values.diff() / z.diff()).abs()
    steepest = float(slopes.amax())
    away = z != 0
    sector = float((values[away] / z[away]).abs().amax())
    if steepest > 100:  # a jump of any size over a step of 0.0005
        return "discontinuous", steepest, sector
    if steepest <= 1 + 1e-9:
        return ("contractive" if steepest < 1 - 1e-3 else "nonexpansive"), steepest, sector
    return ("sector" if sector <= 1 + 1e-9 else "expansive"), steepest, sector


def activation_class(claim: Claim, activation: nn.Module, good: tuple[Kind, ...], seed: int = 0) -> Finding:
    """One activation of Figure 1. Nothing is drawn.

    Args:
        claim: What the paper says of it.
        activation: The module.
        good: The classes that are what the paper says.
        seed: Not used.
    """
    kind, steepest, sector = judge(activation)
    listed = activation_info(activation).verdict
    verdict: Verdict = "inconclusive" if listed != kind else "reproduced" if kind in good else "corrected"
    at_zero = float(activation.double()(torch.zeros(1, dtype=torch.float64)))
    size = "beyond 100" if sector > 100 else f"{sector:.4g}"
    said = (
        f"{kind}: the steepest chord {steepest:.4g}, the largest |σ(z)/z| {size}, σ(0) = {at_zero:.3g}."
        if kind != "discontinuous"
        else f"discontinuous: no Lipschitz constant; the largest |σ(z)/z| {size}."
    )
    if listed != kind:
        said += f" The table has {listed}."
    return claim.found(verdict, said, steepest)


def lemma_8(seed: int = 0) -> Finding:
    """Iterates of contractions with σ(0) = 0."""
    z = 40 * torch.rand(1000, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 20
    largest = 0.0
    for sigma in (torch.tanh, torch.relu, torch.sin):
        x = z
        for _ in range(200):
            x = 0.9 * sigma(x)
        largest = max(largest, float(x.abs().amax()))
    verdict: Verdict = "reproduced" if largest < 1e-6 else "not reproduced"
    return LEMMA_8.found(verdict, f"The largest of 3,000 is {largest:.1g} after 200 steps.", largest, sample=3000)


def lemma_10(seed: int = 0) -> Finding:
    """Orbits with bounded inputs."""
    generator = torch.Generator().manual_seed(seed)
    largest = 0.0
    for scale, sigma in ((4.0, torch.tanh), (1.0, torch.sigmoid), (4.0, torch.sin)):
        x = 40 * torch.rand(1000, generator=generator, dtype=torch.float64) - 20
        for _ in range(500):
            u = 10 * torch.rand(1000, generator=generator, dtype=torch.float64) - 5
            x = scale * sigma(x + u)
            largest = max(largest, float(x.abs().amax()))
    verdict: Verdict = "reproduced" if largest < 1e3 else "not reproduced"
    return LEMMA_10.found(verdict, f"The largest of 3,000 orbits is {largest:.3g}.", largest, sample=3000)


def _check(claim: Claim, activation: nn.Module, stable: bool) -> "partial[Finding]":
    good: tuple[Kind, ...] = ("contractive", "nonexpansive") if stable else ("expansive", "discontinuous")
    return partial(activation_class, claim, activation, good)


def _prelu() -> nn.Module:
    module = nn.PReLU(init=1.5)
    return module.requires_grad_(False)


CHECKS = (
    lemma_8,
    lemma_10,
    _check(TANH, nn.Tanh(), True),
    _check(GELU, nn.GELU(), True),
    _check(HARDSHRINK, nn.Hardshrink(), True),
    _check(PRELU, _prelu(), True),
    _check(LEAKY_RELU, nn.LeakyReLU(1.5), True),
    _check(ELU, nn.ELU(2.0), True),
    _check(SIGMOID, nn.Sigmoid(), False),
    _check(HARDSIGMOID, nn.Hardsigmoid(), False),
    _check(HARDSWISH, nn.Hardswish(), False),
    _check(LOGSIGMOID, nn.LogSigmoid(), False),
    _check(SOFTPLUS, nn.Softplus(), False),
    _check(SELU, nn.SELU(), False),
)
"""All of them. PReLU, LeakyReLU and ELU are taken with parameters that break the class: slopes 1.5, α = 2."""
