"""`fpstab lipschitz`, as it is typed."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from fpstab.cli import main
from fpstab.lipschitz import lipschitz_bound
from fpstab.lipschitz.extraction import extract
from fpstab.models import Autoencoder, AutoencoderTask

CONFIG = """
seed_everything: 0
trainer: {{max_epochs: 1}}
model:
  class_path: fpstab.models.AutoencoderTask
  init_args:
    net: {net}
    optimizer: {{class_path: torch.optim.Adam, init_args: {{lr: 0.001}}}}
data: {{class_path: no.such.Data}}
"""
AUTOENCODER = "{class_path: fpstab.models.Autoencoder, init_args: {widths: [16, 8, 4]}}"
CONV = "{class_path: torch.nn.Conv2d, init_args: {in_channels: 1, out_channels: 2, kernel_size: 3, padding: 1}}"


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def run(capsys, *arguments):
    try:
        code = main(["lipschitz", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def saved(net=None, config=AUTOENCODER, scale=1.0):
    """The checkpoint of a task, as Lightning writes it; with its configuration, as LightningCLI does."""
    torch.manual_seed(0)
    task = AutoencoderTask(net if net is not None else Autoencoder((16, 8, 4)))
    with torch.no_grad():
        for parameter in task.parameters():
            parameter.mul_(scale)
    folder = Path("version_0/checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    Path("version_0/config.yaml").write_text(CONFIG.format(net=config))
    torch.save({"state_dict": task.state_dict(), "epoch": 1, "callbacks": {}}, folder / "last.ckpt")
    return str(folder / "last.ckpt"), task.net


def test_the_table(capsys):
    path, net = saved()
    code, out, err = run(capsys, path)
    assert (code, err) == (0, "")
    bound = lipschitz_bound(extract(net))
    value = float(re.search(r"^ *value +(\S+) +certified upper bound", out, re.M)[1])
    assert bound.value * (1 - 1e-7) <= value <= bound.value * (1 + 2e-6)
    product = float(re.search(r"^ *spectral_product +(\S+)", out, re.M)[1])
    assert bound.spectral_product <= product <= bound.spectral_product * (1 + 2e-6)
    sampled = float(re.search(r"^ *sampled_lower +(\S+)", out, re.M)[1])
    assert 0 < sampled <= value
    assert "version_0/checkpoints/last.ckpt  net" in out
    assert "Φ has exactly one fixed point" in " ".join(out.split())
    assert "stored weights" in out


def test_no_contraction(capsys):
    path, _ = saved(scale=6.0)
    code, out, _ = run(capsys, path)
    assert code == 0
    assert "Not proved: the certified bound of the Lipschitz constant is" in out


def test_parts_and_json(capsys):
    path, net = saved()
    code, out, err = run(capsys, path, "--map", "net.encoder", "--map", "net.decoder", "--form", "layer", "--json")
    assert (code, err) == (0, "")
    encoder, decoder = json.loads(out)
    assert (encoder["map"], decoder["map"]) == ("net.encoder", "net.decoder")
    assert encoder["value"] == lipschitz_bound(extract(net.encoder), form="layer").value
    assert encoder["contraction"] is None
    assert encoder["certified"]
    assert encoder["status"]["code"] == "ok"
    assert encoder["sampled_lower"] <= encoder["value"]


def test_a_softmax_head(capsys):
    path, net = saved()
    _, out, _ = run(capsys, path, "--map", "net.decoder.layers.2", "--head", "softmax", "--json")
    (head,) = json.loads(out)
    expected = np.sqrt(2) / 4 * float(torch.pdist(net.decoder.layers[2].weight.detach().double()).max())
    assert expected <= head["value"] <= expected * (1 + 1e-9)
    assert head["sampled_lower"] <= head["value"]


def test_images(capsys):
    torch.manual_seed(0)
    path, net = saved(nn.Conv2d(1, 2, 3, padding=1), CONV)
    code, _, err = run(capsys, path)
    assert code == 2
    assert "do not tell the shape of its input" in err
    code, out, _ = run(capsys, path, "--input-shape", "1,5,5", "--json")
    assert code == 0
    assert json.loads(out)[0]["value"] == lipschitz_bound(extract(net, input_shape=(1, 5, 5))).value


def test_a_configuration_by_file_or_by_name(capsys):
    path, _ = saved()
    Path("mine.yaml").write_text(
        "fit:\n" + "\n".join("  " + line for line in CONFIG.format(net=AUTOENCODER).splitlines())
    )
    Path(path).rename("last.ckpt")
    code, _, err = run(capsys, "last.ckpt")
    assert code == 2
    assert "give --config" in err
    assert run(capsys, "last.ckpt", "--config", "mine.yaml")[0] == 0
    code, _, err = run(capsys, "last.ckpt", "--config", "mnist_autoencoder")
    assert code == 2
    assert "does not fit the model of the configuration" in err
    code, _, err = run(capsys, "last.ckpt", "--config", "nowhere")
    assert code == 2
    assert "nowhere: there is no such file" in err


def test_safetensors_and_plain_state_dicts(capsys):
    path, _ = saved()
    state = torch.load(path)["state_dict"]
    torch.save(state, "plain.pt")
    safetensors.torch.save_file(state, "plain.safetensors")
    outputs = [run(capsys, name, "--config", "version_0/config.yaml", "--json") for name in (path, "plain.pt", "plain.safetensors")]  # fmt: skip
    values = [json.loads(out)[0]["value"] for code, out, _ in outputs if code == 0]
    assert len(values) == 3
    assert len(set(values)) == 1


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("touched"),))


def test_nothing_in_a_checkpoint_is_run(capsys):
    path, _ = saved()
    torch.save({"state_dict": Malicious()}, path)
    code, _, err = run(capsys, path)
    assert code == 2
    assert "cannot be read as tensors" in err
    assert not Path("touched").exists()


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("", ("--map", "net.middle"), "--map net.middle: there is no such part; AutoencoderTask.net has no 'middle'. It has: corrupt, encoder, decoder."),
        ("", ("--map", "net.encoder.widths"), "is a tuple, expected a module"),
        ("", ("--backend", "cvxpy:NONE"), "NONE"),
        ("", ("--backend", "quantum"), "backend='quantum'"),
        ("model: [", (), "config.yaml cannot be read"),
        ("trainer: {}", (), "has no section 'model'"),
        ("model: {class_path: no.such.Model}", (), "its model cannot be made"),
        ("model: {class_path: fpstab.models.AutoencoderTask, init_args: {net: {class_path: torch.nn.Linear}}}", (),
         "its model cannot be made"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(capsys, change, options, message):
    path, _ = saved()
    if change:
        Path("version_0/config.yaml").write_text(change)
    code, out, err = run(capsys, path, *options)
    assert code == 2
    assert out == ""
    assert err.startswith("fpstab lipschitz: ")
    assert message in err


def test_an_unsupported_layer(capsys):
    config = "{class_path: torch.nn.LayerNorm, init_args: {normalized_shape: 4}}"
    path, _ = saved(nn.LayerNorm(4), config)
    code, _, err = run(capsys, path)
    assert code == 2
    assert "LayerNorm divides by the standard deviation" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--input-shape", "1,x"), "'1,x': expected sizes"),
        (("--input-shape", "0"), "'0': expected sizes"),
        (("--time-limit", "-1"), "'-1': expected a number of seconds"),
        (("--form", "network"), "invalid choice"),
        (("--what",), "unrecognized arguments: --what"),
    ],
)
def test_wrong_usage(capsys, options, message):
    path, _ = saved()
    code, _, err = run(capsys, path, *options)
    assert code == 2
    assert message in err


def test_help(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "exit codes" in out
