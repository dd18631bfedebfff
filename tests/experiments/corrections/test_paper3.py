"""Paper 3: the verdicts, and each counterexample looked at by other means."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fpstab.experiments.corrections import paper3, paper3_activations
from tests.experiments.corrections.verdicts import verdicts

BROKEN = (
    "eq. (10)",
    "Theorem 6, sufficient condition",
    "Theorem 6, ρ(A*) < 1 everywhere",
    "Theorem 6, necessary condition",
    "§3.3",
    "§4, bias terms",
    "§4, depth",
)
CORRECTED = (
    "Lemma 3",
    "§3.1, App. A",
    "§4, x̄ = b_L",
    "eq. (21)",
    "eq. (22), (23)",
    "eq. (25)",
    "eq. (26), “complex” with n = 2",
    *(
        f"Figure 1, {name}"
        for name in (
            "GELU",
            "Hardshrink",
            "PReLU",
            "LeakyReLU",
            "ELU",
            "Sigmoid",
            "Hardsigmoid",
            "Hardswish",
            "LogSigmoid",
            "Softplus",
        )
    ),
)
RIGHT = ("Proposition 12", "Lemma 8", "Lemma 10", "Figure 1, Tanh", "Figure 1, SELU")


@pytest.mark.parametrize("seed", [0, 1])
def test_verdicts(seed):
    expected = (
        dict.fromkeys(BROKEN, "not reproduced")
        | dict.fromkeys(CORRECTED, "corrected")
        | dict.fromkeys(RIGHT, "reproduced")
    )
    assert verdicts(3, seed) == expected


def test_the_pieces_are_stable_and_the_network_is_not():
    """By directions on the circle, in numpy."""
    first, second = np.array(paper3._W1, float), np.array(paper3._W2, float) / paper3._SHRINK
    angles = np.linspace(0, 2 * np.pi, 20_001)
    directions = np.stack((np.cos(angles), np.sin(angles)), 1)
    radii = [np.abs(np.linalg.eigvals(second @ ((first @ d > 0)[:, None] * first))).max() for d in directions]
    assert max(radii) == pytest.approx(paper3.sufficient_pointwise().value)
    assert max(radii) < 1
    x, growth = directions[::500], np.zeros(41)
    for _ in range(400):
        x = np.maximum(x @ first.T, 0) @ second.T
        size = np.linalg.norm(x, axis=1)
        growth += np.log(size)
        x /= size[:, None]
    assert growth.max() / 400 > 0.02


def test_the_diverging_layer_is_nilpotent():
    w = np.array([[2, 2], [-2, -2]])
    assert not (w @ w).any()
    x = np.array([1, 0])
    for step in range(1, 30):
        x = np.maximum(w @ x, 0)
        assert x.tolist() == [2**step, 0]


@pytest.mark.parametrize(
    ("module", "kind"),
    [
        (nn.ReLU(), "nonexpansive"),
        (nn.Softsign(), "nonexpansive"),
        (nn.Sigmoid(), "contractive"),
        (nn.SiLU(), "sector"),
        (nn.CELU(3.0), "nonexpansive"),
        (nn.ELU(3.0), "expansive"),
        (nn.Threshold(0.1, 20.0), "discontinuous"),
    ],
)
def test_the_scan_tells_the_classes_apart(module, kind):
    assert paper3_activations.judge(module)[0] == kind


def test_the_scan_finds_known_slopes():
    assert paper3_activations.judge(nn.GELU())[1] == pytest.approx(1.1289042, abs=1e-5)
    assert paper3_activations.judge(nn.SELU())[1] == pytest.approx(1.7580994, abs=2e-3)


def test_a_table_that_says_otherwise_is_inconclusive(monkeypatch):
    from fpstab.activations import activation_info

    monkeypatch.setattr(paper3_activations, "activation_info", lambda module: activation_info(nn.Tanh()))
    check = next(c for c in paper3_activations.CHECKS if getattr(c, "args", [None])[0] is paper3_activations.SIGMOID)
    assert check(seed=0).verdict == "inconclusive"


def test_literal_gershgorin_weights_of_two_rows():
    from fpstab.stability.parametrizations import Gershgorin

    w = Gershgorin(0.0, 1.0, literal=True)(torch.randn(2, 2, generator=torch.Generator().manual_seed(0)).double())
    assert torch.allclose(w, torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64), atol=1e-9)


def test_the_equilibrium_by_iteration():
    found = paper3.equilibrium(5)
    assert found.verdict == "corrected"
    assert found.value > 0.05
    assert not math.isnan(found.value)
