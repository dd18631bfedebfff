"""A classifier as it is trained, with the measures of paper 5's Table 1."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from fpstab.models._checks import is_int, require
from fpstab.models.tasks import LRSchedulerCallable, NetworkTask, OptimizerCallable


class ClassifierTask(NetworkTask):
    """Trains a network to name the class of its input: the cross-entropy of the logits `net(x)`.

    A batch is `(x, y)`. Logs `train/loss` and `train/accuracy`, and for `val` and `test` also `precision`, `recall`
    and `f1`, the means of the classes' values (scikit-learn's macro averages, paper 5, Table 1; `accuracy` is the
    share of all images). Each is over all images of the epoch (and of all ranks).

    Checkpoints hold tensors and builtins only, no hyperparameters: load with
    `ClassifierTask.load_from_checkpoint(path, net=EqualWidthResNet(...))`.

    Args:
        net: Maps `[B, ...]` to logits `[B, classes]`.
        classes: How many classes there are.
        optimizer: Makes the optimizer from the network's parameters, as in `AutoencoderTask`.
        lr_scheduler: Makes the learning-rate scheduler from the optimizer, as in `AutoencoderTask`.

    Raises:
        ValueError: An argument is not of this kind; the message names it.

    >>> task = ClassifierTask(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), classes=3)
    >>> task(torch.zeros(5, 2, 2)).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        net: nn.Module,
        classes: int = 10,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(net, optimizer, lr_scheduler)
        require(is_int(classes, 2), "classes", classes, "an integer ≥ 2")
        self.classes = classes
        self.train_scores = MetricCollection({"accuracy": _accuracy(classes)}, prefix="train/")
        self.val_scores = MetricCollection(_measures(classes), prefix="val/")
        self.test_scores = MetricCollection(_measures(classes), prefix="test/")
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar.

        Raises:
            ValueError: The network does not return `[B, classes]`, or a label is none of the classes.
        """
        loss = self._loss(batch, self.train_loss, self.train_scores)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        self.log_dict(self.train_scores, on_step=False, on_epoch=True)
        return loss

    # At the start too: see AutoencoderTask
    def on_validation_epoch_start(self) -> None:
        """Empties the measures of validation."""
        self.val_loss.reset()
        self.val_scores.reset()

    def on_test_epoch_start(self) -> None:
        """Empties the measures of the test."""
        self.test_loss.reset()
        self.test_scores.reset()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts one batch into `val/…`."""
        self._loss(batch, self.val_loss, self.val_scores)
        self.log("val/loss", self.val_loss, prog_bar=True)
        self.log_dict(self.val_scores)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts one batch into `test/…`."""
        self._loss(batch, self.test_loss, self.test_scores)
        self.log("test/loss", self.test_loss)
        self.log_dict(self.test_scores)

    def _loss(self, batch: Sequence[Tensor], mean: MeanMetric, scores: MetricCollection) -> Tensor:
        x, y = batch
        logits = self(x)
        if logits.shape != (len(x), self.classes):
            raise ValueError(
                f"a classifier of {self.classes} classes returns [{len(x)}, {self.classes}] for {len(x)} images, "
                f"but the network maps {list(x.shape)} to {list(logits.shape)}"
            )
        if y.dtype.is_floating_point or y.shape != (len(x),) or int(y.min()) < 0 or int(y.max()) >= self.classes:
            raise ValueError(
                f"labels must be integers [{len(x)}] from 0 to {self.classes - 1}, got {y.dtype} {list(y.shape)} "
                f"from {y.min().item()} to {y.max().item()}"
            )
        loss = nn.functional.cross_entropy(logits, y)
        mean.update(loss.detach(), len(x))
        scores.update(logits.detach(), y)
        return loss


def _accuracy(classes: int) -> Metric:
    return MulticlassAccuracy(classes, average="micro")


def _measures(classes: int) -> dict[str, Metric | MetricCollection]:
    return {
        "accuracy": _accuracy(classes),
        "precision": MulticlassPrecision(classes),
        "recall": MulticlassRecall(classes),
        "f1": MulticlassF1Score(classes),
    }
