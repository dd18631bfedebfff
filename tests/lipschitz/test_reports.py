"""A network's constant from above and below, with LipSDP or without."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from fpstab.lipschitz import lipschitz_bound, lipschitz_report
from fpstab.lipschitz.extraction import extract


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 5))


def norms(network):
    return [np.linalg.norm(layer.weight.detach().double(), 2) for layer in network if isinstance(layer, nn.Linear)]


def test_from_above_and_below(network):
    points = torch.randn(8, 5, generator=torch.Generator().manual_seed(1))
    report = lipschitz_report(network, points, rtol=1e-6)
    exact = network.double()
    jacobians = [torch.autograd.functional.jacobian(exact, x).numpy() for x in points.double()]
    assert report.sampled_lower == pytest.approx(max(np.linalg.norm(J, 2) for J in jacobians), rel=0.02)
    assert report.value == pytest.approx(lipschitz_bound(network).value, rel=1e-6)
    assert report.spectral_product == pytest.approx(math.prod(norms(network)), rel=1e-9)
    assert report.sampled_lower < report.value < report.spectral_product
    assert report.status.ok
    scalars = report.scalars()
    assert (scalars["certified"], scalars["solved"]) == (1, 1)
    assert scalars["sampled_lower"] == report.sampled_lower


@pytest.mark.parametrize(("head", "factor"), [(None, 1.0), ("softmax", 0.5)])
def test_without_the_semidefinite_program(network, head, factor):
    report = lipschitz_report(network, head=head, affords=lambda seconds: False)
    product = factor * math.prod(norms(network))
    assert product <= report.value <= product * (1 + 1e-9)
    assert report.value == report.spectral_product == lipschitz_bound(network, head=head).spectral_product
    assert report.bound is None
    assert math.isnan(report.sampled_lower)
    scalars = report.scalars()
    assert (scalars["certified"], scalars["solved"]) == (1, 0)
    assert math.isnan(scalars["slopes_lower"])
    assert scalars.keys() <= lipschitz_report(network, head=head).scalars().keys()


def test_the_price_is_told_before_it_is_paid():
    told = []

    def seconds(*sizes):
        layers = [module for n, m in pairwise(sizes) for module in (nn.Linear(n, m), nn.ReLU())]
        lipschitz_report(nn.Sequential(*layers[:-1]), affords=lambda expected: told.append(expected))
        return told[-1]

    overhead = seconds(8, 8)
    assert 0 < overhead < 1
    assert seconds(784, 128, 32, 128, 784) == pytest.approx(1, rel=0.5)
    # cubic in the size of the matrix inequality: the neurons and the narrower end
    assert seconds(100, 400, 400, 100) - overhead == pytest.approx(8 * (seconds(50, 200, 200, 50) - overhead))
    assert len(told) == 4


def test_a_bound_that_is_not_the_best_is_one(network):
    report = lipschitz_report(network, time_limit=1e-9)
    assert report.status.ok
    assert lipschitz_bound(network).value <= report.value * (1 + 1e-9)


def test_a_product_beyond_float64_is_none():
    network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(1e200 * torch.eye(2, dtype=torch.float64) if parameter.ndim == 2 else torch.zeros(2))
    report = lipschitz_report(network, affords=lambda seconds: False)
    assert report.value == math.inf
    assert report.status.code == "not_certified"
    assert report.scalars()["certified"] == 0


def test_what_is_refused(network):
    for options in ({"form": "network"}, {"head": "sigmoid"}, {"time_limit": 0}, {"rtol": 2}):
        with pytest.raises(ValueError, match=next(iter(options))):
            lipschitz_report(network, affords=lambda seconds: False, **options)
    with pytest.raises(TypeError, match=r"nn\.Module"):
        lipschitz_report(3)
    assert extract(network).sizes == (5, 20, 20, 5)
