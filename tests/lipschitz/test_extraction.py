"""What is read from a module, against the module: differences of its outputs, neuron by neuron."""

import copy
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune

from fpstab.activations import is_activation
from fpstab.lipschitz.extraction import UnsupportedLayer, extract
from fpstab.lipschitz.problem import Feedforward, General
from fpstab.models import MLP, Autoencoder
from fpstab.models.autoencoder import ConvAutoencoder

F = nn.functional


def seeded(module, seed=0):
    """Random parameters and running statistics, of float32 values."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.5)
                if name.endswith("running_var"):
                    tensor.square_().add_(0.1)
    return module


def groups(problem):
    """Neurons as (terms by source, alpha, beta), then the terms of the output; source -1 is the input."""
    if isinstance(problem, Feedforward):
        *hidden, last = [{i - 1: weight} for i, weight in enumerate(problem.weights)]
        return [(terms, *slopes) for terms, slopes in zip(hidden, problem.slopes, strict=True)], last
    ends = [0]
    for size in problem.layers:
        ends.append(ends[-1] + size)
    slices = [slice(*each) for each in pairwise(ends)]

    def terms(inner, outer):
        return {-1: outer} | {i: inner[:, each] for i, each in enumerate(slices)}

    hidden = [(terms(problem.A[s], problem.B[s]), problem.alpha[s], problem.beta[s]) for s in slices]
    return hidden, terms(problem.C, problem.D)


def assert_reads(net, problem, shape, method=None, bounded=False, seed=1):
    """Chords of the network obey the problem: f(x) − f(x′) by the neurons' own differences.

    With `bounded` the problem's last weight may exceed the network's, entry by entry of the output.
    """
    net = copy.deepcopy(net).double().eval()
    seen = []
    for module in net.modules():
        if is_activation(module) and not isinstance(module, nn.Identity):
            module.register_forward_hook(lambda module, args, out: seen.append(out[0] - out[1]))
    x = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out = (net if method is None else getattr(net, method))(x)
    hidden, last = groups(problem)
    y = {-1: (x[0] - x[1]).flatten()}
    outputs = iter([each.flatten().detach() for each in seen])

    def combine(terms):
        return sum(matrix @ y[source] for source, matrix in terms.items() if source in y)

    for index, (terms, alpha, beta) in enumerate(hidden):
        z = combine(terms)
        if bool((beta - alpha <= 1e-12 * beta.abs()).all()):
            y[index] = (alpha + beta) / 2 * z
            continue
        y[index] = next(outputs)
        tolerance = 1e-10 * (1 + z.abs().max()) ** 2
        assert bool(((y[index] - alpha * z) * (y[index] - beta * z) <= tolerance).all())
    difference, read = (out[0] - out[1]).flatten().detach(), combine(last)
    if bounded:
        assert next(outputs, None) is not None  # the output's activation
        assert bool((difference.abs() <= read.abs() * (1 + 1e-12)).all())
        assert bool((difference.abs() > 0).any())
    else:
        torch.testing.assert_close(read, difference, rtol=1e-9, atol=1e-9 * float(difference.abs().max()))
        assert next(outputs, None) is None


def conv(*layers):
    return nn.Sequential(*layers)


CHAINS = {
    "one layer": (lambda: nn.Linear(3, 2), (3,)),
    "no bias": (lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)), (3,)),
    "activations": (
        lambda: nn.Sequential(
            nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 4), nn.LeakyReLU(1.5), nn.Linear(4, 5), nn.SELU(), nn.Linear(5, 3)
        ),
        (5,),
    ),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 4), nn.PReLU(4), nn.Linear(4, 2)), (3,)),
    "nothing": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Dropout(0.5), nn.Identity(), nn.ReLU(), nn.Linear(4, 2)),
        (2, 3),
    ),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4)),
        (5,),
    ),
    "batch norm between": (
        lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)),
        (5,),
    ),
    "conv": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 2, groups=2),
            nn.PReLU(2), nn.Flatten(), nn.Linear(8, 3),
        ),
        (2, 5, 5),
    ),
    "conv1d, dilated": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3, dilation=2, padding="same"), nn.Tanh(), nn.Conv1d(3, 1, 2)), (2, 7)),
    "transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), nn.ReLU(), nn.ConvTranspose2d(3, 2, 2)
        ),
        (2, 3, 3),
    ),
    "circular": (lambda: nn.Sequential(nn.Conv1d(1, 2, 5, padding=2, padding_mode="circular"), nn.ReLU(), nn.Conv1d(2, 1, 1)), (1, 3)),
    "reflect": (
        lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(1, 2, 3), nn.ReLU(), nn.ZeroPad2d(1), nn.Conv2d(2, 1, 3)),
        (1, 4, 4),
    ),
    "pooling": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(3, 2, 1), nn.Tanh(),
            nn.AvgPool2d(3), nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2),
        ),
        (1, 6, 6),
    ),
    "global pooling": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2)),
        (1, 5, 5),
    ),
    "upsampling": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 3), nn.PixelUnshuffle(2)),
        (1, 5, 5),
    ),
    "two linear ones": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2)), (3,)),
    "linear on tokens": (lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), (2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name):
    make, shape = CHAINS[name]
    net = seeded(make())
    problem = extract(net, input_shape=shape)
    assert isinstance(problem, Feedforward)
    assert_reads(net, problem, shape)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 4)
        self.relu, self.tanh = nn.ReLU(), nn.Tanh()

    def forward(self, x):
        x = x + self.b(self.relu(self.a(x)))
        return x - self.tanh(self.c(x))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 2, 3, padding=1)
        self.relu, self.out = nn.ReLU(), nn.Linear(7 * 9, 3)

    def forward(self, x):
        x = torch.cat((x, self.relu(self.a(x))), 1)
        x = torch.cat([x, self.relu(self.b(x))], dim=1)
        return self.out(x.flatten(1))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()
        self.register_buffer("factor", torch.tensor([0.3, -1.0, 0.0, 2.0]))

    def forward(self, x):
        y = self.norm(self.act(self.a((x - 0.5) / 0.3)))
        return 0.1 * y + self.b(self.act(self.factor * y)) / 3 - x


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.act = nn.Linear(4, 4), nn.Tanh()

    def forward(self, x):
        for _ in range(3):
            x = x + self.act(self.a(x))
        return x


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.a(x)
        y = self.b(self.act(h))  # h is rectified, too
        y += h
        z = y
        z *= 2.0
        return y


class ResidualImages(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Conv2d(3, 2, 3, padding=1, bias=False)
        self.norm_a, self.norm_b, self.relu = nn.BatchNorm2d(3), nn.BatchNorm2d(2), nn.ReLU(inplace=True)
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        out = self.norm_b(self.b(self.relu(self.norm_a(self.a(x)))))
        out += x
        return self.head(self.relu(out).mean((2, 3)))


BRANCHES = {
    "residual images": (ResidualImages, (2, 4, 4)),
    "residual": (Residual, (4,)),
    "dense": (Dense, (2, 3, 3)),
    "scaled": (Scaled, (4,)),
    "shared": (Shared, (4,)),
}


@pytest.mark.parametrize("name", BRANCHES)
def test_branches(name):
    make, shape = BRANCHES[name]
    net = seeded(make())
    problem = extract(net, input_shape=shape)
    assert isinstance(problem, General)
    assert not problem.implicit
    if name != "scaled":  # there the same neurons occur with two factors
        assert_reads(net, problem, shape)


def test_in_place():
    net = seeded(InPlace())
    (first, second), a, b = extract(net).weights, *(each.weight.detach().double() for each in (net.a, net.b))
    assert torch.equal(first, a)
    assert torch.equal(second, 2 * (b + torch.eye(4)))


def test_a_batch_norm_behind_neurons_scales_their_slopes():
    net = seeded(nn.Sequential(nn.Linear(5, 6), nn.LeakyReLU(0.5), nn.BatchNorm1d(6), nn.Linear(6, 4)))
    problem = extract(net)
    assert torch.equal(problem.weights[1], net[3].weight.double())
    factor = (net[2].weight.double().square() / (net[2].running_var.double() + net[2].eps)).sqrt()
    alpha, beta = (each.abs() for each in problem.slopes[0])
    torch.testing.assert_close(torch.maximum(alpha, beta), factor, rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.minimum(alpha, beta), factor / 2, rtol=1e-14, atol=0)


def test_a_residual_block_in_the_general_form():
    net = seeded(Residual())
    problem = extract(net)
    assert problem.layers == (6, 4, 4)
    assert problem.names == ("a", "add", "c")
    a, b, c = (layer.weight.detach().double() for layer in (net.a, net.b, net.c))
    assert torch.equal(problem.B, torch.cat([a, torch.eye(4).double(), torch.zeros(4, 4).double()]))
    assert torch.equal(problem.A[6:10, :6], b)
    assert torch.equal(problem.A[10:, 6:10], c)
    assert torch.equal(problem.C, torch.cat([b, torch.zeros(4, 4), -torch.eye(4)], dim=1))
    assert torch.equal(problem.D, torch.eye(4).double())
    assert torch.equal(problem.alpha, torch.tensor([0.0] * 6 + [1.0] * 4 + [0.0] * 4).double())


def test_functions_are_as_modules():
    class Functional(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            a, norm, _, b, _, c = self.net
            x = F.conv2d(x, a.weight, a.bias, stride=2, padding=1)
            x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.1, norm.eps)
            x = F.dropout(F.relu(x), 0.5, self.training)
            x = torch.flatten(F.leaky_relu(F.conv2d(x, weight=b.weight, bias=b.bias), 0.1), 1)
            x = F.linear(x.view(x.size(0), -1), c.weight, c.bias)
            return x.clone().unsqueeze(1).permute(0, 2, 1)[:, :, 0]

    net = seeded(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 2),
            nn.Sequential(nn.LeakyReLU(0.1), nn.Flatten()), nn.Linear(8, 3),
        )
    )  # fmt: skip
    one, other = extract(net, input_shape=(1, 5, 5)), extract(Functional(net), input_shape=(1, 5, 5))
    for weight, same in zip(one.weights, other.weights, strict=True):
        assert torch.equal(weight, same)
    for pair, same_pair in zip(one.slopes, other.slopes, strict=True):
        assert torch.equal(torch.stack(pair), torch.stack(same_pair))


def test_arithmetic_with_constants():
    class Normalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.rand(1, 2, 1))
            self.register_buffer("matrix", torch.randn(6, 3))

        def forward(self, x):
            x = (x - self.mean) / torch.tensor([[2.0], [4.0]])
            return 1.0 - torch.stack([x[:, 0], x[:, 1]], 1).reshape(len(x), -1) @ self.matrix

    net = Normalised()
    (weight,) = extract(net, input_shape=(2, 3)).weights
    scale = torch.tensor([2.0, 2, 2, 4, 4, 4]).double()
    assert torch.equal(weight, net.matrix.double().T / scale)  # the sign of all outputs plays no part


def test_weights_are_read_exactly():
    net = seeded(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    problem = extract(net)
    assert all(
        torch.equal(w, layer.weight.double()) for w, layer in zip(problem.weights, (net[0], net[2]), strict=True)
    )
    assert problem.names == ("0", "2")
    half = copy.deepcopy(net).to(torch.bfloat16)
    assert torch.equal(extract(half).weights[0], half[0].weight.double())


def exact_factor(norm, k):
    """γ²/(v + ε) as a fraction: the square of what a batch norm multiplies by."""
    gamma, variance = Fraction(norm.weight[k].item()), Fraction(norm.running_var[k].item())
    return gamma**2 / (variance + Fraction(norm.eps))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_batch_norms_factor_is_enclosed(seed):
    net = seeded(nn.Sequential(nn.Linear(3, 20), nn.BatchNorm1d(20), nn.LeakyReLU(0.5), nn.Linear(20, 2)), seed)
    alpha, beta = extract(net).slopes[0]
    for k in range(20):
        square = exact_factor(net[1], k)
        factors = sorted([Fraction(alpha[k].item()), Fraction(beta[k].item())], key=abs)
        assert (factors[0] * 2) ** 2 <= square <= factors[1] ** 2
        assert factors[1] ** 2 <= square * (1 + Fraction(1, 10**14))
        assert (beta[k] > 0) == (net[1].weight[k] > 0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_batch_norm_at_an_end_is_rounded_up(seed):
    first = seeded(nn.Sequential(nn.BatchNorm1d(20), nn.Linear(20, 3)), seed)
    last = seeded(nn.Sequential(nn.Linear(3, 20), nn.BatchNorm1d(20)), seed)
    for net, norm, linear, weight in (
        (first, first[0], first[1], extract(first).weights[0].T),
        (last, last[1], last[0], extract(last).weights[0]),
    ):
        rows = linear.weight.detach().double()
        rows = rows.T if net is first else rows
        for k in range(20):
            column = int(rows[k].abs().argmax())
            factor = abs(Fraction(weight[k, column].item()) / Fraction(rows[k, column].item()))
            assert all(Fraction(weight[k, j].item()) == factor * Fraction(rows[k, j].item()) for j in range(3))
            assert exact_factor(norm, k) <= factor**2 <= exact_factor(norm, k) * (1 + Fraction(1, 10**8))


def test_the_last_activation_scales_the_last_weight():
    net = seeded(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Sigmoid()))
    problem = extract(net)
    assert torch.equal(problem.weights[1], net[2].weight.double() / 4)
    assert_reads(net, problem, (3,), bounded=True)
    gelu = nn.Sequential(*net[:3], nn.GELU())
    factor = extract(gelu).weights[1] / net[2].weight.double()
    assert bool((factor >= 1.128904145185155).all())
    assert bool((factor <= 1.128904145185155 * (1 + 4e-9)).all())


def test_an_activation_on_the_input():
    net = seeded(nn.Sequential(nn.Sigmoid(), nn.Linear(3, 2)))
    (weight,) = extract(net).weights
    assert torch.equal(weight, net[1].weight.double() / 4)


def test_parametrised_weights_in_eval_mode():
    net = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(5, 6)), nn.ReLU(), parametrizations.orthogonal(nn.Linear(6, 6)),
        nn.ReLU(), parametrizations.weight_norm(nn.Linear(6, 3)),
    ).train()  # fmt: skip
    before = copy.deepcopy(net.state_dict())
    problem = extract(net)
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    net.eval()
    assert all(torch.equal(w, net[i].weight.double()) for w, i in zip(problem.weights, (0, 2, 4), strict=True))


def test_pruned_weights():
    net = nn.Sequential(prune.l1_unstructured(nn.Linear(4, 5), "weight", 0.3), nn.ReLU(), nn.Linear(5, 3))
    weight = extract(net).weights[0]
    assert torch.equal(weight, (net[0].weight_orig * net[0].weight_mask).double())
    assert int((weight == 0).sum()) == 6


def test_norms_by_hooks_are_computed_anew():
    with pytest.warns(FutureWarning, match="weight_norm"):
        net = nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.utils.spectral_norm(nn.Linear(4, 2)))
    net(torch.zeros(1, 3))
    with torch.no_grad():
        net[0].weight_g.mul_(3.0)  # its `weight` is of the last forward
        net[2].weight_orig.mul_(2.0)
    problem = extract(net)
    net.eval()(torch.zeros(1, 3))
    assert torch.equal(problem.weights[0], net[0].weight.double())
    torch.testing.assert_close(problem.weights[1], net[2].weight.double(), rtol=0, atol=0)


def test_the_packages_networks():
    assert extract(MLP((6, 5, 4), "tanh")).sizes == (6, 5, 4)
    autoencoder = seeded(Autoencoder((16, 8, 3)))
    problem = extract(autoencoder, torch.zeros(7, 1, 4, 4))
    assert problem.sizes == extract(autoencoder).sizes == (16, 8, 3, 8, 16)
    assert_reads(autoencoder, problem, (1, 4, 4), bounded=True)
    noisy = Autoencoder((16, 8, 3), noise=0.5).train()
    assert extract(noisy).sizes == (16, 8, 3, 8, 16)
    assert noisy.training
    images = seeded(ConvAutoencoder((1, 3, 4), size=7))
    problem = extract(images)
    assert problem.sizes == (49, 48, 16, 48, 49)
    assert_reads(images, problem, (1, 7, 7), bounded=True)


def test_a_method():
    autoencoder = seeded(Autoencoder((16, 8, 3), output_activation=None))
    assert_reads(autoencoder, extract(autoencoder.decode, input_shape=(3,)), (3,), method="decode")
    problem = extract(autoencoder.encode, input_shape=(1, 4, 4))
    assert problem.names == ("encoder.layers.0", "encoder.layers.2")


def test_compiled_and_wrapped():
    net = seeded(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    for wrapped in (torch.compile(net), nn.DataParallel(net)):
        problem = extract(wrapped, input_shape=(3,))
        assert torch.equal(problem.weights[1], net[2].weight.double())


def test_a_constant_network():
    class Constant(nn.Module):
        def forward(self, x):
            return 0.0 * x + torch.ones(3)

    problem = extract(Constant(), input_shape=(3,))
    assert torch.equal(problem.weights[0], torch.zeros(3, 3).double())
    dead = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    nn.init.zeros_(dead[0].weight)
    assert extract(dead).weights[0].count_nonzero() == 0


class Net(nn.Module):
    def __init__(self, forward, **parts):
        super().__init__()
        self.a = nn.Linear(4, 4)
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = [forward]

    def forward(self, x):
        return self.function[0](self, x)


@pytest.mark.parametrize(
    ("net", "name", "kind"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Softmax(1)), "1", "Softmax"),
        (nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.LayerNorm(4))), "1.0", "LayerNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.MaxPool1d(2)), "1", "MaxPool1d"),
        (nn.Sequential(nn.Linear(4, 4), nn.Hardshrink()), "1", "Hardshrink"),
        (nn.Sequential(nn.Linear(4, 4), nn.GLU()), "1", "GLU"),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), "1", "BatchNorm1d"),
        (nn.Sequential(nn.Linear(4, 4), nn.Upsample(scale_factor=2, mode="linear")), "1", "Upsample"),
        (nn.Sequential(nn.Linear(4, 4), nn.LocalResponseNorm(2)), "1", "LocalResponseNorm"),
        (nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)), "1", "LSTM"),
        (nn.Sequential(nn.Linear(4, 4), nn.TransformerEncoderLayer(4, 2)), "1", "TransformerEncoderLayer"),
        (nn.Sequential(nn.Linear(4, 4), Net(lambda net, x: x * x)), "1", "mul"),
        (Net(lambda net, x: net.a(x) / x), "", "truediv"),
        (Net(lambda net, x: torch.softmax(net.a(x), 1)), "", "softmax"),
        (Net(lambda net, x: torch.maximum(x, net.a(x))), "", "maximum"),
        (Net(lambda net, x: torch.exp(net.a(x))), "", "exp"),
        (Net(lambda net, x: F.max_pool1d(net.a(x), 2)), "", "boolean_dispatch"),
        (Net(lambda net, x: net.a(x).max(1)), "", "max"),
        (Net(lambda net, x: x - x.mean(0)), "", "mean"),
        (Net(lambda net, x: net.a(x).t()), "", "t"),
        (Net(lambda net, x: net.a(x).reshape(-1)), "", "reshape"),
        (Net(lambda net, x: F.dropout(net.a(x))), "", "dropout"),
        (Net(lambda net, x: x + torch.randn_like(x)), "", "randn_like"),
        (Net(lambda net, x: net.a(x) if x.sum() > 0 else x), "", "sum"),
        (Net(lambda net, x: x if net.a(x) else -x), "", "Net"),
        (Net(lambda net, x: (x, net.a(x))), "", "Net"),
        (Net(lambda net, x: torch.ones(3)), "", "Net"),
        (Net(lambda net, x: net.a(x).int()), "", "int"),
        (Net(lambda net, x: next(iter(net.a(x)))), "", "Net"),
        (Net(lambda net, x: F.conv1d(x[:, None], net.a.weight[:, None], padding=9).relu(), b=nn.ReLU()), "", None),
    ],
)  # fmt: skip
def test_refused(net, name, kind):
    if kind is None:  # this one is fine: a convolution by a weight computed from a parameter
        assert extract(net, input_shape=(4,)).sizes == (4, 4 * 19)
        return
    with pytest.raises(UnsupportedLayer) as error:
        extract(net.eval(), input_shape=(4,))
    assert error.value.name == name
    assert kind in (error.value.type, "boolean_dispatch")
    assert error.value.type in str(error.value)
    assert error.value.status.code == "unsupported_layer"


def test_what_tracing_cannot_see_is_found():
    net = seeded(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    net[1].register_forward_hook(lambda module, args, out: 3 * out)
    with pytest.raises(UnsupportedLayer, match="something else than its layers: a hook"):
        extract(net)
    random = seeded(nn.Linear(4, 4))
    random.register_forward_hook(lambda module, args, out: out + torch.rand_like(out))
    with pytest.raises(UnsupportedLayer, match="random"):
        extract(random)
    watched = seeded(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    watched[1].register_forward_hook(lambda module, args, out: None)
    assert extract(watched).sizes == (4, 4, 2)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda net: net[2].weight.data[0].fill_(torch.nan), ValueError, "layer '2': weight has 4 NaN or infinite"),
        (lambda net: net[1].running_var.fill_(torch.inf), ValueError, "layer '1': running_var has 4 NaN or infinite"),
        (lambda net: setattr(net[2], "weight", nn.Parameter(torch.eye(4, dtype=torch.cfloat))), TypeError, "'2'.*complex64"),
        (lambda net: net.to("meta"), ValueError, "layer '0': weight has no values"),
    ],
)  # fmt: skip
def test_bad_weights_are_named(change, error, message):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    change(net)
    with pytest.raises(error, match=message):
        extract(net)


def test_shapes():
    with pytest.raises(ValueError, match="do not tell the shape of its input"):
        extract(nn.Conv2d(1, 2, 3))
    with pytest.raises(ValueError, match="Linear cannot be applied to an input \\[B, 4\\]"):
        extract(nn.Linear(3, 2), input_shape=(4,))
    with pytest.raises(ValueError, match="Both"):
        extract(nn.Linear(3, 2), torch.zeros(1, 3), input_shape=(3,))
    with pytest.raises(ValueError, match="input_shape=\\(0,\\)"):
        extract(nn.Linear(3, 2), input_shape=(0,))
    with pytest.raises(ValueError, match="expected a batch"):
        extract(nn.Linear(3, 2), torch.zeros(3))
    with pytest.raises(ValueError, match="expected an input of shape"):
        extract(MLP((6, 5)), input_shape=(5,))
    with pytest.raises(TypeError, match=r"expected an nn\.Module"):
        extract(torch.relu)
    assert extract(nn.Conv2d(1, 2, 3), (torch.zeros(2, 1, 4, 4), torch.zeros(2))).sizes == (16, 8)


def test_slopes_of_ones_own():
    net = seeded(
        nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.BatchNorm1d(4), nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 2))
    )
    auto, given = extract(net).slopes, extract(net, slopes=(0.25, 0.5)).slopes
    factor = torch.maximum(*(each.abs() for each in auto[0])) / 1.128904145185155
    torch.testing.assert_close(torch.maximum(*(each.abs() for each in given[0])), factor / 2)
    assert torch.equal(torch.stack(given[1]), torch.tensor([[0.25, 0.25], [0.5, 0.5]]).double())
    each = extract(net, slopes=[(-1.0, 2.0), (torch.zeros(2), torch.tensor([0.5, 1.0]))]).slopes
    assert each[1][1].tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="1 pairs of slopes for 2 activations"):
        extract(net, slopes=[(0.0, 1.0)])
    with pytest.raises(ValueError, match="alpha = 1 > beta = 0"):
        extract(net, slopes=(1.0, 0.0))
    with pytest.raises(ValueError, match="slopes='relu'"):
        extract(net, slopes="relu")


def test_size_caps():
    with pytest.raises(UnsupportedLayer, match=r"'0': Conv2d has an explicit matrix of 72×64 = 4,608 entries"):
        extract(nn.Sequential(nn.Conv2d(1, 2, 3)), input_shape=(1, 8, 8), max_entries=1000)
    with pytest.raises(ValueError, match="14 neurons that are no simple chain"):
        extract(Residual(), max_entries=100)


def test_scales():
    net = seeded(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)).double())
    with torch.no_grad():
        net[0].weight.mul_(1e150)
        net[2].weight.mul_(1e150)
    problem = extract(net)
    assert all(torch.equal(w, net[i].weight) for w, i in zip(problem.weights, (0, 2), strict=True))


def test_nothing_is_left_behind():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.ReLU(), nn.Linear(5, 2))
    before = copy.deepcopy(net.state_dict())
    state, kept = torch.get_rng_state(), {name: dict(vars(each)) for name, each in net.named_modules()}
    extract(net)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert {name: dict(vars(each)) for name, each in net.named_modules()} == kept
    assert net.training
