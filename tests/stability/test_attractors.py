"""Systems whose attractors and exponents are in the literature, or in closed form."""

import math

import pytest
import torch
from torch import nn

from fpstab.fixed_points import FixedPoints
from fpstab.results import AnalysisError
from fpstab.stability import classify_attractor

STARTS = 0.2 * torch.rand(24, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Lozi(nn.Module):
    """x⁺ = 1 − a|x| + y, y⁺ = bx, as two layers with ReLU: |x| = relu(x) + relu(−x), y = relu(y) − relu(−y)."""

    def __init__(self, a=1.7, b=0.5):
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 4, bias=False), nn.Linear(4, 2)
        with torch.no_grad():
            self.inner.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
            self.outer.weight.copy_(torch.tensor([[-a, -a, 1.0, -1.0], [b, -b, 0.0, 0.0]]))
            self.outer.bias.copy_(torch.tensor([1.0, 0.0]))

    def forward(self, x):
        return self.outer(torch.relu(self.inner(x)))


def henon(x):
    return torch.stack((1 - 1.4 * x[:, 0] ** 2 + x[:, 1], 0.3 * x[:, 0]), 1)


def ikeda(x, u=0.9):
    t = 0.4 - 6 / (1 + x[:, 0] ** 2 + x[:, 1] ** 2)
    return torch.stack(
        (1 + u * (x[:, 0] * t.cos() - x[:, 1] * t.sin()), u * (x[:, 0] * t.sin() + x[:, 1] * t.cos())), 1
    )


def rotation(angle, scale=1.0):
    R = scale * torch.tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64
    )
    return lambda x: x @ R.T


def delayed_logistic(x, r=2.1):
    return torch.stack((r * x[:, 0] * (1 - x[:, 1]), x[:, 0]), 1)


def tent(mu):
    return lambda x: mu * torch.minimum(x, 1 - x)


@pytest.mark.parametrize(
    ("function", "exponent"),
    [
        (henon, 0.41922),
        (Lozi().double(), 0.4702),
        (ikeda, 0.5074),
    ],  # Sprott, Chaos and Time-Series Analysis, and others
    ids=["Hénon", "Lozi", "Ikeda"],
)
def test_chaos(function, exponent):
    found = classify_attractor(function, STARTS)
    assert found.label == "chaotic"
    assert 0 < found.lyapunov_error < 0.01
    assert abs(found.lyapunov - exponent) <= 4 * found.lyapunov_error
    assert found.period is None


@pytest.mark.parametrize("mu", [1.3, 1.9])
def test_tent_map(mu):
    found = classify_attractor(tent(mu), STARTS[:, :1])
    assert found.label == "chaotic"
    assert found.lyapunov == pytest.approx(math.log(mu), abs=1e-12)


@pytest.mark.parametrize(("r", "period"), [(3.2, 2), (3.5, 4), (3.55, 8), (3.83, 3)])
def test_cycles_of_the_logistic_map(r, period):
    found = classify_attractor(lambda x: r * x * (1 - x), STARTS[:, :1] + 0.1)
    assert (found.label, found.period) == ("cycle", period)
    x, total = 0.3, 0.0
    for step in range(20_000):
        x = r * x * (1 - x)
        total += math.log(abs(r * (1 - 2 * x))) if step >= 10_000 else 0.0
    assert found.lyapunov == pytest.approx(total / 10_000, abs=1e-3)


def test_quasi_periodic():
    for function in (rotation(1.0), delayed_logistic):
        found = classify_attractor(function, STARTS + 0.1)
        assert (found.label, found.period) == ("cycle", None)
        assert abs(found.lyapunov) <= max(4 * found.lyapunov_error, 1e-12)


def test_rotation_by_a_fifth():
    found = classify_attractor(rotation(2 * math.pi / 5), STARTS)
    assert (found.label, found.period) == ("cycle", 5)


@pytest.mark.parametrize("scale", [0.9, 0.999])
def test_spirals_are_no_cycles(scale):
    found = classify_attractor(rotation(1.0, scale), STARTS)
    assert found.label == "single"
    assert found.lyapunov == pytest.approx(math.log(scale))


def test_expansion():
    found = classify_attractor(rotation(1.0, 1.1), STARTS)
    assert (found.label, found.counts) == ("unstable", {"unstable": 24})
    assert math.isnan(found.lyapunov)


def test_lines():
    half = torch.tensor([1.0, 0.5], dtype=torch.float64)
    assert classify_attractor(lambda x: x * half, STARTS).label == "line"


def test_several():
    found = classify_attractor(lambda x: torch.tanh(2 * x), STARTS - 0.1)
    assert found.label == "multiple"
    assert isinstance(found.fixed_points, FixedPoints)
    assert found.fixed_points.kind.count("attracting") == 4


def test_a_fixed_point_and_a_cycle_are_several():
    # x⁺ = −2 tanh(x)·1[x < …] made smooth: f has the cycle ±c and, far away, the fixed point of x⁺ = x/2 + 10
    def function(x):
        return torch.where(x < 5, -2 * torch.tanh(x), x / 2 + 10)

    found = classify_attractor(function, torch.tensor([[1.0], [-1.0], [8.0], [30.0]]))
    assert found.label == "multiple"
    assert found.counts == {"cycle": 2, "fixed": 2}


def test_default_starts_and_high_dimension():
    net = nn.Sequential(nn.Linear(300, 50), nn.Tanh(), nn.Linear(50, 300))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    found = classify_attractor(net)
    assert found.label == "single"
    assert found.fixed_points.outcomes["fixed"] == 24
    assert found.lyapunov < 0


def test_undetermined_is_said():
    def drift(x):
        return x + 1e-3

    with pytest.raises(AnalysisError, match="24 of 24 orbits could not be decided"):
        classify_attractor(drift, STARTS)
    found = classify_attractor(drift, STARTS, throw=False)
    assert (found.label, found.status.code) == ("undetermined", "undetermined")
    assert classify_attractor(rotation(1.0, 1 + 2e-4), STARTS, max_iter=50, throw=False).label != "cycle"


def test_bad_arguments():
    with pytest.raises(ValueError, match="starts"):
        classify_attractor(henon)
    with pytest.raises(ValueError, match="got none"):
        classify_attractor(henon, torch.zeros(0, 2))
    with pytest.raises(ValueError, match="steps=10"):
        classify_attractor(henon, STARTS, steps=10)
    with pytest.raises(ValueError, match="Singular values"):
        classify_attractor(nn.Linear(3, 2))


def test_scalars_and_picture():
    found = classify_attractor(lambda x: torch.tanh(0.5 * x), STARTS)
    scalars = found.scalars()
    assert scalars["share_fixed"] == 1.0
    assert scalars["lyapunov"] == pytest.approx(math.log(0.5))
    found.plot()
