import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.jacobian import affine_map
from fpstab.jacobian.chains import NotAChain, evaluate_chain, read_chain
from fpstab.maps import SelfMap
from fpstab.models import MLP
from fpstab.results import AnalysisError

ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(inplace=True), nn.LeakyReLU(0.2), nn.LeakyReLU(0.2, inplace=True), nn.PReLU(), nn.PReLU(6),
    nn.RReLU(), nn.ReLU6(), nn.Hardtanh(-2.0, 0.5), nn.Hardtanh(-2.0, 0.5, True), nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(),
    nn.Softplus(), nn.Softplus(2.0), nn.LogSigmoid(), nn.ELU(), nn.ELU(1.7), nn.CELU(0.6), nn.SELU(), nn.GELU(),
    nn.GELU("tanh"), nn.SiLU(), nn.Mish(), nn.Hardswish(), nn.Softsign(), nn.Softshrink(), nn.Tanhshrink(),
    nn.Threshold(0.1, 0.1), nn.Identity(),
]  # fmt: skip
HOMOGENEOUS = [nn.ReLU(), nn.LeakyReLU(0.2), nn.PReLU(), nn.Identity(), nn.RReLU()]


class Generic(nn.Module):
    """The same network where the chain is not recognised."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + 0.0 * x.sum(1, keepdim=True)


def mlp(activation, sizes=(3, 6, 6, 4), seed=0):
    layers = []
    for n_in, n_out in pairwise(sizes):
        layers += [seeded(nn.Linear(n_in, n_out), seed := seed + 1), activation]
    return nn.Sequential(*layers[:-1])


def seeded(layer, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter.shape[-1] ** 0.5)
    return layer


def points(b=40, n=3, seed=9):
    return 2 * torch.randn(b, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def value(net, x):
    function = SelfMap(net, x)
    return function(function.flatten(x))


def relative(one, other):
    return float((one - other).abs().max() / other.abs().max())


def scalar_recursion(net, x, shift=True):
    """A and b at one point by the paper's product of matrices, entry by entry, in Python."""
    A, b, h = torch.eye(len(x), dtype=torch.float64), torch.zeros(len(x), dtype=torch.float64), x
    for layer in net:
        if isinstance(layer, nn.Linear):
            W, c = layer.weight.detach().double(), layer.bias.detach().double()
            A, b, h = W @ A, W @ b + c, W @ h + c
        else:
            zero = layer(torch.zeros_like(h)) if shift else torch.zeros_like(h)
            factor = torch.diag((layer(h.clone()) - zero) / h)
            A, b, h = factor @ A, factor @ b + zero, layer(h.clone())
    return A, b


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("mode", ["shifted", "tangent"])
def test_reconstructs_by_both_paths(activation, mode):
    net, x = mlp(activation), points()
    chain, generic = affine_map(net, x, mode=mode), affine_map(Generic(net), x, mode=mode)
    assert (chain.path, generic.path) == ("chain", "generic")
    assert relative(chain(x), value(net, x)) <= 1e-12
    assert relative(generic(x), value(net, x)) <= 1e-12
    torch.testing.assert_close(generic.A, chain.A, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(generic.b, chain.b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.GELU(), nn.Softplus()], ids=str)
@pytest.mark.parametrize("mode", ["shifted", "paper"])
def test_against_a_product_of_matrices(activation, mode):
    net, x = mlp(activation), points(5)
    got = affine_map(net, x, mode=mode)
    for row in range(5):
        A, b = scalar_recursion(net, x[row], shift=mode == "shifted")
        torch.testing.assert_close(got.A[row], A, rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(got.b[row], b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_tangent_is_the_jacobian(activation):
    net, x = mlp(activation), points(6)
    copy = SelfMap(net, x)
    J = torch.stack([torch.autograd.functional.jacobian(lambda row: copy(row[None])[0], row) for row in x])
    torch.testing.assert_close(affine_map(net, x, mode="tangent").A, J, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", HOMOGENEOUS, ids=str)
def test_homogeneous_activations_have_one_map(activation):
    net, x = mlp(activation), points()
    A = [affine_map(net, x, mode=mode).A for mode in ("shifted", "paper", "tangent")]
    assert relative(A[0], A[2]) <= 1e-12
    assert relative(A[1], A[2]) <= 1e-12


def test_others_have_several():
    net, x = mlp(nn.Tanh()), points()
    assert relative(affine_map(net, x).A, affine_map(net, x, mode="tangent").A) > 0.01


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.Softplus()], ids=str)
def test_float32_network(activation):
    net, x = mlp(activation).float(), points().float()
    at = affine_map(net, x)
    assert at.A.dtype == torch.float64
    assert relative(at(x).float(), net(x).detach()) <= 1e-5


def test_side_at_zero():
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.LeakyReLU(0.25))
    nn.init.ones_(net[0].weight)
    zero = torch.zeros(1, 1)
    for wrapped in (net, Generic(net)):
        for mode in ("shifted", "paper", "tangent"):
            assert float(affine_map(wrapped, zero, mode=mode).A) == 0.25
            assert float(affine_map(wrapped, zero, mode=mode, at_zero="right").A) == 1.0


