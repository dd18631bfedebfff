"""All that is known of a network, together."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fpstab.maps import SelfMap
from fpstab.stability import LABELS, dynamics_report


def tanh_map(gain, dim=2):
    """x → tanh(gain · x), entry by entry."""
    net = nn.Sequential(nn.Linear(dim, dim), nn.Tanh())
    with torch.no_grad():
        net[0].weight.copy_(gain * torch.eye(dim))
        net[0].bias.zero_()
    return net


def points(count=8, dim=2):
    return torch.rand(count, dim, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_contraction_is_proved_and_seen():
    report = dynamics_report(tanh_map(0.5), points())
    scalars = report.scalars()
    assert scalars["certified"] == 1
    assert scalars["value"] == pytest.approx(0.5, abs=1e-6)
    assert [scalars[f"value/R1-{p}"] for p in ("1", "2", "inf")] == pytest.approx([0.5] * 3, abs=1e-6)
    assert LABELS[int(scalars["attractor"])] == "single"
    assert scalars["lyapunov"] == pytest.approx(math.log(0.5), abs=1e-6)
    assert scalars["share_fixed"] == 1
    assert scalars["diagnostic/rho_affine_max"] <= 0.5
    assert "R1-2: proved" in str(report)
    assert "Seen from 16 starts: single." in str(report)


def test_four_attractors_are_seen_and_nothing_is_proved():
    report = dynamics_report(tanh_map(2.0), points())
    scalars = report.scalars()
    assert scalars["certified"] == 0
    assert scalars["value"] == pytest.approx(2.0, abs=1e-6)
    assert LABELS[int(scalars["attractor"])] == "multiple"
    assert scalars["n_local"] == 4
    assert len(report.portrait.attracting) == 4


def test_a_value_that_is_unknown_is_left_out():
    scalars = dynamics_report(tanh_map(0.5).append(nn.Linear(2, 2)), points()).scalars()
    assert "value/R1-2" in scalars
    assert "value/R2-2" not in scalars  # it has a bias
    assert not any(math.isinf(value) for value in scalars.values())


def test_the_portrait_holds_the_steps_of_the_map():
    net = tanh_map(2.0)
    portrait = dynamics_report(net, points()).portrait
    with torch.no_grad():
        step = net.double()(portrait.grid) - portrait.grid
        after = net(portrait.orbits[:, 0])
    np.testing.assert_allclose(portrait.step, step, rtol=1e-12)
    np.testing.assert_allclose(portrait.orbits[:, 1], after, rtol=1e-12)
    assert portrait.reach >= points().abs().max()


def test_the_starts_are_the_points_and_as_many_of_their_box():
    x = points(5, 3)
    report = dynamics_report(tanh_map(0.5, 3), x)
    assert report.portrait is None
    looked = report.criteria.diagnostics.points
    np.testing.assert_allclose(looked[:5], x.double())
    assert len(looked) == sum(report.attractor.counts.values()) == 10
    assert looked[5:].min() >= x.min()
    assert looked[5:].max() <= x.max()


def test_programs_are_left_out_on_request_and_where_they_take_too_long():
    net = tanh_map(0.5)
    names = [each.name for each in dynamics_report(net, points(), quadratic=False).criteria.certificates]
    assert not [name for name in names if name.startswith(("R3", "R4"))]
    report = dynamics_report(net, points(), time_limit=1e-3)
    lipsdp = next(each for each in report.criteria.certificates if each.name == "R3-lipsdp")
    assert not lipsdp.holds
    assert "more than time_limit=0.001" in lipsdp.statement


def test_what_is_not_understood_is_said_and_the_rest_is_measured():
    class Own(nn.Module):  # a product of two branches
        def forward(self, x):
            return 0.25 * torch.tanh(x) * torch.tanh(x.flip(1))

    report = dynamics_report(Own(), points())
    assert report.status.ok
    assert report.status.message
    assert report.scalars()["certified"] == 0
    assert LABELS[int(report.scalars()["attractor"])] == "single"


def test_not_a_self_map():
    with pytest.raises(ValueError, match="Singular values of its Jacobian exist"):
        dynamics_report(nn.Linear(3, 2), points(4, 3))


def test_a_map_that_is_given_is_used():
    x, net = points(), tanh_map(0.5)
    given = SelfMap(net, x)
    assert dynamics_report(net, x, map=given).attractor.fixed_points.points.abs().max() < 1e-6
