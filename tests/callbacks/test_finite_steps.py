"""Steps whose gradient is not finite are left out, and counted."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.callbacks import SkipNonFiniteSteps
from tests.callbacks.toys import NAMESPACES, lightning, trainer

BAD = (1, 2, 5)  # batches of an epoch of eight


def data():
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    x[list(BAD)] = torch.tensor([torch.inf, torch.nan, 1e38])[:, None]
    return DataLoader(TensorDataset(x), 1)


def task(namespace, optimizer):
    class Task(lightning(namespace).LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(4, 4)
            self.trail = []

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().sum()

        def on_train_batch_end(self, *_):
            self.trail.append(self.net.weight.detach().clone())

        def configure_optimizers(self):
            return optimizer(self.net.parameters())

    return Task()


@pytest.mark.parametrize("namespace", NAMESPACES)
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.Adam(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    ],
)
def test_bad_batches_leave_no_trace(tmp_path, caplog, namespace, clip, optimizer):
    with torch.random.fork_rng():
        module, steps = task(namespace, optimizer), SkipNonFiniteSteps()
        fit = trainer(tmp_path, [steps], namespace, max_epochs=2, gradient_clip_val=clip)
        fit.fit(module, data())
        clean = task(namespace, optimizer)
        good = [i for i in range(8) if i not in BAD]
        subset = DataLoader(torch.utils.data.Subset(data().dataset, good), 1)
        trainer(tmp_path, [], namespace, max_epochs=2, gradient_clip_val=clip).fit(clean, subset)
    for i in BAD:
        assert torch.equal(module.trail[i], module.trail[i - 1])
    assert torch.equal(module.trail[-1], clean.trail[-1])  # as if the batches had not been there
    assert steps.skipped == fit.callback_metrics["fpstab/steps/skipped"] == 2 * len(BAD)
    assert len([r for r in caplog.records if "is not finite" in r.getMessage()]) == 1


def test_without_it_the_weights_are_lost(tmp_path):
    with torch.random.fork_rng():
        module = task("pytorch_lightning", lambda p: torch.optim.Adam(p))
        trainer(tmp_path, [], max_epochs=1).fit(module, data())
    assert module.trail[-1].isnan().any()


def test_the_count_goes_on_after_a_resume_and_starts_anew_in_a_new_training(tmp_path):
    steps = SkipNonFiniteSteps()
    with torch.random.fork_rng():
        trainer(tmp_path, [steps], max_epochs=1).fit(task("pytorch_lightning", torch.optim.Adam), data())
        other = SkipNonFiniteSteps()
        other.load_state_dict(steps.state_dict())
        assert other.skipped == steps.skipped == len(BAD)
        trainer(tmp_path, [steps], max_epochs=1).fit(task("pytorch_lightning", torch.optim.Adam), data())
    assert steps.skipped == len(BAD)
