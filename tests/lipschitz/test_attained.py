import math

import numpy as np
import pytest
import torch
from torch import nn

from fpstab.lipschitz.attained import attained_norm, part_inputs


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.decoder = nn.Linear(4, 6)
        self.spare = nn.Linear(4, 4)

    def decode(self, z):
        return self.decoder(z)

    def forward(self, x):
        return self.decode(self.encoder(x))


class Holder(nn.Module):
    """Like a LightningModule without a forward."""

    def __init__(self):
        super().__init__()
        self.net = Network()


POINTS = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def test_largest_norm_at_the_points():
    network = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    points = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def largest(function):
        jacobians = [torch.autograd.functional.jacobian(function, x).numpy() for x in points]
        return max(np.linalg.norm(J, 2) for J in jacobians)

    assert attained_norm(network, points, rtol=1e-8) == pytest.approx(largest(network), rel=1e-7)
    with_head = largest(lambda x: torch.softmax(network(x), dim=-1))
    assert attained_norm(network, points, head="softmax", rtol=1e-8) == pytest.approx(with_head, rel=1e-7)


def test_nan_where_there_is_no_derivative():
    assert math.isnan(attained_norm(nn.Linear(3, 2), torch.zeros(1, 4)))  # another shape
    assert math.isnan(attained_norm(lambda x: torch.from_numpy(np.tanh(x.detach().numpy())), torch.ones(2, 3)))


@pytest.mark.parametrize("path", [None, "net", "net.encoder", "net.encoder.2", "net.decoder", "net.decode"])
def test_where_the_points_lead(path):
    holder = Holder()
    net = holder.net.eval()
    with torch.no_grad():
        normed = net.encoder[:2](POINTS)
        expected = {"net.encoder.2": normed, "net.decoder": net.encoder(POINTS), "net.decode": net.encoder(POINTS)}
    holder.train()
    before = {key: value.clone() for key, value in holder.state_dict().items()}
    found = part_inputs(holder if path else holder.net, path, POINTS)
    assert torch.equal(found, expected.get(path, POINTS))
    assert net.training
    assert "decode" not in vars(net)
    assert not net.encoder._forward_pre_hooks
    assert all(torch.equal(value, before[key]) for key, value in holder.state_dict().items())


def test_nothing_where_no_point_leads():
    assert part_inputs(Holder(), "net.decode", torch.zeros(2, 3)) is None  # nothing takes three values
    assert torch.equal(part_inputs(Holder(), "net.spare", POINTS[:, :4]), POINTS[:, :4])  # the part itself takes four