@pytest.mark.parametrize("z", [0.0, 1e-300, 1e-12, -1e-9, 3e-6, 2e-5, 1e-3])
def test_no_cancellation_beside_zero(z):
    net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Sigmoid())
    nn.init.ones_(net[0].weight)
    exact = 0.25 - z**2 / 48 + z**4 / 480  # (σ(z) − ½)/z
    assert float(affine_map(net, torch.tensor([[z]], dtype=torch.float64)).A) == pytest.approx(exact, rel=1e-10)


def test_paper_mode_is_not_finite_at_zero():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Sigmoid())
    x = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    with pytest.raises(AnalysisError, match=r"row 0\).*'shifted'"):
        affine_map(net, x, mode="paper")
    found = affine_map(net, x, mode="paper", throw=False)
    assert found.status.code == "nonfinite"
    assert torch.isfinite(found.A[1]).all()
    assert torch.isnan(found.spectral_radius()).tolist() == [True, False]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(ACTIVATIONS), st.sampled_from([(2, 2), (1, 5, 1), (4, 3, 2, 5)]))
def test_reconstructs(seed, activation, sizes):
    activation = nn.LeakyReLU(0.3) if isinstance(activation, nn.PReLU) else activation
    net, x = mlp(activation, sizes, seed), points(7, sizes[0], seed)
    assert relative(affine_map(net, x)(x), value(net, x)) <= 1e-12


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2)
        self.act = nn.SiLU()  # shared
        self.out = nn.Linear(2 * 4, 2 * 16)

    def forward(self, x):
        h = nn.functional.relu(x + self.act(self.norm(self.conv(x))))
        h = torch.cat((nn.functional.avg_pool2d(h, 2)[:, :1], nn.functional.max_pool2d(h, 2)[:, 1:]), 1)
        return torch.tanh(self.out(self.act(h).flatten(1))).view(x.shape) - 0.5 * x


def test_convolutions_pooling_residuals_shared_and_functional_activations():
    net = seeded(Residual(), 3)
    x = points(5, 32).reshape(5, 2, 4, 4)
    shifted, tangent = affine_map(net, x), affine_map(net, x, mode="tangent")
    assert shifted.frozen == ()
    assert relative(shifted(x), value(net, x)) <= 1e-12
    copy = SelfMap(net, x)
    J = torch.stack([torch.autograd.functional.jacobian(lambda row: copy(row[None])[0], row) for row in x.flatten(1)])
    torch.testing.assert_close(tangent.A, J, rtol=1e-10, atol=1e-12)
    assert relative(shifted.A, tangent.A) > 0.01


def test_convolution_with_relu_is_linear_on_rays():
    net = nn.Sequential(seeded(nn.Conv2d(1, 3, 3, bias=False), 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    x = points(4, 36).reshape(4, 1, 6, 6)
    at = affine_map(net, x)
    assert at.path == "generic"
    assert float(at.b.abs().max()) <= 1e-12
    torch.testing.assert_close(at(3 * x), value(net, 3 * x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.LayerNorm(6), "layer_norm"),
        (nn.RMSNorm(6), "rms_norm"),
        (nn.GroupNorm(2, 6), "group_norm"),
        (nn.GLU(), "glu"),
    ],
)
def test_frozen_statistics_are_said(layer, name):
    net, x = nn.Sequential(seeded(nn.Linear(3, 6), 1), layer), points(6)
    at = affine_map(net, x)
    assert at.frozen == (name,)
    assert relative(at(x), value(net, x)) <= 1e-12
    with pytest.raises(AnalysisError, match=name):
        affine_map(net, x, freeze=False)


def test_a_frozen_norm_is_the_layer_with_its_statistics_held():
    norm, x = seeded(nn.LayerNorm(4), 2), points(1, 4)
    W, b, h = norm.weight.detach().double(), norm.bias.detach().double(), x[0]
    centre = torch.eye(4, dtype=torch.float64) - 0.25
    A = torch.diag(W) @ centre / (h.var(unbiased=False) + norm.eps).sqrt()
    at = affine_map(norm, x)
    torch.testing.assert_close(at.A[0], A, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(at.b[0], b, rtol=1e-10, atol=1e-12)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: nn.functional.softmax(x, -1), "softmax"),
        (lambda x: x * torch.sigmoid(x), "mul"),
        (lambda x: x / (1 + x.abs()), "div"),
        (torch.exp, "exp"),
        (lambda x: x**2, "pow"),
        (lambda x: nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]), "attention"),
        (lambda x: nn.functional.prelu(x, x.sum().reshape(1)), "prelu"),
        (lambda x: 1.0 + Square.apply(x), "cannot be seen"),
        (Square.apply, "cannot be seen"),
    ],
)
def test_refused_by_name(function, name):
    x = points(1) + 5.0
    with pytest.raises(AnalysisError, match=name) as error:
        affine_map(function, x)
    assert error.value.status.code == "unsupported"


