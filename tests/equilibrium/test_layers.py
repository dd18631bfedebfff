import copy
import io
import math
import warnings
from pathlib import Path

import jsonargparse
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations

from fpstab.equilibrium import (
    Anderson,
    Auto,
    Broyden,
    FixedPointLayer,
    PhantomGradient,
    Picard,
    Solver,
    corrected_loss,
)
from fpstab.results import AnalysisError
from tests.equilibrium.problems import Cell, batch, unrolled


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


IN_THE_COMPILER = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")


class TestStatistics:
    def test_forward_and_backward(self):
        f, x = Cell(16), batch(4, 16)
        layer = FixedPointLayer(f)
        assert layer.last is None
        z = layer(zeros(4, 16), x)
        assert layer.last.backward is None
        residual = torch.linalg.vector_norm(layer.last.forward.residual)
        assert 0 < residual < 1e-3
        z.sum().backward()
        numbers = layer.last.scalars()
        assert numbers["forward/iterations_max"] == layer.last.forward.n_evals > 3
        assert numbers["backward/iterations_max"] == layer.last.backward.n_evals > 3
        assert numbers["forward/unconverged"] == numbers["backward/unconverged"] == numbers["dropped"] == 0
        assert 0.2 < numbers["forward/rate_median"] < 0.8
        assert not layer.last.forward.residual.requires_grad

    def test_second_derivatives_leave_the_first_ones_statistics(self):
        f, x = Cell(4), batch(2, 4).requires_grad_()
        layer = FixedPointLayer(f)
        (g,) = torch.autograd.grad(layer(zeros(2, 4), x).square().sum(), x, create_graph=True)
        before = layer.last
        g.square().sum().backward()
        assert layer.last.forward is before.forward


class TestPolicies:
    """One of three samples has no fixed point that 20 evaluations would find."""

    @staticmethod
    def run(policy):
        W = nn.Parameter(torch.ones(1, dtype=torch.float64))
        x = torch.tensor([[0.1], [5.0], [0.3]], dtype=torch.float64, requires_grad=True)
        layer = FixedPointLayer(lambda z, x: W * torch.sin(4 * x * z) + x, Picard(max_iter=20), on_failure=policy)
        return layer, layer(zeros(3, 1), x), x, W

    def test_warn_once(self):
        with pytest.warns(UserWarning, match="1 of 3 samples have not converged after 20 evaluations"):
            layer, z, x, _ = self.run("warn")
        assert layer.last.forward.converged.tolist() == [True, False, True]
        z.sum().backward()
        assert (x.grad != 0).all()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            layer(zeros(3, 1), x)

    def test_raise(self):
        with pytest.raises(AnalysisError, match="1 of 3 samples have not converged"):
            self.run("raise")

    def test_mask(self):
        with pytest.warns(UserWarning, match="1 of 3"):
            layer, z, x, W = self.run("mask")
        z.sum().backward()
        assert x.grad[1] == 0
        assert (x.grad[[0, 2]] != 0).all()
        assert layer.last.dropped == 1
        whole = W.grad.clone()
        good = x.detach()[[0, 2]].requires_grad_()
        W.grad = None
        unrolled(lambda z, x: W * torch.sin(4 * x * z) + x, zeros(2, 1), good, steps=400).sum().backward()
        assert torch.allclose(whole, W.grad, rtol=1e-4)

    def test_stagnation_is_no_failure(self):
        f, x = Cell(32, dtype=torch.float32), batch(4, 32, dtype=torch.float32)
        layer = FixedPointLayer(f, tol=1e-9, on_failure="raise")
        with pytest.warns(UserWarning, match="floor of the dtype"):
            z = layer(torch.zeros(4, 32), x)
        z.sum().backward()
        exact = unrolled(copy.deepcopy(f).double(), zeros(4, 32), x.double())
        assert torch.allclose(z.double(), exact, atol=1e-6)
        assert f.W.grad.isfinite().all()


