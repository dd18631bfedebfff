"""The FixedPointMonitor as its users meet it."""

import inspect

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.callbacks import Every, FixedPointMonitor, read_lines
from tests.callbacks.toys import NAMESPACES, lightning, loaders, task, trainer

ROOT = 0.9575040240772687  # tanh(2x) = x


class Gain(nn.Module):
    """x → tanh(a x), entry by entry: for a = 2 its fixed points are 0 and ±ROOT in every coordinate, for a < 1 only 0."""

    def __init__(self, a=2.0):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a))

    def forward(self, x):
        return torch.tanh(self.a * x)


def still(net, namespace="pytorch_lightning"):
    """A task that does not change its network."""

    class Still(lightning(namespace).LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Still()


def corners(count=16, seed=0):
    """Points of the plane, the first of them attractors of Gain(2)."""
    attractors = ROOT * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    others = torch.rand(count - 4, 2, generator=torch.Generator().manual_seed(seed)) - 0.5
    return torch.cat((attractors, others))


def run(path, monitor, net, points=None, callbacks=(), **options):
    data = DataLoader(TensorDataset(corners() if points is None else points), batch_size=8)
    fit = trainer(path, [monitor, *callbacks], **options)
    fit.fit(still(net), data)
    return fit


class At(lightning().Callback):
    """Calls a function of the network at the start of an epoch."""

    def __init__(self, epoch, change):
        self.epoch, self.change = epoch, change

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                self.change(module.net)


def test_signature():
    parameters = inspect.signature(FixedPointMonitor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "map": None,
        "points": "batch",
        "size": 32,
        "unstable": "newton",
        "prove": False,
        "tolerance": 0.1,
        "max_iter": 1000,
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "strict": False,
        "name": "fixed_points",
    }


def test_attach_and_look(tmp_path):
    monitor, logger = FixedPointMonitor(map="net", points=corners(), budget=None), TensorBoardLogger(tmp_path)
    fit = run(tmp_path, monitor, Gain(), logger=logger)

    metrics = {key.removeprefix("fpstab/fixed_points/"): float(v) for key, v in fit.callback_metrics.items()}
    counts = [metrics[f"n_{kind}"] for kind in ("attracting", "saddle", "repelling")]
    assert counts == [4, 4, 1]
    assert (metrics["count"], metrics["index_defect"], metrics["n_missing"]) == (9, 0, 0)
    assert metrics["rho_max_attracting"] == pytest.approx(2 * (1 - ROOT**2), rel=1e-6)
    assert 0.9 < metrics["data/coverage"] <= 1  # of 16 starts one was alone in its basin
    assert 0.9 < metrics["uniform/coverage"] <= 1
    assert metrics["share_recovered"] == metrics["share_stored"] == 4 / 16
    residual = (torch.tanh(2 * corners().double()) - corners().double()).norm(dim=1)
    assert metrics["residual_max"] == pytest.approx(float(residual.max()), rel=1e-6)
    assert metrics["n_births"] == metrics["n_deaths"] == 0
    assert fit.progress_bar_metrics["fpstab/fixed_points/n_attracting"] == 4
    assert not any("previous" in key for key in metrics)

    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0, "images": 0}).Reload()
    assert [e.value for e in events.Scalars("fpstab/fixed_points/n_attracting")] == [4] * 4
    for picture in ("fixed_points", "convergence", "basins"):
        assert [e.step for e in events.Images(f"fpstab/fixed_points/{picture}")] == [0, 6]
    assert events.Histograms("fpstab/fixed_points/rho")[-1].histogram_value.num == 9

    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    found = torch.tensor(lines[-1]["result"]["found"]["points"], dtype=torch.float64)
    assert found.shape == (9, 2)
    assert float((torch.tanh(2 * found) - found).abs().max()) < 1e-12
    basins = torch.tensor(lines[-1]["result"]["basins"]["label"])
    assert basins.shape == (41, 41)
    assert len(basins.unique()) >= 4


def test_births_and_deaths(tmp_path):
    monitor = FixedPointMonitor(map="net", points=corners(), budget=None)
    changes = [At(1, lambda net: net.a.fill_(2.0)), At(2, lambda net: net.a.fill_(0.5))]
    run(tmp_path, monitor, Gain(0.5), callbacks=changes)
    key = "fpstab/fixed_points/"
    seen = [[r["scalars"][key + each] for each in ("count", "n_births", "n_deaths")] for r in monitor.history.records]
    assert seen == [[1, 0, 0], [1, 0, 0], [9, 8, 0], [1, 0, 8]]


def test_a_resumed_run_knows_the_points_of_before(tmp_path):
    def training(monitor, epochs, checkpoint=None, **options):
        data = DataLoader(TensorDataset(corners()), batch_size=8)
        fit = trainer(tmp_path, [monitor], max_epochs=epochs, **options)
        fit.fit(still(Gain()), data, ckpt_path=checkpoint)
        return fit

    monitor = FixedPointMonitor(map="net", points=corners(), budget=None)
    training(monitor, 1).save_checkpoint(tmp_path / "first.ckpt")
    torch.load(tmp_path / "first.ckpt", weights_only=True)
    resumed = FixedPointMonitor(map="net", points=corners(), budget=None)
    training(resumed, 2, tmp_path / "first.ckpt")
    assert resumed.history.records[-1]["scalars"]["fpstab/fixed_points/n_births"] == 0
    assert len(resumed.result.change.matched) == 9


