"""Every quantity that a monitor logs has a meaning, and every chart shows some."""

import re

import pytest
import torch
from torch import nn

from fpstab.callbacks import (
    EquilibriumMonitor,
    ESDMonitor,
    FixedPointMonitor,
    JacobianMonitor,
    LipschitzMonitor,
    OrbitMonitor,
    StabilityMonitor,
)
from fpstab.equilibrium import FixedPointLayer
from fpstab.models import EqualWidthResNet
from fpstab.records.quantities import QUANTITIES, pattern_of, quantities_of
from tests.callbacks.toys import lightning, loaders, task, trainer

RARE = {  # logged for some networks only
    "fixed_points": {"n_births", "n_deaths", "proved_count", "proved_stable", "proof_complete", "unknown_boxes"},
    "lipschitz": {"lipsdp"},
    "stability": {
        f"value/{name}"
        for name in (
            "R2-1",
            "R2-2",
            "R2-inf",
            "R3-sector",
            "R4-sector",
            "R4-contraction",
            "R3-contraction",
            "R3-lipsdp",
        )
    },
}


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(24, 24)
        with torch.no_grad():
            self.linear.weight.mul_(0.5)

    def forward(self, z, x):
        return torch.tanh(self.linear(z) + x)


class Implicit(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = FixedPointLayer(Inner())

    def forward(self, x):
        return self.layer(torch.zeros_like(x), x)


def labelled():
    x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.TensorDataset(x, torch.arange(16) % 4)
    return torch.utils.data.DataLoader(data, 8), torch.utils.data.DataLoader(data, 8)


def classifier():
    class Task(lightning().LightningModule):
        def __init__(self):
            super().__init__()
            self.net = EqualWidthResNet(18, classes=4)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            pass

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=1e-3)

    return Task()


def logged(tmp_path, monitor, module, data):
    fit = trainer(tmp_path, [monitor], max_epochs=1)
    fit.fit(module, *data)
    assert monitor.result is not None
    prefix = f"fpstab/{monitor.name}/"
    return [key.removeprefix(prefix) for key in monitor.history.keys]


@pytest.mark.parametrize(
    ("monitor", "module", "data"),
    [
        (lambda: ESDMonitor(budget=None), task, loaders),
        (lambda: FixedPointMonitor(map="net", size=4, max_iter=50, budget=None), task, loaders),
        (lambda: JacobianMonitor(map="net", size=4, sigma=True, budget=None), task, loaders),
        (lambda: LipschitzMonitor(map="net", size=4, budget=None), task, loaders),
        (lambda: EquilibriumMonitor(map="net", size=4, budget=None), lambda: task(network=Implicit()), loaders),
        (lambda: StabilityMonitor(map="net", size=4, budget=None), task, loaders),
        (lambda: OrbitMonitor(map="net", n_points=16, budget=None), classifier, labelled),
    ],
    ids=list(QUANTITIES),
)
def test_every_logged_quantity_has_a_meaning_and_every_chart_shows_some(tmp_path, monitor, module, data, request):
    monitor = monitor()
    known = QUANTITIES[monitor.analysis]
    keys = logged(tmp_path, monitor, module(), data())
    assert [key for key in keys if not known.meaning_of(key)] == []
    for title, quantities in known.charts.items():
        patterns = [re.compile(pattern_of(monitor.name, quantity)) for quantity in quantities]
        assert any(pattern.match(f"fpstab/{monitor.name}/{key}") for pattern in patterns for key in keys), title
    said = {name for name in known.meaning if any(key == name or key.endswith(f"/{name}") for key in keys)}
    assert set(known.meaning) - said - RARE.get(monitor.analysis, set()) == set()


def test_a_pattern_matches_its_monitor_only():
    pattern = re.compile(pattern_of("esd", "*/alpha"))
    assert pattern.match("fpstab/esd/net.0/alpha")
    assert not pattern.match("fpstab/esd/alpha_median")
    assert not pattern.match("fpstab/other/net.0/alpha")
    assert not pattern.match("fpstab/esd/net.0/alpha_min")


def test_a_monitor_of_ones_own_has_its_name_for_a_question():
    assert quantities_of("phase_lag").question == "phase lag"
    assert quantities_of("phase_lag").meaning_of("anything/seconds").startswith("what the measurement cost")
    assert quantities_of("phase_lag").meaning_of("anything") == ""
