"""Stacks of chains against the same networks one by one, as plain modules."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fpstab.jacobian import affine_map
from fpstab.maps import SelfMap
from fpstab.stability.plots import plane
from fpstab.stability.stacks import ChainStack

ACTIVATIONS = (nn.ReLU, nn.SELU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.LeakyReLU)


def random_stack(activation=nn.Tanh, *, m=3, depth=3, n=2, bias=True, linear_output=False, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(m, depth, n, n, generator=generator, dtype=torch.float64)
    biases = torch.randn(m, depth, n, generator=generator, dtype=torch.float64) if bias else None
    last = None if linear_output else activation()
    return ChainStack(weights, biases, [*(activation() for _ in range(depth - 1)), last])


def sequential(stack, i):
    parts = []
    for W, b, activation in zip(stack.weights[i], stack.biases[i], stack.activations, strict=True):
        linear = nn.Linear(stack.n, stack.n, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(W)
            linear.bias.copy_(b)
        parts += [linear] if activation is None else [linear, activation]
    return nn.Sequential(*parts)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("mode", ["shifted", "paper", "tangent"])
@pytest.mark.parametrize("bias", [True, False])
def test_affine_maps_are_those_of_each_network(activation, mode, bias):
    stack, x = random_stack(activation, bias=bias), plane(8)
    found = stack.affine(x, mode=mode)
    for i in range(len(stack)):
        one = affine_map(SelfMap(sequential(stack, i), torch.zeros(1, 2), checked=True), x, mode=mode)
        size = 1 + one.A.abs()
        assert float(((found.A[i] - one.A).abs() / size).max()) < 1e-11
        assert float(((found.b[i] - one.b).abs() / (1 + one.b.abs() + size.amax((1, 2))[:, None])).max()) < 1e-11
        ours, theirs = found.spectral_radius()[i], one.spectral_radius()
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-9)
        assert torch.allclose(found.norm()[i], one.singular_values()[:, 0], rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(ACTIVATIONS),
    st.integers(1, 4),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["shifted", "tangent"]),
    st.integers(0, 10**6),
)
def test_the_affine_map_gives_the_value(activation, depth, n, linear_output, mode, seed):
    stack = random_stack(activation, depth=depth, n=n, linear_output=linear_output, seed=seed)
    x = torch.randn(5, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = stack.affine(x, mode=mode)
    for i in range(len(stack)):
        value = sequential(stack, i)(x).detach()
        assert torch.allclose(stack(x)[i], value, rtol=1e-12, atol=1e-12)
        assert torch.allclose((found.A[i] @ x[..., None])[..., 0] + found.b[i], value, rtol=1e-10, atol=1e-10)
        assert torch.allclose(found.step[i], value - x, rtol=1e-12, atol=1e-12)


def test_the_jacobian_is_that_of_autograd():
    stack, x = (
        random_stack(nn.GELU, n=3),
        torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3)),
    )
    for i in range(len(stack)):
        network = sequential(stack, i)
        for point, J in zip(x, stack.jacobian(x)[i], strict=True):
            assert torch.allclose(J, torch.autograd.functional.jacobian(network, point), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_dead_neuron_has_the_slope_of_its_side(side):
    """z = 0 on a half-plane of a ReLU chain, and everywhere at the origin."""
    weights = torch.eye(2, dtype=torch.float64).expand(1, 2, 2, 2)
    stack = ChainStack(weights, None, [nn.ReLU(), nn.ReLU()])
    x = torch.tensor([[-1.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    A = stack.affine(x, at_zero=side).A[0]
    dead = 0.0  # −1 goes to 0, and the first layer's factor there is 0 on either side
    assert torch.equal(A[0], torch.diag(torch.tensor([dead, 1.0], dtype=torch.float64)))
    assert torch.equal(A[1], (side == "right") * torch.eye(2, dtype=torch.float64))


def test_orbits_and_iterates():
    stack, x = random_stack(nn.Tanh), plane(3)
    orbits = stack.orbits(x, 5)
    assert orbits.shape == (3, 9, 6, 2)
    network, point = sequential(stack, 1), x
    for step in range(6):
        assert torch.allclose(orbits[1, :, step], point, rtol=1e-12, atol=1e-12)
        point = network(point).detach()
    assert torch.equal(stack.iterate(x, 5), orbits[:, :, 5])
    own = torch.randn(3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))  # points of each chain
    assert torch.allclose(stack(own)[2], sequential(stack, 2)(own[2]), rtol=1e-12, atol=1e-12)


def test_parts_and_networks():
    stack, x = random_stack(nn.SELU, m=5), plane(3)
    part = stack.select([3, 1])
    assert len(part) == 2
    assert torch.equal(part(x), stack(x)[[3, 1]])
    before = torch.random.get_rng_state()
    assert torch.allclose(stack.network(3)(x), stack(x)[3], rtol=1e-12, atol=1e-12)
    assert torch.equal(torch.random.get_rng_state(), before)
    z = stack.preactivations(x)
    assert z.shape == (5, 9, 6)
    assert torch.allclose(z[:, :, :2], x @ stack.weights[:, 0].mT + stack.biases[:, 0, None])


@pytest.mark.parametrize(
    ("weights", "biases", "activations", "said"),
    [
        (torch.zeros(2, 3, 2), None, [None] * 3, r"\[M, L, n, n\]"),
        (torch.zeros(2, 1, 2, 3), None, [None], r"\[M, L, n, n\]"),
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, 2), [None], "biases"),
        (torch.full((1, 1, 2, 2), torch.nan), None, [None], "not finite"),
        (torch.zeros(1, 2, 2, 2), None, [nn.Tanh()], "one for each of 2 layers"),
        (torch.zeros(1, 1, 2, 2), None, [nn.RReLU().train()], "random"),
        (torch.zeros(1, 1, 2, 2), None, [nn.PReLU(2, init=0.1)], None),
    ],
)
def test_what_is_no_stack_is_refused(weights, biases, activations, said):
    if said is None:  # slopes by channel, which differ
        with torch.no_grad():
            activations[0].weight[1] = 0.7
        said = "channel"
    with pytest.raises(ValueError, match=said):
        ChainStack(weights, biases, activations)


def test_what_is_no_point_is_refused():
    with pytest.raises(ValueError, match="points"):
        random_stack()(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="mode"):
        random_stack().affine(torch.zeros(1, 2), mode="secant")
    with pytest.raises(TypeError, match="Softmax"):
        ChainStack(torch.zeros(1, 1, 2, 2), None, [nn.Softmax(1)])
