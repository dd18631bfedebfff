"""The study of paper 1 §III, on a small size."""

import csv

import pytest
import torch

from fpstab.experiments.heavy_tails import Observation, main, networks, plot_study, run_study, shares, table, toy_photos


def observation(seed, epoch, verdict, cause=None, alpha=2.0, loss=1.0):
    return Observation("net", seed, epoch, "0", "30×40", verdict, cause, alpha, 3, loss)


ROWS = [
    observation(0, -1, "light", alpha=5.0, loss=None),
    observation(1, -1, "light", alpha=7.0, loss=None),
    observation(0, 0, "light+spikes"),
    observation(1, 0, "heavy", "correlations"),
    observation(0, 1, "heavy", "correlations", alpha=1.5, loss=0.25),
    observation(1, 1, "heavy", None, alpha=None, loss=0.75),
]


def test_shares():
    (by_epoch,) = shares(ROWS).values()
    assert by_epoch[-1] == {"light": 2}
    assert by_epoch[0] == {"light+spikes": 1, "heavy": 1}


def test_table():
    header, rule, row = table(ROWS).splitlines()
    assert header.count("|") == rule.count("|") == row.count("|")
    assert row == (
        "| net | 0 30×40 | 2 light | 1 light+spikes, 1 heavy | 1 light+spikes, 1 heavy | 2 heavy | 1 correlations, 1 – "
        "| 6.00 → 1.50 | 1.0000 → 0.5000 |"
    )


def test_plot_shows_the_shares():
    ax = plot_study(ROWS).axes[0]
    assert ax.get_title() == "net\n0 30×40"
    heavy = ax.collections[3].get_paths()[0]
    assert heavy.contains_point((0.0, 0.75))  # half of the seeds after epoch 0, above the others
    assert not heavy.contains_point((0.0, 0.25))
    assert heavy.contains_point((0.9, 0.25))


def test_toy_photos_lie_around_their_places():
    loader = toy_photos(3)
    x, y = loader.dataset.tensors
    assert x.shape == y.shape == (250, 2)
    assert len(y.unique(dim=0)) == 5
    assert float((x - y).norm(dim=1).max()) <= 0.15
    assert float(x.abs().max()) < 1
    assert torch.equal(toy_photos(3).dataset.tensors[0], x)
    assert not torch.equal(toy_photos(4).dataset.tensors[0], x)


def test_the_printed_initialisation_saturates():
    torch.manual_seed(0)
    net = networks()["toy_as_printed"].make()
    inside = (net[:3](torch.rand(500, 2) * 2 - 1)).abs() < 1
    assert float(inside.double().mean()) < 0.35  # most of the second layer has no gradient
    net = networks()["toy"].make()
    assert float((net[:3](torch.rand(500, 2) * 2 - 1).abs() < 1).double().mean()) > 0.6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
def test_a_small_run_is_repeatable(tmp_path, capsys):
    arguments = ["--networks", "toy", "--seeds", "2", "--epochs", "2", "--out"]
    main([*arguments, str(tmp_path / "one")])
    main([*arguments, str(tmp_path / "two")])
    one, two = ((tmp_path / name / "observations.csv").read_text() for name in ("one", "two"))
    assert one == two
    rows = list(csv.DictReader(one.splitlines()))
    assert len(rows) == 2 * 3 * 3  # seeds, epochs with the untrained network, layers
    assert {row["verdict"] for row in rows if row["shape"] == "100×100"} <= {"light", "light+spikes"}
    assert (tmp_path / "one" / "verdicts.png").stat().st_size > 10_000
    assert "| toy | 2 100×100 |" in capsys.readouterr().out


def test_unknown_networks():
    with pytest.raises(ValueError, match="resnet"):
        run_study(["resnet"])
