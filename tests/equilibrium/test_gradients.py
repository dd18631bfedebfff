import math
import warnings

import pytest
import torch
from torch import nn

from fpstab.equilibrium import Anderson, Auto, Broyden, FixedPointLayer, Picard
from tests.equilibrium.problems import Cell, batch, name, unrolled

SOLVERS = [Picard(max_iter=200), Anderson(max_iter=200), Broyden(max_iter=200), Auto(max_iter=200)]


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def gradients(output, *tensors, **options):
    return torch.autograd.grad(output, tensors, **options)


def check(run, inputs):
    """First and second derivatives against finite differences, along random directions."""
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True)


class TestFiniteDifferences:
    @pytest.mark.parametrize("solver", SOLVERS, ids=name)
    def test_first_and_second(self, solver):
        f, x = Cell(2, radius=0.4), batch(2, 2).requires_grad_()
        layer = FixedPointLayer(f, solver, tol=1e-13)

        def run(x, W, b):
            return layer(zeros(2, 2), x)

        assert torch.autograd.gradcheck(run, (x, f.W, f.b))
        assert torch.autograd.gradgradcheck(run, (x, f.W, f.b))

    @pytest.mark.parametrize("solver", SOLVERS, ids=name)
    def test_wider(self, solver):
        f, x = Cell(6), batch(3, 6).requires_grad_()
        layer = FixedPointLayer(f, solver, tol=1e-13)
        check(lambda x, W, b: layer(zeros(3, 6), x), (x, f.W, f.b))

    def test_third(self):
        f, x = Cell(2, radius=0.4), batch(2, 2).requires_grad_()
        layer = FixedPointLayer(f, tol=1e-13)

        def slope(x, W):
            return gradients(layer(zeros(2, 2), x).square().sum(), W, create_graph=True)[0]

        assert torch.autograd.gradgradcheck(slope, (x, f.W), fast_mode=True)

    def test_another_solver_for_the_adjoint(self):
        f, x = Cell(3), batch(2, 3).requires_grad_()
        layer = FixedPointLayer(f, Anderson(), Picard(max_iter=300), tol=1e-13)
        check(lambda x, W: layer(zeros(2, 3), x), (x, f.W))


class TestOtherStates:
    def test_tuples(self):
        W = nn.Parameter(batch(3, 5) * 0.2)

        def f(state, x):
            a, b = state
            return torch.tanh(b.flatten(1) @ W.T + x), 0.5 * torch.sin(a @ W).reshape(-1, 5, 1)

        layer = FixedPointLayer(f, tol=1e-13)
        x = batch(2, 3, seed=5).requires_grad_()

        def run(x, W):
            return layer((zeros(2, 3), zeros(2, 5, 1)), x)

        check(run, (x, W))

    def test_a_part_that_nobody_uses(self):
        layer = FixedPointLayer(lambda state, x: (0.5 * state[0] + x, torch.cos(state[1])), tol=1e-12)
        x = batch(2, 3).requires_grad_()
        a, _ = layer((zeros(2, 3), zeros(2, 3)), x)
        assert torch.allclose(gradients(a.sum(), x)[0], zeros(2, 3) + 2)

    def test_whole_numbers_among_the_arguments(self):
        table = nn.Parameter(batch(4, 3))
        layer = FixedPointLayer(lambda z, index: torch.tanh(0.5 * z + table[index]), tol=1e-13)
        index = torch.tensor([0, 2, 2])
        check(lambda table: layer(zeros(3, 3), index), (table,))

    def test_closures(self):
        """The leaves behind what was computed outside of f get their gradient, to second order."""
        V = nn.Parameter(batch(3, 3) * 0.4)

        def run(V):
            U = V * V.tanh()
            return FixedPointLayer(lambda z, x: torch.tanh(z @ U + x), tol=1e-13)(zeros(2, 3), batch(2, 3))

        check(run, (V,))

    def test_two_layers_in_a_row(self):
        f, g, x = Cell(3, seed=1), Cell(3, seed=2), batch(2, 3).requires_grad_()
        first, second = FixedPointLayer(f, tol=1e-13), FixedPointLayer(g, tol=1e-13)
        run = lambda x, W, U: second(zeros(2, 3), first(zeros(2, 3), x))  # noqa: E731
        check(run, (x, f.W, g.W))

    def test_one_parameter_in_f_and_outside(self):
        f, x = Cell(3), batch(2, 3)
        layer = FixedPointLayer(f, tol=1e-13)
        run = lambda W: layer(zeros(2, 3), x @ W.sin()) @ W  # noqa: E731
        check(run, (f.W,))

    def test_an_argument_that_f_does_not_use(self):
        f, x, y = Cell(3), batch(2, 3).requires_grad_(), batch(2, 3).requires_grad_()
        layer = FixedPointLayer(lambda z, x, y: f(z, x), tol=1e-12)
        (gradient,) = gradients(layer(zeros(2, 3), x, y).sum(), y)
        assert (gradient == 0).all()

    def test_a_map_that_forgets_its_state(self):
        x = batch(2, 3).requires_grad_()
        z = FixedPointLayer(lambda z, x: x.sin(), tol=1e-12)(zeros(2, 3), x)
        assert torch.allclose(gradients(z.sum(), x)[0], x.cos())


