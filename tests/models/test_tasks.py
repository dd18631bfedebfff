import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.models import MLP, Autoencoder, AutoencoderTask, ConvAutoencoder, MNISTData

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")

alone = pytest.mark.filterwarnings("ignore:You are trying to `self.log\\(\\)` but:UserWarning")  # without a Trainer

quiet = partial(
    pl.Trainer,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)


def batches(n: int = 20, batch_size: int = 8, seed: int = 0) -> DataLoader[tuple[torch.Tensor, ...]]:
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return DataLoader(TensorDataset(x, torch.zeros(n)), batch_size)


def small() -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder((16, 8, 4))


@pytest.mark.parametrize("conv", [False, True])
def test_the_loss_falls_on_real_digits(tmp_path: Path, conv: bool) -> None:
    pl.seed_everything(0, verbose=False)
    net: nn.Module = ConvAutoencoder((1, 4, 8), noise=0.1) if conv else Autoencoder((784, 64, 16))
    task = AutoencoderTask(net, partial(torch.optim.Adam, lr=0.01))
    data = MNISTData(tmp_path)
    trainer = quiet(max_epochs=2)
    before = trainer.validate(task, data, verbose=False)[0]["val/loss"]
    trainer.fit(task, data)
    after = trainer.callback_metrics
    assert {"train/loss", "val/loss"} == set(after)
    # The best constant image leaves the variance of the pixels over the images; a network that learns is below.
    x = data.val_set.tensors[0]
    constant = (x - x.mean(0)).square().mean().item()
    assert after["val/loss"] < 0.9 * constant < constant < before
    assert trainer.test(task, data, verbose=False)[0]["test/loss"] == pytest.approx(after["val/loss"].item(), rel=0.1)


def test_losses_are_means_over_images_not_over_batches() -> None:
    task = AutoencoderTask(small(), partial(torch.optim.SGD, lr=0.0))
    loader = batches(n=20, batch_size=8)  # the last batch has 4
    loader.dataset.tensors[0][16:] *= 10  # type: ignore[attr-defined]
    x = loader.dataset.tensors[0]  # type: ignore[attr-defined]
    with torch.no_grad():
        error = task(x).double().numpy() - x.double().numpy()
    expected = pytest.approx(np.mean(error**2), rel=1e-5)
    assert np.mean([np.mean(part**2) for part in np.split(error, [8, 16])]) != expected
    trainer = quiet(max_epochs=1)
    trainer.fit(task, loader, loader)
    assert trainer.callback_metrics["train/loss"].item() == expected
    assert trainer.callback_metrics["val/loss"].item() == expected
    assert set(trainer.progress_bar_metrics) == {"val/loss"}
    assert trainer.test(task, loader, verbose=False) == [{"test/loss": expected}]


def test_validate_test_and_fit_in_any_order() -> None:
    task, loader = AutoencoderTask(small(), partial(torch.optim.SGD, lr=0.0)), batches()
    loss = quiet().validate(task, loader, verbose=False)[0]["val/loss"]
    for inference_mode in (True, False):
        trainer = quiet(max_epochs=1, inference_mode=inference_mode)
        trainer.fit(task, loader, loader)
        assert trainer.callback_metrics["val/loss"].item() == pytest.approx(loss)
        assert trainer.test(task, loader, verbose=False) == [{"test/loss": pytest.approx(loss)}]


@alone
def test_the_target_is_clean() -> None:
    net = Autoencoder((16, 8), noise=2.0)
    task, x = AutoencoderTask(net), torch.rand(5, 1, 4, 4)
    torch.manual_seed(1)
    loss = task.training_step(x, 0)
    torch.manual_seed(1)
    out = net.decode(net.encode(x + 2.0 * torch.randn(5, 1, 4, 4))).reshape(x.shape)
    assert loss.item() == pytest.approx(((out - x) ** 2).mean().item())


@alone
def test_labels_are_not_looked_at() -> None:
    task, x = AutoencoderTask(small()), torch.rand(5, 1, 4, 4)
    loss = task.training_step(x, 0)
    assert torch.equal(task.training_step((x, torch.zeros(5)), 0), loss)
    assert torch.equal(task.training_step([x, torch.zeros(5)], 0), loss)


@alone
def test_a_network_that_changes_the_shape_is_refused() -> None:
    task = AutoencoderTask(MLP((16, 16)))
    task.training_step(torch.zeros(2, 16), 0)
    with pytest.raises(ValueError, match=r"maps \[2, 1, 4, 4\] to \[2, 16\]"):
        task.training_step(torch.zeros(2, 1, 4, 4), 0)


