"""Small trainings that the tests of the callbacks share, in either of Lightning's namespaces."""

import importlib
import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.callbacks import Every, Monitor
from fpstab.results import OK, Status

NAMESPACES = ("pytorch_lightning", "lightning.pytorch")


def lightning(namespace="pytorch_lightning"):
    """The modules `pytorch_lightning` or `lightning.pytorch`."""
    return importlib.import_module(namespace)


def net():
    return nn.Sequential(
        nn.Linear(24, 30),
        nn.BatchNorm1d(30),
        nn.Tanh(),
        nn.Dropout(0.2),
        nn.utils.parametrizations.spectral_norm(nn.Linear(30, 30)),
        nn.Linear(30, 24),
    )


def task(namespace="pytorch_lightning", network=None):
    class Task(lightning(namespace).LightningModule):
        def __init__(self):
            super().__init__()
            self.net = net() if network is None else network

        def training_step(self, batch, batch_idx):
            return nn.functional.mse_loss(self.net(batch[0]), batch[0])

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", nn.functional.mse_loss(self.net(batch[0]), batch[0]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    return Task()


def loaders(workers=0, count=64, batch_size=16, seed=0):
    data = TensorDataset(torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)))
    extra = {"num_workers": workers, "persistent_workers": workers > 0}
    return DataLoader(data, batch_size, shuffle=True, **extra), DataLoader(data, batch_size, **extra)


def trainer(path, callbacks, namespace="pytorch_lightning", **options):
    options = {
        "accelerator": "cpu",
        "max_epochs": 3,
        "default_root_dir": path,
        "logger": False,
        "enable_checkpointing": any("Checkpoint" in type(c).__name__ for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 1,
    } | options
    return lightning(namespace).Trainer(callbacks=callbacks, **options)


@dataclass(frozen=True)
class Number:
    value: float
    status: Status = OK

    def scalars(self):
        return {"value": self.value, "never": math.nan}


class Scripted(Monitor[Number]):
    """Gives the numbers of a list, one a measurement, the baseline's first; raises the exceptions among them."""

    analysis = "scripted"
    on_progress_bar = "value"

    def __init__(self, script, every=None, budget=None, strict=False, **options):
        super().__init__(every=every or Every(), budget=budget, strict=strict, **options)
        self.script = list(script)

    def measure(self, trainer, module):
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, Number) else Number(item)

    @property
    def measured(self):
        return [(r["phase"], r["step"], r["scalars"]["fpstab/scripted/value"]) for r in self.history.records]
