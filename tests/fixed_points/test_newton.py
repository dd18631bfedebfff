"""Newton's method: quadratic, isolated by rows, honest where there is nothing to find."""

import pytest
import torch

from fpstab.fixed_points.newton import newton, newton_error
from tests import cases


@pytest.mark.parametrize("n", [1, 2, 5, 40, 120])
def test_roots_of_either_solver(n):
    generator = torch.Generator().manual_seed(n)
    W = 1.5 * torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
    b = torch.randn(n, generator=generator, dtype=torch.float64)

    def function(x):
        return torch.tanh(x @ W.T + b)

    roots = newton(function, cases.uniform(12, n), batch_size=5)
    assert roots.converged.any()
    for x in roots.x[roots.converged]:
        assert cases.is_fixed_point(function, x, 1e-12)
    error = newton_error(function, roots.x[roots.converged])[2]
    assert (error < 1e-9).all()


def test_saddles_and_repellers_attract_it():
    case = cases.doubled_tanh(2)
    roots = newton(case.map, case.points + 0.02, batch_size=100)
    assert roots.converged.all()
    assert torch.allclose(roots.x, case.points, rtol=0, atol=1e-12)


def test_no_fixed_point_no_root():
    roots = newton(lambda x: x + x**2 + 1e-3, cases.uniform(20, 1), batch_size=100)
    assert not roots.converged.any()
    assert torch.isfinite(roots.x).all()


def test_rows_do_no_harm():
    case = cases.doubled_tanh(2)
    good = cases.uniform(10, 2)
    bad = torch.tensor([[torch.nan, 0], [torch.inf, 1], [1e308, 1e308]], dtype=torch.float64)
    alone, together = newton(case.map, good, batch_size=100), newton(case.map, torch.cat((bad, good)), batch_size=100)
    assert torch.equal(alone.x, together.x[3:])
    assert torch.equal(alone.converged, together.converged[3:])
    assert not together.converged[:2].any()


def test_singular_systems():
    projector = torch.diag(torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    starts = cases.uniform(10, 3)
    roots = newton(lambda x: x @ projector, starts, batch_size=4)
    assert roots.converged.all()
    assert torch.allclose(roots.x, starts @ projector, rtol=0, atol=1e-12)  # the nearest fixed point
    assert torch.isinf(newton_error(lambda x: x @ projector, roots.x)[2]).all()


def test_the_error_bound_holds_at_points_that_are_off():
    case = cases.doubled_tanh(2)
    for off in (1e-4, 1e-7, 1e-10):
        x = case.points + off
        error = newton_error(case.map, x)[2]
        assert (error >= (x - case.points).norm(dim=1)).all()
        assert (error <= 5 * 2**0.5 * off + 1e-12).all()


def test_without_a_second_derivative():
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = torch.tanh(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return g * (1 - ctx.saved_tensors[0] ** 2)

    n = 40
    generator = torch.Generator().manual_seed(0)
    W = 0.8 * torch.randn(n, n, generator=generator, dtype=torch.float64) / n**0.5
    roots = newton(lambda x: Once.apply(x @ W.T + 0.1), cases.uniform(3, n), batch_size=10)
    assert roots.converged.all()
    assert (roots.residual < 1e-12).all()