class TestModes:
    def test_eval_mode_is_differentiable(self):
        f, x = Cell(4), batch(2, 4).requires_grad_()
        layer = FixedPointLayer(f).eval()
        layer(zeros(2, 4), x).sum().backward()
        assert (x.grad != 0).all()

    def test_no_grad_and_inference_mode(self):
        f, x = Cell(4), batch(2, 4)
        layer = FixedPointLayer(f, tol=1e-10)
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                z = layer(zeros(2, 4), x)
            assert not z.requires_grad
            assert torch.allclose(z, unrolled(f, zeros(2, 4), x))

    def test_the_start_gets_no_gradient(self):
        z0 = zeros(2, 4).requires_grad_()
        assert not FixedPointLayer(torch.cos)(z0).requires_grad

    def test_frozen_parameters_get_none(self):
        f, x = Cell(4).requires_grad_(False), batch(2, 4).requires_grad_()
        f.b.requires_grad_(True)
        FixedPointLayer(f)(zeros(2, 4), x).sum().backward()
        assert f.W.grad is None
        assert (f.b.grad != 0).all()

    def test_copies_and_pickles(self):
        layer = FixedPointLayer(Cell(4))
        x = batch(2, 4)
        z = layer(zeros(2, 4), x)
        z.sum().backward()
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        for other in (copy.deepcopy(layer), torch.load(file, weights_only=False)):
            assert torch.equal(other(zeros(2, 4), x), z)
        assert list(layer.state_dict()) == ["f.W", "f.b"]

    def test_autocast(self):
        torch.manual_seed(0)
        f = nn.Linear(32, 32)
        cell = lambda z, x: torch.tanh(0.5 * f(z) + x)  # noqa: E731
        x = batch(8, 32, dtype=torch.float32)
        layer = FixedPointLayer(cell, tol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with pytest.warns(UserWarning, match="floor of the dtype"):
                z = layer(torch.zeros(8, 32), x)
            assert z.dtype == torch.float32
        z.square().sum().backward()
        low, f.weight.grad = f.weight.grad, None
        exact = FixedPointLayer(cell)(torch.zeros(8, 32), x)
        exact.square().sum().backward()
        assert torch.allclose(z, exact, atol=0.02)
        assert not torch.equal(z, exact)  # it was bfloat16
        assert torch.linalg.vector_norm(low - f.weight.grad) < 0.02 * torch.linalg.vector_norm(f.weight.grad)
        assert layer.last.dropped == 0

    @IN_THE_COMPILER
    def test_compiled_map(self):
        f, x = Cell(8), batch(6, 8) * torch.logspace(-3, 1, 6, dtype=torch.float64)[:, None]
        torch.compiler.reset()
        results = []
        for map_ in (f, torch.compile(f, backend="aot_eager")):
            y = x.clone().requires_grad_()
            z = FixedPointLayer(map_, Picard(max_iter=200), tol=1e-10)(zeros(6, 8), y)
            results.append((z, *torch.autograd.grad(z.square().sum(), (y, f.W))))
        for eager, compiled in zip(*results, strict=True):
            assert torch.allclose(eager, compiled, atol=1e-9)

    @IN_THE_COMPILER
    def test_compiled_network(self):
        class Network(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = FixedPointLayer(Cell(8), tol=1e-9)
                self.head = nn.Linear(8, 2).double()

            def forward(self, x):
                return self.head(self.layer(torch.zeros_like(x), x))

        torch.compiler.reset()
        network, x = Network(), batch(4, 8)
        compiled = torch.compile(network, backend="aot_eager")
        assert torch.allclose(compiled(x), network(x), atol=1e-8)
        compiled(x).sum().backward()
        assert (network.layer.f.W.grad != 0).any()

    @pytest.mark.filterwarnings("ignore:.*:FutureWarning")
    def test_distributed(self, tmp_path):
        torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
        try:
            layer = FixedPointLayer(Cell(8))
            for find_unused in (False, True):
                ddp = DistributedDataParallel(layer, find_unused_parameters=find_unused)
                for rows in (4, 7):
                    x = batch(rows, 8)
                    if rows == 7:
                        x[:] = math.nan  # no sample has a gradient, and yet nobody must be left waiting
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        ddp(zeros(rows, 8), x).sum().backward()
                    assert layer.f.W.grad.isfinite().all()
        finally:
            torch.distributed.destroy_process_group()


class TestTheMap:
    def test_dropout_is_drawn_once_a_call(self):
        torch.manual_seed(0)
        f = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.4), nn.Tanh()).double()
        nn.init.normal_(f[0].weight, std=0.1)
        layer = FixedPointLayer(f, tol=1e-11)
        with pytest.warns(UserWarning, match="drawn once a call"):
            z = layer(zeros(8, 16))
        again = layer(zeros(8, 16))
        assert not torch.allclose(z, again)
        state = torch.get_rng_state()
        again.square().sum().backward()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(5)
        z = layer(zeros(8, 16))
        found = torch.autograd.grad(z.square().sum(), f[0].weight)[0]

        def frozen(z):
            torch.manual_seed(5)
            return f(z)

        exact = unrolled(frozen, zeros(8, 16), steps=200)
        assert torch.allclose(z, exact, atol=1e-9)
        assert torch.allclose(found, torch.autograd.grad(exact.square().sum(), f[0].weight)[0], atol=1e-8)

    def test_dropout_and_a_poisoned_sample(self):
        torch.manual_seed(0)
        f = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.4), nn.Tanh()).double()
        x = batch(8, 16)
        x[3] = math.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            z = FixedPointLayer(lambda z, x: f(z) + x, tol=1e-10)(zeros(8, 16), x)
        z.sum().backward()
        assert f[0].weight.grad.isfinite().all()

    def test_batch_norm_is_refused(self):
        torch.manual_seed(0)
        f = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        nn.init.normal_(f[0].weight, std=0.2)
        layer = FixedPointLayer(f)
        with pytest.raises(ValueError, match=r"BatchNorm1d \(1\)"):
            layer(torch.zeros(3, 4))
        f[1].eval()
        assert layer(torch.zeros(3, 4)).shape == (3, 4)
        bound = nn.BatchNorm1d(4)
        with pytest.raises(ValueError, match="BatchNorm1d"):
            FixedPointLayer(lambda z: bound(z) / 2)(torch.zeros(3, 4))

    def test_a_map_that_changes(self):
        class Counting(nn.Module):
            def __init__(self):
                super().__init__()
                self.W = nn.Parameter(torch.eye(3, dtype=torch.float64) / 2)
                self.calls = 0

            def forward(self, z, x):
                self.calls += 1
                return z @ self.W + x + (self.calls > 60)

        layer = FixedPointLayer(Counting())
        z = layer(zeros(2, 3), batch(2, 3))
        layer.f.calls = 100
        with pytest.warns(UserWarning, match="f has changed since the forward pass"):
            z.sum().backward()

    def test_parametrized_weights_are_computed_once(self):
        calls = []

        class Halved(nn.Module):
            def forward(self, W):
                calls.append(1)
                return W / 2

        torch.manual_seed(0)
        linear = nn.Linear(4, 4).double()
        nn.utils.parametrize.register_parametrization(linear, "weight", Halved())
        nn.init.normal_(linear.parametrizations.weight.original, std=0.3)
        calls.clear()
        layer = FixedPointLayer(lambda z, x: torch.tanh(linear(z) + x), tol=1e-12)
        x = batch(3, 4)
        z = layer(zeros(3, 4), x)
        assert len(calls) == 1
        run = lambda W: layer(zeros(3, 4), x)  # noqa: E731
        W = linear.parametrizations.weight.original
        assert torch.autograd.gradcheck(run, (W,))
        with nn.utils.parametrize.cached():  # somebody else's cache must not lose the graph
            z = layer(zeros(3, 4), x)
        z.sum().backward()
        assert (W.grad != 0).any()

    def test_spectral_norm(self):
        torch.manual_seed(0)
        linear = parametrizations.spectral_norm(nn.Linear(6, 6).double(), n_power_iterations=30)
        layer = FixedPointLayer(lambda z, x: torch.tanh(0.8 * linear(z) + x), Anderson())
        layer(zeros(3, 6), batch(3, 6)).sum().backward()
        assert (linear.parametrizations.weight.original.grad != 0).any()


