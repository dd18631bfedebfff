"""Paper 2: the verdicts, and the hand systems."""

import math

import numpy as np
import pytest
import torch

from fpstab.experiments.corrections import paper2
from tests.experiments.corrections.verdicts import verdicts

VERDICTS = {
    "abstract, §III": "not reproduced",
    "§III, hand system": "not reproduced",
    "§V, existence of the limit": "not reproduced",
    "§V, “we prove explicitly (numerically)”": "corrected",
    "Figure 4 b, β_cr of sigmoid": "corrected",
    "eq. (9), Figure 5": "corrected",
    "§IV, σ = 1/√L": "corrected",
}


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_verdicts(seed):
    assert verdicts(2, seed) == VERDICTS


def test_minus_two_times_the_identity():
    found = paper2.two_cycle()
    assert found.value == 1  # the origin
    assert "1680 in a 2-cycle" in found.said


def test_the_norm_of_one_layer_by_differences():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    b = torch.randn(50, generator=generator, dtype=torch.float64)

    def layer(x):
        return torch.sigmoid(0.3 * (w @ x + b))

    nodes = [torch.tensor([x, y]).double() for x in np.linspace(-1, 1, 5) for y in np.linspace(-1, 1, 5)]
    norms = [float(torch.linalg.matrix_norm(torch.autograd.functional.jacobian(layer, x), 2)) for x in nodes]
    assert paper2._norm_of_one(w, b, 0.3) == pytest.approx(max(norms), rel=1e-12)


def test_sigmoid_goes_to_one_half():
    """‖W‖ of N × 2 numbers of size N^−β is N^(½−β)(1 + √(2/N)), and σ' at most ¼."""
    for width in (400, 40_000, 10**8):
        beta = 0.5 - (math.log(4) - math.log(1 + math.sqrt(2 / width))) / math.log(width)
        assert 0.25 * width ** (0.5 - beta) * (1 + math.sqrt(2 / width)) == pytest.approx(1)
    assert beta > 0.42


def test_the_spike_hides_between_the_nodes():
    found = paper2.grid_proof()
    assert found.value == pytest.approx(5.5, rel=1e-9)  # 5 of the tent, ½ of the rest
    assert "g = 0.500" in found.said


def test_the_largest_ratio_is_that_of_all_pairs():
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = x.sin() * 3
    pairs = [float((y[i] - y[j]).norm() / (x[i] - x[j]).norm()) for i in range(30) for j in range(i)]
    assert paper2._largest_ratio(x, y) == pytest.approx(max(pairs))
