"""Train a task on its data, without a trace: no logs, no checkpoints, the global generators as before."""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from pytorch_lightning import LightningDataModule, LightningModule


def fit(make: "Callable[[], LightningModule]", data: "LightningDataModule", *, epochs: int, seed: int) -> nn.Module:
    """Make a task, train it with Lightning's Trainer, and return its network, in eval mode.

    Args:
        make: Makes the task with its network at `net`. Its parameters, the order of the batches and their noise
            follow from the seed.
        data: What to train on.
        epochs: How long.
        seed: Of torch's global generators, which are set back afterwards.
    """
    from pytorch_lightning import Trainer

    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        torch.manual_seed(seed)
        task = make()
        trainer = Trainer(
            max_epochs=epochs,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(task, datamodule=data)
    net = task.net
    assert isinstance(net, nn.Module)
    return net.eval()
