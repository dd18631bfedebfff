"""What a network is trained for: LightningModules that hold the network at `net`."""

from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanSquaredError

from fpstab.models._checks import require

# As in `pytorch_lightning.cli`, whose import would configure jsonargparse for the whole process.
OptimizerCallable = Callable[[Iterable[nn.Parameter]], Optimizer]
LRSchedulerCallable = Callable[[Optimizer], LRScheduler]


class NetworkTask(pl.LightningModule):
    """Holds a network at `net`, and makes its optimizer.

    Args:
        net: The network.
        optimizer: Makes the optimizer from the network's parameters.
        lr_scheduler: Makes the learning-rate scheduler from the optimizer, or `None`.

    Raises:
        ValueError: An argument is not of this kind; the message names it.
    """

    def __init__(
        self, net: nn.Module, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None = None
    ) -> None:
        super().__init__()
        require(isinstance(net, nn.Module), "net", net, "an nn.Module")
        require(callable(optimizer), "optimizer", optimizer, "a callable that takes the parameters")
        is_maker = lr_scheduler is None or callable(lr_scheduler)
        require(is_maker, "lr_scheduler", lr_scheduler, "None or a callable that takes the optimizer")
        self.net = net
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler

    def forward(self, x: Tensor) -> Tensor:
        """The network's output for `x` `[B, ...]`."""
        out: Tensor = self.net(x)
        return out

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the network's parameters, with its scheduler if there is one."""
        return make_optimizers(self.net, self.optimizer, self.lr_scheduler)


class AutoencoderTask(NetworkTask):
    """Trains a network to give back its input: the mean squared error of `net(x)` against the clean `x`.

    A batch is `x` or `(x, y)`; labels are not looked at. Logs `train/loss`, `val/loss` and `test/loss`, each
    the mean over all pixels of all images of the epoch (and of all ranks).

    Checkpoints hold tensors and builtins only, no hyperparameters: load with
    `AutoencoderTask.load_from_checkpoint(path, net=Autoencoder(...))`.

    Args:
        net: A map of a space to itself, `[B, ...] -> [B, ...]`.
        optimizer: Makes the optimizer from the network's parameters. In YAML:
            `optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.001}}`; in Python a class, or
            `functools.partial(torch.optim.Adam, lr=0.001)`.
        lr_scheduler: Makes the learning-rate scheduler, stepped once an epoch, from the optimizer. One that
            follows a metric follows its `monitor` attribute if it has one, `val/loss` otherwise.

    Raises:
        ValueError: An argument is not of this kind; the message names it.

    >>> from fpstab.models import Autoencoder
    >>> AutoencoderTask(Autoencoder()).configure_optimizers().__class__.__name__
    'Adam'
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(net, optimizer, lr_scheduler)
        self.train_mse = MeanSquaredError()
        self.val_mse = MeanSquaredError()
        self.test_mse = MeanSquaredError()

    def training_step(self, batch: Tensor | Iterable[Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar.

        Raises:
            ValueError: The network does not return the shape of its input.
        """
        loss = self._loss(batch, self.train_mse)
        self.log("train/loss", self.train_mse, on_step=False, on_epoch=True)
        return loss

    # Lightning resets a metric at the end of an epoch. After `trainer.validate()` or `.test()` its state is then an
    # inference tensor, which the validation within `fit()` could not update: so reset at the start as well.
    def on_validation_epoch_start(self) -> None:
        """Empties `val/loss`."""
        self.val_mse.reset()

    def on_test_epoch_start(self) -> None:
        """Empties `test/loss`."""
        self.test_mse.reset()

    def validation_step(self, batch: Tensor | Iterable[Tensor], batch_idx: int) -> None:
        """Counts one batch into `val/loss`."""
        self._loss(batch, self.val_mse)
        self.log("val/loss", self.val_mse, prog_bar=True)

    def test_step(self, batch: Tensor | Iterable[Tensor], batch_idx: int) -> None:
        """Counts one batch into `test/loss`."""
        self._loss(batch, self.test_mse)
        self.log("test/loss", self.test_mse)

    def _loss(self, batch: Tensor | Iterable[Tensor], mse: MeanSquaredError) -> Tensor:
        x = batch if isinstance(batch, Tensor) else next(iter(batch))
        out = self(x)
        if out.shape != x.shape:  # mse_loss would broadcast
            raise ValueError(
                "an autoencoder returns the shape of its input, but the network maps "
                f"{list(x.shape)} to {list(out.shape)}"
            )
        mse.update(out.detach().flatten(), x.flatten())
        return nn.functional.mse_loss(out, x)


def make_optimizers(
    net: nn.Module, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None
) -> OptimizerLRScheduler:
    """What `configure_optimizers` returns: the optimizer of the network's parameters, with its scheduler if any."""
    made = optimizer(net.parameters())
    if lr_scheduler is None:
        return made
    scheduler: Any = lr_scheduler(made)
    monitor = getattr(scheduler, "monitor", "val/loss")
    return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "monitor": monitor}}
