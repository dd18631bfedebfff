"""The configurations that come with fpstab run, and are what the applications train."""

import pytest
import torch
import yaml

from fpstab.experiments.applications import BATCH_SIZES
from fpstab.experiments.training import CONFIGS, lightning_cli
from fpstab.models import Autoencoder, AutoencoderTask, ExemplarTask, GaussianMLP

NAMES = ["toy", "memories", "identification", "restoration", "semi_supervised", "unsupervised", "denoising"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, "mnist_residual_stopping"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_one_step_of_each(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--trainer.accelerator=cpu", "--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]
    with torch.random.fork_rng():
        cli = lightning_cli(["fit", "--config", name, *options, "--trainer.enable_model_summary=false"])
    assert cli.trainer.global_step == 1
    assert "val/loss" in cli.trainer.callback_metrics


def test_they_are_what_is_applied():
    settings = {name: yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in NAMES}

    def net(name):
        model = settings[name]["model"]
        kinds = {"GaussianMLP": GaussianMLP, "Autoencoder": Autoencoder}
        part = model["init_args"]["net"]
        return kinds[part["class_path"].rsplit(".", 1)[1]](**part["init_args"])

    assert [type(layer).__name__ for layer in net("toy").layers] == ["Linear", "Hardtanh"] * 3
    assert isinstance(net("memories").encoder.layers[1], torch.nn.Tanh)
    assert isinstance(net("restoration").decoder.layers[-1], torch.nn.Sigmoid)
    assert isinstance(net("identification").decoder.layers[-1], torch.nn.Linear)
    assert net("denoising").corrupt.std == 0.5
    unrolls = {name: each["model"]["init_args"].get("unroll") for name, each in settings.items()}
    assert unrolls == dict(zip(NAMES, (1, 1, 3, 1, 3, 1, None), strict=True))
    classes = {each["model"]["class_path"].rsplit(".", 1)[1] for each in settings.values()}
    assert classes == {ExemplarTask.__name__, AutoencoderTask.__name__}
    sizes = {
        name: each["data"]["init_args"]["images"]["init_args"]["batch_size"]
        for name, each in settings.items()
        if "images" in each["data"]["init_args"]
    }
    assert sizes == {name.replace("-", "_"): size for name, size in BATCH_SIZES.items()}
    epochs = {name: each["trainer"]["max_epochs"] for name, each in settings.items()}
    assert epochs == dict(zip(NAMES, (30, 60, 20, 60, 20, 20, 20), strict=True))
