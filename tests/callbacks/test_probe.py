import pytest
import torch
from torch.utils.data import TensorDataset

from fpstab.callbacks import Probe


def test_first_batch_is_cloned_and_kept():
    probe = Probe()
    assert not probe.ready
    batch = {"x": torch.zeros(2, 3), "y": [torch.ones(2), "text"]}
    probe.offer(batch)
    batch["x"] += 1
    probe.offer({"x": torch.full((2, 3), 9.0)})
    assert probe.ready
    assert torch.equal(probe.batch["x"], torch.zeros(2, 3))
    assert probe.batch["y"][1] == "text"


def test_given_points():
    points = torch.arange(6.0).reshape(3, 2)
    probe = Probe(points)
    points += 1
    probe.offer(torch.zeros(1))
    assert torch.equal(probe.batch, torch.arange(6.0).reshape(3, 2))


def test_dataset():
    data = TensorDataset(torch.arange(10.0).reshape(5, 2), torch.arange(5))
    x, y = Probe(data, size=3).batch
    assert torch.equal(x, torch.arange(6.0).reshape(3, 2))
    assert y.tolist() == [0, 1, 2]
    assert len(Probe(data).batch[1]) == 5


def test_wrong_points():
    with pytest.raises(ValueError, match="'loader'"):
        Probe("loader")
    with pytest.raises(TypeError, match="int"):
        Probe(3)
