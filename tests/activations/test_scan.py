"""Estimates against the table, which has them exactly, and against functions that are known in closed form."""

import math

import pytest
import torch
from torch import nn

from fpstab.activations import ActivationInfo, SoftExponential, activation_info, is_activation, known_info
from fpstab.activations.scan import scan
from fpstab.jacobian import affine_map
from fpstab.lipschitz import lipschitz_bound
from fpstab.lipschitz.operations import UnsupportedLayer
from fpstab.results import AnalysisError
from fpstab.stability import stability_criteria
from tests.activations.functions import CONTINUOUS, JUMPING, named

F = nn.functional


def same(estimate, value):
    return estimate == value or abs(estimate - value) <= 1e-6


@named([*CONTINUOUS, *JUMPING, nn.CELU(-1.0), SoftExponential(0.5), SoftExponential(-0.5)])
def test_the_table_and_the_scan_agree(activation):
    known, found = known_info(activation), scan(activation)
    assert found.estimated
    assert not known.estimated
    for estimate, value in zip(found.slope_range, known.slope_range, strict=True):
        assert same(estimate, value)
    assert same(found.sector, known.sector)
    assert found.value_at_zero == pytest.approx(known.value_at_zero, abs=1e-15)
    traits = ("bounded", "continuous", "homogeneous", "random")
    assert [getattr(found, each) for each in traits] == [getattr(known, each) for each in traits]
    assert found.verdict == f"{known.verdict} (estimated)"


def snake(z):
    return z + torch.sin(z) ** 2


@pytest.mark.parametrize(
    ("function", "zero", "slopes", "sector", "traits"),
    [
        (torch.exp, 1.0, (0.0, math.inf), math.inf, "continuous"),
        (torch.square, 0.0, (-math.inf, math.inf), math.inf, "continuous"),
        (lambda z: z.abs().sqrt(), 0.0, (-math.inf, math.inf), math.inf, "continuous"),
        (lambda z: torch.sign(z) * torch.log1p(z.abs()), 0.0, (0.0, 1.0), 1.0, "continuous"),
        (torch.log, -math.inf, (0.0, math.inf), math.inf, "continuous"),  # where it is defined
        (torch.tan, 0.0, (-math.inf, math.inf), math.inf, ""),
        (torch.sign, 0.0, (0.0, math.inf), math.inf, "bounded"),
        (torch.floor, 0.0, (0.0, math.inf), math.inf, ""),
        (torch.frac, 0.0, (-math.inf, 1.0), 1.0, "bounded"),
        (snake, 0.0, (0.0, 2.0), 1.7246113537, "continuous"),  # 1 + max sin(z)²/z
        (lambda z: 3 * torch.tanh(z) - 1, -1.0, (0.0, 3.0), math.inf, "bounded continuous"),
        (lambda z: torch.exp(-z * z), 1.0, (-math.sqrt(2 / math.e), math.sqrt(2 / math.e)), math.inf, "bounded continuous"),
        (lambda z: torch.relu(z) ** 2 / (1 + z.abs()), 0.0, (0.0, 1.0), 1.0, "continuous"),
        (lambda z: 0.3 * z.clamp(-1.2345, 0.777), 0.0, (0.0, 0.3), 0.3, "bounded continuous"),
        (lambda z: torch.where(z > 0, 2 * z, -z), 0.0, (-1.0, 2.0), 2.0, "continuous homogeneous"),
        (torch.zeros_like, 0.0, (0.0, 0.0), 0.0, "bounded continuous homogeneous"),
        (lambda z: torch.log(1 + torch.exp(z)), math.log(2), (0.0, 1.0), math.inf, "continuous"),  # overflows at 710
        (lambda z: (z > 1.23456789).double() * 1e-3 + z, 0.0, (1.0, math.inf), 1.0008100006, ""),
    ],
)  # fmt: skip
def test_functions_of_ones_own(function, zero, slopes, sector, traits):
    info = activation_info(function)
    assert info.estimated
    assert info.value_at_zero == pytest.approx(zero)
    assert all(map(same, info.slope_range, slopes))
    assert same(info.sector, sector)
    assert {each for each in ("bounded", "continuous", "homogeneous") if getattr(info, each)} == set(traits.split())


def test_modules_of_ones_own():
    class Swish(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor([2.0]))

        def forward(self, x):
            return x * torch.sigmoid(self.slope * x)

    module = Swish()
    info = activation_info(module)
    assert (info.name, info.paper_class, info.random) == ("Swish", None, False)
    low, high = activation_info(nn.SiLU()).slope_range  # σ(z) = silu(2z)/2 has the same slopes
    assert (same(info.slope_range[0], low), same(info.slope_range[1], high)) == (True, True)
    assert info.verdict == "sector (estimated)"
    assert module.slope.dtype == torch.float32
    assert activation_info(module.forward).slope_range == info.slope_range


