"""The LipschitzMonitor as its users meet it."""

import inspect
import math

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from fpstab.callbacks import Every, read_lines
from fpstab.callbacks.lipschitz import LipschitzMonitor
from fpstab.lipschitz import lipschitz_bound
from fpstab.lipschitz.extraction import extract
from tests.callbacks.toys import NAMESPACES, lightning, loaders, task, trainer


def test_signature():
    parameters = inspect.signature(LipschitzMonitor).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "map": None,
        "form": "neuron",
        "head": None,
        "points": "batch",
        "size": 16,
        "time_limit": 10.0,
        "every": Every(1, "epoch"),
        "budget": 0.02,
        "strict": False,
        "name": "lipschitz",
    }


def jacobian_norms(network, x):
    network = network.eval().double()
    return [np.linalg.norm(torch.autograd.functional.jacobian(network, row[None]).reshape(24, 24), 2) for row in x]


def test_attach_and_look(tmp_path):
    monitor, logger = LipschitzMonitor(map="net", budget=None), TensorBoardLogger(tmp_path)
    module = task()
    fit = trainer(tmp_path, [monitor], logger=logger)
    fit.fit(module, *loaders())

    result = monitor.result
    assert result.bound.certified
    direct = lipschitz_bound(extract(module.net))
    assert result.value == pytest.approx(direct.value, rel=2e-4)  # the monitor's solver stops earlier
    assert direct.value <= result.value * (1 + 1e-7)
    norms = jacobian_norms(module.net, monitor.probe.batch[0][:16].double())
    assert result.sampled_lower == pytest.approx(max(norms), rel=0.02)
    assert result.sampled_lower <= result.bound.slopes_lower * (1 + 1e-9) <= result.value * (1 + 2e-9)
    assert fit.callback_metrics["fpstab/lipschitz/value"] == pytest.approx(result.value, rel=1e-6)
    assert fit.progress_bar_metrics["fpstab/lipschitz/value"] == pytest.approx(result.value, rel=1e-6)

    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    tags = {f"fpstab/lipschitz/{tag}" for tag in ("value", "sampled_lower", "optimum_lower", "spectral_product", "certified", "seconds", "failed")}  # fmt: skip
    assert tags <= set(events.Tags()["scalars"])
    values = [event.value for event in events.Scalars("fpstab/lipschitz/value")]
    assert len(values) == 4  # the untrained network, and three epochs
    assert [picture.step for picture in events.Images("fpstab/lipschitz/brackets")] == [0, 12]
    lines = read_lines(tmp_path / "lightning_logs/version_0/fpstab.jsonl")
    assert lines[-1]["result"]["value"] == result.value


@pytest.mark.parametrize("path", ["net.0", "net.4", "net.5"])
def test_a_part_is_looked_at_where_the_points_lead(tmp_path, path):
    monitor = LipschitzMonitor(map=path, budget=None)
    module = task()
    trainer(tmp_path, [monitor], max_epochs=1).fit(module, *loaders())
    layer = module.net[int(path[-1])].eval()
    norm = np.linalg.norm(layer.weight.detach().double().numpy(), 2)
    assert monitor.result.bound.method == "linear"
    assert norm <= monitor.result.value <= norm * (1 + 1e-9)
    assert monitor.result.sampled_lower == pytest.approx(norm, rel=0.02)


def test_a_softmax_head(tmp_path):
    monitor = LipschitzMonitor(map="net.5", head="softmax", budget=None)
    module = task()
    trainer(tmp_path, [monitor], max_epochs=1).fit(module, *loaders())
    weight = module.net[5].weight.detach().double()
    expected = math.sqrt(2) / 4 * float(torch.pdist(weight).max())
    assert monitor.result.value == pytest.approx(expected, rel=1e-9)
    assert monitor.result.value >= expected
    assert 0 < monitor.result.sampled_lower <= monitor.result.value


