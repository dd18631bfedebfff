import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fpstab.equilibrium import Anderson, Broyden, Picard, solve
from fpstab.results import AnalysisError
from tests.equilibrium.problems import ACCELERATED, SOLVERS, Cell, batch, name, newton, unrolled


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
class TestContractions:
    def test_equals_long_plain_iteration(self, solver):
        f, x = Cell(16), batch(9, 16)
        solution = solve(f, zeros(9, 16), (x,), solver=solver, tol=1e-12)
        assert solution.status.ok
        assert torch.allclose(solution.z, unrolled(f, zeros(9, 16), x).detach(), rtol=0, atol=1e-10)

    def test_residual_is_that_of_z(self, solver):
        f, x = Cell(16), batch(9, 16)
        solution = solve(f, zeros(9, 16), (x,), solver=solver, tol=1e-4)
        exact = torch.linalg.vector_norm(f(solution.z, x) - solution.z, dim=1)
        assert torch.allclose(solution.residual, exact.detach(), rtol=1e-9, atol=1e-14)
        bound = 1e-4 * (torch.linalg.vector_norm(f(solution.z, x), dim=1) + 4)
        assert (solution.residual <= bound * (1 + 1e-9)).all()

    def test_a_sample_knows_nothing_of_the_others(self, solver):
        f, x = Cell(16, radius=0.9), batch(9, 16) * torch.logspace(-2, 1, 9, dtype=torch.float64)[:, None]
        together = solve(f, zeros(9, 16), (x,), solver=solver, tol=1e-9)
        for i in range(9):
            alone = solve(f, zeros(1, 16), (x[i : i + 1],), solver=solver, tol=1e-9)
            if type(solver).__name__ != "Auto":  # which switches by the median of the batch
                assert alone.iterations.item() == together.iterations[i].item()
            assert torch.allclose(alone.z[0], together.z[i], rtol=0, atol=1e-7)

    def test_affine_map_of_200_unknowns(self, solver):
        generator = torch.Generator().manual_seed(3)
        M = torch.randn(200, 200, generator=generator, dtype=torch.float64) * 0.5 / 200**0.5
        b = batch(4, 200)
        solution = solve(lambda z, b: z @ M.T + b, zeros(4, 200), (b,), solver=solver, tol=1e-12)
        exact = torch.linalg.solve(torch.eye(200, dtype=torch.float64) - M, b.T).T
        assert torch.allclose(solution.z, exact, rtol=0, atol=1e-9)

    def test_implicit_midpoint_of_a_pendulum(self, solver):
        y0 = torch.tensor([[1.2, 0.3]], dtype=torch.float64)

        def step(y):
            mean = (y0 + y) / 2
            return y0 + 0.3 * torch.stack((mean[:, 1], -torch.sin(mean[:, 0])), 1)

        solution = solve(step, y0, solver=solver, tol=1e-13)
        assert torch.allclose(solution.z[0], newton(step, y0[0].numpy()), rtol=0, atol=1e-11)

    def test_nonlinear_heat_equation(self, solver):
        points = torch.linspace(0, 1, 20, dtype=torch.float64)
        y0, dt, dx = torch.sin(math.pi * points)[None], 4e-4, 1 / 19

        def step(y):
            padded = torch.nn.functional.pad(y, (1, 1))
            laplacian = (padded[:, 2:] - 2 * y + padded[:, :-2]) / dx**2
            return y0 + dt * ((1 - y) * laplacian + torch.sin(y))

        solution = solve(step, y0, solver=solver, tol=1e-13)
        assert torch.allclose(solution.z[0], newton(step, y0[0].numpy()), rtol=0, atol=1e-10)


