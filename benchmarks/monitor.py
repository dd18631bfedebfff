"""What an ESDMonitor costs: python benchmarks/monitor.py."""

import logging
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from timing import clock, interleave, save

from fpstab.esd import esd_report
from fpstab.models import Autoencoder, AutoencoderTask, MNISTData

HERE = Path(__file__).parent


def measurement(repeats):
    """One measurement, as the monitor makes it, against eigvalsh of the same layers' Gram matrices in float64."""
    torch.manual_seed(0)
    net = Autoencoder()
    weights = [parameter.detach() for parameter in net.parameters() if parameter.ndim == 2]

    def gram(w):
        w = w.double()
        return w @ w.mT if w.shape[0] <= w.shape[1] else w.mT @ w

    grams = [gram(w) for w in weights]
    trained = Autoencoder()
    trained.load_state_dict(trained_weights())
    times = interleave(
        {
            "untrained": lambda: clock(lambda: esd_report(net)),
            "trained": lambda: clock(lambda: esd_report(trained)),
            "eigvalsh": lambda: clock(lambda: [torch.linalg.eigvalsh(g) for g in grams]),
            "gram and eigvalsh": lambda: clock(lambda: [torch.linalg.eigvalsh(gram(w)) for w in weights]),
        },
        repeats,
    )
    for ours in ("untrained", "trained"):
        for bare in ("eigvalsh", "gram and eigvalsh"):
            yield row(f"one measurement, {ours} autoencoder", f"bare float64 {bare}", times[ours], times[bare])


def trained_weights():
    module, _ = train([], epochs=30)
    return module.net.state_dict()


def train(callbacks, epochs, batch_size=128, logger=False):
    from pytorch_lightning import Trainer
    from pytorch_lightning.loggers import TensorBoardLogger

    torch.manual_seed(0)
    module, data = AutoencoderTask(Autoencoder()), MNISTData(batch_size=batch_size)
    data.prepare_data()
    data.setup("fit")
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            default_root_dir=folder,
            logger=TensorBoardLogger(folder) if logger else False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
        start = time.perf_counter()
        trainer.fit(module, datamodule=data)
        return module, time.perf_counter() - start


def share(epochs, repeats):
    """The whole time of training with the monitor at its defaults, and without, in turn."""
    from fpstab.callbacks import ESDMonitor

    alone, watched, accounts = [], [], []
    train([ESDMonitor()], epochs=3, logger=True)
    for _ in range(repeats):
        alone.append(train([], epochs, logger=True)[1])
        monitor = ESDMonitor()
        watched.append(train([monitor], epochs, logger=True)[1])
        accounts.append(monitor._budget.spent / watched[-1])
    without, together = statistics.median(alone), statistics.median(watched)
    yield row(
        f"training the autoencoder, {epochs} epochs, batch 128, figures included", "no monitor", together, without
    )
    yield {
        "what": "share of the training time by the monitor's own account (budget 0.02)",
        "against": "the whole training",
        "seconds": statistics.median(accounts) * together,
        "bare_seconds": together,
        "ratio": statistics.median(accounts),
    }


def imports(repeats):
    """A fresh interpreter that imports fpstab after torch, against torch alone."""

    def run(code):
        return lambda: clock(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    times = interleave({"torch": run("import torch"), "both": run("import torch, fpstab")}, repeats)
    yield row("import torch, fpstab", "import torch", times["both"], times["torch"])


def row(what, against, seconds, bare):
    return {"what": what, "against": against, "seconds": seconds, "bare_seconds": bare, "ratio": seconds / bare}


if __name__ == "__main__":
    torch.set_num_threads(1)
    import fpstab.callbacks  # noqa: F401

    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    save(HERE / "monitor.csv", [*measurement(21), *share(60, 3), *share(200, 1), *imports(7)])
