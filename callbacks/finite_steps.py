"""Keeps weights finite: an optimiser's step whose gradient is not finite is not made."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fpstab.callbacks._lightning import Callback, LightningModule, Trainer
from fpstab.callbacks.notices import Notices


class SkipNonFiniteSteps(Callback):
    """Leaves out the optimiser's steps whose gradient holds an infinity or NaN, and counts them.

    Such a gradient would make NaN of the weights, and of everything after. The gradients of the step are dropped (set to
    `None`, so that no optimiser changes a weight or a moment of its own), and training goes on with the next batch. It is
    said once; the count is logged as `fpstab/steps/skipped` at the end of every training epoch, and kept in
    checkpoints. For any LightningModule, any number of optimisers, and both of Lightning's namespaces. Under DDP
    gradients are summed before, so all ranks decide alike. (A loss that is not finite without its gradient being
    so does no harm, and does not count.)

    Attributes:
        skipped: Steps left out so far.

    >>> from pytorch_lightning import Trainer
    >>> trainer = Trainer(callbacks=[SkipNonFiniteSteps()], logger=False)
    """

    def __init__(self) -> None:
        super().__init__()
        self.skipped = 0
        self._notices = Notices()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        if trainer.global_step == 0:  # this callback may have seen another training
            self.skipped = 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients of a step if one of them is not finite."""
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if _finite(p.grad for p in parameters):
            return
        for parameter in parameters:
            parameter.grad = None
        self.skipped += 1
        if trainer.is_global_zero and self.skipped == 1:
            self._notices.once(
                f"The gradient of step {trainer.global_step} is not finite: the step is skipped. Said once; "
                "fpstab/steps/skipped counts them. A smaller learning rate or gradient clipping may help."
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: D102
        pl_module.log("fpstab/steps/skipped", float(self.skipped), batch_size=1, reduce_fx="max")

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {"skipped": self.skipped}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        self.skipped = state_dict["skipped"]


def _finite(gradients: Iterable[Tensor]) -> bool:
    """Whether all gradients are finite: one question to the device, or as many as there are devices."""
    flags = [(g.coalesce().values() if g.is_sparse else g).isfinite().all() for g in gradients]
    return not flags or bool(torch.stack([flag.to(flags[0].device) for flag in flags]).all())
