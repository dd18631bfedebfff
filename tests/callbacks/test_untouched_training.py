"""A monitor changes no bit of a training."""

import contextlib
import random

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger

from fpstab.callbacks import ESDMonitor, Every, FixedPointMonitor, JacobianMonitor, LipschitzMonitor, StabilityMonitor
from tests.callbacks.toys import loaders, task, trainer


def final_state(path, monitors, workers):
    random.seed(1)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(3)
    module = task()
    fit = trainer(path, monitors, max_epochs=2, logger=TensorBoardLogger(path))
    fit.fit(module, *loaders(workers))
    return {
        "weights": module.state_dict(),
        "optimizer": fit.optimizers[0].state_dict(),
        "python": random.getstate(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "torch": torch.get_rng_state(),
        "modes": [m.training for m in module.modules()],
    }


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("every", [Every(), Every(3, "step")], ids=str)
def test_training_is_bit_identical(tmp_path, workers, every):
    alone = final_state(tmp_path / "alone", [], workers)
    watched = final_state(tmp_path / "watched", [ESDMonitor(every=every, budget=None)], workers)
    assert [key for key in alone if not equal(alone[key], watched[key])] == []


@pytest.mark.parametrize(
    "monitor",
    [
        lambda: JacobianMonitor(map="net", size=4, sigma=True, budget=None),
        lambda: FixedPointMonitor(map="net", size=4, max_iter=50, budget=None),
        lambda: LipschitzMonitor(map="net", size=4, budget=None),
        lambda: StabilityMonitor(map="net", size=4, budget=None),
    ],
    ids=["jacobian", "fixed_points", "lipschitz", "stability"],
)
def test_the_monitors_of_maps_change_no_bit_either(tmp_path, monitor):
    alone = final_state(tmp_path / "alone", [], 0)
    watching = monitor()
    watched = final_state(tmp_path / "watched", [watching], 0)
    assert watching.result is not None
    assert [key for key in alone if not equal(alone[key], watched[key])] == []


def test_without_the_guard_it_would_not_be(tmp_path, monkeypatch):
    alone = final_state(tmp_path / "alone", [], 0)
    monkeypatch.setattr("fpstab.guard.untouched", lambda module: contextlib.nullcontext())
    watched = final_state(tmp_path / "watched", [ESDMonitor(budget=None)], 0)
    assert not equal(alone["weights"], watched["weights"])
