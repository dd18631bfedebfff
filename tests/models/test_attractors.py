from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.models import CirclesData, ExemplarTask, GaussianMLP

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


def pairs(n: int = 20, batch_size: int = 8) -> DataLoader[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(*torch.rand(2, n, 2, generator=generator)), batch_size)


def linear(w: float) -> nn.Module:
    """x → w·x in one dimension."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, w)
    return net


# --- The papers' network ---


def test_parameters_are_gaussian_of_the_papers_scale() -> None:
    torch.manual_seed(0)
    net = GaussianMLP((400, 900, 100))
    for layer in net.layers[::2]:
        sigma = layer.in_features**-0.5
        assert layer.weight.std().item() == pytest.approx(sigma, rel=0.02)
        assert layer.bias.std().item() == pytest.approx(sigma, rel=0.25)
        scaled = layer.weight.detach().flatten() / sigma
        assert scaled.pow(4).mean().item() == pytest.approx(3, rel=0.05)  # of a Gaussian; 1.8 of a uniform law
    assert GaussianMLP((300, 300), std=0.2).layers[0].weight.std().item() == pytest.approx(0.2, rel=0.02)


def test_the_last_layer_is_activated() -> None:
    net = GaussianMLP(std=5.0)
    assert [type(layer) for layer in net.layers] == [nn.Linear, nn.Hardtanh] * 3
    assert net(torch.randn(100, 2)).abs().max() <= 1


@pytest.mark.parametrize("std", [0, -1.0, float("nan"), "1", True])
def test_bad_std(std: object) -> None:
    with pytest.raises(ValueError, match="std must be None or a positive number"):
        GaussianMLP(std=std)  # type: ignore[arg-type]


# --- The task ---


@alone
@pytest.mark.parametrize("unroll", [1, 2, 3])
def test_loss_and_gradient_in_closed_form(unroll: int) -> None:
    w, x = 0.7, torch.tensor([[1.0], [-2.0]])
    net = linear(w)
    loss = ExemplarTask(net, unroll).training_step((x, torch.zeros(2, 1)), 0)
    loss.backward()
    # Φ^m(x) = w^m x, exemplars 0: Σ_m w^2m · mean x²
    assert loss.item() == pytest.approx(2.5 * sum(w ** (2 * m) for m in range(1, unroll + 1)))
    assert net.weight.grad is not None
    slope = 2.5 * sum(2 * m * w ** (2 * m - 1) for m in range(1, unroll + 1))
    assert net.weight.grad.item() == pytest.approx(slope)


@alone
def test_one_iteration_is_the_papers_loss() -> None:
    torch.manual_seed(0)
    net, (x, psi) = GaussianMLP(), torch.rand(2, 7, 2)
    loss = ExemplarTask(net, 1).training_step((x, psi), 0).item()
    squares = ((net(x) - psi) ** 2).sum(1).detach().numpy()  # paper 2, eq. (3)
    assert loss == pytest.approx(np.mean(squares) / 2)


def test_losses_are_means_over_points_not_over_batches() -> None:
    torch.manual_seed(0)
    task = ExemplarTask(GaussianMLP(), 2, partial(torch.optim.SGD, lr=0.0))
    loader = pairs(n=20, batch_size=8)  # the last batch has 4
    loader.dataset.tensors[1][16:] *= 10  # type: ignore[attr-defined]
    x, psi = loader.dataset.tensors  # type: ignore[attr-defined]
    with torch.no_grad():
        first, second = task(x), task(task(x))
    errors = [((out - psi).double().numpy() ** 2).mean() for out in (first, second)]
    trainer = quiet(max_epochs=1)
    trainer.fit(task, loader, loader)
    logged = trainer.callback_metrics
    assert logged["train/loss"].item() == pytest.approx(sum(errors), rel=1e-5)
    assert logged["val/loss"].item() == pytest.approx(sum(errors), rel=1e-5)
    assert logged["val/one_pass"].item() == pytest.approx(errors[0], rel=1e-5)
    assert set(trainer.progress_bar_metrics) == {"val/loss"}
    tested = trainer.test(task, loader, verbose=False)[0]
    assert tested == {"test/loss": pytest.approx(sum(errors)), "test/one_pass": pytest.approx(errors[0])}


def test_validate_test_and_fit_in_any_order() -> None:
    task, loader = ExemplarTask(GaussianMLP(), 2, partial(torch.optim.SGD, lr=0.0)), pairs()
    before = quiet().validate(task, loader, verbose=False)[0]
    quiet().test(task, loader, verbose=False)
    trainer = quiet(max_epochs=1)
    trainer.fit(task, loader, loader)
    assert trainer.callback_metrics["val/loss"].item() == pytest.approx(before["val/loss"])
    assert trainer.test(task, loader, verbose=False)[0]["test/one_pass"] == pytest.approx(before["val/one_pass"])


def test_circles_are_learned() -> None:
    pl.seed_everything(0, verbose=False)
    data = CirclesData(repeats=40)
    task = ExemplarTask(GaussianMLP(), 1, partial(torch.optim.Adam, lr=0.003))
    trainer = quiet(max_epochs=5)
    before = trainer.validate(task, data, verbose=False)[0]["val/loss"]
    trainer.fit(task, data)
    # a network that only passes its input on leaves the mean square r²/4 of a coordinate in a disc
    assert trainer.callback_metrics["val/loss"].item() < 0.2**2 / 4 < before


@alone
def test_shapes_that_differ_are_refused() -> None:
    task = ExemplarTask(GaussianMLP())
    with pytest.raises(ValueError, match=r"gives \[3, 2\] where the exemplars are \[1, 2\]"):
        task.training_step((torch.zeros(3, 2), torch.zeros(1, 2)), 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"net": "MLP"}, "net must be an nn.Module, got 'MLP'"),
        ({"unroll": 0}, "unroll must be a positive integer, got 0"),
        ({"unroll": True}, "unroll must be a positive integer, got True"),
        ({"optimizer": None}, "optimizer must be a callable"),
        ({"lr_scheduler": 0.1}, r"lr_scheduler must be None or a callable .* got 0\.1"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExemplarTask(**{"net": nn.Identity(), **arguments})  # type: ignore[arg-type]


def test_checkpoint_holds_the_network_only(tmp_path: Path) -> None:
    task = ExemplarTask(GaussianMLP())
    trainer = quiet(max_epochs=1)
    trainer.fit(task, pairs(), pairs())
    trainer.save_checkpoint(tmp_path / "task.ckpt")
    state = torch.load(tmp_path / "task.ckpt", weights_only=True)["state_dict"]
    assert set(state) == {f"net.{name}" for name in task.net.state_dict()}
    other = ExemplarTask.load_from_checkpoint(tmp_path / "task.ckpt", net=GaussianMLP(), weights_only=True)
    for mine, theirs in zip(task.net.parameters(), other.net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