class TestNamedAlternatives:
    def test_phantom_gradient(self):
        """Of k steps: Σ_{j<k} Jʲ in place of (1 − J)⁻¹."""
        x = batch(2, 3).requires_grad_()
        for steps in (1, 3):
            layer = FixedPointLayer(lambda z, x: 0.5 * z + x, backward=PhantomGradient(steps), tol=1e-12)
            (gradient,) = torch.autograd.grad(layer(zeros(2, 3), x).sum(), x)
            assert torch.allclose(gradient, zeros(2, 3) + sum(0.5**j for j in range(steps)))
        layer = FixedPointLayer(lambda z, x: 0.5 * z + x, backward=PhantomGradient(2, damping=0.5), tol=1e-12)
        (gradient,) = torch.autograd.grad(layer(zeros(2, 3), x).sum(), x)
        assert torch.allclose(gradient, zeros(2, 3) + 0.5 * (1 + 0.75))

    @pytest.mark.parametrize("x1", [math.nan, 1.0])
    def test_phantom_gradient_of_a_poisoned_sample(self, x1):
        f, x = Cell(4), batch(3, 4)
        x[1] *= x1
        layer = FixedPointLayer(f, backward=PhantomGradient())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            z = layer(zeros(3, 4), x)
        z.sum().backward()
        assert z.isfinite().all()
        assert f.W.grad.isfinite().all()

    def test_trajectory(self):
        f, x = Cell(8, radius=0.8), batch(4, 8)
        layer = FixedPointLayer(f, Picard(max_iter=300), tol=1e-12)
        states = layer.trajectory(zeros(4, 8), x, at=(1, 4))
        assert len(states) == 3
        assert torch.allclose(states[0], unrolled(f, zeros(4, 8), x, steps=1))  # z0, and the step with the gradient
        assert torch.allclose(states[1], unrolled(f, zeros(4, 8), x, steps=4))
        assert torch.allclose(states[2], unrolled(f, zeros(4, 8), x))
        corrected_loss([z.square().mean() for z in states]).backward()
        assert (f.W.grad != 0).any()
        assert len(layer.trajectory(zeros(4, 8), x, at=(5000,))) == 2
        with pytest.raises(ValueError, match="ascending"):
            layer.trajectory(zeros(4, 8), x, at=(4, 4))