@pytest.mark.parametrize("solver", SOLVERS[1:], ids=name)
class TestWherePlainIterationDiverges:
    """Value, gradient and second derivative in closed form."""

    def test_slope_minus_two(self, solver):
        a = torch.tensor([[2.0]], dtype=torch.float64, requires_grad=True)
        x = torch.tensor([[1.0], [0.5]], dtype=torch.float64, requires_grad=True)
        layer = FixedPointLayer(lambda z, x: -a * z + x, solver, tol=1e-12)
        z = layer(zeros(2, 1), x)  # x/(1 + a)
        assert torch.allclose(z, x / 3, rtol=0, atol=1e-8)
        of_x, of_a = gradients(z.square().sum(), x, a, create_graph=True)
        assert torch.allclose(of_x, 2 * x / 9, rtol=0, atol=1e-8)
        assert torch.allclose(of_a, -2 * x.square().sum() / 27, rtol=0, atol=1e-8)
        (of_xx,) = gradients(of_x.sum(), x, retain_graph=True)
        assert torch.allclose(of_xx, zeros(2, 1) + 2 / 9, rtol=0, atol=1e-8)
        (of_aa,) = gradients(of_a.sum(), a)
        assert torch.allclose(of_aa, 6 * x.square().sum() / 81, rtol=0, atol=1e-8)

    def test_matrix_of_ones(self, solver):
        W = torch.ones(3, 3, dtype=torch.float64, requires_grad=True)
        x, c = batch(4, 3).requires_grad_(), batch(4, 3, seed=2)
        layer = FixedPointLayer(lambda z, x: z @ W.T + x, solver, tol=1e-12)

        def direct(x, W):
            return torch.linalg.solve(torch.eye(3, dtype=torch.float64) - W, x.T).T

        results = []
        for run in (lambda x, W: layer(zeros(4, 3), x), direct):
            z = run(x, W)
            first = gradients((c * z.square()).sum(), x, W, create_graph=True)
            second = gradients(sum((batch(*g.shape, seed=3) * g).sum() for g in first), x, W)
            results.append((z, *first, *second))
        for ours, exact in zip(*results, strict=True):
            assert torch.allclose(ours, exact, rtol=0, atol=1e-8)