def test_methods_and_parts(tmp_path):
    from fpstab.models import Autoencoder

    monitors = [
        LipschitzMonitor(map="net.encode", name="encode", budget=None),
        LipschitzMonitor(map="net.decode", name="decode", budget=None),
        LipschitzMonitor(map="net.encoder", name="encoder", budget=None),
        LipschitzMonitor(map="net.decoder", name="decoder", budget=None),
    ]
    module = task(network=Autoencoder((24, 8, 4), "tanh"))
    trainer(tmp_path, monitors, max_epochs=1).fit(module, *loaders())
    encode, decode, encoder, decoder = (monitor.result for monitor in monitors)
    assert encode.value == encoder.value
    assert decode.value == decoder.value
    assert encode.sampled_lower == encoder.sampled_lower
    assert 0 < encoder.sampled_lower <= encoder.value
    assert 0 < decoder.sampled_lower <= decoder.value
    assert extract(module.net.decoder).sizes == (4, 8, 24)


def test_a_layer_that_is_not_supported(tmp_path, caplog):
    network = nn.Sequential(nn.Linear(24, 8), nn.LayerNorm(8), nn.Linear(8, 24))
    fit = trainer(tmp_path, [LipschitzMonitor(map="net")])
    fit.fit(task(network=network), *loaders())
    assert fit.callback_metrics["fpstab/lipschitz/failed"] == 1
    said = [r.message for r in caplog.records if "layer '1': LayerNorm" in r.message]
    assert len(said) == 1


def test_a_bound_that_is_not_the_best_is_logged_all_the_same(tmp_path, caplog):
    monitor = LipschitzMonitor(map="net", time_limit=1e-9, budget=None)
    network = nn.Sequential(nn.Linear(24, 50), nn.Tanh(), nn.Linear(50, 50), nn.Tanh(), nn.Linear(50, 24))
    fit = trainer(tmp_path, [monitor], max_epochs=2)
    fit.fit(task(network=network), *loaders())
    assert monitor.result.bound.certified
    assert fit.callback_metrics["fpstab/lipschitz/failed"] == 0
    assert fit.callback_metrics["fpstab/lipschitz/certified"] == 1
    assert sum("time_limit" in r.message for r in caplog.records) <= 1


def test_what_the_budget_has_no_room_for(tmp_path, caplog):
    module, monitor = task(), LipschitzMonitor(map="net", budget=1e-6)
    fit = trainer(tmp_path, [monitor])
    fit.fit(module, *loaders())
    assert [record["phase"] for record in monitor.history.records] == ["baseline", "epoch", "end"]
    problem = extract(module.net)
    assert monitor.result.bound is None
    assert monitor.result.value == monitor.result.spectral_product == lipschitz_bound(problem).spectral_product
    assert fit.callback_metrics["fpstab/lipschitz/solved"] == 0
    assert fit.callback_metrics["fpstab/lipschitz/certified"] == 1
    assert 0 < monitor.result.sampled_lower <= lipschitz_bound(problem).value
    assert monitor.price() >= 0.2  # what the semidefinite program is expected to take, which was not paid
    assert sum("logs the product of norms until" in r.message for r in caplog.records) == 1
    assert sum("measures less often" in r.message for r in caplog.records) == 1


def test_the_budget_is_saved_for_the_semidefinite_program(tmp_path, monkeypatch):
    from fpstab.callbacks import budget

    seconds = iter(range(0, 10**6, 10))  # every look at the clock finds ten seconds more
    monkeypatch.setattr(budget.time, "monotonic", lambda: next(seconds))
    monitor = LipschitzMonitor(map="net", budget=0.02)
    monitor._full_cost = 1.0  # so that two of them need a hundred seconds
    trainer(tmp_path, [monitor], max_epochs=14).fit(task(), *loaders())
    solved = [record["scalars"]["fpstab/lipschitz/solved"] for record in monitor.history.records]
    assert solved[:2] == [0, 0]
    assert solved[2:] == [1] * len(solved[2:])
    assert len(solved) > 3