class TestTheDoor:
    @pytest.mark.parametrize(
        ("arguments", "error", "match"),
        [
            ({"f": 3}, TypeError, "module or a function"),
            ({"solver": "anderson"}, TypeError, "solver='anderson'"),
            ({"backward": "ift"}, TypeError, "backward='ift'"),
            ({"tol": 2.0}, ValueError, "between 0 and 1"),
            ({"backward_tol": -1.0}, ValueError, "backward_tol=-1.0"),
            ({"on_failure": "ignore"}, ValueError, "warn, raise, mask"),
            ({"f_tol": 1e-3}, TypeError, "f_tol"),
        ],
    )
    def test_refused(self, arguments, error, match):
        with pytest.raises(error, match=match):
            FixedPointLayer(**{"f": torch.cos} | arguments)

    @pytest.mark.parametrize(
        ("config", "arguments", "error", "match"),
        [
            (Picard, {"max_iter": 0}, ValueError, "max_iter=0: expected at least 1"),
            (Anderson, {"max_iter": 0}, ValueError, "max_iter=0"),
            (Anderson, {"memory": 0}, ValueError, "memory=0"),
            (Anderson, {"ridge": -1.0}, ValueError, "ridge=-1.0"),
            (Anderson, {"ridge": "no"}, TypeError, "a number"),
            (Broyden, {"memory": 2.5}, TypeError, "whole number"),
            (Broyden, {"max_iter": True}, TypeError, "whole number"),
            (Picard, {"damping": 0.0}, ValueError, "damping=0.0"),
            (Picard, {"damping": 1.5}, ValueError, "damping=1.5"),
            (Auto, {"switch_rate": 0.0}, ValueError, "switch_rate"),
            (Auto, {"patience": 0}, ValueError, "patience"),
            (PhantomGradient, {"steps": 0}, ValueError, "steps=0"),
            (Anderson, {"m": 5}, TypeError, "m"),
        ],
    )
    def test_configs(self, config, arguments, error, match):
        with pytest.raises(error, match=match):
            config(**arguments)

    def test_repr_says_all(self):
        text = repr(FixedPointLayer(Cell(3), Broyden(memory=7)))
        assert "Broyden(memory=7, max_iter=50)" in text
        assert "on_failure='warn'" in text


class Model(nn.Module):
    def __init__(self, solver: Solver = Anderson(), backward: Solver | PhantomGradient | None = None):  # noqa: B008
        super().__init__()
        self.layer = FixedPointLayer(torch.cos, solver, backward)


@pytest.mark.parametrize(
    ("arguments", "solver", "backward"),
    [
        ([], Anderson(), Anderson()),
        (["--m.solver=fpstab.equilibrium.Picard", "--m.solver.max_iter=20"], Picard(max_iter=20), Picard(max_iter=20)),
        (
            [
                "--m.solver={class_path: fpstab.equilibrium.Broyden, init_args: {memory: 7}}",
                "--m.backward={class_path: fpstab.equilibrium.PhantomGradient, init_args: {steps: 3}}",
            ],
            Broyden(memory=7),
            PhantomGradient(steps=3),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_a_yaml_can_name_the_solver(arguments, solver, backward):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Model, "m")
    model = parser.instantiate_classes(parser.parse_args(arguments)).m
    assert model.layer.solver == solver
    assert model.layer.backward == backward


def test_the_example_of_the_documentation(capsys):
    page = (Path(__file__).parents[2] / "docs" / "equilibrium.md").read_text()
    torch.manual_seed(0)
    exec(page.split("```python\n")[1].split("```")[0], {})
    assert "backward/iterations_mean" in capsys.readouterr().out