def test_tangent_refuses_nothing():
    x = points(4) + 5.0
    assert relative(affine_map(Square.apply, x, mode="tangent").A, torch.diag_embed(2 * x)) <= 1e-12


def test_a_hook_is_part_of_the_network():
    net, x = mlp(nn.Tanh()), points()
    net[0].register_forward_hook(lambda module, args, out: 2 * out)
    at = affine_map(net, x)
    assert at.path == "generic"
    assert relative(at(x), value(net, x)) <= 1e-12


def test_chains():
    x = points(2)
    layers = read_chain(mlp(nn.Tanh()).double(), x)
    assert [layer.name for layer in layers] == ["Tanh", "Tanh", "Identity"]
    assert [layer.weight.shape[0] for layer in layers] == [6, 6, 4]
    torch.testing.assert_close(evaluate_chain(layers, x), value(mlp(nn.Tanh()), x))
    assert affine_map(MLP((3, 5, 3), activation="gelu", output_activation="sigmoid"), x).path == "chain"
    with pytest.raises(NotAChain, match="add"):
        read_chain(lambda x: nn.functional.linear(x, torch.eye(3).double()) + x, x)
    with pytest.raises(NotAChain, match="returns something else"):
        read_chain(lambda x: torch.ones(2, 3), x)


def test_spectra():
    matrices = torch.randn(30, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for W in matrices:
        got = affine_map(lambda x, W=W: x @ W.T, torch.zeros(1, 2))
        want = sorted(torch.linalg.eigvals(W).tolist(), key=lambda value: value.imag)
        if all(value.imag == 0 for value in want):
            want.sort(key=lambda value: value.real)
        have = sorted(got.eigenvalues()[0].tolist(), key=lambda v: (round(v.imag, 12), v.real))
        assert have == pytest.approx(want, rel=1e-12)
        assert float(got.spectral_radius()) == pytest.approx(max(map(abs, want)), rel=1e-12)
    wide = affine_map(mlp(nn.ReLU()), points())
    torch.testing.assert_close(wide.spectrum(), torch.linalg.svdvals(wide.A))
    with pytest.raises(ValueError, match=r"4 by 3.*singular_values"):
        wide.eigenvalues()
    three = affine_map(mlp(nn.ReLU(), (3, 5, 3)), points())
    assert three.spectrum().dtype == torch.complex128
    assert set(three.scalars()) == {"sigma_max", "sigma_mean", "rho_max", "rho_mean"}
    assert three.plot().get_xlabel() == "Re λ"


def test_bad_arguments():
    net = mlp(nn.ReLU())
    with pytest.raises(ValueError, match="mode='linear'"):
        affine_map(net, points(), mode="linear")
    with pytest.raises(ValueError, match="at_zero='up'"):
        affine_map(net, points(), at_zero="up")
    with pytest.raises(ValueError, match="got none"):
        affine_map(net, torch.zeros(0, 3))
    with torch.no_grad():
        net[0].weight[0, 0] = math.nan
    assert affine_map(net, points(), throw=False).status.code == "nonfinite"


def test_the_network_is_not_touched():
    net = mlp(nn.ReLU()).train()
    before = [parameter.clone() for parameter in net.parameters()]
    affine_map(net, points())
    assert net.training
    assert all(torch.equal(one, other) for one, other in zip(before, net.parameters(), strict=True))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())
