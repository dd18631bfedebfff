"""Figure 5 of paper 4, on a small size."""

import math
import statistics
from dataclasses import replace

import pytest
import torch
from torch.utils.data import TensorDataset

from fpstab.experiments import deq_training
from fpstab.experiments.deq_training import ErrorByScale, TrainedDEQ, error_by_scale, train_once
from fpstab.models import MNISTData

RUN = TrainedDEQ("random", 1.0, 0, 0.1, 0.2, 0.0, 0.0, math.nan, 9.0, 0.5, 1.1, 0.7, 0, True, 3.0)


def sweep(errors):
    """From {(family, √V): errors of the seeds}."""
    return ErrorByScale(
        tuple(
            replace(RUN, family=family, sqrt_v=sqrt_v, seed=seed, test_error=error)
            for (family, sqrt_v), some in errors.items()
            for seed, error in enumerate(some)
        )
    )


def test_table():
    errors = [0.1, 0.2, 0.6]
    (row,) = sweep({("random", 2.0): errors}).table()
    assert (row["mean"], row["median"]) == (pytest.approx(0.3), 0.2)
    assert row["std"] == pytest.approx(statistics.stdev(errors))
    assert (row["seeds"], row["min"], row["max"]) == (3, 0.1, 0.6)
    assert row["unconverged_first"] == pytest.approx(0.2)
    assert math.isnan(row["adjoint"])
    assert sweep({("random", 2.0): errors}).scalars()["random/2/median"] == 0.2


def test_the_verdict_follows_the_numbers():
    as_printed = sweep(
        {
            ("random", 0.5): [0.05, 0.05, 0.06],
            ("random", 4.0): [0.1, 0.12, 0.9],
            ("orthogonal", 0.5): [0.05, 0.05, 0.05],
            ("orthogonal", 4.0): [0.05, 0.06, 0.07],
        }
    ).verdict
    assert "small scale (√V = 0.5): reproduces (random − orthogonal +0.0 points)" in as_printed
    assert "large scale (√V = 4): reproduces (+6.0 points)" in as_printed
    assert "Mean above median for random weights: reproduces at √V = 4." in as_printed
    otherwise = sweep(
        {
            ("random", 0.5): [0.09, 0.09, 0.09],
            ("random", 4.0): [0.06, 0.06, 0.06],
            ("orthogonal", 0.5): [0.05, 0.05, 0.05],
            ("orthogonal", 4.0): [0.05, 0.06, 0.07],
        }
    ).verdict
    assert "small scale (√V = 0.5): does not reproduce" in otherwise
    assert "large scale (√V = 4): does not reproduce (+0.0 points)" in otherwise
    assert "Mean above median for random weights: does not reproduce." in otherwise
    assert "needs three seeds" in sweep({("random", 0.5): [0.1]}).verdict
    assert "ended in NaN: 0" in otherwise


def test_plot():
    figure = sweep({("random", 0.5): [0.1, 0.2, 0.6], ("random", 4.0): [0.2], ("goe", 0.5): [0.1]}).plot()
    above, below = figure.axes
    median, mean = above.lines[:2]
    assert list(median.get_ydata()) == [0.2, 0.2]
    assert list(mean.get_ydata()) == [pytest.approx(0.3), 0.2]
    assert len(below.lines) == 4


def test_a_training_depends_on_its_seed_alone_and_leaves_no_trace(tmp_path):
    before = torch.get_rng_state()

    def train(seed):
        few = MNISTData(tmp_path, batch_size=50)
        few.setup()
        few.train_set, few.val_set, few.test_set = (
            TensorDataset(*few.train_set[start : start + count]) for start, count in ((0, 500), (500, 50), (1000, 200))
        )
        return train_once("goe", 0.3, seed, width=16, epochs=2, data=few)

    first, again, other = train(1), train(1), train(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert replace(first, seconds=0.0) == replace(again, seconds=0.0)
    assert other.rho_median != first.rho_median
    assert first.test_error < 0.8  # chance is .9
    assert (first.family, first.sqrt_v, first.seed) == ("goe", 0.3, 1)
    assert first.finite
    assert 0 < first.symmetry_defect < 0.7  # Adam has left the family
    assert 0 < first.rho_median < 1
    assert first.forward_unconverged == 0


def test_sweep_in_order(monkeypatch):
    monkeypatch.setattr(
        deq_training, "train_once", lambda f, v, seed, **settings: replace(RUN, family=f, sqrt_v=v, seed=seed)
    )
    figure = error_by_scale(("random", "goe"), sqrt_vs=(2.0, 1.0), seeds=2, seed=5)
    assert [(run.family, run.sqrt_v, run.seed) for run in figure.runs[:5]] == [
        ("random", 1.0, 5),
        ("random", 1.0, 6),
        ("random", 2.0, 5),
        ("random", 2.0, 6),
        ("goe", 1.0, 5),
    ]
    assert "MNIST" in figure.images


def test_bad_input():
    with pytest.raises(ValueError, match="seeds=0"):
        error_by_scale(seeds=0)
    assert deq_training.FULL["error_by_scale"]["seeds"] == 10
