"""Two gloo processes train; each prints what it saw as one JSON line. Run by test_ddp.py: FOLDER NAMESPACE."""

import json
import logging
import math
import sys
import warnings
from pathlib import Path

import torch

from fpstab.callbacks import ESDMonitor, Every, FixedPointMonitor, JacobianMonitor
from tests.callbacks.toys import Scripted, lightning, loaders, task, trainer


def main(folder, namespace):
    warnings.filterwarnings("error", message=".*fpstab.*sync_dist.*")
    torch.set_num_threads(1)
    pl = lightning(namespace)
    broken = ZeroDivisionError("made for the test")
    scripted = Scripted([broken, broken, 5.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0])
    esd = ESDMonitor(every=Every(2), budget=0.9)
    points = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    jacobian = JacobianMonitor(map="net", points=points, every=Every(2), budget=0.9)
    fixed_points = FixedPointMonitor(map="net", points=points, max_iter=50, every=Every(4), budget=0.9)
    monitors = [scripted, esd, jacobian, fixed_points]
    early = pl.callbacks.EarlyStopping("fpstab/scripted/value", patience=2)
    checkpoint = pl.callbacks.ModelCheckpoint(folder, filename="{epoch}", monitor="fpstab/scripted/value")
    options = {"devices": 2, "strategy": "ddp", "logger": pl.loggers.TensorBoardLogger(folder), "max_epochs": 12}
    fit = trainer(folder, [early, checkpoint, *monitors], namespace, **options)
    torch.manual_seed(0)
    fit.fit(task(namespace), *loaders())
    seen = {
        "rank": fit.global_rank,
        "epochs": fit.current_epoch,
        "best": float(early.best_score),
        "best_path": checkpoint.best_model_path,
        "metrics": {key: float(value) for key, value in fit.callback_metrics.items() if key.startswith("fpstab")},
        "history": [
            [r["step"], {key: None if math.isnan(value) else value for key, value in r["scalars"].items()}]
            for monitor in monitors
            for r in monitor.history.records
        ],
        "path": str(esd._sinks.path),
    }
    Path(folder, f"seen-{fit.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    logging.disable(logging.INFO)
    main(*sys.argv[1:])
