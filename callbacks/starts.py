"""What is known of a run when it is started."""

import os
import platform
import sys
import time
from typing import Any

import torch
from torch.nn.parameter import UninitializedParameter

from fpstab.callbacks._lightning import LightningModule, Trainer


def start_of(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    """Versions, seed, network, and how it is trained."""
    from fpstab import __version__

    namespace = sys.modules[type(trainer).__module__.partition(".")[0]]
    return {
        "time": time.time(),
        "step": trainer.global_step,
        "epoch": trainer.current_epoch,
        "fpstab": __version__,
        "torch": torch.__version__,
        "lightning": getattr(namespace, "__version__", None),
        "python": platform.python_version(),
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "module": type(module).__name__,
        "parameters": sum(each.numel() for each in module.parameters() if not isinstance(each, UninitializedParameter)),
        "device": str(module.device),
        "precision": str(trainer.precision),
        "processes": trainer.world_size,
        "max_epochs": trainer.max_epochs,
        "max_steps": trainer.max_steps,
    }