def test_arguments_go_with_the_function():
    assert activation_info(torch.pow, 3).slope_range == (0.0, math.inf)
    assert activation_info(lambda z, scale: scale * torch.tanh(z), scale=2.0).slope_range == (0.0, 2.0)


def test_a_subclass_with_a_forward_of_its_own_is_only_estimated():
    class Tanh(nn.Tanh):
        def forward(self, x):
            return 2 * super().forward(x)

    info = activation_info(Tanh())
    assert (info.estimated, info.slope_range, info.paper_class) == (True, (0.0, 2.0), None)


def test_nothing_is_touched():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            torch.rand(1)
            return torch.tanh(x)

    module, state = Counting(), torch.get_rng_state()
    activation_info(module)
    assert module.calls == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_in_place_functions():
    assert activation_info(torch.Tensor.exp_).slope_range == (0.0, math.inf)


@pytest.mark.parametrize(
    ("activation", "said"),
    [
        (nn.Softmax(dim=-1), "Softmax is no elementwise activation: each of its outputs depends on several inputs"),
        (nn.GLU(), "GLU is no elementwise"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention is no elementwise"),
        (lambda z: torch.softmax(z, 0), "depend on several inputs"),
        (lambda z: torch.softmax(z, 1), "depend on several inputs"),
        (lambda z: z - z.mean(), "depend on several inputs"),
        (lambda z: z.flip(0), "depend on several inputs"),
        (lambda z: z.cumsum(0), "depend on several inputs"),
        (lambda z: z * torch.arange(8), "or on where they stand"),
        (nn.LayerNorm(8), "depend on several inputs"),
        (nn.BatchNorm1d(8), "depend on several inputs"),
        (nn.Linear(8, 8), "depend on several inputs"),
        (nn.Linear(2, 2), r"cannot be evaluated at a float64 tensor \[3, 8\]"),
        (torch.sum, r"it makes torch.float64 \[\]"),
        (nn.MaxPool1d(2), r"it makes torch.float64 \[3, 4\]"),
        (lambda z: z.float(), "it makes torch.float32"),
        (lambda z: z > 0, "it makes torch.bool"),
        (torch.sort, "sort is no elementwise .*cannot be evaluated|it makes a sort"),
        (len, "len is no elementwise .*it makes a int"),
        (math.sin, "sin is no elementwise"),
        (nn.Dropout(0.01), "two calls differ, it is random"),
        (lambda z: torch.tanh(z) + 1e-14 * torch.rand_like(z), "it is random"),
        ([1], "neither a module nor a function"),
        ("exp", "'exp' is no elementwise activation"),
    ],
)
def test_what_is_not_elementwise_is_refused(activation, said):
    assert not is_activation(activation)
    with pytest.raises(TypeError, match=said):
        activation_info(activation)


def test_what_is_finite_nowhere_is_refused():
    with pytest.raises(ValueError, match="<lambda> is finite nowhere"):
        activation_info(lambda z: z * math.nan)


class Snake(nn.Module):
    def forward(self, x):
        return snake(x)


@pytest.mark.parametrize("activation", [Snake(), nn.Sequential(Snake())], ids=["module", "within"])
def test_nothing_is_certified_with_an_estimate(activation):
    assert not is_activation(activation)
    assert not is_activation(snake)
    net = nn.Sequential(nn.Linear(2, 4), activation, nn.Linear(4, 2))
    for layer in (net[0], net[2]):
        layer.weight.data *= 0.1  # so small that with slopes in [0, 2] it would be certified
    with pytest.raises(UnsupportedLayer, match=r"layer '1[.0]*': (pow|mul)"):
        lipschitz_bound(net)
    with pytest.raises(UnsupportedLayer, match=r"layer '1[.0]*': (pow|mul)"):
        stability_criteria(net)
    report = stability_criteria(net, throw=False)
    assert not report.certified
    assert not [each for each in report.certificates if each.holds]
    with pytest.raises(AnalysisError, match="pow is neither affine nor an activation that is known"):
        affine_map(net, torch.randn(3, 2, generator=torch.Generator().manual_seed(0)))


def test_no_certificate_would_notice_that_a_row_is_estimated(monkeypatch):
    """So none may be handed one: what certifies looks only into the table."""

    def refused(*_, **__):
        raise AssertionError("scanned")

    monkeypatch.setattr("fpstab.activations.lookup.scan", refused)
    net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    stability_criteria(net, quadratic=False)
    for unknown in (Snake(), nn.Softmax(dim=1)):
        broken = nn.Sequential(nn.Linear(2, 4), unknown, nn.Linear(4, 2))
        assert not stability_criteria(broken, throw=False, quadratic=False).certified
    with pytest.raises(AssertionError, match="scanned"):
        activation_info(snake)


def test_rows_say_that_they_are_estimated():
    fields = ("mine", 0.0, (0.0, 1.0), 1.0)
    assert ActivationInfo(*fields).verdict == "nonexpansive"
    assert ActivationInfo(*fields, estimated=True).verdict == "nonexpansive (estimated)"
