"""The OrbitMonitor as its users meet it."""

import inspect
import math

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fpstab.callbacks import Every, OrbitMonitor, read_lines
from fpstab.orbits import expansivity, observe, shadowing
from tests.callbacks.toys import NAMESPACES, lightning, trainer


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(n, n), nn.BatchNorm1d(n), nn.ReLU(), nn.Dropout(0.2), nn.Linear(n, n))

    def forward(self, x):
        return x + self.body(x)


class Net(nn.Module):
    def __init__(self, hidden_head=False):
        super().__init__()
        self.stem = nn.Linear(9, 8)
        self.blocks = nn.ModuleList(Block(8) for _ in range(3))
        self.head = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3)) if hidden_head else nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def task(namespace="pytorch_lightning", **options):
    class Task(lightning(namespace).LightningModule):
        def __init__(self):
            super().__init__()
            self.net = Net(**options)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch, batch_idx):
            self.log("val/loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), lr=1e-2)

    torch.manual_seed(0)
    return Task()


def images(count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 3, (count,), generator=generator)
    return TensorDataset(torch.randn(count, 9, generator=generator) + 2 * torch.eye(9)[y], y)


def loaders(shuffle=True):
    return DataLoader(images(64, 0), 16, shuffle=shuffle), DataLoader(images(40, 1), 16)


def test_signature():
    defaults = {name: p.default for name, p in inspect.signature(OrbitMonitor).parameters.items()}
    assert defaults == {
        "blocks": "blocks.*",
        "map": "net",
        "head": "final",
        "preset": "paper",
        "points": "validation",
        "n_points": 512,
        "lip": "exact",
        "lip_head": None,
        "same_class": False,
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "strict": False,
        "name": "orbits",
    }


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_attach_and_look(tmp_path, namespace):
    logger = lightning(f"{namespace}.loggers").TensorBoardLogger(tmp_path)
    monitor, module = OrbitMonitor(budget=None, strict=True, n_points=30), task(namespace)
    fit = trainer(tmp_path, [monitor], namespace, logger=logger)
    fit.fit(module, *loaders())

    x, y = images(40, 1).tensors
    chosen = torch.linspace(0, 39, 30).round().long()
    orbits = observe(module.net, (x[chosen], y[chosen]))
    assert torch.equal(monitor.orbits.outputs, orbits.outputs)
    expansive, shadow = expansivity(orbits), shadowing(orbits)
    weight = module.net.head.weight.detach().double()
    logits = torch.linalg.matrix_norm(weight, 2).item()
    probabilities = torch.cdist(weight, weight).max().item() / (2 * math.sqrt(2))
    expected = {
        "expansive_definition": expansive.definition.value,
        "expansive_block": expansive.block.value,
        "expansive_mean": expansive.mean.value,
        "shadowing": shadow.value,
        "delta": shadow.delta,
        "epsilon": shadow.epsilon,
        "lipschitz_logits": logits,
        "stability_logits": shadow.value / logits,
        "lipschitz_probabilities": probabilities,
        "stability_probabilities": shadow.value / probabilities,
    }
    for key, value in expected.items():
        assert fit.callback_metrics[f"fpstab/orbits/{key}"].item() == pytest.approx(value, rel=1e-5)
    assert "fpstab/orbits/shadowing" in fit.progress_bar_metrics

    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    assert [event.step for event in events.Scalars("fpstab/orbits/shadowing")] == [0, 3, 7, 11]
    for tag in ("matrices", "dots", "pairs", "tracing", "chains"):
        assert [picture.step for picture in events.Images(f"fpstab/orbits/{tag}")] == [0, 12]
    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    assert lines[-1]["result"]["shadowing"]["chain"] == list(shadow.chain)
    assert lines[-1]["result"]["expansivity"]["block"]["n"] == 30


def test_training_is_the_same_with_and_without(tmp_path):
    weights = []
    for monitors in ([], [OrbitMonitor(budget=None)], [OrbitMonitor(budget=None, head="probes", points="batch")]):
        module = task()
        trainer(tmp_path, monitors).fit(module, *loaders())
        weights.append([value.clone() for value in module.state_dict().values()])
    for others in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], others, strict=True))


