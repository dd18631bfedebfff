"""Kinks are told from curvature and from rounding, wherever they are."""

import pytest
import torch

from fpstab.fixed_points.kinks import has_kink
from tests import cases


@pytest.mark.parametrize("n", [1, 3, 30])
def test_kinks_and_curvature(n):
    x = torch.zeros(2, n, dtype=torch.float64)
    x[1] = 0.3
    assert has_kink(torch.relu, x).tolist() == [True, False]
    assert has_kink(lambda x: 1e-3 * x.abs() + x, x).tolist() == [True, False]
    assert has_kink(lambda x: torch.where(x > 0, x + 1, x), x).tolist() == [True, False]  # a jump
    assert has_kink(lambda x: x.abs().clamp_min(1e-30).sqrt(), x).tolist() == [True, False]
    for smooth in (torch.tanh, lambda x: torch.sin(50 * x), lambda x: x * x.abs(), lambda x: 1e3 * x**2 + 1):
        assert not has_kink(smooth, x).any()


def test_rounding_is_no_kink():
    x = cases.uniform(20, 5)
    assert not has_kink(lambda x: (torch.tanh(x) + 1e3) - 1e3, x).any()


def test_a_kink_along_one_coordinate():
    x = cases.uniform(10, 4)
    x[3, 2] = 0.0
    assert has_kink(lambda x: torch.cat((x[:, :2], x[:, 2:].abs()), 1), x).tolist() == [i == 3 for i in range(10)]


def test_gradients_that_are_not_finite():
    x = torch.tensor([[-1.0], [-3.0]], dtype=torch.float64)
    assert not has_kink(lambda x: torch.where(x > 1, x.sqrt(), 0.5 * x - 0.5), x).any()
    bent = torch.tensor([[-1.0]], dtype=torch.float64)
    assert has_kink(lambda x: torch.where(x > 1, x.sqrt(), (x + 1).abs() - 1), bent).all()


def test_no_points():
    assert has_kink(torch.tanh, torch.zeros(0, 2, dtype=torch.float64)).shape == (0,)