@pytest.mark.parametrize("solver", ACCELERATED, ids=name)
class TestWherePlainIterationFails:
    def test_rotation(self, solver):
        angle = 2 * math.pi / 3
        R = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
        b = batch(5, 2)
        solution = solve(lambda z, b: z @ R.T + b, zeros(5, 2), (b,), solver=solver, tol=1e-12)
        exact = torch.linalg.solve(torch.eye(2, dtype=torch.float64) - R, b.T).T
        assert torch.allclose(solution.z, exact, rtol=0, atol=1e-10)
        assert solution.n_evals <= 10

    @pytest.mark.parametrize("rate", [0.9, 0.99, 0.999])
    def test_geometric_decay(self, solver, rate):
        solution = solve(lambda z: rate * z, torch.ones(3, 4, dtype=torch.float64), solver=solver, tol=1e-10)
        assert solution.z.abs().max() < 1e-6
        assert solution.n_evals <= 10

    def test_slope_minus_two(self, solver):
        solution = solve(lambda z: 1 - 2 * z, zeros(2, 1), solver=solver, tol=1e-12)
        assert torch.allclose(solution.z, zeros(2, 1) + 1 / 3, rtol=0, atol=1e-10)

    def test_matrix_of_ones(self, solver):
        W, x = torch.ones(3, 3, dtype=torch.float64), batch(4, 3)
        solution = solve(lambda z, x: z @ W.T + x, zeros(4, 3), (x,), solver=solver, tol=1e-12)
        exact = torch.linalg.solve(torch.eye(3, dtype=torch.float64) - W, x.T).T
        assert torch.allclose(solution.z, exact, rtol=0, atol=1e-10)

    def test_robertson(self, solver):
        y0 = torch.tensor([[1.0, 3e-5, 0.0]], dtype=torch.float64)

        def step(y):
            a, b, c = y.unbind(1)
            slow, fast, quadratic = 0.04 * a, 1e4 * b * c, 3e7 * b**2
            return y0 + 1e-3 * torch.stack((fast - slow, slow - fast - quadratic, quadratic), 1)

        assert not solve(step, y0, solver=Picard(max_iter=400), tol=1e-12, throw=False).converged.item()
        solution = solve(step, y0, solver=solver, tol=1e-12)
        assert torch.allclose(solution.z[0], newton(step, y0[0].numpy()), rtol=0, atol=1e-10)


class TestEvaluations:
    """Batch 256, width 512, √V = .9, .9, .45, as in the benchmark."""

    @pytest.mark.parametrize(("family", "share"), [("iid", None), ("orthogonal", None), ("goe", 0.75)])
    def test_anderson_against_picard(self, family, share):
        generator = torch.Generator().manual_seed(0)
        a = torch.randn(512, 512, generator=generator)
        if family == "iid":
            W = 0.9 * a / 512**0.5
        elif family == "orthogonal":
            q, r = torch.linalg.qr(a)
            W = 0.9 * q * r.diagonal().sign()
        else:
            W = 0.45 * (a + a.T) / 1024**0.5
        x = torch.randn(256, 512, generator=generator)
        counts = [
            solve(lambda z, x: torch.tanh(z @ W.T + x), torch.zeros(256, 512), (x,), solver=solver).n_evals
            for solver in (Picard(), Anderson())
        ]
        assert counts[1] <= (counts[0] + 1 if share is None else share * counts[0])

    def test_counts_are_calls_of_f(self):
        calls = []

        def f(z, x):
            calls.append(len(z))
            return torch.tanh(0.9 * z) * x

        x = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)[:, None]
        solution = solve(f, torch.ones(8, 1, dtype=torch.float64), (x,), solver=Picard(max_iter=400), tol=1e-10)
        assert solution.n_evals == len(calls) == solution.iterations.max()
        assert calls[0] == 8
        assert calls[-1] < 8  # those that were done had left
        calls.clear()
        solve(f, torch.ones(8, 1, dtype=torch.float64), (x,), solver=Picard(max_iter=400), tol=1e-10, compact=False)
        assert set(calls) == {8}

    def test_rate_of_a_linear_map(self):
        solution = solve(lambda z: 0.7 * z, torch.ones(1, 3, dtype=torch.float64), solver=Picard(), tol=1e-6)
        assert solution.rate.item() == pytest.approx(0.7)

    def test_max_iter_counts_evaluations(self):
        solution = solve(lambda z: z + 1, zeros(2, 1), solver=Anderson(max_iter=1), throw=False)
        assert solution.n_evals == 1
        assert solution.status.code == "max_iter"
        assert solution.rate.isnan().all()


