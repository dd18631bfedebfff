"""Certificates are attacked: by maps that diverge, by bistable ones, by repelling points, by random networks."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.fixed_points import find_fixed_points
from fpstab.jacobian import jacobian_matrix
from fpstab.jacobian.chains import read_chain
from fpstab.lipschitz.extraction import UnsupportedLayer
from fpstab.maps import SelfMap
from fpstab.stability import stability_criteria
from fpstab.stability.certificates import operator_norm
from fpstab.stability.local import local_certificate

ACTIVATIONS = [
    nn.ReLU(), nn.LeakyReLU(0.3), nn.LeakyReLU(-1.5), nn.PReLU(), nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(), nn.Softplus(),
    nn.LogSigmoid(), nn.ELU(), nn.ELU(0.5), nn.ELU(2.0), nn.CELU(), nn.SELU(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(),
    nn.Mish(), nn.Hardswish(), nn.Hardtanh(-0.2, 0.5), nn.ReLU6(), nn.Softsign(), nn.Softshrink(0.1), nn.Tanhshrink(), nn.RReLU(),
]  # fmt: skip


def dense(W, b=None, activation=None):
    W = torch.tensor(W, dtype=torch.float64)
    layer = nn.Linear(W.shape[1], W.shape[0], bias=b is not None).double()
    with torch.no_grad():
        layer.weight.copy_(W)
        if b is not None:
            layer.bias.copy_(torch.tensor(b, dtype=torch.float64))
    return nn.Sequential(layer, activation or nn.ReLU())


def random_net(sizes, activation, scale, bias, seed, output=True):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for n_in, n_out in pairwise(sizes):
        layer = nn.Linear(n_in, n_out, bias=bias)
        with torch.no_grad():
            W = torch.randn(n_out, n_in, generator=generator)
            layer.weight.copy_(scale * W / torch.linalg.matrix_norm(W, 2))
            if bias:
                layer.bias.copy_(torch.randn(n_out, generator=generator))
        layers += [layer, activation]
    return nn.Sequential(*(layers if output else layers[:-1]))


def holds(report):
    return {each.name for each in report.holding}


def by_name(report, name):
    return next(each for each in report.certificates if each.name == name)


def orbit_ends(net, n, count, starts=64, seed=1):
    function = SelfMap(net, torch.zeros(1, n))
    x = torch.randn(starts, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    x = x * torch.tensor([0.1, 1.0, 10.0, 1000.0], dtype=torch.float64).repeat(starts // 4)[:, None]
    for _ in range(count):
        x = function(x)
    return function, x


def test_zero_spectral_radius_and_divergence():
    net = dense([[2.0, 2.0], [-2.0, -2.0]])
    report = stability_criteria(net)
    assert report.diagnostics.weight_rho == pytest.approx((0.0,), abs=1e-6)
    assert not report.certified
    assert holds(report) <= {"R6-patterns"}
    assert float(orbit_ends(net, 2, 100)[1].abs().max()) > 1e20


def test_product_of_nilpotent_layers():
    net = nn.Sequential(
        dense([[0.0, 2.0], [0.0, 0.0]])[0], dense([[0.0, 0.0], [2.0, 0.0]])[0]
    )  # ρ = 0, 0; of the product 4
    report = stability_criteria(net)
    assert report.diagnostics.weight_rho == (0.0, 0.0)
    assert holds(report) <= {"R6-patterns"}


def test_more_layers_do_not_help():
    deep = nn.Sequential(*dense([[2.0, 2.0], [-2.0, -2.0]]), *dense([[1.0, 0.0], [0.0, 1.0]]))
    assert not stability_criteria(deep).certified


def test_bistable_gelu():
    net = dense([[0.9]], [0.24], nn.GELU())
    report = stability_criteria(net)
    assert report.diagnostics.paper_criterion == "met"
    assert not report.certified
    found = find_fixed_points(SelfMap(net, torch.zeros(1, 1)), torch.linspace(-2, 4, 41)[:, None], unstable="newton")
    assert found.kind == ["attracting", "attracting", "repelling"]
    assert {"R5-0", "R5-1"} <= holds(report)  # each is stable in its neighbourhood


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(), nn.GELU(), nn.Softsign(), nn.SiLU()], ids=str)
@pytest.mark.parametrize("scale", [1.0 - 5e-5, 1.0, 1.0 + 1e-9, 2.5])
def test_nothing_at_one_or_within_the_margin(activation, scale):
    report = stability_criteria(dense([[scale, 0.0], [0.0, -scale]], None, activation))
    assert not report.certified


@pytest.mark.parametrize("bias", [3.0, -0.5])
def test_a_bias_matters_to_criteria_of_the_origin(bias):
    report = stability_criteria(dense([[0.5]], [bias], nn.SiLU()))
    assert "has a bias" in by_name(report, "R2-2").statement
    assert not any(name.startswith("R2") or name.endswith("sector") for name in holds(report))


def test_sigmoid_is_a_contraction_and_moves_the_origin():
    report = stability_criteria(dense([[2.0, 1.0], [-1.0, 2.0]], None, nn.Sigmoid()))
    assert {"R1-1", "R1-2", "R1-inf"} <= holds(report)
    assert "Sigmoid(0) is 0.5, not 0" in by_name(report, "R2-2").statement


def test_gelu_decays_where_it_is_no_contraction():
    report = stability_criteria(dense([[0.95]], None, nn.GELU()))
    assert {"R2-1", "R2-2", "R2-inf", "R3-sector", "R4-sector"} <= holds(report)
    assert by_name(report, "R1-2").value == pytest.approx(0.95 * 1.1289041451851548)


def test_a_free_metric_sees_what_norms_do_not():
    W = [[0.0, 5.0], [0.02, 0.0]]
    report = stability_criteria(dense(W, [1.0, -1.0], nn.Tanh()))
    assert {"R3-contraction", "R4-contraction"} <= holds(report)
    assert not {"R1-1", "R1-2", "R1-inf", "R3-lipsdp"} & holds(report)
    rate = max(abs(np.linalg.eigvals(np.abs(W))))  # for every sign pattern the same: √(5·0.02)
    assert rate - 1e-9 <= by_name(report, "R4-contraction").value < 1
    ends = orbit_ends(dense(W, [1.0, -1.0], nn.Tanh()), 2, 200)[1]
    assert float((ends - ends[0]).abs().max()) < 1e-9


@pytest.mark.parametrize("p", ["1", "2", "inf"])
def test_norms_are_rounded_up(p):
    generator = np.random.default_rng(1)
    for _ in range(30):
        W = generator.normal(size=(generator.integers(1, 9), generator.integers(1, 9)))
        exact = np.linalg.norm(W, {"1": 1, "2": 2, "inf": np.inf}[p])
        if p != "2":
            sums = [[math.fsum(abs(W[:, j])) for j in range(W.shape[1])], [math.fsum(abs(row)) for row in W]]
            exact = max(sums[p == "inf"])
        assert exact * (1 - (1e-15 if p == "2" else 0)) <= operator_norm(W, p) <= exact * (1 + 1e-10)
    assert operator_norm(np.zeros((3, 2)), p) == 0.0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    activation=st.sampled_from(ACTIVATIONS),
    hidden=st.sampled_from([(), (3,), (4, 2)]),
    n=st.integers(1, 3),
    scale=st.floats(0.4, 1.6),
    bias=st.booleans(),
    output=st.booleans(),
)
def test_what_is_certified_is_true(seed, activation, hidden, n, scale, bias, output):
    net = random_net((n, *hidden, n), activation, scale, bias, seed, output or not hidden)
    report = stability_criteria(net, throw=False)
    if report.certified:
        value = min(each.value for each in report.holding if each.scope == "global")
        function, ends = orbit_ends(net, n, min(3000, int(60 / (1 - value))))
        if 60 / (1 - value) < 3000:
            assert float((ends - ends[0]).abs().max()) < 1e-6
        settled = ends[:1]
        rho = float(torch.linalg.eigvals(jacobian_matrix(function, settled)).abs().max())
        for each in report.holding:
            if each.scope == "global" and 60 / (1 - value) < 3000:
                assert rho <= each.value + 1e-6, each
    if "R6-patterns" in holds(report):
        function, ends = orbit_ends(net, n, 0)
        found = find_fixed_points(function, ends, unstable="newton", max_iter=100, throw=False)
        far = (found.points.norm(dim=1) > 1e-6) & (found.residual < 1e-10 * (1 + found.points.norm(dim=1)))
        assert not bool(far.any())


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10**6), activation=st.sampled_from(ACTIVATIONS), scale=st.floats(0.5, 3.0))
def test_local_certificates_are_about_points_that_attract(seed, activation, scale):
    net = random_net((2, 4, 2), activation, scale, True, seed).double().eval()
    function = SelfMap(net, torch.zeros(1, 2))
    layers = read_chain(net, torch.zeros(1, 2, dtype=torch.float64))
    starts = 2 * torch.randn(12, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = find_fixed_points(function, starts, unstable="newton", throw=False)
    for point, kind in zip(found.points, found.kind, strict=True):
        layers_cpu = tuple(layers)
        certificate = local_certificate(layers_cpu, point.detach().numpy(), "R5", "")
        if kind in ("saddle", "repelling", "non_isolated"):
            assert not certificate.holds
        if certificate.holds:
            nearby = point + 1e-6 * torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
            for _ in range(min(5000, int(40 / (1 - certificate.value)))):
                nearby = function(nearby)
            if 40 / (1 - certificate.value) < 5000:
                assert float((nearby - point).abs().max()) < 1e-10 * (1 + float(point.abs().max()))
    for point in starts[:4]:  # no fixed points: nothing may be enclosed around them that is none
        certificate = local_certificate(tuple(layers), point.numpy(), "R5", "")
        if certificate.holds:
            assert found.count is None or float((found.points - point).norm(dim=1).min()) < 8.0


def test_a_local_certificate_encloses_the_fixed_point():
    net = dense([[1.5, 0.0], [0.0, 0.5]], [0.0, 0.0], nn.Tanh())
    layers = read_chain(net, torch.zeros(1, 2, dtype=torch.float64))
    root = 0.8585526646177872  # x = tanh(1.5 x)
    for _ in range(200):
        root = math.tanh(1.5 * root)
    near = local_certificate(layers, np.array([root + 1e-3, 0.0]), "R5", "")
    assert near.holds
    assert near.scope == "local"
    assert 1.5 * (1 - root**2) <= near.value < 1
    assert not local_certificate(layers, np.array([0.0, 0.0]), "R5", "").holds  # repels
    assert not local_certificate(layers, np.array([root + 2.0, 0.0]), "R5", "").holds  # no fixed point near


def test_patterns():
    identity_on_a_ray = dense([[1.0, 0.0], [0.0, 0.5]])
    assert "R6-patterns" not in holds(stability_criteria(identity_on_a_ray))
    rotation = stability_criteria(dense([[0.0, -2.0], [2.0, 0.0]], None, nn.Identity()))
    assert "R6-patterns" in holds(rotation)
    assert not rotation.certified
    many = random_net((2, 16, 2), nn.ReLU(), 0.5, False, 0)
    assert "more than 1024 activation patterns" in by_name(stability_criteria(many), "R6-patterns").statement


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = random_net((3, 3), nn.Tanh(), 0.2, True, 0)

    def forward(self, x):
        return 0.3 * x + self.inner(x)


def test_networks_that_are_no_chains():
    report = stability_criteria(Block())
    assert holds(report) == {"R1-2", "R3-lipsdp"}
    assert "mul" in by_name(report, "R2").statement
    assert report.certified


def test_an_activation_that_jumps_is_refused():
    net = dense([[0.5]], None, nn.Hardshrink(0.1))
    with pytest.raises(UnsupportedLayer, match="Hardshrink"):
        stability_criteria(net)
    report = stability_criteria(net, throw=False)
    assert report.status.code == "unsupported"
    assert not report.holding
    assert "Hardshrink is discontinuous" in by_name(report, "R2").statement


def test_bad_input():
    with pytest.raises(ValueError, match="Singular values"):
        stability_criteria(nn.Linear(3, 2))
    with pytest.raises(TypeError, match="function"):
        stability_criteria(lambda x: x)
    with pytest.raises(ValueError, match="NaN"):
        stability_criteria(dense([[math.nan]]))
    with pytest.raises(ValueError, match="got none"):
        stability_criteria(dense([[0.5]]), points=torch.zeros(0, 1))


def test_half_precision_is_upcast():
    report = stability_criteria(random_net((2, 3, 2), nn.Tanh(), 0.8, True, 0).half())
    assert "R1-2" in holds(report)


def test_the_network_is_not_touched():
    net = nn.Sequential(random_net((2, 3, 2), nn.Tanh(), 0.8, True, 0), nn.Dropout()).train()
    stability_criteria(net)
    assert net.training
    assert all(parameter.dtype == torch.float32 and parameter.requires_grad for parameter in net.parameters())


def test_report():
    report = stability_criteria(dense([[0.4, 0.5], [-0.5, 0.4]], [0.1, 0.2], nn.Tanh()), quadratic=False)
    scalars = report.scalars()
    assert scalars["certified"] == 1.0
    assert scalars["value"] == pytest.approx(math.hypot(0.4, 0.5))
    assert not any(name.startswith("R4") or name == "R3-sector" for name in (row["name"] for row in report.table()))
    assert "diagnostic/rho_affine_max" in scalars
    assert str(report).splitlines()[-1].startswith("Diagnostic: ")
    assert len(report.table()) == len(report.certificates)
    assert all(each.margin == 1 - each.value for each in report.certificates)
