"""Paper 5's tables and figures, on little data."""

import json
import logging

import pytest
import torch

from fpstab.cli import main
from fpstab.experiments import resnet_paper
from fpstab.experiments.opening import RefusedError
from fpstab.experiments.resnet_training import PAPER, Sizes, available, resnet_runs
from fpstab.models import ClassifierTask, EqualWidthResNet
from fpstab.orbits import expansivity, observe, shadowing

SMALL = Sizes(epochs=1, batch_size=32, train_images=64, test_images=40)
FUNCTIONS = {
    "performance": "table 1",
    "constants": "table 2",
    "closest": "table 3",
    "traced_18": "table 4",
    "mean_distances": "figure 2",
    "block_distances": "figure 3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("networks")


@pytest.fixture(scope="module")
def run(folder):
    # before the fixture of every test, which therefore cannot know the levels
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    before = torch.get_rng_state()
    (found,) = resnet_runs(SMALL, images="photographs", data=folder, out=folder)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    assert torch.equal(torch.get_rng_state(), before)
    return found


def test_trained_once_and_kept(run, folder, monkeypatch):
    monkeypatch.setattr("fpstab.experiments.resnet_training._train", lambda *_: pytest.fail("trained again"))
    (again,) = resnet_runs(SMALL, images="photographs", data=folder, out=folder)
    x = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(run.net(x), again.net(x))
    assert again.scores == run.scores
    assert again.n == 40
    assert run.seconds > 0


class TrainingBegunError(Exception):
    """Raised in place of a training."""


def test_settings_make_another_network(run, folder, monkeypatch):
    def train(images, depth, seed, sizes, count):
        raise TrainingBegunError(depth, seed, count)

    monkeypatch.setattr("fpstab.experiments.resnet_training._train", train)
    with pytest.raises(TrainingBegunError) as begun:
        resnet_runs(SMALL, seed=1, images="photographs", data=folder, out=folder)
    assert begun.value.args == (18, 1, 64)


@pytest.mark.parametrize("function", list(FUNCTIONS))
def test_tables(function, run, folder):
    result = getattr(resnet_paper, function)(sizes=SMALL, images="photographs", data=folder, out=folder)
    assert result.name == FUNCTIONS[function]
    rows = result.table()
    assert all(row["N"] == 40 for row in rows)
    assert len({tuple(row) for row in rows}) == 1  # the same columns
    assert result.verdict
    assert result.records()[0]["where"] == "crops of two photographs (not CIFAR-10)"
    result.plot().savefig(folder / "picture.png")
    orbits = observe(run.net, run.test_set)
    found, shadow = expansivity(orbits), shadowing(orbits)
    predictions = orbits.predictions
    expected = {
        "performance": {"loss": -orbits.outputs[range(40), -1, orbits.labels].log().mean().item()},
        "constants": {"expansive_block": found.block.value, "shadowing": shadow.value, "epsilon": shadow.epsilon},
        "closest": {"expansive_block": found.block.value},
        "block_distances": {"expansive_block": found.block.value},
        "mean_distances": {"expansive_mean": found.mean.value},
        "traced_18": {"shadowing": shadow.value, "delta": shadow.delta},
    }[function]
    for key, value in expected.items():
        assert result.scalars()[f"photographs-18/{key}"] == pytest.approx(value, rel=1e-5)
    if function == "performance":
        assert rows[0]["accuracy"] == pytest.approx((predictions == orbits.labels).double().mean().item())
    if function == "constants":
        sigma = torch.linalg.matrix_norm(run.net.head.weight.detach().double(), 2).item()
        assert rows[0]["lipschitz_lipsdp"] == pytest.approx(sigma, rel=1e-6)
        assert rows[0]["lipschitz_logits"] == pytest.approx(sigma, rel=1e-9)
    if function == "closest":
        row = rows[0]
        of_class = [i for i in range(40) if int(orbits.labels[i]) == row["class_i"]]
        assert of_class[row["order_i"] - 1] == row["i"]


def test_a_checkpoint_from_the_command_line(run, tmp_path, folder, capsys):
    task = ClassifierTask(run.net, 2)
    torch.save({"state_dict": task.state_dict()}, tmp_path / "last.ckpt")
    arguments = ["--checkpoint", str(tmp_path / "last.ckpt"), "--images", "photographs", "--out", str(tmp_path)]
    assert main(["reproduce", "resnet-fig3", *arguments]) == 0
    record = json.loads((tmp_path / "resnet-fig3-0.json").read_text())
    assert record["records"][0]["depth"] == 18
    assert record["records"][0]["n"] == 104
    expected = expansivity(
        observe(run.net, (lambda data: (data.setup(), data.test_set)[1])(_photographs()))
    ).block.value
    assert record["scalars"]["photographs-18/expansive_block"] == pytest.approx(expected, rel=1e-9)
    assert not (tmp_path / "networks").exists()
    assert (tmp_path / "resnet-fig3-0.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    assert main(["reproduce", "resnet-fig3", *arguments, "--depth", "50"]) == 2
    assert "holds a ResNet-18, and --depth says 50" in capsys.readouterr().err


def _photographs():
    from fpstab.models import CIFAR10Data

    return CIFAR10Data(source="photographs")


def test_refusals(run, tmp_path):
    torch.save(EqualWidthResNet(18, 2, stem="patch").state_dict(), tmp_path / "patch.pt")
    with pytest.raises(RefusedError, match="is no EqualWidthResNet"):
        resnet_runs(SMALL, images="photographs", checkpoint=tmp_path / "patch.pt", data=tmp_path)
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(RefusedError, match="holds 0 blocks"):
        resnet_runs(SMALL, images="photographs", checkpoint=tmp_path / "other.pt", data=tmp_path)
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert available(tmp_path) == ("mnist", "cifar10")
    with pytest.raises(RefusedError, match="Give --images mnist or cifar10"):
        resnet_runs(SMALL, checkpoint=tmp_path / "patch.pt", data=tmp_path)


def test_two_data_sets_side_by_side(run, tmp_path, monkeypatch):
    """MNIST and CIFAR-10 where both are there: rows of both beside the paper's, and one picture."""
    generator = torch.Generator().manual_seed(0)

    class Images:
        source = "cifar10"
        x, y = torch.rand(100, 3, 32, 32, generator=generator), torch.arange(100) % 10
        train_set = test_set = torch.utils.data.TensorDataset(x, y)

        def __init__(self, root, **options):
            self.source = "torchvision" if "size" in options else "cifar10"

        def setup(self):
            pass

    monkeypatch.setattr("fpstab.models.CIFAR10Data", Images)
    monkeypatch.setattr("fpstab.models.MNISTData", Images)
    (tmp_path / "cifar-10-batches-py").mkdir()
    result = resnet_paper.constants(sizes=SMALL, data=tmp_path, out=tmp_path)
    assert [(row["source"], row["images"]) for row in result.table()] == [
        ("ours", "mnist"),
        ("paper", "mnist"),
        ("ours", "cifar10"),
        ("paper", "cifar10"),
    ]
    ours = result.table()[0]
    assert ours["stability_logits"] == pytest.approx(ours["g_shadowing"] / ours["lipschitz_logits"], rel=1e-9)
    assert "4.14e-05" in result.verdict
    assert "the paper's own δ/ε/Lip is 0.2809" in result.verdict
    for function in ("closest", "performance"):
        both = getattr(resnet_paper, function)(sizes=SMALL, data=tmp_path, out=tmp_path)
        both.plot().savefig(tmp_path / f"{function}.png")
        assert len(both.runs) == 2
        assert "CIFAR-10, ResNet-18" in both.verdict


def test_damaged_images_are_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        (folder / name).write_bytes(b"")
    with pytest.raises(RefusedError, match="data_batch_1 is not a whole CIFAR-10 file"):
        resnet_runs(SMALL, images="cifar10", data=tmp_path, out=tmp_path)


def test_a_damaged_network_is_named(run, folder, tmp_path):
    (kept,) = (folder / "networks").glob("*.pt")
    (tmp_path / "networks").mkdir()
    (tmp_path / "networks" / kept.name).write_bytes(b"PK")
    with pytest.raises(RefusedError, match=f"{kept.name} is damaged"):
        resnet_runs(SMALL, images="photographs", data=folder, out=tmp_path)


def test_full_is_the_papers():
    assert set(resnet_paper.FULL) == {*FUNCTIONS, "traced_50"}
    assert (PAPER.depths, PAPER.epochs, PAPER.batch_size, PAPER.learning_rate) == ((18, 50), 100, 400, 1e-4)


@pytest.mark.parametrize("key", list(resnet_paper.TABLE_2))
def test_printed_arithmetic(key):
    """T = Sh/Lip to four digits, and Sh = δ/ε but for the second row, whose δ was cut."""
    row = resnet_paper.TABLE_2[key]
    assert row["sh"] / row["lip"] == pytest.approx(row["t"], abs=1.1e-4)
    if key != ("mnist", 50):
        assert row["delta"] / row["epsilon"] == pytest.approx(row["sh"], rel=1e-3)
