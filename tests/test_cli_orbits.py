"""`fpstab orbits`, as it is typed."""

import csv
import json
import logging
import math
import re
from pathlib import Path

import pytest
import torch

from fpstab.cli import main
from fpstab.models import CIFAR10Data, ClassifierTask, EqualWidthResNet
from fpstab.orbits import expansivity, fit_probes, observe, shadowing

CONFIG = """
trainer: {max_epochs: 1}
model:
  class_path: fpstab.models.ClassifierTask
  init_args:
    classes: 2
    net: {class_path: fpstab.models.EqualWidthResNet, init_args: {depth: 18, classes: 2, tied: true}}
data:
  class_path: fpstab.models.CIFAR10Data
  init_args: {source: photographs, batch_size: 50}
"""


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")]
    levels = [logger.level for logger in loggers]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def run(capsys, *arguments):
    try:
        code = main(["orbits", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def saved(config=CONFIG):
    torch.manual_seed(0)
    task = ClassifierTask(EqualWidthResNet(18, 2, tied=True), 2)
    folder = Path("version_0/checkpoints")
    folder.mkdir(parents=True)
    Path("version_0/config.yaml").write_text(config)
    torch.save({"state_dict": task.state_dict(), "epoch": 1}, folder / "last.ckpt")
    return str(folder / "last.ckpt"), task.net


def images(count, part="test_set"):
    data = CIFAR10Data(source="photographs")
    data.setup()
    x, y = getattr(data, part).tensors
    chosen = torch.linspace(0, len(x) - 1, count, dtype=torch.float64).round().long()
    return x[chosen], y[chosen]


def test_the_table_and_the_files(capsys):
    path, net = saved()
    code, out, err = run(capsys, path, "--n-images", "30", "--out", "found/here")
    assert (code, err) == (0, "")
    x, y = images(30)
    orbits = observe(net, (x, y))
    expansive, shadow = expansivity(orbits), shadowing(orbits)
    weight = net.head.weight.detach().double()
    sigma = torch.linalg.matrix_norm(weight, 2).item()
    probabilities = (weight[0] - weight[1]).norm().item() / (2 * math.sqrt(2))
    expected = {
        "expansive_definition": expansive.definition.value,
        "expansive_block": expansive.block.value,
        "expansive_mean": expansive.mean.value,
        "shadowing": shadow.value,
        "delta": shadow.delta,
        "epsilon": shadow.epsilon,
        "lipschitz_logits": sigma,
        "stability_logits": shadow.value / sigma,
        "lipschitz_probabilities": probabilities,
        "stability_probabilities": shadow.value / probabilities,
    }
    for name, value in expected.items():
        assert float(re.search(rf"^ *{name} +(\S+)", out, re.M)[1]) == pytest.approx(value, rel=1e-5)
    assert "N = 30, space prob, head final, preset paper" in out
    assert "autonomous chains, best_traced" in out

    record = json.loads(Path("found/here/orbits.json").read_text())
    assert record["scalars"] == pytest.approx(expected, rel=1e-9)
    assert (record["N"], record["rule"], record["chain_mode"]) == (30, "best_traced", "autonomous")
    with Path("found/here/expansive_block.csv").open() as file:
        rows = list(csv.DictReader(file))
    distances = (orbits.outputs[int(rows[0]["i"])] - orbits.outputs[int(rows[0]["j"])]).norm(dim=1)
    assert float(rows[0]["distance"]) == pytest.approx(distances[int(rows[0]["block"])].item(), rel=1e-12)
    pictures = {path.stem for path in Path("found/here").glob("*.png")}
    assert {"pairs", "chains", "tracing", "dots_mean", "matrix_block"} <= pictures


def test_definition_probes_and_validation_images_as_json(capsys):
    path, net = saved()
    code, out, err = run(
        capsys, path, "--n-images", "24", "--preset", "definition", "--head", "probes", "--images", "val", "--json"
    )
    assert err == ""
    record = json.loads(out)
    x, y = images(24, "val_set")
    probes = fit_probes(net, (x, y))
    orbits = observe(net, (x, y), head=probes)
    assert record["head"] == "probes"
    assert record["scalars"]["expansive_definition"] == pytest.approx(expansivity(orbits).definition.value, rel=1e-6)
    assert record["scalars"]["shadowing"] == pytest.approx(shadowing(orbits, "depth", "curve").value, rel=1e-6)
    largest = max(torch.linalg.matrix_norm(probe.weight, 2).item() for probe in probes)
    assert record["scalars"]["lipschitz_logits"] == pytest.approx(largest, rel=1e-6)
    assert code == 0


def test_one_that_has_no_chain(capsys):
    path, _ = saved()
    code, out, _ = run(capsys, path, "--n-images", "6")
    assert code == 1
    assert "too_few_images" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--config", "nothing_of_the_kind"), "no configuration of this name is shipped"),
        (("--blocks", "layers.*"), "matches no module of EqualWidthResNet"),
        (("--map", "net.stem.9"), "there is no such part"),
        (("--lip-head", "tail"), "has no 'tail'"),
        (("--n-images", "1"), "expected an integer from 2 on"),
    ],
)
def test_refusals(arguments, said, capsys):
    path, _ = saved()
    code, out, err = run(capsys, path, "--n-images", "20", *arguments)
    assert (code, out) == (2, "")
    assert said in err


def test_files_that_are_none(capsys):
    path, _ = saved(CONFIG.partition("data:")[0])
    code, _, err = run(capsys, path)
    assert code == 2
    assert "no section 'data'" in err
    Path(path).write_bytes(b"not a checkpoint")
    code, _, err = run(capsys, path)
    assert code == 2
    assert "cannot be read as tensors" in err
    code, _, err = run(capsys, "elsewhere.ckpt")
    assert code == 2
    assert "give --config FILE" in err
