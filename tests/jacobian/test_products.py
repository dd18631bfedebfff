import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd.function import once_differentiable

from fpstab.jacobian import JacobianProducts, jacobian_matrix
from fpstab.maps import SelfMap
from fpstab.results import AnalysisError
from tests.jacobian.maps import brute_force, network, random


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 70), st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_against_brute_force(n, m, b, seed):
    phi, x = network(n, 6, m, seed=seed), random(b, n, seed=seed)
    J = brute_force(phi, x)
    products = JacobianProducts(phi, x)
    v, w = random(b, n, seed=1), random(b, m, seed=2)
    for _ in range(2):
        torch.testing.assert_close(products.jvp(v), (J @ v[:, :, None])[:, :, 0], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(products.vjp(w), (w[:, None] @ J)[:, 0], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(products.value, phi(x).detach(), rtol=0, atol=0)
    torch.testing.assert_close(jacobian_matrix(phi, x), J, rtol=1e-12, atol=1e-14)
    assert products.shape == (b, m, n)
    assert not products.value.requires_grad


@pytest.mark.parametrize(
    ("phi", "slope"),
    [
        (torch.zeros_like, 0.0),
        (torch.sign, 0.0),
        (lambda x: x.detach() + 1, 0.0),
        (lambda x: x, 1.0),
        (lambda x: -2 * x, -2.0),
    ],
)
def test_constant_and_linear_maps(phi, slope):
    products, v = JacobianProducts(phi, random(3, 4)), random(3, 4, seed=1)
    assert torch.equal(products.vjp(v), slope * v)
    assert torch.equal(products.jvp(v), slope * v)


def test_some_rows_and_no_rows():
    phi, x, v = network(4, 5), random(6, 4), random(6, 4, seed=1)
    products = JacobianProducts(phi, x)
    mask = torch.tensor([True, False, True, False, False, False])
    torch.testing.assert_close(products.take(mask).jvp(v[mask]), products.jvp(v)[mask], rtol=1e-12, atol=1e-14)
    none = products.take(torch.tensor([], dtype=torch.int64))
    assert none.jvp(v[:0]).shape == (0, 5)
    assert none.vjp(random(0, 5)).shape == (0, 4)
    assert jacobian_matrix(phi, x[:0]).shape == (0, 5, 4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_whatever_the_mode(mode):
    phi, x, v = network(4, 5), random(3, 4), random(3, 4, seed=1)
    expected = JacobianProducts(phi, x)
    J = expected.jvp(v), expected.vjp(expected.value), jacobian_matrix(phi, x)
    with mode():
        products = JacobianProducts(phi, x.clone())
        for one, other in zip((products.jvp(v), products.vjp(products.value), jacobian_matrix(phi, x)), J, strict=True):
            assert torch.equal(one, other)
            assert float(one.abs().max()) > 0


def test_attention_can_be_differentiated_twice():
    class Attend(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x)

    phi = SelfMap(Attend(), random(2, 3, 4))
    x = phi.flatten(random(2, 3, 4))
    v = random(2, 12, seed=1)
    J = brute_force(lambda z: phi(z), x)
    torch.testing.assert_close(JacobianProducts(phi, x).jvp(v), (J @ v[:, :, None])[:, :, 0], rtol=1e-9, atol=1e-12)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        return 3 * g


class Wrong(torch.autograd.Function):
    """Its backward hides from autograd: a second derivative is zero."""

    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    def backward(ctx, g):
        return (3 * g).detach()


@pytest.mark.parametrize("function", [Once, Wrong])
def test_what_cannot_be_differentiated_twice_is_said(function):
    products = JacobianProducts(function.apply, random(2, 3))
    v = random(2, 3, seed=1)
    assert torch.equal(products.vjp(v), 3 * v)
    for _ in range(2):
        with pytest.raises(AnalysisError, match="cannot be differentiated twice"):
            products.jvp(v)
    J = jacobian_matrix(lambda x: function.apply(x).repeat(1, 2), random(2, 3))  # taller: by columns, if it could
    assert torch.equal(J[0], 3 * torch.eye(3, dtype=torch.float64).repeat(2, 1))


def test_a_row_that_is_not_finite_harms_no_other():
    x, v = random(3, 4), random(3, 4, seed=1)
    clean = JacobianProducts(network(4, 4), x).jvp(v)
    x[1, 2] = torch.nan
    dirty = JacobianProducts(network(4, 4), x).jvp(v)
    assert torch.isnan(dirty[1]).any()
    assert torch.equal(dirty[[0, 2]], clean[[0, 2]])


def test_a_map_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"maps \[2, 3\] to \[2\]"):
        JacobianProducts(lambda x: x.sum(1), random(2, 3))
