"""Configurations and checkpoints, opened."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from fpstab.experiments.opening import (
    RefusedError,
    build,
    build_model,
    config_of,
    load_weights,
    model_part,
    read_tensors,
)


def test_a_shipped_configuration():
    path = config_of(Path("nowhere/last.ckpt"), "mnist_resnet18_quick")
    assert path.name == "mnist_resnet18_quick.yaml"
    model, data = build(path)
    assert model.net.n_blocks == 8
    assert data.size == 32


def test_the_nearest_configuration(tmp_path):
    checkpoint = tmp_path / "a/b/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    with pytest.raises(RefusedError, match="give --config FILE"):
        config_of(checkpoint, None)
    (tmp_path / "a/config.yaml").write_text("model: {}")
    assert config_of(checkpoint, None) == (tmp_path / "a/config.yaml").resolve()
    (tmp_path / "a/b/config.yaml").write_text("model: {}")
    assert config_of(checkpoint, None) == (tmp_path / "a/b/config.yaml").resolve()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "has no section 'model'"),
        ("model: [", "cannot be read"),
        ("model: {class_path: no.such.Model}", "its model cannot be made"),
        (
            "model: {class_path: fpstab.models.ClassifierTask, init_args: {net: {class_path: torch.nn.Identity}}}\n"
            "data: {class_path: fpstab.models.MNISTData, init_args: {size: 30}}",
            "its data cannot be made",
        ),
    ],
)
def test_configurations_that_are_none(text, said, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(RefusedError, match=said):
        build(tmp_path / "config.yaml")


def test_a_model_without_its_data(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "model: {class_path: pytorch_lightning.demos.boring_classes.BoringModel}\ndata: {class_path: no.such.Data}"
    )
    model = build_model(tmp_path / "config.yaml")
    assert isinstance(model.layer, nn.Linear)
    with pytest.raises(RefusedError, match="its data cannot be made"):
        build(tmp_path / "config.yaml")


def test_parts_of_a_model():
    model = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Tanh()))
    assert model_part(model, "") is model
    assert model_part(model, "1.0") is model[1][0]
    with pytest.raises(RefusedError, match=r"--map 1\.2: there is no such part; Sequential\.1 has no '2'. It has: 0\."):
        model_part(model, "1.2")
    with pytest.raises(RefusedError, match=r"--map 0\.weight is a Parameter, expected a module"):
        model_part(model, "0.weight")


def test_tensors_of_all_kinds(tmp_path):
    net = nn.Linear(2, 3)
    torch.save(net.state_dict(), tmp_path / "plain.pt")
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "lightning.ckpt")
    safetensors.torch.save_file(net.state_dict(), tmp_path / "net.safetensors")
    for name in ("plain.pt", "lightning.ckpt", "net.safetensors"):
        other = nn.Linear(2, 3)
        load_weights(other, tmp_path / name)
        assert torch.equal(other.weight, net.weight)
    with pytest.raises(RefusedError, match="does not fit"):
        load_weights(nn.Linear(3, 3), tmp_path / "plain.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(RefusedError, match="holds no state dict"):
        read_tensors(tmp_path / "list.pt")
    with pytest.raises(RefusedError, match="cannot be read as tensors"):
        read_tensors(tmp_path / "absent.pt")
