"""The applications, on small sizes; the figures of the full ones are in docs/applications.md."""

import math

import pytest
import torch

from fpstab.cli_apply import NAMES
from fpstab.experiments.applications import (
    APPLICATIONS,
    identification,
    memories,
    restoration,
    semi_supervised,
    toy,
    unsupervised,
)
from fpstab.experiments.applications.damages import DAMAGES
from fpstab.experiments.applications.runs import fit
from fpstab.models import CirclesData, ExemplarTask, GaussianMLP, MNISTData

WAYS = {"toy": toy, "memories": memories, "identification": identification, "restoration": restoration,
        "semi-supervised": semi_supervised, "unsupervised": unsupervised}  # fmt: skip


@pytest.fixture
def few(tmp_path):
    """400 images to train, 1,000 to test."""
    return MNISTData(tmp_path, val_fraction=0.9, batch_size=50)


def agree(result):
    """What every result has."""
    assert all(isinstance(value, float) for value in result.scalars().values())
    rows = result.table()
    assert len({tuple(row) for row in rows}) == 1
    words = " does not hold: " if not result.holds else " holds: "
    assert words in result.verdict
    assert result.scalars()["holds"] == float(result.holds)
    assert len(result.plot().axes) > 1


def test_names():
    assert APPLICATIONS == WAYS
    assert list(NAMES) == list(APPLICATIONS)


def test_training_depends_on_the_seed_alone_and_leaves_no_trace():
    def train(seed):
        return fit(lambda: ExemplarTask(GaussianMLP(), 1), CirclesData(repeats=2), epochs=1, seed=seed)

    before = torch.get_rng_state()
    first = train(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not first.training
    torch.manual_seed(9)
    parameters = [parameter.clone() for parameter in first.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(parameters, train(1).parameters(), strict=True))
    assert not torch.equal(parameters[0], next(iter(train(2).parameters())))


def test_toy():
    result = toy(1, epochs=12, resolution=21)
    agree(result)
    assert result.holds
    assert result.recall.stored.all()
    # independent of the search: among the attractors found from the grid, one lies at every centre
    points = result.after.fixed_points.points
    assert (torch.cdist(result.centres.double(), points).min(1).values <= 0.02).all()
    # the node at each centre, on the grid of step 0.1, carries the label of the attractor there
    for centre in result.centres.double():
        column, row = ((centre + 1) / 0.1).round().long().tolist()
        label = int(result.after.label[row, column])
        assert float((points[label] - centre).norm()) <= 0.02
    assert result.heavy == 0
    assert dict(name_and_labels[:2] for name_and_labels in result.tails())["layers.2"] == "light"
    untrained = toy(1, epochs=1, resolution=11, std=3**-0.5)
    assert not untrained.holds
    assert untrained.verdict.startswith("The paper's idea does not hold")


def test_damages():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(50, 1, 28, 28, generator=generator) / 2 + 0.25
    damaged = {kind: damage(x, generator) for kind, damage in DAMAGES.items()}
    assert all(y.shape == x.shape and not torch.equal(x, y) for y in damaged.values())
    noise = damaged["noise U(0, 1)"] - x
    assert (noise.min(), noise.max()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))
    assert (damaged["70 % missing"] == 0).float().mean() == pytest.approx(0.7, abs=0.01)
    assert (damaged["30 % black or white"] != x).float().mean() == pytest.approx(0.3, abs=0.01)
    assert set(damaged["30 % black or white"][damaged["30 % black or white"] != x].tolist()) == {0.0, 1.0}
    for side, part in (("upper", (slice(0, 14), slice(None))), ("lower", (slice(14, 28), slice(None))),
                       ("left", (slice(None), slice(0, 14))), ("right", (slice(None), slice(14, 28)))):  # fmt: skip
        erased = damaged[f"{side} half erased"]
        assert bool((erased[..., part[0], part[1]] == 0).all())
        assert int((erased == 0).sum()) == x.numel() // 2


@pytest.mark.slow
def test_restoration(few):
    result = restoration(0, count=4, images=few, epochs=25)
    agree(result)
    assert result.recall.n_stored == 4
    assert result.recovered["noise U(0, 1)"] >= 0.95
    assert min(result.recovered[f"{side} half erased"] for side in ("upper", "lower")) >= 0.75
    # the picture's last row is what iteration of the damaged images gave; it lies near the stored ones
    ends = result.restored["noise U(0, 0.5)"]
    assert float((ends - result.exemplars).square().mean().sqrt()) < 0.05


@pytest.mark.slow
def test_semi_supervised(few):
    result = semi_supervised(0, known=(0, 1), images=few, unrolls=(3,), epochs=60)  # of two steps
    agree(result)
    (trial,) = result.trials
    assert trial.recall.stored.all()
    assert trial.by_basin > 0.9
    assert result.nearest_image > 0.9
    assert math.isnan(trial.absorbed) is False
    assert trial.unknown_information < 0.5  # two attractors cannot tell eight digits apart
    assert "Unknown classes" in result.verdict
    assert [row["class"] for row in result.table()] == [0, 1]
    with pytest.raises(ValueError, match="unrolls"):
        semi_supervised(0, unrolls=())


@pytest.mark.slow
def test_identification_knows_all(few):
    result = identification(0, images=few, unrolls=(1,), epochs=2)
    agree(result)
    assert len(result.exemplars) == 10
    assert math.isnan(result.trials[0].absorbed)
    assert "Unknown" not in result.verdict
    assert 0.2 < result.nearest_exemplar < 0.7 < result.nearest_image  # chance is 0.1


@pytest.mark.slow
def test_unsupervised_collapses(few):
    result = unsupervised(0, images=few, epochs=6)
    agree(result)
    assert not result.holds
    assert result.collapsed.n_attractors == 1
    assert result.spread < 0.1
    assert result.groupings[0].information == 0
    assert result.groupings[3].count == 10
    assert 0.3 < result.groupings[3].information < 0.6


@pytest.mark.slow
def test_memories(few):
    result = memories(0, count=3, images=few, epochs=40, epochs_all=2)
    agree(result)
    assert len(result.few) == 2
    for each in (*result.few, result.everything):
        assert each.recall.n_stored <= each.fixed <= 3
        assert each.looked_up == 1.0
    assert result.holds
    assert result.few[0].recalled > 0.9
