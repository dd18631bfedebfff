"""The ESDMonitor as its users meet it."""

import inspect
import math

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fpstab.callbacks import ESDMonitor, Every, read_lines
from tests.callbacks.toys import NAMESPACES, lightning, loaders, task, trainer


def test_signature():
    parameters = inspect.signature(ESDMonitor).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert defaults == {
        "include": None,
        "exclude": None,
        "conv": "flatten",
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "histogram": True,
        "strict": False,
        "name": "esd",
    }


def test_attach_and_look(tmp_path):
    monitor, logger = ESDMonitor(budget=None), TensorBoardLogger(tmp_path)
    module = task()
    fit = trainer(tmp_path, [monitor], logger=logger)
    fit.fit(module, *loaders())

    weight = module.net[0].weight.detach().double().numpy()
    squares = np.linalg.svd(weight, compute_uv=False) ** 2
    layer = monitor.result["net.0"]
    np.testing.assert_allclose(layer.spectrum.eigenvalues.numpy()[::-1], squares, rtol=1e-10)
    assert monitor.initial["net.0"].alpha != layer.alpha
    assert fit.callback_metrics["fpstab/esd/net.0/largest_singular_value"] == pytest.approx(squares[0] ** 0.5, rel=1e-6)
    assert fit.progress_bar_metrics["fpstab/esd/alpha_median"] > 1

    events = EventAccumulator(logger.log_dir, size_guidance={"histograms": 0, "images": 0}).Reload()
    steps = [event.step for event in events.Scalars("fpstab/esd/alpha_median")]
    assert steps[0] == 0
    assert len(steps) == 4
    assert {"fpstab/esd/alpha_min", "fpstab/esd/n_failed", "fpstab/esd/seconds", "fpstab/esd/net.4/alpha"} <= set(
        events.Tags()["scalars"]
    )
    histogram = events.Histograms("fpstab/esd/net.0/log10_eigenvalues")[-1].histogram_value
    assert histogram.num == 24
    assert histogram.max == pytest.approx(math.log10(squares[0]), rel=1e-6)
    pictures = events.Images("fpstab/esd/spectra")
    assert [picture.step for picture in pictures] == [0, 12]  # the first of every ten measurements, and the last
    assert pictures[-1].width > 1000

    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    last = {each["name"]: each for each in lines[-1]["result"]["layers"]}
    assert last["net.0"]["spectrum"]["eigenvalues"][-1] == pytest.approx(squares[0], rel=1e-12)
    assert last["net.0"]["fit"]["alpha"] == layer.alpha


def test_figures_that_exceed_the_budget_are_left_out_and_that_is_said(tmp_path, caplog):
    logger = TensorBoardLogger(tmp_path)
    trainer(tmp_path, [ESDMonitor(budget=1e-9)], logger=logger).fit(task(), *loaders())
    assert EventAccumulator(logger.log_dir).Reload().Tags()["images"] == []
    assert sum("draws no figures" in r.message for r in caplog.records) == 1


def test_patterns(tmp_path, caplog):
    monitor = ESDMonitor(include=["net.0", "net.9"], exclude="net.4", histogram=False)
    trainer(tmp_path, [monitor]).fit(task(), *loaders())
    assert [layer.name for layer in monitor.result.layers] == ["net.0"]
    said = [r.message for r in caplog.records if r.levelname == "WARNING" and "net.9" in r.message]
    assert said == ["ESDMonitor: No weight matches 'net.9'; the weights are: net.0, net.4, net.5."]


def test_a_network_without_weights(tmp_path, caplog):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(24))

        def forward(self, x):
            return x * self.scale

    monitor = ESDMonitor()
    fit = trainer(tmp_path, [monitor])
    fit.fit(task(network=Scale()), *loaders())
    assert fit.callback_metrics["fpstab/esd/failed"] == 1
    assert sum("no weight with two or more dimensions" in r.message for r in caplog.records) == 1


def test_weights_that_turn_to_nan(tmp_path):
    class Breaks(lightning().Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 1:
                with torch.no_grad():
                    module.net[0].weight[0, 0] = math.nan

    monitor = ESDMonitor(every=Every(1, "step"), budget=None)
    fit = trainer(tmp_path, [monitor, Breaks()], max_epochs=2)
    fit.fit(task(), *loaders())
    before, after = monitor.history.records[1]["scalars"], monitor.history.records[-1]["scalars"]
    assert before["fpstab/esd/n_failed"] == 0
    assert after["fpstab/esd/n_failed"] == 3
    assert math.isnan(after["fpstab/esd/net.0/alpha"])
    assert monitor.result["net.0"].status.code == "not_finite"
    assert math.isfinite(fit.callback_metrics["fpstab/esd/net.0/alpha"])  # the last finite value


def test_the_console_stays_quiet(tmp_path, capfd):
    import logging

    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        trainer(tmp_path, [ESDMonitor(budget=None)], logger=TensorBoardLogger(tmp_path)).fit(task(), *loaders())
    finally:
        logging.getLogger("pytorch_lightning").setLevel(logging.INFO)
        logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    assert capfd.readouterr() == ("", "")


def test_the_keys_are_announced_once(tmp_path, caplog):
    caplog.set_level("INFO", logger="pytorch_lightning")
    trainer(tmp_path, [ESDMonitor()]).fit(task(), *loaders())
    (announced,) = [r.getMessage() for r in caplog.records if "ready for monitor=" in r.getMessage()]
    assert "  fpstab/esd/alpha_median\n" in announced
    assert "  fpstab/esd/net.4/alpha\n" in announced


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"conv": "fold"}, ValueError, "conv='fold'"),
        ({"budget": -1}, ValueError, "budget=-1"),
        ({"include": 3}, TypeError, "include=3"),
        ({"exclude": [1]}, TypeError, r"exclude=\[1\]"),
        ({"every": "epoch"}, TypeError, "every='epoch'"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        ESDMonitor(**options)


@pytest.mark.parametrize(("n", "unit", "message"), [(0, "epoch", "n=0"), (True, "epoch", "n=True"), (1, "h", "'h'")])
def test_wrong_schedules(n, unit, message):
    with pytest.raises(ValueError, match=message):
        Every(n, unit)


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_yaml(tmp_path, namespace, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    config = tmp_path / "config.yaml"
    config.write_text(
        """
trainer:
  callbacks:
    - class_path: fpstab.callbacks.ESDMonitor
      init_args: {include: net.*, every: {n: 2, unit: step}, budget: null, strict: true}
    - class_path: fpstab.callbacks.ESDMonitor
      init_args: {exclude: [a, b], conv: slices, name: slices}
"""
    )
    monkeypatch.setattr(
        "sys.argv", ["train", "--config", str(config), "--trainer.logger=false", "--seed_everything=false"]
    )
    cli = importlib_cli(namespace)(lightning(namespace).demos.boring_classes.BoringModel, run=False)
    first, second = (c for c in cli.trainer.callbacks if isinstance(c, ESDMonitor))
    assert (first.include, first.every, first.strict) == ("net.*", Every(2, "step"), True)
    assert (second.exclude, second.conv, second.name) == (["a", "b"], "slices", "slices")


def importlib_cli(namespace):
    import importlib

    importlib.import_module(f"{namespace}.demos.boring_classes")
    return importlib.import_module(f"{namespace}.cli").LightningCLI
