"""Contractions that are known, maps that are none, and what a certificate says of each."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.lipschitz import General, lipschitz_bound
from fpstab.lipschitz.extraction import UnsupportedLayer
from fpstab.models import Autoencoder
from fpstab.models.autoencoder import ConvAutoencoder
from fpstab.proofs import certify_contraction


def net(scale, seed=0, activation=nn.Tanh):
    layers = nn.Sequential(nn.Linear(6, 12), activation(), nn.Linear(12, 6))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.normal_(0.0, scale, generator=generator)
    return layers


def iterate(network, x, count):
    network = network.double()
    with torch.no_grad():
        for _ in range(count):
            x = network(x)
    return x


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.02, 0.5))
def test_what_is_proved_is_true(seed, scale):
    network = net(scale, seed)
    certificate = certify_contraction(network)
    assert certificate.holds == (certificate.value < 1)
    assert certificate.margin == 1 - certificate.value
    x = 5 * torch.randn(2, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    y = iterate(network, x, 1)
    assert (y[0] - y[1]).norm() <= certificate.value * (x[0] - x[1]).norm() * (1 + 1e-12)
    if certificate.holds:
        far = iterate(network, x, math.ceil(40 / -math.log(certificate.value))) if certificate.value < 0.95 else None
        if far is not None:
            assert (far[0] - far[1]).norm() < 1e-10
            residual = float((y - x).norm(dim=1)[0])
            assert (x[0] - far[0]).norm() <= certificate.distance(residual + 1e-12)


def test_statement_hypothesis_domain():
    certificate = certify_contraction(net(0.05))
    assert certificate.holds
    assert not certificate.refuted
    assert "exactly one fixed point" in certificate.statement
    printed = float(re.search(r"≤ ([\d.]+) ‖x − y‖", certificate.statement)[1])
    assert certificate.value <= printed <= certificate.value + 1e-6
    assert "evaluation mode" in certificate.hypothesis
    assert "real arithmetic with the stored weights" in certificate.hypothesis
    assert certificate.domain == "all of R^6"
    assert certificate.scalars() == {"holds": 1.0, "value": certificate.value, "refuted": 0.0}
    assert certificate.status.ok
    assert certificate.value == certificate.bound.value


def test_a_map_that_is_no_contraction():
    certificate = certify_contraction(net(2.0))
    assert not certificate.holds
    assert certificate.refuted
    assert certificate.statement.startswith("Not proved: the certified bound")
    assert "A Jacobian of norm" in certificate.statement
    with pytest.raises(ValueError, match="Nothing is proved"):
        certificate.distance(0.1)


def test_just_below_and_above_one():
    for factor, holds in ((1 - 1e-9, True), (1.0, False), (1 + 1e-9, False)):
        certificate = certify_contraction([factor * np.eye(3)])
        assert certificate.holds is holds
        assert factor <= certificate.value <= factor * (1 + 1e-10)
    barely = certify_contraction([(1 - 1e-9) * np.eye(3)])
    assert "≤ 0.99999999" in barely.statement


def test_the_form_of_the_bound_is_passed_on():
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(9, 4)), rng.normal(size=(9, 9)), rng.normal(size=(4, 9))]
    weights[2] *= 0.99 / lipschitz_bound(weights, slopes=(0.0, 1.0)).value
    assert certify_contraction(weights, slopes=(0.0, 1.0)).holds
    layer = certify_contraction(weights, slopes=(0.0, 1.0), form="layer")
    assert layer.value == lipschitz_bound(weights, slopes=(0.0, 1.0), form="layer").value
    assert not layer.holds  # a looser bound, which proves nothing
    assert not layer.refuted
    assert "That does not say that Φ is none" in layer.statement


def test_sigmoid_autoencoders():
    torch.manual_seed(0)
    certificate = certify_contraction(Autoencoder((16, 8, 4)))
    assert certificate.holds  # as initialised
    assert certificate.domain == "all of R^16"
    images = certify_contraction(ConvAutoencoder((1, 2, 3), size=6))
    assert images.domain == "all of R^36"


def test_a_constant_map():
    certificate = certify_contraction([np.zeros((2, 2))])
    assert certificate.holds
    assert certificate.value == 0.0
    assert certificate.distance(0.25) >= 0.25


def test_a_deep_equilibrium():
    rng = np.random.default_rng(0)
    A = rng.normal(size=(8, 8))
    A *= 0.4 / np.linalg.norm(A, 2)
    B, C = 0.3 * rng.normal(size=(8, 3)), 0.2 * rng.normal(size=(3, 8))
    layer = General(A, B, C, np.zeros((3, 3)), 0.0, 1.0, implicit=True)
    certificate = certify_contraction(layer)
    assert certificate.holds == (certificate.value < 1)
    assert "equation of its equilibrium" in certificate.hypothesis
    without = General(5 * np.eye(8), B, C, np.zeros((3, 3)), 0.0, 1.0, implicit=True)  # y = relu(5y + Bx): not unique
    certificate = certify_contraction(without)
    assert not certificate.holds
    assert certificate.value == math.inf
    assert certificate.status.code == "not_certified"
    assert "no finite bound" in certificate.statement


def test_distance():
    certificate = certify_contraction([[[0.5]]])
    assert 2.0 <= certificate.distance(1.0) < 2.0 + 1e-9
    assert certificate.distance(0.0) == 0.0
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="residual"):
            certificate.distance(wrong)


def test_where_the_network_is_looked_at():
    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.act, self.b = nn.Linear(1, 1), nn.Tanh(), nn.Linear(1, 1)

        def forward(self, x):
            return self.b(self.act(self.a(x - 1000.0)))

    network = Steep()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(2.0)
    assert not certify_contraction(network).refuted  # flat around the origin
    assert certify_contraction(network, torch.full((1, 1), 999.0)).refuted


@pytest.mark.parametrize(
    ("network", "error", "message"),
    [
        (nn.Linear(3, 2), ValueError, "Linear maps 3 values to 2"),
        ([np.ones((2, 3))], ValueError, "the network maps 3 values to 2"),
        (nn.Sequential(nn.Linear(3, 3), nn.Softmax(1)), UnsupportedLayer, "'1'.*Softmax"),
        (3.0, TypeError, "float"),
    ],
)
def test_refused(network, error, message):
    with pytest.raises(error, match=message):
        certify_contraction(network)
