"""Paper 1: the verdicts, and closed forms beside the samples."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from fpstab.experiments.corrections import paper1
from fpstab.experiments.corrections.random_maps import draw_layers, follow
from tests.experiments.corrections.verdicts import verdicts

VERDICTS = {
    "eq. (3) (and paper 2, eq. (1))": "corrected",
    "§II.3, loss (6)": "not reproduced",
    "§III (and paper 2, §II)": "corrected",
    "§III, heavy entries": "reproduced",
    "§IV, after (8)": "corrected",
    "§IV, N(0, σ_l), σ_l = 1/n_l": "corrected",
    "§IV, “weak similarity”": "not reproduced",
    "Proposition 1, any depth": "corrected",
    "eq. (14) and (19)": "reproduced",
    "eq. (20), w₀⁽⁰⁾ = 0": "corrected",
    "§V, L → ∞": "corrected",
    "eq. (24) ff., label": "corrected",
    "m_K of ReLU": "reproduced",
    "m_K of HardTanh": "reproduced",
    "m_K of Erf": "corrected",
}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_verdicts(seed):
    assert verdicts(1, seed) == VERDICTS


def test_the_density_of_a_product_of_two_by_its_closed_form():
    """Fuss–Catalan, L = 2: λ = sin³(3t)/(sin t·sin²(2t)), ρ = sin²(t)·sin(2t)/(π·sin²(3t))."""
    t = 0.5
    low, high = 1e-6, math.pi / 3 - 1e-6
    for _ in range(200):
        t = (low + high) / 2
        value = math.sin(3 * t) ** 3 / (math.sin(t) * math.sin(2 * t) ** 2)
        low, high = (t, high) if value > 0.5 else (low, t)
    density = math.sin(t) ** 2 * math.sin(2 * t) / (math.pi * math.sin(3 * t) ** 2)
    assert density == pytest.approx(0.318310, abs=1e-6)
    assert f"exact {density:.5f}" in paper1.spurious().said
    assert abs(paper1.spurious().value) < 1e-6


def test_the_generating_function_of_erf_by_an_integral():
    def integrand(g):
        k = math.exp(-math.pi * 0.5 * g * g / 2)
        return math.exp(-g * g / 2) / math.sqrt(2 * math.pi) * 0.5 * k / (1 - 0.5 * k)

    assert paper1.erf_slopes().value == pytest.approx(quad(integrand, -12, 12)[0], rel=1e-9)


def test_a_sum_of_fuss_catalan_moments():
    assert [math.comb(3 * k, k) / (2 * k + 1) for k in (1, 2, 3)] == [1.0, 3.0, 12.0]
    assert paper1.generating().value == pytest.approx(3, rel=0.05)


def test_hand_systems():
    """W = diag(2, .5): x₁ leaves 0 for ±1 and x₂ goes to 0; W = −2I has a 2-cycle."""
    zero = torch.zeros(1, 2, dtype=torch.float64)
    for diagonal, limits, converged in (((2.0, 0.5), 3, 1.0), ((2.0, 2.0), 9, 1.0), ((-2.0, -2.0), 1, 1 / 81)):
        layers = [(torch.diag(torch.tensor(diagonal, dtype=torch.float64))[None], zero)]
        fates = follow(layers, torch.nn.functional.hardtanh, nodes=9)
        assert int(fates.limits) == limits
        assert float(fates.converged) == pytest.approx(converged)


def test_layers_have_the_scale_that_is_asked_for():
    generator = torch.Generator().manual_seed(0)
    for scale, size in (("std", 1 / 100), ("variance", 1 / 10)):
        layers = draw_layers("normal", 2, 50, generator, scale=scale)
        assert layers[1][0].shape == (50, 2, 100)
        assert float(layers[1][0].std()) == pytest.approx(size, rel=0.03)
    cauchy = draw_layers("cauchy", 2, 50, generator)[1][0]
    assert float(cauchy.abs().median()) == pytest.approx(1 / 100, rel=0.05)  # a Cauchy's scale is its quartile


def test_verdicts_follow_the_numbers(monkeypatch):
    """Without a difference between the activations the claim stands."""
    monkeypatch.setattr(paper1.torch, "sigmoid", torch.nn.functional.hardtanh)
    found = paper1.activation()
    assert found.verdict == "reproduced"
    assert found.value == 0.0


def test_the_edge_of_one_layer_is_that_of_marchenko_and_pastur():
    m = np.random.default_rng(0).standard_normal((300, 300)) / 300**0.5
    assert np.linalg.svd(m)[1][0] ** 2 == pytest.approx(4.0, rel=0.08)
    assert "L = 1: 3.9" in paper1.edge().said
