"""The configurations of deep-equilibrium models run as they are typed."""

import pytest
import torch

from fpstab.experiments.training import lightning_cli


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("mnist_deq", ["--model.net.sqrt_v=4", "--model.net.family=orthogonal"]),
        ("mnist_deq_autoencoder", []),
        ("cifar10_deq", ["--data.source=photographs", "--model.classes=2", "--model.net.classes=2"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning", "ignore:FixedPointLayer")
def test_one_step_of_each(name, more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.accelerator=cpu", "--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]
    options += ["--trainer.enable_model_summary=false", "--data.batch_size=16"]
    with torch.random.fork_rng():
        cli = lightning_cli(["fit", "--config", name, *options, *more])
    assert cli.trainer.global_step == 1
    assert {"val/loss", "fpstab/equilibrium/rho_max", "fpstab/steps/skipped"} <= cli.trainer.callback_metrics.keys()
    assert cli.trainer.callback_metrics["fpstab/equilibrium/failed"] == 0
