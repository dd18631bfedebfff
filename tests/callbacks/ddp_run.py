"""Trains, on one process or two, and writes down what each saw. Run by test_ddp.py: FOLDER NAMESPACE PROCESSES CASE.

CASE is `stopping` (EarlyStopping and ModelCheckpoint watch a monitor that fails at first), `all` (every monitor), or
`sharded` (weights that are shared out as DTensors; two processes only).
"""

import json
import logging
import math
import sys
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

from tests.callbacks.toys import Scripted, lightning, loaders, task, trainer
from tests.callbacks.watched import all_monitors, watched_loaders, watched_task


def stopping(folder, pl):
    broken = ZeroDivisionError("made for the test")
    monitors = [Scripted([broken, broken, 5.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0]), *all_monitors(budget=0.9)[:1]]
    early = pl.callbacks.EarlyStopping("fpstab/scripted/value", patience=2)
    checkpoint = pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", monitor="fpstab/scripted/value")
    return (
        task(pl.__name__),
        loaders(),
        monitors,
        [early, checkpoint, *monitors],
        {"max_epochs": 12, "logger": pl.loggers.TensorBoardLogger(folder)},
    )


def everything(folder, pl):
    """All processes take the same batches, so that the training is that of one process."""
    monitors = all_monitors()
    stop = pl.callbacks.EarlyStopping("fpstab/jacobian/rho_max", patience=9)
    keep = pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", monitor="fpstab/lipschitz/value")
    options = {"max_epochs": 2, "use_distributed_sampler": False}
    return watched_task(pl.__name__), watched_loaders(), monitors, [stop, keep, *monitors], options


def sharded(folder, pl):
    module, monitors = watched_task(pl.__name__), all_monitors()
    module.requires_grad_(False)
    module.anchor = nn.Parameter(torch.zeros(1))  # something to train: the network itself only lies there
    module.configure_optimizers = lambda: torch.optim.SGD([module.anchor], lr=0.1)
    module.training_step = lambda *_: module.anchor.sum()

    class Share(pl.Callback):
        """Shares out the weights, as FSDP2 does, once there are processes to share among."""

        def on_fit_start(self, trainer, pl_module):
            mesh = init_device_mesh("cpu", (trainer.world_size,))
            for part in (module.net, module.deq):
                for each in part.modules():
                    for name, parameter in list(each.named_parameters(recurse=False)):
                        shares = distribute_tensor(parameter.detach(), mesh, [Shard(0)])
                        setattr(each, name, nn.Parameter(shares, requires_grad=False))

    options = {"max_epochs": 1, "limit_val_batches": 0}
    return module, watched_loaders(), monitors, [Share(), *monitors], options


CASES = {"stopping": stopping, "all": everything, "sharded": sharded}


def main(folder, namespace, processes, case):
    warnings.filterwarnings("error", message=".*fpstab.*sync_dist.*")
    torch.set_num_threads(1)
    pl = lightning(namespace)
    module, data, monitors, callbacks, options = CASES[case](folder, pl)
    options |= {"devices": int(processes), "strategy": "ddp" if int(processes) > 1 else "auto"}
    fit = trainer(folder, callbacks, namespace, **options)
    torch.manual_seed(0)
    fit.fit(module, *data)
    seen = {
        "rank": fit.global_rank,
        "epochs": fit.current_epoch,
        "metrics": {key: float(value) for key, value in fit.callback_metrics.items() if key.startswith("fpstab")},
        "history": {
            monitor.name: [
                [r["step"], {key: None if math.isnan(value) else value for key, value in r["scalars"].items()}]
                for r in monitor.history.records
            ]
            for monitor in monitors
        },
        "path": str(monitors[0]._sinks.path),
        "best_score": [float(each.best_score) for each in callbacks if hasattr(each, "best_score")],
        "best_path": [Path(each.best_model_path).name for each in callbacks if hasattr(each, "best_model_path")],
    }
    Path(folder, f"seen-{fit.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(*sys.argv[1:])
