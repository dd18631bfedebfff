"""The configurations of the revised ResNets and of CIFAR-10, as the command line reads them."""

from pathlib import Path

import pytest
import torch

from fpstab.callbacks import OrbitMonitor
from fpstab.experiments.training import CONFIGS, lightning_cli
from fpstab.models import CIFAR10Data, ClassifierTask, ConvAutoencoder, EqualWidthResNet, MNISTData

RESNETS = [
    ("mnist_resnet18", 18, MNISTData, 1e-4, 400, 100),
    ("mnist_resnet50", 50, MNISTData, 1e-4, 400, 100),
    ("cifar10_resnet18", 18, CIFAR10Data, 1e-4, 400, 100),
    ("cifar10_resnet50", 50, CIFAR10Data, 1e-4, 400, 100),
    ("mnist_resnet18_quick", 18, MNISTData, 1e-3, 64, 5),
    ("mnist_resnet50_quick", 50, MNISTData, 1e-3, 64, 5),
    ("photographs_resnet18_quick", 18, CIFAR10Data, 1e-3, 32, 10),
]
QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:GPU available but not used", "ignore:.*exists and is not empty"
)


def parsed(name, *arguments):
    return lightning_cli([f"--config={name}", *QUIET, *arguments], run=False, seed_everything_default=False)


def test_no_configuration_is_left_out():
    names = {path.stem for path in CONFIGS.glob("*resnet*.yaml")}
    assert names == {name for name, *_ in RESNETS}


@pytest.mark.parametrize(("name", "depth", "data", "rate", "batch", "epochs"), RESNETS)
def test_resnets(name, depth, data, rate, batch, epochs):
    cli = parsed(name)
    net = cli.model.net
    assert isinstance(cli.model, ClassifierTask)
    assert isinstance(net, EqualWidthResNet)
    assert net.n_blocks == {18: 8, 50: 16}[depth]
    assert net.head.out_features == cli.model.classes
    optimizer = cli.model.configure_optimizers()
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == rate
    assert type(cli.datamodule) is data
    assert cli.datamodule.batch_size == batch
    assert cli.trainer.max_epochs == epochs
    assert any(isinstance(each, OrbitMonitor) for each in cli.trainer.callbacks)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, cli.model.classes)
    if data is CIFAR10Data:
        assert len(cli.datamodule.class_names) == cli.model.classes
    else:
        assert (cli.datamodule.size, cli.datamodule.channels) == (32, 3)


def test_the_autoencoder_of_cifar10():
    cli = parsed("cifar10_autoencoder")
    assert isinstance(cli.model.net, ConvAutoencoder)
    assert cli.model(torch.rand(2, 3, 32, 32)).shape == (2, 3, 32, 32)
    assert cli.datamodule.source == "cifar10"


def test_one_command_trains_and_watches(tmp_path: Path):
    folder = f"--trainer.default_root_dir={tmp_path}"
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    config = tmp_path / "short.yaml"
    text = (CONFIGS / "photographs_resnet18_quick.yaml").read_text().replace("budget: 0.2", "budget: null")
    config.write_text(text)
    cli = lightning_cli(["fit", f"--config={config}", *QUIET, folder, *short])
    monitor = next(each for each in cli.trainer.callbacks if isinstance(each, OrbitMonitor))
    assert monitor.orbits.outputs.shape == (42, 9, 2)
    assert (tmp_path / "fpstab.jsonl").is_file()
    assert cli.trainer.callback_metrics["fpstab/orbits/failed"] == 0