def test_the_first_batch_where_asked_for_or_nothing_else_is_there(tmp_path):
    monitor = OrbitMonitor(points="batch", budget=None)
    trainer(tmp_path, [monitor]).fit(task(), *loaders())
    assert monitor.orbits.n_images == 16
    assert torch.equal(monitor.orbits.labels, images(40, 1).tensors[1][:16])
    without = OrbitMonitor(budget=None)
    trainer(tmp_path, [without]).fit(task(), loaders(shuffle=False)[0])
    assert torch.equal(without.orbits.labels, images(64, 0).tensors[1][:16])
    given = OrbitMonitor(points=images(20, 5), n_points=12, budget=None)
    trainer(tmp_path, [given]).fit(task(), *loaders())
    assert torch.equal(given.orbits.labels, images(20, 5).tensors[1][:12])


@pytest.mark.parametrize("lip", ["exact", "cvxpy"])
def test_a_head_with_a_hidden_layer(tmp_path, lip):
    monitor, module = OrbitMonitor(lip=lip, budget=None, strict=True), task(hidden_head=True)
    trainer(tmp_path, [monitor], max_epochs=1).fit(module, *loaders())
    first, last = (module.net.head[k].weight.detach().double() for k in (0, 2))
    found = monitor.result.scalars()["lipschitz_logits"]
    x = torch.randn(2000, 8, dtype=torch.float64)
    largest = max(
        torch.linalg.matrix_norm(last @ torch.diag((row > 0).double()) @ first, 2).item() for row in x @ first.T
    )
    product = torch.linalg.matrix_norm(first, 2) * torch.linalg.matrix_norm(last, 2)
    assert largest * 0.9 < found <= product * (1 + 1e-9)
    assert monitor.result.scalars()["lipschitz_probabilities"] <= found / 2 * (1 + 1e-9)


def test_a_linear_head_behind_an_identity_has_the_same_constant(tmp_path):
    """As paper 5 feeds it to LipSDP, which asks for two layers."""
    monitor, module = OrbitMonitor(lip="cvxpy", budget=None, strict=True), task()
    trainer(tmp_path, [monitor], max_epochs=1).fit(module, *loaders())
    norm = torch.linalg.matrix_norm(module.net.head.weight.detach().double(), 2).item()
    assert monitor.result.scalars()["lipschitz_logits"] == pytest.approx(norm, rel=1e-5)


def test_a_path_that_leads_nowhere_is_refused_before_training(tmp_path):
    with pytest.raises(ValueError, match=r"OrbitMonitor\(map='network'\): Task has no 'network'\. It has: net"):
        trainer(tmp_path, [OrbitMonitor(map="network")]).fit(task(), *loaders())


def test_without_a_lipschitz_constant(tmp_path):
    monitor = OrbitMonitor(lip=None, budget=None, preset="definition", same_class=True)
    trainer(tmp_path, [monitor], max_epochs=1).fit(task(), *loaders())
    assert not any("lipschitz" in key or "stability" in key for key in monitor.result.scalars())
    assert monitor.result.preset == "definition"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": "layers.*"}, "matches no module of Net. Lists of modules: blocks"),
        ({"lip_head": "fc"}, "Net has no 'fc'. It has: stem, blocks, head"),
        ({"n_points": 3}, "a chain through 4 states visits 4 images, and there are only 3"),
    ],
)
def test_what_cannot_be_measured_is_said_once_and_training_goes_on(tmp_path, caplog, options, message):
    fit = trainer(tmp_path, [OrbitMonitor(budget=None, **options)], max_epochs=2)
    fit.fit(task(), *loaders())
    assert fit.callback_metrics["fpstab/orbits/failed"] == 1
    assert sum(message in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"blocks": []}, TypeError, "blocks="),
        ({"blocks": 3}, TypeError, "blocks=3"),
        ({"head": "last"}, ValueError, "head='last': expected one of 'final', 'probes'"),
        ({"preset": "papers"}, ValueError, "preset='papers'"),
        ({"points": "train"}, ValueError, "points='train'"),
        ({"points": 7}, TypeError, "got int"),
        ({"n_points": 1}, ValueError, "n_points=1"),
        ({"lip": "sdp"}, ValueError, "lip='sdp'"),
        ({"map": None}, TypeError, "map=None"),
    ],
)
def test_bad_arguments(options, error, message):
    with pytest.raises(error, match=message):
        OrbitMonitor(**options)


def test_figures_go_where_there_is_a_logger(tmp_path):
    monitor = OrbitMonitor(budget=None, n_points=20)
    trainer(tmp_path, [monitor], logger=TensorBoardLogger(tmp_path), max_epochs=1).fit(task(), *loaders())
    assert set(monitor.figures(monitor.result)) == {"matrices", "dots", "pairs", "tracing", "chains"}