@pytest.mark.parametrize("epochs", [4, 7])
@pytest.mark.parametrize("limit", [True, False])
def test_the_last_measurement_keeps_a_program_of_its_own(tmp_path, monkeypatch, epochs, limit):
    """An epoch takes 20 s and a program 1 s, so that the budget has room for one in two or three epochs."""
    from fpstab.callbacks import budget
    from fpstab.lipschitz import reports

    training, analysing = [0.0], [0.0]

    def solve(*args, **kwargs):
        analysing[0] += 1.0
        return lipschitz_bound(*args, **kwargs)

    class Clock(lightning().Callback):
        def on_train_epoch_start(self, trainer, module):
            training[0] += 20.0

        def on_train_epoch_end(self, trainer, module):
            trainer.should_stop = trainer.current_epoch == epochs - 1

    monkeypatch.setattr(budget.time, "monotonic", lambda: training[0])
    monkeypatch.setattr(budget.time, "perf_counter", lambda: analysing[0])
    monkeypatch.setattr(reports, "lipschitz_bound", solve)
    monitor = LipschitzMonitor(map="net", budget=0.02)
    monitor._full_cost = 1.0
    fit = trainer(tmp_path, [Clock(), monitor], max_epochs=epochs if limit else -1)
    fit.fit(task(), *loaders())
    solved = [record["scalars"]["fpstab/lipschitz/solved"] for record in monitor.history.records]
    assert solved == [0, 0] + [1] * (len(solved) - 2)
    assert len(solved) > 2
    assert monitor.history.records[-1]["step"] == fit.global_step == 4 * epochs
    assert monitor._budget.spent <= 0.02 * training[0]


def test_early_stopping_can_watch_it(tmp_path):
    stopping = EarlyStopping("fpstab/lipschitz/value", mode="max", patience=1, min_delta=1e6)
    fit = trainer(tmp_path, [stopping, LipschitzMonitor(map="net", budget=None)], max_epochs=20)
    fit.fit(task(), *loaders())
    assert fit.current_epoch < 20


def test_training_is_not_changed(tmp_path):
    def weights(callbacks):
        torch.manual_seed(0)
        module = task()
        trainer(tmp_path, callbacks, max_epochs=2).fit(module, *loaders())
        return module.state_dict()

    plain, watched = weights([]), weights([LipschitzMonitor(map="net", budget=None)])
    assert all(torch.equal(plain[key], watched[key]) for key in plain)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"form": "network"}, ValueError, "form='network'"),
        ({"head": "sigmoid"}, ValueError, "head='sigmoid'"),
        ({"time_limit": 0}, ValueError, "time_limit=0"),
        ({"size": 0}, ValueError, "size=0"),
        ({"budget": 2}, ValueError, "budget=2"),
        ({"points": "all"}, ValueError, "points='all'"),
        ({"every": 3}, TypeError, "every=3"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        LipschitzMonitor(**options)


def test_a_path_that_leads_nowhere(tmp_path):
    with pytest.raises(ValueError, match=r"LipschitzMonitor\(map='net.9'\)"):
        trainer(tmp_path, [LipschitzMonitor(map="net.9")]).fit(task(), *loaders())


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_yaml(tmp_path, namespace, monkeypatch):
    import importlib

    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    config = tmp_path / "config.yaml"
    config.write_text(
        """
trainer:
  callbacks:
    - class_path: fpstab.callbacks.lipschitz.LipschitzMonitor
      init_args: {map: net.head, head: softmax, form: layer, every: {n: 2, unit: step}, time_limit: null}
"""
    )
    monkeypatch.setattr(
        "sys.argv", ["train", "--config", str(config), "--trainer.logger=false", "--seed_everything=false"]
    )
    importlib.import_module(f"{namespace}.demos.boring_classes")
    cli = importlib.import_module(f"{namespace}.cli").LightningCLI
    made = cli(lightning(namespace).demos.boring_classes.BoringModel, run=False)
    (monitor,) = (c for c in made.trainer.callbacks if isinstance(c, LipschitzMonitor))
    assert (monitor.map, monitor.head, monitor.form, monitor.time_limit) == ("net.head", "softmax", "layer", None)
    assert monitor.every == Every(2, "step")
