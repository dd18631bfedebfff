"""A language model as it is trained: cross-entropy, perplexity, and how well its equilibria are found."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric
from torchmetrics.text import Perplexity

from fpstab.equilibrium import FixedPointLayer
from fpstab.models._checks import is_int, require
from fpstab.models.tasks import NetworkTask, OptimizerCallable

_STAGES = ("train", "val", "test")


class LanguageTask(NetworkTask):
    """Trains a network to name the next token: the cross-entropy of the logits `net(tokens)`.

    A batch is `(tokens, targets)`, both `[B, T]`: the targets are the tokens that follow. Logs `loss` (in nats a token) and
    `perplexity` for `train/`, `val/` and `test/`, over all tokens of the epoch (and of all ranks). If the network holds
    `FixedPointLayer`s, also how their last solve of each batch went, as means over the epoch's batches: `residual`, the
    mean of ‖f(z) − z‖ over sequences, and `converged`, the share of the sequences that are within the layer's
    tolerance; with several layers, the mean over these.

    The learning rate rises linearly to the optimizer's in `warmup` steps, then falls to 0 by a cosine in `decay` steps
    (paper 4, appendix D: 2,000 and 50,000, with Adam at 10⁻³), and stays there.

    Checkpoints hold tensors and builtins only, no hyperparameters: load with
    `LanguageTask.load_from_checkpoint(path, net=DEQTransformer(...))`.

    Args:
        net: Maps tokens `[B, T]` to logits `[B, T, vocabulary]`.
        optimizer: Makes the optimizer from the network's parameters, as in `AutoencoderTask`.
        warmup: Steps of the optimizer until the full learning rate; 0: it is the full one at once.
        decay: Steps in which it then falls to 0; `None`: it stays.

    Raises:
        ValueError: An argument is not of this kind; the message names it.

    >>> from fpstab.models import DEQTransformer
    >>> task = LanguageTask(DEQTransformer(vocabulary=5, length=4, width=8, heads=2, seed=0), warmup=10, decay=90)
    >>> task(torch.zeros(2, 3, dtype=torch.long)).shape
    torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: OptimizerCallable = torch.optim.Adam,
        warmup: int = 0,
        decay: int | None = None,
    ) -> None:
        super().__init__(net, optimizer)
        require(is_int(warmup, 0), "warmup", warmup, "an integer ≥ 0")
        require(decay is None or is_int(decay, 1), "decay", decay, "None or a positive integer")
        self.warmup, self.decay = warmup, decay
        self.losses = nn.ModuleDict({f"{stage}_loss": MeanMetric() for stage in _STAGES})
        self.perplexities = nn.ModuleDict({f"{stage}_perplexity": Perplexity() for stage in _STAGES})
        self._layers = [layer for layer in net.modules() if isinstance(layer, FixedPointLayer)]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer of the network's parameters, with warm-up and decay if there are any, a step at a time."""
        made = self.optimizer(self.net.parameters())
        if self.warmup == 0 and self.decay is None:
            return made
        scheduler = LambdaLR(made, partial(warmup_cosine, warmup=self.warmup, decay=self.decay))
        return {"optimizer": made, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar.

        Raises:
            ValueError: Tokens and targets differ in shape, or the network does not return `[B, T, vocabulary]`.
        """
        return self._step(batch, "train")

    # At the start too: see AutoencoderTask
    def on_validation_epoch_start(self) -> None:
        """Empties the measures of validation."""
        self._reset("val")

    def on_test_epoch_start(self) -> None:
        """Empties the measures of the test."""
        self._reset("test")

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts one batch into `val/…`."""
        self._step(batch, "val")

    def test_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        """Counts one batch into `test/…`."""
        self._step(batch, "test")

    def _reset(self, stage: str) -> None:
        for metric in (self.losses[f"{stage}_loss"], self.perplexities[f"{stage}_perplexity"]):
            metric.reset()  # type: ignore[operator]

    def _step(self, batch: Sequence[Tensor], stage: str) -> Tensor:
        tokens, targets = batch
        if tokens.shape != targets.shape:
            raise ValueError(
                f"every token has one that follows it, but tokens are {list(tokens.shape)} and targets "
                f"{list(targets.shape)}"
            )
        logits = self(tokens)
        if logits.shape[:-1] != tokens.shape:
            raise ValueError(
                f"a language model returns logits [B, T, vocabulary], but the network maps {list(tokens.shape)} to "
                f"{list(logits.shape)}"
            )
        loss = nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten())
        mean, perplexity = self.losses[f"{stage}_loss"], self.perplexities[f"{stage}_perplexity"]
        mean.update(loss.detach(), targets.numel())  # type: ignore[operator]
        perplexity.update(logits.detach(), targets)  # type: ignore[operator]
        self.log(f"{stage}/loss", mean, on_step=False, on_epoch=True, prog_bar=stage == "val")  # type: ignore[arg-type]
        self.log(f"{stage}/perplexity", perplexity, on_step=False, on_epoch=True)  # type: ignore[arg-type]
        self._log_solves(stage, len(tokens))
        return loss

    def _log_solves(self, stage: str, batch: int) -> None:
        solves = [layer.last.forward for layer in self._layers if layer.last is not None]
        if not solves:
            return
        residual = math.fsum(float(each.residual.mean()) for each in solves) / len(solves)
        converged = math.fsum(float(each.converged.double().mean()) for each in solves) / len(solves)
        found = {f"{stage}/residual": residual, f"{stage}/converged": converged}
        self.log_dict(found, on_step=False, on_epoch=True, batch_size=batch, sync_dist=True)


def warmup_cosine(step: int, *, warmup: int, decay: int | None) -> float:
    """The factor of the learning rate at a step: linear to 1 in `warmup` steps, then a cosine to 0 in `decay` steps.

    Args:
        step: From 0 on.
        warmup: Steps until 1; the first is 1/warmup and not 0, which would be a step wasted.
        decay: Steps from 1 to 0; `None`: it stays 1.

    >>> [round(warmup_cosine(step, warmup=2, decay=4), 3) for step in range(8)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    if decay is None:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / decay, 1.0)))