@pytest.mark.parametrize("solver", SOLVERS, ids=name)
class TestBadSamples:
    def test_one_overflows(self, solver):
        x = torch.tensor([[0.05], [0.1], [1e4], [0.15]], dtype=torch.float64)

        def f(z, x):
            return x * torch.exp(z) + x * z**3

        with pytest.raises(AnalysisError, match=r"not finite|have not converged"):
            solve(f, zeros(4, 1), (x,), solver=solver)
        solution = solve(f, zeros(4, 1), (x,), solver=solver, tol=1e-9, throw=False)
        assert solution.z.isfinite().all()
        assert solution.converged.tolist() == [True, True, False, True]
        for i in (0, 1, 3):
            alone = solve(f, zeros(1, 1), (x[i : i + 1],), solver=solver, tol=1e-9)
            assert torch.allclose(alone.z[0], solution.z[i], rtol=0, atol=1e-6)

    def test_one_is_poisoned(self, solver):
        f, x = Cell(8), batch(6, 8)
        x[2] = math.nan
        solution = solve(f, zeros(6, 8), (x,), solver=solver, tol=1e-9, throw=False)
        assert solution.status.code == "overflow"
        assert "the first is 2" in solution.status.message
        assert solution.z.isfinite().all()
        assert solution.residual[2] == math.inf
        good = [0, 1, 3, 4, 5]
        assert torch.allclose(solution.z[good], unrolled(f, zeros(6, 8), x)[good].detach(), rtol=0, atol=1e-6)

    def test_a_start_that_is_not_finite(self, solver):
        z0 = zeros(3, 8)
        z0[1, 4] = math.inf
        solution = solve(Cell(8), z0, (batch(3, 8),), solver=solver, throw=False)
        assert solution.converged.tolist() == [True, False, True]
        assert solution.z.isfinite().all()

    def test_overflow_is_not_convergence(self, solver):
        """inf ≤ tol·inf, and a residual that is small against an overflowing f(z), are no solutions."""
        solution = solve(lambda z: z.square() + 10, zeros(1, 2), solver=solver, tol=1e-3, throw=False)
        assert not solution.converged.any()
        assert solution.z.isfinite().all()


class TestFloors:
    @pytest.mark.parametrize("solver", SOLVERS, ids=name)
    def test_a_tolerance_below_the_floor_is_named(self, solver):
        f, x = Cell(64, dtype=torch.float32), batch(8, 64, dtype=torch.float32)
        solution = solve(f, torch.zeros(8, 64), (x,), solver=solver, tol=1e-9, throw=False)
        assert solution.status.code == "stagnated"
        assert "floor of the dtype" in solution.status.message
        assert solution.n_evals <= 60  # not max_iter
        assert (solution.residual < 1e-5).all()

    def test_slow_is_not_stagnant(self):
        z0 = torch.ones(2, 3, dtype=torch.float64)
        solution = solve(lambda z: 0.99 * z, z0, solver=Picard(max_iter=200), tol=1e-9, throw=False)
        assert solution.status.code == "max_iter"

    def test_a_cycle_is_not_stagnant(self):
        solution = solve(lambda z: 1 - z, zeros(2, 3), solver=Picard(), throw=False)
        assert solution.status.code == "max_iter"


class TestStates:
    @pytest.mark.parametrize("solver", SOLVERS, ids=name)
    def test_tuples_of_any_shape(self, solver):
        W = batch(3, 5) * 0.2

        def f(state, x):
            a, b = state
            return torch.tanh(b.flatten(1) @ W.T + x), 0.5 * torch.sin(a @ W).reshape(-1, 5, 1)

        x = batch(4, 3)
        solution = solve(f, (zeros(4, 3), zeros(4, 5, 1)), (x,), solver=solver, tol=1e-11)
        a, b = solution.z
        assert a.shape == (4, 3)
        assert b.shape == (4, 5, 1)
        fa, fb = f((a, b), x)
        assert torch.allclose(fa, a, rtol=0, atol=1e-9)
        assert torch.allclose(fb, b, rtol=0, atol=1e-9)

    def test_one_number_a_sample(self):
        solution = solve(torch.cos, zeros(5), tol=1e-10)
        assert solution.z.shape == (5,)
        assert torch.allclose(solution.z, solution.z.cos(), atol=1e-8)

    def test_images(self):
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(2, 2, 3, padding=1).double()
        x = batch(3, 2 * 5 * 5).reshape(3, 2, 5, 5)
        solution = solve(lambda z, x: torch.tanh(0.5 * conv(z) + x), torch.zeros_like(x), (x,), tol=1e-8)
        assert solution.z.shape == x.shape

    def test_no_graph_and_nothing_changes(self):
        f, x = Cell(8), batch(3, 8).requires_grad_()
        z0 = zeros(3, 8)
        before = {key: value.clone() for key, value in f.state_dict().items()}
        random = torch.get_rng_state()
        solution = solve(f, z0, (x,))
        assert not solution.z.requires_grad
        assert (z0 == 0).all()
        assert all(torch.equal(value, before[key]) for key, value in f.state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)

    def test_other_arguments_are_handed_on(self):
        solution = solve(lambda z, x, power: (x + z) / power, zeros(2, 2), (torch.ones(2, 2), 4), tol=1e-10)
        assert torch.allclose(solution.z, zeros(2, 2) + 1 / 3)

    def test_scalars(self):
        numbers = solve(torch.cos, zeros(5, 2)).scalars()
        assert numbers["unconverged"] == 0
        assert all(math.isfinite(value) for value in numbers.values())


