"""The StabilityMonitor as its users meet it."""

import inspect
import math

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fpstab.callbacks import Every, StabilityMonitor, read_lines
from fpstab.stability import LABELS, dynamics_report
from tests.callbacks.toys import NAMESPACES, lightning, loaders, task, trainer


class Plane(nn.Module):
    """x → tanh(a x) on the first two of 24 values, entry by entry: bistable in each where a > 1."""

    def __init__(self, gain):
        super().__init__()
        self.map = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Tanh())
        with torch.no_grad():
            self.map[0].weight.copy_(gain * torch.eye(2))

    def forward(self, x):
        return torch.cat((self.map(x[:, :2]), x[:, 2:]), 1)


def test_signature():
    parameters = inspect.signature(StabilityMonitor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "map": None,
        "points": "batch",
        "size": 12,
        "quadratic": True,
        "time_limit": 1.5,
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "strict": False,
        "name": "stability",
    }


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_attach_and_look(tmp_path, namespace):
    train, val = loaders()
    monitor = StabilityMonitor(map="net", size=4, budget=None)
    module = task(namespace)
    fit = trainer(tmp_path, [monitor], namespace)
    fit.fit(module, train, val)
    expected = dynamics_report(module.net.eval(), next(iter(val))[0][:4], time_limit=1.5).scalars()
    prefix = "fpstab/stability/"
    assert fit.callback_metrics[f"{prefix}value"] == pytest.approx(expected["value"], rel=1e-4)
    assert fit.callback_metrics[f"{prefix}attractor"] == expected["attractor"]
    assert fit.progress_bar_metrics[f"{prefix}certified"] == expected["certified"]
    assert len(monitor.history.records) == 4
    assert monitor.result.criteria.diagnostics.points.shape == (8, 24)


def test_a_map_of_the_plane(tmp_path):
    train, val = loaders()
    points = 2 * torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) - 1
    monitor = StabilityMonitor(map="net.map", points=points, size=8, budget=None)
    logger = TensorBoardLogger(tmp_path)
    trainer(tmp_path, [monitor], logger=logger, max_epochs=1).fit(task(network=Plane(2.0)), train, val)
    scalars = monitor.initial.scalars()
    assert scalars["certified"] == 0
    assert scalars["value"] == pytest.approx(2, abs=1e-6)
    assert LABELS[int(scalars["attractor"])] == "multiple"
    assert scalars["n_local"] == 4
    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0, "images": 0}).Reload()
    for picture in ("certificates", "diagnostics", "phase_portrait"):
        assert [each.step for each in events.Images(f"fpstab/stability/{picture}")] == [0, 4]
    assert events.Histograms("fpstab/stability/diagnostic/rho_affine")
    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    proved = lines[0]["result"]["criteria"]["certificates"]
    assert {each["name"] for each in proved} >= {"R1-1", "R1-2", "R1-inf", "R3-lipsdp", "R2-2"}
    assert all(math.isfinite(each["value"]) or each["value"] is None for each in proved if each["value"] is not None)


def test_what_maps_no_space_to_itself_fails_once_and_training_goes_on(tmp_path, caplog):
    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(24, 3)
            self.outer = nn.Linear(3, 24)

        def forward(self, x):
            return self.outer(self.inner(x))

    train, val = loaders()
    monitor = StabilityMonitor(map="net.inner", budget=None)
    fit = trainer(tmp_path, [monitor])
    fit.fit(task(network=Narrow()), train, val)
    assert fit.global_step == 12
    assert monitor.result is None
    assert fit.callback_metrics["fpstab/stability/failed"] == 1
    said = [record.message for record in caplog.records if "Singular values" in record.message]
    assert len(said) == 1


def test_a_method_is_no_module(tmp_path, caplog):
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(24, 24)

        def twice(self, x):
            return self.layer(self.layer(x))

        def forward(self, x):
            return self.layer(x)

    train, val = loaders()
    trainer(tmp_path, [StabilityMonitor(map="net.twice", budget=None)]).fit(task(network=Owner()), train, val)
    assert any("not a module" in record.message for record in caplog.records)


def test_the_networks_own_forward(tmp_path):
    class Own(lightning().LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(24, 24), nn.Tanh())

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            return nn.functional.mse_loss(self(batch[0]), batch[0])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    train, _ = loaders()
    monitor = StabilityMonitor(budget=None, size=4)
    module = Own()
    trainer(tmp_path, [monitor]).fit(module, train)
    expected = dynamics_report(module.net, monitor.probe.batch[0][:4]).scalars()
    assert monitor.result.scalars()["value"] == pytest.approx(expected["value"], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 0}, "size=0"),
        ({"time_limit": 0}, "time_limit=0"),
        ({"budget": 2}, "budget=2"),
        ({"name": "a b"}, "name"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(ValueError, match=said):
        StabilityMonitor(**options)


def test_a_path_that_leads_nowhere(tmp_path):
    train, val = loaders()
    with pytest.raises(ValueError, match=r"StabilityMonitor\(map='nett'\)"):
        trainer(tmp_path, [StabilityMonitor(map="nett")]).fit(task(), train, val)