def test_the_network_is_at_net_and_alone_is_optimized() -> None:
    net = small()
    task = AutoencoderTask(net)
    optimizer = task.configure_optimizers()
    assert task.net is net
    assert type(optimizer) is torch.optim.Adam
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(p) for p in net.parameters()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"net": "Autoencoder"}, "net must be an nn.Module, got 'Autoencoder'"),
        (
            {"optimizer": torch.optim.Adam([nn.Parameter(torch.zeros(1))])},
            "optimizer must be a callable .* got Adam",
        ),
        ({"optimizer": None}, "optimizer must be a callable .* got None"),
        ({"lr_scheduler": 0.1}, r"lr_scheduler must be None or a callable .* got 0\.1"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoencoderTask(**{"net": nn.Identity(), **arguments})  # type: ignore[arg-type]


def test_scheduler_steps_once_an_epoch() -> None:
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    trainer = quiet(max_epochs=2)
    trainer.fit(AutoencoderTask(small(), partial(torch.optim.SGD, lr=1.0), scheduler), batches(), batches())
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("monitor", [None, "train/loss"])
def test_scheduler_follows_a_metric(monitor: str | None) -> None:
    def plateau(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.ReduceLROnPlateau:
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=0.9)
        if monitor:
            scheduler.monitor = monitor  # type: ignore[attr-defined]
        return scheduler

    trainer = quiet(max_epochs=2)
    trainer.fit(AutoencoderTask(small(), partial(torch.optim.SGD, lr=1e-6), plateau), batches(), batches())
    config = trainer.lr_scheduler_configs[0]
    assert config.monitor == (monitor or "val/loss")
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-7)


def test_early_stopping_can_monitor_the_loss() -> None:
    stop = EarlyStopping("val/loss", patience=1, min_delta=1.0)
    trainer = quiet(max_epochs=9, callbacks=[stop])
    trainer.fit(AutoencoderTask(small()), batches(), batches(seed=1))
    assert stop.stopped_epoch == 1


def test_checkpoint_holds_tensors_and_builtins_only(tmp_path: Path) -> None:
    path = tmp_path / "task.ckpt"
    task = AutoencoderTask(small())
    trainer = quiet(max_epochs=1)
    trainer.fit(task, batches(), batches())
    trainer.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"net.{name}" for name in task.net.state_dict()}
    other = AutoencoderTask.load_from_checkpoint(path, net=Autoencoder((16, 8, 4)), weights_only=True)
    for mine, theirs in zip(task.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    resumed = quiet(max_epochs=2)
    resumed.fit(AutoencoderTask(small()), batches(), batches(), ckpt_path=path, weights_only=True)
    assert resumed.global_step == 2 * trainer.global_step


YAML = """
model:
  net: {class_path: fpstab.models.Autoencoder, init_args: {widths: [784, 32], noise: 0.1}}
  optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.25, momentum: 0.5}}
  lr_scheduler: {class_path: torch.optim.lr_scheduler.StepLR, init_args: {step_size: 3}}
data: {root: nowhere, batch_size: 7, size: 32, channels: 3, val_fraction: 0.2}
trainer: {accelerator: cpu, logger: false, enable_checkpointing: false, enable_progress_bar: false}
"""


def cli(*args: str) -> LightningCLI:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py"])  # it warns if both hold arguments
        patch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning 2.6.6 calls what 4.53 deprecates
        return LightningCLI(AutoencoderTask, MNISTData, run=False, args=list(args), seed_everything_default=False)


def test_yaml_through_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(YAML)
    parsed = cli("--config", str(tmp_path / "config.yaml"), "--model.optimizer.init_args.lr=0.5")
    task, data = parsed.model, parsed.datamodule
    chosen = task.configure_optimizers()
    assert isinstance(task.net, Autoencoder)
    assert task.net.encoder.widths == (784, 32)
    assert task.net.corrupt.std == 0.1
    assert type(chosen["optimizer"]) is torch.optim.SGD
    assert chosen["optimizer"].defaults["momentum"] == 0.5
    assert chosen["optimizer"].defaults["lr"] == 0.5
    assert type(chosen["lr_scheduler"]["scheduler"]) is torch.optim.lr_scheduler.StepLR
    assert (data.root, data.batch_size, data.size, data.channels) == (Path("nowhere"), 7, 32, 3)


def test_command_line_defaults() -> None:
    parsed = cli(
        "--model.net=fpstab.models.ConvAutoencoder",
        "--trainer.accelerator=cpu",
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false",
    )
    assert isinstance(parsed.model.net, ConvAutoencoder)
    assert type(parsed.model.configure_optimizers()) is torch.optim.Adam


@pytest.mark.parametrize("bad", ["--data.size=30", "--model.net=fpstab.models.MNISTData", "--model.optimizer=Adm"])
def test_command_line_refuses(bad: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli("--model.net=fpstab.models.Autoencoder", bad)
    assert bad.split("=")[1] in capsys.readouterr().err
