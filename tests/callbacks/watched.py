"""A small training whose network has blocks, equilibria, and maps a space to itself: every monitor has something to say."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.callbacks import (
    EquilibriumMonitor,
    ESDMonitor,
    Every,
    FixedPointMonitor,
    JacobianMonitor,
    LipschitzMonitor,
    OrbitMonitor,
    StabilityMonitor,
)
from fpstab.equilibrium import Anderson, FixedPointLayer
from tests.callbacks.toys import lightning

SIZE, COUNT, BATCH = 6, 16, 4
STEPS = COUNT // BATCH  # an epoch


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(SIZE, SIZE), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(SIZE, SIZE)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(SIZE, SIZE, bias=False)

    def forward(self, z, x):
        return torch.tanh(0.5 * self.inner(z) + x)


class Equilibrium(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = FixedPointLayer(Inner(), Anderson())

    def forward(self, x):
        return self.layer(torch.zeros_like(x), x)


def watched_task(namespace="pytorch_lightning"):
    class Watched(lightning(namespace).LightningModule):
        def __init__(self):
            super().__init__()
            self.net, self.deq = Blocks(), Equilibrium()
            self.dropout = nn.Dropout(0.2)

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            # a loader starts anew after a resume in the midst of an epoch, and random states are not in checkpoints
            draw = torch.Generator().manual_seed(self.global_step)
            torch.manual_seed(self.global_step)
            x = torch.randn(BATCH, SIZE, generator=draw)
            return nn.functional.mse_loss(self.net(self.dropout(x)) + self.deq(x), x)

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", nn.functional.mse_loss(self.net(batch[0]), batch[0]), sync_dist=True)

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    torch.manual_seed(0)
    return Watched()


def watched_loaders():
    draw = torch.Generator().manual_seed(7)
    data = TensorDataset(torch.randn(COUNT, SIZE, generator=draw), torch.arange(COUNT) % 3)
    return DataLoader(data, BATCH), DataLoader(data, BATCH)


def all_monitors(budget=None, every=None, **options):
    """One of each; `options` go to those that look at points."""
    epochs, steps = every or Every(1, "epoch"), every or Every(3, "step")
    common, mapped = {"budget": budget}, {"budget": budget, "map": "net", "size": 3} | options
    return [
        ESDMonitor(every=epochs, **common),
        FixedPointMonitor(every=epochs, max_iter=30, **mapped),
        JacobianMonitor(every=steps, **mapped),
        LipschitzMonitor(every=epochs, time_limit=None, **mapped),
        EquilibriumMonitor(every=steps, **mapped | {"map": "deq"}),
        StabilityMonitor(every=epochs, time_limit=None, **mapped),
        OrbitMonitor(every=epochs, n_points=8, **common),
    ]