def test_a_map_of_images_shows_its_attractors(tmp_path):
    class Squash(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return torch.sigmoid(12 * self.a * (x.flatten(1).mean(1) - 0.5))[:, None, None, None].expand_as(x)

    images = torch.rand(8, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    monitor = FixedPointMonitor(map="net", points=images, size=8, budget=None)
    run(tmp_path, monitor, Squash(), points=images, max_epochs=1)
    assert monitor.result.found.kind.count("attracting") == 2
    assert monitor.result.found.shape == (1, 5, 5)
    assert set(monitor.figures(monitor.result)) == {"fixed_points", "convergence"}


def test_an_identity_has_no_count(tmp_path):
    class Identity(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return self.a * x

    monitor = FixedPointMonitor(map="net", points=corners(), budget=None)
    fit = run(tmp_path, monitor, Identity(), max_epochs=1)
    assert torch.isnan(torch.tensor(monitor.history.records[-1]["scalars"]["fpstab/fixed_points/count"]))
    assert fit.callback_metrics["fpstab/fixed_points/n_non_isolated"] > 0
    assert fit.callback_metrics["fpstab/fixed_points/failed"] == 0


def test_a_network_that_explodes_is_measured(tmp_path):
    class Doubling(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(2.0))

        def forward(self, x):
            return self.a * x + 1

    monitor = FixedPointMonitor(map="net", points=corners(), unstable=None, budget=None)
    fit = run(tmp_path, monitor, Doubling(), max_epochs=1)
    scalars = monitor.history.records[-1]["scalars"]
    assert scalars["fpstab/fixed_points/share_diverged"] + scalars["fpstab/fixed_points/share_nonfinite"] == 1
    assert fit.current_epoch == 1


def test_a_random_network_is_said_once(tmp_path, caplog):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return self.a * x + torch.randn_like(x)

    fit = run(tmp_path, FixedPointMonitor(map="net", budget=None, strict=False), Noisy())
    assert fit.callback_metrics["fpstab/fixed_points/failed"] == 1
    assert sum("Noisy" in r.getMessage() or "is random" in r.getMessage() for r in caplog.records) == 1


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_a_training_with_validation(tmp_path, namespace):
    monitor = FixedPointMonitor(map="net", size=4, unstable=None, max_iter=50, budget=None)
    fit = trainer(tmp_path, [monitor], namespace)
    fit.fit(task(namespace), *loaders())
    assert fit.callback_metrics["fpstab/fixed_points/failed"] == 0
    assert len(monitor.history.records) == 4


def test_a_path_that_leads_nowhere_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"FixedPointMonitor\(map='net.core'\): Task.net has no 'core'"):
        trainer(tmp_path, [FixedPointMonitor(map="net.core")]).fit(task(), *loaders())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": -1}, ValueError, "size=-1"),
        ({"unstable": "gmres"}, ValueError, "unstable='gmres'"),
        ({"tolerance": 0}, ValueError, "tolerance=0"),
        ({"max_iter": 0}, ValueError, "max_iter=0"),
        ({"points": "data"}, ValueError, "points='data'"),
        ({"every": 3}, TypeError, "every=3"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        FixedPointMonitor(**options)


def chain(width=8, n=2):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(n, width), nn.Tanh(), nn.Linear(width, n), nn.Tanh())
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(width, n) * 2)
        net[2].weight.copy_(torch.eye(n, width) * 2)
        net[0].bias.zero_()
        net[2].bias.zero_()
    return net


def test_a_proof_beside_the_search(tmp_path):
    """x → tanh(2 tanh(2x)) in each coordinate: 0 and a pair."""
    monitor = FixedPointMonitor(map="net", points=corners(), prove=True, budget=None)
    fit = run(tmp_path, monitor, chain(), max_epochs=1)
    metrics = {key.removeprefix("fpstab/fixed_points/"): float(v) for key, v in fit.callback_metrics.items()}
    names = ("proved_count", "proved_stable", "proof_complete", "unknown_boxes", "n_attracting", "failed")
    assert [metrics[name] for name in names] == [9, 4, 1, 0, 4, 0]
    assert monitor.result.proof.everywhere
    assert "proof" in monitor.figures(monitor.result)
    line = read_lines(tmp_path / "fpstab.jsonl")[-1]["result"]["proof"]
    assert (line["count"], line["status"]["code"], len(line["enclosures"])) == (9, "ok", 9)


@pytest.mark.parametrize(
    ("net", "points", "code"),
    [
        (Gain(), corners(), "not_a_chain"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU()), corners(), "unsupported"),
        (chain(300, 300), torch.rand(4, 300), "too_large"),
        (nn.Sequential(nn.Linear(2, 2), nn.Hardtanh()), corners(), "budget"),
    ],
)
def test_what_cannot_be_proved_is_a_status(tmp_path, net, points, code):
    if code == "budget":  # hardtanh(x) = x: every point of the square is fixed
        with torch.no_grad():
            net[0].weight.copy_(torch.eye(2))
            net[0].bias.zero_()
    monitor = FixedPointMonitor(map="net", points=points, size=4, prove=True, max_iter=20, budget=None, strict=True)
    fit = run(tmp_path, monitor, net, points=points, max_epochs=1)
    metrics = {key.removeprefix("fpstab/fixed_points/"): float(v) for key, v in fit.callback_metrics.items()}
    assert (metrics["proof_complete"], metrics["failed"]) == (0, 0)
    assert "proved_count" not in metrics  # nan does not reach what EarlyStopping sees
    assert monitor.result.proof.status.code == code


def test_prove_is_yes_or_no():
    with pytest.raises(TypeError, match="prove='yes'"):
        FixedPointMonitor(prove="yes")
