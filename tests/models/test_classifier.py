from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from sklearn.metrics import accuracy_score, precision_recall_fscore_support
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.models import ClassifierTask, EqualWidthResNet, MNISTData

pytestmark = pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")

quiet = partial(
    pl.Trainer,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
frozen = partial(torch.optim.SGD, lr=0.0)


def batches(n: int = 50, batch_size: int = 8, seed: int = 0) -> DataLoader[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(0, 4, (n,), generator=generator)), batch_size)


def linear(classes: int = 4) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, classes)


def test_measures_are_scikit_learns() -> None:
    task, loader = ClassifierTask(linear(), 4, frozen), batches()
    x, y = loader.dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = task(x)
    precision, recall, f1, _ = precision_recall_fscore_support(y, logits.argmax(1), average="macro", zero_division=0)
    expected = {
        "loss": nn.functional.cross_entropy(logits, y).item(),
        "accuracy": accuracy_score(y, logits.argmax(1)),
        "precision": precision,
        "recall": recall,
        "f1": f1,
    }
    for part in ("val", "test"):
        trainer = quiet()
        run = trainer.validate if part == "val" else trainer.test
        (found,) = run(task, loader, verbose=False)
        assert found == {f"{part}/{name}": pytest.approx(value, rel=1e-5) for name, value in expected.items()}
    trainer = quiet(max_epochs=1)
    trainer.fit(task, loader, loader)
    metrics = trainer.callback_metrics
    assert metrics["train/loss"].item() == pytest.approx(expected["loss"], rel=1e-5)
    assert metrics["train/accuracy"].item() == pytest.approx(expected["accuracy"])
    assert metrics["val/f1"].item() == pytest.approx(f1, rel=1e-5)
    assert set(trainer.progress_bar_metrics) == {"val/loss"}


def test_measures_start_anew_every_epoch() -> None:
    task, loader = ClassifierTask(linear(), 4, frozen), batches()
    loss = quiet().validate(task, loader, verbose=False)[0]
    trainer = quiet(max_epochs=3)
    trainer.fit(task, loader, loader)
    assert {name: trainer.callback_metrics[name].item() for name in loss} == pytest.approx(loss)


def test_a_resnet_learns_real_digits(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    task = ClassifierTask(EqualWidthResNet(18), optimizer=partial(torch.optim.Adam, lr=1e-3))
    trainer = quiet(max_epochs=1, limit_train_batches=12, limit_val_batches=1)
    data = MNISTData(tmp_path, size=32, channels=3, batch_size=64)
    trainer.fit(task, data)
    assert trainer.callback_metrics["train/accuracy"] > 0.3  # by chance it would be 0.1


def test_early_stopping_and_a_checkpoint(tmp_path: Path) -> None:
    task, loader = ClassifierTask(linear(), 4), batches()
    stop = EarlyStopping("val/f1", mode="max", patience=1, min_delta=1.0)
    trainer = quiet(max_epochs=9, callbacks=[stop])
    trainer.fit(task, loader, loader)
    assert stop.stopped_epoch == 1
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    state = torch.load(tmp_path / "task.ckpt", weights_only=True)["state_dict"]
    assert set(state) == {"net.weight", "net.bias"}
    other = ClassifierTask.load_from_checkpoint(
        tmp_path / "task.ckpt", net=nn.Linear(6, 4), classes=4, weights_only=True
    )
    assert torch.equal(other.net.weight, task.net.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"net": "ResNet"}, "net must be an nn.Module, got 'ResNet'"),
        ({"classes": 1}, "classes must be an integer ≥ 2, got 1"),
        ({"optimizer": None}, "optimizer must be a callable"),
        ({"lr_scheduler": 0.1}, "lr_scheduler must be None or a callable"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierTask(**{"net": nn.Identity(), **arguments})  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:You are trying to `self.log\\(\\)` but:UserWarning")  # without a Trainer
@pytest.mark.parametrize(
    ("net", "y", "message"),
    [
        (
            linear(5),
            torch.zeros(3, dtype=torch.long),
            r"returns \[3, 4\] for 3 images, but the network maps .* \[3, 5\]",
        ),
        (linear(), torch.tensor([0, 4, 1]), "from 0 to 3, got torch.int64 .* from 0 to 4"),
        (linear(), torch.zeros(3), "labels must be integers .* got torch.float32"),
        (linear(), torch.zeros(3, 1, dtype=torch.long), r"got torch.int64 \[3, 1\]"),
    ],
)
def test_batches_that_do_not_fit(net: nn.Module, y: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassifierTask(net, 4).training_step((torch.zeros(3, 6), y), 0)