class TestRandomMaps:
    def test_dropout_is_frozen(self):
        torch.manual_seed(0)
        f = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.Dropout(0.5), torch.nn.Tanh())
        torch.nn.init.normal_(f[0].weight, std=0.05)
        torch.manual_seed(0)
        solution = solve(f, torch.zeros(16, 32), tol=1e-6)
        after = torch.get_rng_state()
        torch.manual_seed(0)
        again = f(solution.z)
        assert torch.allclose(again, solution.z, atol=1e-4)  # a fixed point for these numbers
        assert torch.equal(torch.get_rng_state(), after)  # and they were drawn once
        assert (f(solution.z) - solution.z).abs().max() > 0.01  # not for others


class TestTheDoor:
    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            ({"z0": torch.zeros(3)[0]}, ValueError, "batch dimension"),
            ({"z0": torch.zeros(0, 3)}, ValueError, "nothing to solve"),
            ({"z0": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "real floating"),
            ({"z0": torch.zeros(2, 3, dtype=torch.complex64)}, TypeError, "real floating"),
            ({"z0": [torch.zeros(2, 3)]}, TypeError, "tuple"),
            ({"z0": (torch.zeros(2, 3), torch.zeros(3, 3))}, ValueError, "the same in all parts"),
            ({"z0": (torch.zeros(2, 3), zeros(2, 3))}, TypeError, "one dtype"),
            ({"tol": 0.0}, ValueError, "between 0 and 1"),
            ({"tol": math.nan}, ValueError, "between 0 and 1"),
            ({"tol": "1e-3"}, TypeError, "a number"),
            ({"solver": "anderson"}, TypeError, "expected Picard"),
            ({"solver": Anderson}, TypeError, "expected Picard"),
            ({"args": torch.zeros(2, 3)}, TypeError, r"args=\(x,\)"),
            ({"args": (torch.zeros(3, 3),)}, ValueError, r"expected \[2, ...\]"),
            ({"f": lambda z: z[:, :1]}, ValueError, "f returned the shapes"),
            ({"f": lambda z: (z, z)}, TypeError, "expected a tensor"),
            ({"f": lambda z: None}, TypeError, "NoneType"),
            ({"f": torch.nn.BatchNorm1d(3)}, ValueError, "BatchNorm1d"),
            ({"f": torch.nn.BatchNorm1d(3, track_running_stats=False).eval()}, ValueError, "LayerNorm"),
            ({"unknown": 1}, TypeError, "unknown"),
        ],
    )
    def test_refused(self, arguments, error, match):
        with pytest.raises(error, match=match):
            solve(**{"f": lambda z: z / 2, "z0": torch.zeros(2, 3)} | arguments)

    def test_batch_norm_in_eval_mode(self):
        assert solve(torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Tanh()).eval(), torch.zeros(2, 3)).status.ok

    def test_a_closure_over_samples(self):
        x = torch.linspace(0.1, 0.95, 8)[:, None]
        f = lambda z: x * z + 1  # noqa: E731
        with pytest.raises(RuntimeError, match="Hand what belongs to the samples over as args"):
            solve(f, torch.zeros(8, 1), solver=Picard(max_iter=500))
        assert solve(f, torch.zeros(8, 1), solver=Picard(max_iter=500), compact=False).status.ok


@settings(deadline=None, max_examples=25)
@given(
    width=st.integers(1, 12),
    rows=st.integers(1, 6),
    radius=st.floats(0.0, 0.8),
    seed=st.integers(0, 99),
    solver=st.sampled_from([Picard(max_iter=300), Anderson(memory=3, max_iter=300), Broyden(memory=4, max_iter=300)]),
)
def test_any_contraction(width, rows, radius, seed, solver):
    """‖W‖₂ = radius: one fixed point, at most residual/(1 − radius) away."""
    W = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    W = radius * W / torch.linalg.matrix_norm(W, 2)
    x = batch(rows, width, seed)

    def f(z, x):
        return torch.tanh(z @ W.T) + x

    solution = solve(f, torch.zeros_like(x), (x,), solver=solver, tol=1e-9)
    exact = unrolled(f, torch.zeros_like(x), x)
    distance = torch.linalg.vector_norm(solution.z - exact, dim=1)
    assert (distance <= solution.residual / (1 - radius) + 1e-12).all()