@pytest.mark.parametrize("solver", [Picard(), Anderson(), Broyden(), Auto()], ids=name)
@pytest.mark.parametrize("family", ["iid", "goe"])
def test_against_unrolled_float64(solver, family):
    """float32, tol = 1e-5: the gradients are right to 3 tol."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(128, 128, generator=generator, dtype=torch.float64)
    W = (0.9 * a / 128**0.5 if family == "iid" else 0.45 * (a + a.T) / 256**0.5).float()
    x, c = batch(64, 128, dtype=torch.float32), batch(64, 128, seed=2)
    W64, x64 = W.double().requires_grad_(), x.double().requires_grad_()
    exact = gradients((c * unrolled(lambda z, x: torch.tanh(z @ W64.T + x), torch.zeros_like(c), x64)).sum(), W64, x64)
    W, x = W.requires_grad_(), x.requires_grad_()
    layer = FixedPointLayer(lambda z, x: torch.tanh(z @ W.T + x), solver)
    found = gradients((c * layer(torch.zeros(64, 128), x)).sum(), W, x)
    for ours, theirs in zip(found, exact, strict=True):
        assert torch.linalg.vector_norm(ours - theirs) <= 3e-5 * torch.linalg.vector_norm(theirs)


class TestTheSizeOfAGradientDoesNotMatter:
    @pytest.mark.parametrize("size", [1e-12, 1e9])
    def test_scale(self, size):
        f, x = Cell(8), batch(4, 8).requires_grad_()
        layer = FixedPointLayer(f, tol=1e-8)
        (one,) = gradients(layer(zeros(4, 8), x).sum(), x)
        (scaled,) = gradients(size * layer(zeros(4, 8), x).sum(), x)
        assert torch.allclose(scaled / size, one, rtol=1e-6)

    def test_samples_without_a_gradient(self):
        f, x = Cell(8), batch(4, 8).requires_grad_()
        (gradient,) = gradients(FixedPointLayer(f, tol=1e-10)(zeros(4, 8), x)[1].sum(), x)
        assert (gradient[[0, 2, 3]] == 0).all()
        alone = x[1:2].detach().requires_grad_()
        (exact,) = gradients(unrolled(f, zeros(1, 8), alone).sum(), alone)
        assert torch.allclose(gradient[1:2], exact, atol=1e-8)


class TestWhenTheAdjointResists:
    def test_falls_back_to_gmres(self):
        """|f'| = 3 at the fixed point: plain iteration of the adjoint diverges."""
        x = batch(5, 4).requires_grad_()
        A = torch.diag(torch.tensor([-3.0, 2.5, 0.5, -1.5], dtype=torch.float64))
        for backward in (Picard(max_iter=3), Anderson(memory=1, max_iter=3), Broyden(memory=1, max_iter=3)):
            layer = FixedPointLayer(lambda z, x: z @ A + x, Anderson(), backward, tol=1e-12)
            (gradient,) = gradients(layer(zeros(5, 4), x).sum(), x)
            assert torch.allclose(gradient, (1 / (1 - A.diagonal())).expand(5, 4), rtol=0, atol=1e-9)
            assert layer.last.fallback == 5
            assert layer.last.dropped == 0

    def test_drops_a_sample_and_says_so_once(self):
        """1 − J is singular for one sample: its equilibrium has no derivative."""
        a = torch.tensor([[0.5], [1.0], [0.2]], dtype=torch.float64)
        W = nn.Parameter(torch.ones(1, dtype=torch.float64))
        layer = FixedPointLayer(lambda z, a: W * a * z, tol=1e-10)
        a.requires_grad_()
        with pytest.warns(UserWarning, match="1 of 3 samples could not be solved"):
            layer(zeros(3, 1) + 1e-13, a).sum().backward()
        assert layer.last.dropped == 1
        assert W.grad.isfinite().all()
        assert a.grad.isfinite().all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(zeros(3, 1) + 1e-13, a).sum().backward()
        assert layer.last.scalars()["dropped"] == 1

    @pytest.mark.parametrize("order", [1, 2])
    def test_a_poisoned_sample(self, order):
        f = Cell(8)
        x = batch(5, 8)
        x[2] = math.nan
        x.requires_grad_()
        layer = FixedPointLayer(f, tol=1e-11)
        good = [0, 1, 3, 4]
        with pytest.warns(UserWarning, match="not finite for 1 of 5"):
            z = layer(zeros(5, 8), x)

        def derivatives(z, x):
            found = gradients(z.square().sum(), f.W, x, create_graph=order == 2)
            return found if order == 1 else gradients(found[0].square().sum() + found[1].square().sum(), f.W, x)

        of_W, of_x = derivatives(z, x)
        y = x.detach()[good].requires_grad_()
        exact_W, exact_x = derivatives(unrolled(f, zeros(4, 8), y), y)
        assert z.isfinite().all()
        assert (of_x[2] == 0).all()
        assert torch.allclose(of_W, exact_W, rtol=1e-6, atol=1e-8)
        assert torch.allclose(of_x[good], exact_x, rtol=1e-6, atol=1e-8)

    def test_everybody_is_poisoned(self):
        f, x = Cell(8), (batch(2, 8) * math.nan).requires_grad_()
        with pytest.warns(UserWarning, match="not finite for 2 of 2"):
            z = FixedPointLayer(f)(zeros(2, 8), x)
        z.sum().backward()
        assert (f.W.grad == 0).all()
        assert (x.grad == 0).all()

    def test_an_incoming_gradient_that_is_not_finite(self):
        f, x = Cell(8), batch(3, 8).requires_grad_()
        with pytest.warns(UserWarning, match="1 of 3 samples could not be solved"):
            FixedPointLayer(f)(zeros(3, 8), x).backward(torch.tensor([[1.0], [math.nan], [1.0]]).expand(3, 8).double())
        assert f.W.grad.isfinite().all()
        assert (x.grad[1] == 0).all()


def test_memory_does_not_grow_with_the_iterations():
    """What autograd keeps between the passes: the equilibrium, the arguments and the parameters."""
    f, x = Cell(8, radius=0.99), batch(4, 8).requires_grad_()
    kept = []
    for max_iter in (20, 400):
        saved = []
        pack = lambda t, saved=saved: saved.append(t.numel()) or t  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            FixedPointLayer(f, Picard(max_iter=max_iter), tol=1e-14)(zeros(4, 8), x)
        kept.append(sum(saved))
    assert kept[0] == kept[1]
