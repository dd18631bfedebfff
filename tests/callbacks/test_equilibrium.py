"""The EquilibriumMonitor as its users meet it."""

import copy
import inspect
import math

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fpstab.callbacks import EquilibriumMonitor, Every, read_lines
from fpstab.equilibrium import Anderson, FixedPointLayer, Picard
from tests.callbacks.toys import NAMESPACES, lightning, loaders, task, trainer

pytestmark = pytest.mark.filterwarnings("ignore:FixedPointLayer")


class Affine(nn.Module):
    """z → Wz + x, W given."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, z, x):
        return z @ self.weight.T + x


class Net(nn.Module):
    """24 values to an equilibrium, and back."""

    def __init__(self, *weights, solver=Anderson(), backward=None, tol=1e-5):  # noqa: B008
        super().__init__()
        self.layers = nn.ModuleList(FixedPointLayer(Affine(w), solver, backward, tol=tol) for w in weights)
        self.head = nn.Linear(24, 24)

    def forward(self, x):
        for layer in self.layers:
            x = layer(torch.zeros_like(x), x)
        return self.head(x)


def rotation(radius):
    """Eigenvalues on a circle, in complex pairs."""
    generator = torch.Generator().manual_seed(0)
    return radius * torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]


def frozen(network):
    module = task(network=network)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=0.0)
    return module


def test_signature():
    parameters = inspect.signature(EquilibriumMonitor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "layer": None,
        "map": None,
        "points": "batch",
        "size": 16,
        "rtol": 1e-2,
        "seed": 0,
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "strict": False,
        "name": "equilibrium",
    }


def test_rates_of_a_known_map(tmp_path):
    """ρ of a rotation scaled by .8 is .8, for every point; plain iteration falls by .8 a step, and so does its adjoint."""
    net = Net(rotation(0.8), solver=Picard(200))
    monitor = EquilibriumMonitor(map="net", rtol=1e-6, budget=None)
    fit = trainer(tmp_path, [monitor], max_epochs=1)
    fit.fit(frozen(net), *loaders())
    found = {key.removeprefix("fpstab/equilibrium/"): float(v) for key, v in fit.callback_metrics.items()}
    for key in ("rho_max", "rho_median", "forward/rate_median", "backward/rate_median", "sqrt_v"):
        assert found[key] == pytest.approx(0.8, rel=1e-3), key
    assert found["speedup"] == pytest.approx(1, rel=1e-2)
    assert found["predicted_iterations"] == pytest.approx(math.log(1e-5) / math.log(0.8), rel=1e-3)
    # the residual falls from ‖x‖ to tol(‖z‖ + √d): some iterations before tol times the first
    assert found["predicted_iterations"] - 8 < found["forward/iterations_mean"] <= found["predicted_iterations"] + 1
    assert found["forward/unconverged"] == found["backward/unconverged"] == found["dropped"] == 0
    assert found["train/forward_iterations"] == pytest.approx(found["forward/iterations_mean"], abs=1)
    assert found["orthogonality_defect"] == pytest.approx(0, abs=1e-5)
    assert found["share_expanding"] == 0


def test_spectral_radius_is_numpys_along_a_training(tmp_path):
    class Tanh(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(24, 24)

        def forward(self, z, x):
            return torch.tanh(self.inner(z) + x)

    net = nn.Sequential(nn.Linear(24, 24))
    net.append(Wrapped(FixedPointLayer(Tanh(), tol=1e-6)))
    monitor, logger = EquilibriumMonitor(map="net", rtol=1e-6, budget=None), TensorBoardLogger(tmp_path)
    module = task(network=net)
    train, val = loaders()
    fit = trainer(tmp_path, [monitor], logger=logger)
    fit.fit(module, train, val)
    exact = copy.deepcopy(net).double()
    x = exact[0](next(iter(val))[0].double())
    cell = exact[1].layer.f
    W = cell.inner.weight.detach().numpy()
    z = torch.zeros_like(x)
    for _ in range(200):
        z = cell(z, x)
    slopes = (1 - z.detach() ** 2).numpy()
    radii = [np.abs(np.linalg.eigvals(slope[:, None] * W)).max() for slope in slopes]
    (layer,) = monitor.result.layers.values()
    np.testing.assert_allclose(layer.rho, radii, rtol=1e-4)
    assert list(monitor.result.layers) == ["net.1.layer"]
    assert fit.progress_bar_metrics["fpstab/equilibrium/rho_max"] == pytest.approx(max(radii), rel=1e-4)
    odd = np.linalg.norm((W - W.T) / 2) / np.linalg.norm(W)
    assert fit.callback_metrics["fpstab/equilibrium/symmetry_defect"] == pytest.approx(odd, rel=1e-4)
    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0, "images": 0}).Reload()
    assert [each.step for each in events.Images("fpstab/equilibrium/rates")] == [0, 12]
    assert events.Histograms("fpstab/equilibrium/rho")[-1].histogram_value.num == 16
    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    assert len(lines[-1]["result"]["layers"]["net.1.layer"]["forward"]["iterations"]) == 16


class Wrapped(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(torch.zeros_like(x), x)


def test_what_does_not_converge_is_counted(tmp_path):
    net = Net(rotation(0.5), solver=Picard(2), backward=Anderson())
    monitor = EquilibriumMonitor(map="net", budget=None)
    fit = trainer(tmp_path, [monitor], max_epochs=2)
    fit.fit(frozen(net), *loaders())
    found = {key.removeprefix("fpstab/equilibrium/"): float(v) for key, v in fit.callback_metrics.items()}
    assert found["forward/unconverged"] == found["train/forward_unconverged"] == 1
    assert found["forward/iterations_max"] == found["train/forward_iterations"] == 2
    assert found["backward/unconverged"] == found["train/backward_unconverged"] == 0


def test_two_layers_and_paths(tmp_path):
    net = Net(rotation(0.5), rotation(0.7))
    both = EquilibriumMonitor(map="net", budget=None)
    second = EquilibriumMonitor(layer="net.layers.1", map="net", budget=None, name="second")
    fit = trainer(tmp_path, [both, second], max_epochs=1)
    fit.fit(frozen(net), *loaders())
    metrics = fit.callback_metrics
    assert metrics["fpstab/equilibrium/net.layers.0/rho_max"] == pytest.approx(0.5, rel=1e-2)
    assert metrics["fpstab/equilibrium/net.layers.1/rho_max"] == pytest.approx(0.7, rel=1e-2)
    assert metrics["fpstab/equilibrium/rho_max"] == pytest.approx(0.7, rel=1e-2)
    assert metrics["fpstab/second/rho_max"] == pytest.approx(0.7, rel=1e-2)
    assert "fpstab/second/train/forward_iterations" in metrics


def test_a_network_without_one_is_said_once_and_trains_on(tmp_path, caplog):
    fit = trainer(tmp_path, [EquilibriumMonitor(map="net", budget=None)])
    fit.fit(task(), *loaders())
    assert fit.callback_metrics["fpstab/equilibrium/failed"] == 1
    said = [r.getMessage() for r in caplog.records if "Task holds no fpstab.equilibrium.FixedPointLayer" in r.message]
    assert len(said) == 1
    assert fit.current_epoch == 3


def test_a_layer_that_is_not_called_is_said(tmp_path, caplog):
    net = Net(rotation(0.5))
    net.spare = FixedPointLayer(Affine(rotation(0.5)))
    fit = trainer(tmp_path, [EquilibriumMonitor(map="net", budget=None)], max_epochs=1)
    fit.fit(frozen(net), *loaders())
    assert fit.callback_metrics["fpstab/equilibrium/failed"] == 0
    assert any("does not call net.spare" in r.getMessage() for r in caplog.records)


def test_weights_that_turn_to_nan_do_not_stop_training(tmp_path):
    class Breaks(lightning().Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    module.net.layers[0].f.weight[0, 0] = torch.nan

    monitor = EquilibriumMonitor(map="net", budget=None)
    fit = trainer(tmp_path, [monitor, Breaks()])
    fit.fit(task(network=Net(rotation(0.5))), *loaders())
    assert monitor.history.records[0]["failed"] is False
    assert fit.current_epoch == 3
    assert fit.callback_metrics["fpstab/equilibrium/rho_max"] > 0  # the last finite value


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_training_is_not_changed(tmp_path, namespace):
    def weights(callbacks):
        torch.manual_seed(0)
        module = task(namespace, Net(rotation(0.5)))
        trainer(tmp_path, callbacks, namespace, max_epochs=2).fit(module, *loaders())
        return [parameter.detach().clone() for parameter in module.parameters()]

    with torch.random.fork_rng():
        without, watched = weights([]), weights([EquilibriumMonitor(map="net", budget=None)])
    assert all(torch.equal(a, b) for a, b in zip(without, watched, strict=True))


def test_a_path_that_leads_nowhere_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"Task has no 'network'"):
        trainer(tmp_path, [EquilibriumMonitor(layer="network")]).fit(task(), *loaders())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size=0"),
        ({"rtol": 1.0}, ValueError, "rtol=1.0"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"points": 3}, TypeError, "got int"),
        ({"budget": 2}, ValueError, "budget=2"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        EquilibriumMonitor(**options)
