"""The JacobianMonitor as its users meet it."""

import copy
import inspect

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fpstab.callbacks import Every, JacobianMonitor, read_lines
from tests.callbacks.toys import NAMESPACES, lightning, loaders, task, trainer


def spectral_radii(net, x):
    """By autograd and numpy, one point after the other."""
    reference = copy.deepcopy(net).double().eval()
    jacobians = [torch.autograd.functional.jacobian(reference, row[None])[0, :, 0] for row in x.double()]
    return np.array([np.abs(np.linalg.eigvals(each.numpy())).max() for each in jacobians])


def test_signature():
    parameters = inspect.signature(JacobianMonitor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "map": None,
        "points": "batch",
        "size": 32,
        "at": "data",
        "sigma": False,
        "rtol": 1e-2,
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "strict": False,
        "name": "jacobian",
    }


def test_attach_and_look(tmp_path):
    train, val = loaders()
    points = next(iter(val))[0]
    monitor, logger = (
        JacobianMonitor(map="net", size=8, sigma=True, rtol=1e-6, budget=None),
        TensorBoardLogger(tmp_path),
    )
    module = task()
    before = spectral_radii(module.net, points[:8])
    fit = trainer(tmp_path, [monitor], logger=logger)
    fit.fit(module, train, val)

    np.testing.assert_allclose(monitor.initial.spectrum.rho, before, rtol=1e-5)
    after = spectral_radii(module.net, points[:8])
    np.testing.assert_allclose(monitor.result.spectrum.rho, after, rtol=1e-5)
    assert fit.callback_metrics["fpstab/jacobian/rho_max"] == pytest.approx(after.max(), rel=1e-5)
    assert fit.progress_bar_metrics["fpstab/jacobian/rho_max"] > 0
    reference = copy.deepcopy(module.net).double().eval()
    residual = (reference(points[:8].double()) - points[:8]).norm(dim=1).detach()
    assert fit.callback_metrics["fpstab/jacobian/residual_max"] == pytest.approx(float(residual.max()), rel=1e-6)
    assert fit.callback_metrics["fpstab/jacobian/residual_mean"] == pytest.approx(float(residual.mean()), rel=1e-6)
    assert fit.callback_metrics["fpstab/jacobian/sigma_max"] >= after.max() * (1 - 1e-6)

    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0, "images": 0}).Reload()
    assert len(events.Scalars("fpstab/jacobian/rho_max")) == 5  # the last one is made twice, with all of J
    assert [each.step for each in events.Scalars("fpstab/jacobian/tail_verdict")] == [0, 12]
    assert [each.step for each in events.Images("fpstab/jacobian/leading_eigenvalues")] == [0, 12]
    assert [each.step for each in events.Images("fpstab/jacobian/eigenvalues")] == [0, 12]
    assert events.Histograms("fpstab/jacobian/rho")[-1].histogram_value.num == 8

    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    assert len(lines[-1]["result"]["cloud"]["eigenvalues"][0]) == 24
    assert lines[2]["result"]["cloud"] is None
    np.testing.assert_allclose(lines[-1]["result"]["spectrum"]["rho"], after, rtol=1e-5)


def test_at_fixed_points(tmp_path):
    class Doubling(nn.Module):
        """x → tanh(a x) entry by entry: its fixed points are known once a is."""

        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return torch.tanh(self.a * x)

    starts = torch.tensor([[0.5, 0.5], [-0.5, 0.5]])

    class Task(lightning().LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Doubling()

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    monitor = JacobianMonitor(map="net", points=starts, at="fixed_points", rtol=1e-8, budget=None)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(starts), batch_size=2)
    trainer(tmp_path, [monitor], max_epochs=1).fit(Task(), data)
    x = 0.9575040240772687  # tanh(2x) = x
    slope = 2 * (1 - x**2)
    radii = monitor.result.spectrum.rho
    assert float(radii.min()) == pytest.approx(slope, rel=1e-6)
    distance = (torch.tanh(2 * starts.double()) - starts).norm(dim=1)  # that of the data, not of the fixed points
    torch.testing.assert_close(monitor.result.residual, distance, rtol=1e-6, atol=0)


def test_a_network_between_spaces_is_said_once_and_trains_on(tmp_path, caplog):

    module = task()
    module.head = nn.Linear(24, 3)
    monitor = JacobianMonitor(map="head", budget=None)
    fit = trainer(tmp_path, [monitor])
    fit.fit(module, *loaders())
    assert fit.callback_metrics["fpstab/jacobian/failed"] == 1
    said = [r.getMessage() for r in caplog.records if "24 values) to 3 values" in r.getMessage()]
    assert len(said) == 1
    assert fit.current_epoch == 3


def test_a_path_that_leads_nowhere_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"JacobianMonitor\(map='network'\): Task has no 'network'\. It has: net"):
        trainer(tmp_path, [JacobianMonitor(map="network")]).fit(task(), *loaders())


def test_weights_that_turn_to_nan(tmp_path):
    class Breaks(lightning().Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    module.net[5].bias[0] = torch.nan

    monitor = JacobianMonitor(map="net", budget=None)
    fit = trainer(tmp_path, [monitor, Breaks()])
    fit.fit(task(), *loaders())
    assert monitor.history.records[0]["failed"] is False
    assert monitor.history.records[-1]["failed"] is True
    assert fit.callback_metrics["fpstab/jacobian/rho_max"] > 0  # the last finite value


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_early_stopping_watches_the_residual(tmp_path, namespace):
    stop = lightning(namespace).callbacks.EarlyStopping(
        "fpstab/jacobian/residual_max", mode="min", stopping_threshold=1e6, patience=100
    )
    fit = trainer(tmp_path, [stop, JacobianMonitor(map="net", budget=None)], namespace)
    fit.fit(task(namespace), *loaders())
    assert fit.current_epoch == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, ValueError, "size=0"),
        ({"at": "noise"}, ValueError, "at='noise'"),
        ({"rtol": 0.0}, ValueError, "rtol=0.0"),
        ({"points": "data"}, ValueError, "points='data'"),
        ({"points": 3}, TypeError, "got int"),
        ({"budget": 2}, ValueError, "budget=2"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        JacobianMonitor(**options)
