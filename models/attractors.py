"""What makes attractors of exemplars: the papers' network and loss, and that loss over several iterations."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from fpstab.models._checks import is_int, is_number, require
from fpstab.models.mlp import MLP
from fpstab.models.tasks import LRSchedulerCallable, NetworkTask, OptimizerCallable


class GaussianMLP(MLP):
    """The network of papers 1 and 2: dense layers, the activation after the last one too, Gaussian parameters.

    Weights and biases of layer l are drawn from N(0, σ_l²), σ_l = 1/√n_l with n_l the width of the layer's input.
    The toy of paper 2 §IV prints σ = 1/√L, L the number of layers, for all of them; that saturates HardTanh from the
    start, and nothing is learned.

    Args:
        widths: The width of the input, of each hidden layer and of the output; two or more.
        activation: An elementwise activation of `torch.nn`, by class name or lower-case short name.
        std: One standard deviation for all parameters, instead of the σ_l.

    Raises:
        ValueError: An argument is not of this kind; the message names it.

    >>> net = GaussianMLP()
    >>> net(torch.ones(3, 2)).abs().max() <= 1
    tensor(True)
    """

    def __init__(
        self, widths: Sequence[int] = (2, 100, 100, 2), activation: str = "hardtanh", std: float | None = None
    ) -> None:
        super().__init__(widths, activation, output_activation=activation)
        require(std is None or (is_number(std) and std > 0), "std", std, "None or a positive number")
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                sigma = layer.in_features**-0.5 if std is None else std
                nn.init.normal_(layer.weight, std=sigma)
                nn.init.normal_(layer.bias, std=sigma)


class ExemplarTask(NetworkTask):
    """Trains a map of a space to itself to send every point to its exemplar, and to keep it there.

    A batch is `(x, ψ)`, points and the exemplar of each, of one shape. The loss is the sum over m = 1 … `unroll` of the
    mean squared error of Φ^m(x) against ψ. With `unroll=1` it is the papers' own, Σ‖Φ(x) − ψ‖² (paper 1, eq. (5) and
    (6); paper 2, eq. (3)), which says nothing of the second iteration: on images the exemplars are then often fixed
    points that do not attract, or none at all. Two more iterations are enough to make them attract.

    Logs `train/loss` and `val/loss` (and `test/loss`), the mean of that sum over all points of the epoch (and of all
    ranks), and with `val` and `test` the mean squared error after one pass, `val/one_pass`.

    Checkpoints hold tensors and builtins only, no hyperparameters: load with
    `ExemplarTask.load_from_checkpoint(path, net=Autoencoder(...))`.

    Args:
        net: A map of a space to itself, `[B, ...] -> [B, ...]`.
        unroll: Iterations that the loss looks at, 1 or more.
        optimizer: Makes the optimizer from the network's parameters, as in `AutoencoderTask`.
        lr_scheduler: Makes the learning-rate scheduler, stepped once an epoch, as in `AutoencoderTask`.

    Raises:
        ValueError: An argument is not of this kind; the message names it.

    >>> task = ExemplarTask(GaussianMLP())
    >>> task(torch.zeros(5, 2)).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        net: nn.Module,
        unroll: int = 3,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(net, optimizer, lr_scheduler)
        require(is_int(unroll, 1), "unroll", unroll, "a positive integer")
        self.unroll = unroll
        self.train_loss, self.val_loss, self.test_loss = MeanMetric(), MeanMetric(), MeanMetric()
        self.val_one_pass, self.test_one_pass = MeanMetric(), MeanMetric()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar.

        Raises:
            ValueError: Points, exemplars and outputs are not of one shape.
        """
        loss = self._errors(batch).sum()
        self.train_loss.update(loss.detach(), weight=len(batch[0]))
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True)
        return loss

    # As in AutoencoderTask: after `validate()` or `test()` a metric's state is an inference tensor.
    def on_validation_epoch_start(self) -> None:
        """Empties what `val/` logs."""
        self.val_loss.reset()
        self.val_one_pass.reset()

    def on_test_epoch_start(self) -> None:
        """Empties what `test/` logs."""
        self.test_loss.reset()
        self.test_one_pass.reset()

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts one batch into `val/loss` and `val/one_pass`."""
        self._evaluate(batch, "val", self.val_loss, self.val_one_pass)

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts one batch into `test/loss` and `test/one_pass`."""
        self._evaluate(batch, "test", self.test_loss, self.test_one_pass)

    def _evaluate(self, batch: Sequence[Tensor], stage: str, loss: MeanMetric, one_pass: MeanMetric) -> None:
        errors = self._errors(batch)
        loss.update(errors.sum(), weight=len(batch[0]))
        one_pass.update(errors[0], weight=len(batch[0]))
        self.log(f"{stage}/loss", loss, prog_bar=True)
        self.log(f"{stage}/one_pass", one_pass)

    def _errors(self, batch: Iterable[Tensor]) -> Tensor:
        """The mean squared errors `[unroll]` of Φ(x), Φ²(x), … against the exemplars."""
        x, exemplar = batch
        errors = []
        for _ in range(self.unroll):
            x = self(x)
            if x.shape != exemplar.shape:  # mse_loss would broadcast
                raise ValueError(
                    "points, exemplars and outputs must be of one shape, but the network gives "
                    f"{list(x.shape)} where the exemplars are {list(exemplar.shape)}"
                )
            errors.append(nn.functional.mse_loss(x, exemplar))
        return torch.stack(errors)
