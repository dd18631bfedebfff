import math

import torch

from fpstab.callbacks.history import History


def filled():
    history = History()
    history.append(step=0, epoch=0, phase="baseline", failed=False, scalars={"a": 1.0, "b": math.nan})
    history.append(step=4, epoch=0, phase="epoch", failed=True, scalars={"a": math.nan, "b": math.nan})
    history.append(step=8, epoch=1, phase="epoch", failed=False, scalars={"a": math.inf, "c": 3.0})
    return history


def test_last_finite_values():
    assert filled().last_finite == {"a": 1.0, "c": 3.0}


def test_keys_and_series():
    history = filled()
    assert history.keys == ["a", "b", "c"]
    assert history.series("c") == ([8], [3.0])
    assert history.series("a")[0] == [0, 4, 8]
    assert history.series("never") == ([], [])


def test_last_scheduled_measurement():
    history = filled()
    assert history.last("epoch") == 1
    assert history.last("step") is None
    assert History().last("epoch") is None


def test_measured():
    history = History()
    assert not history.measured
    history.append(step=0, epoch=0, phase="baseline", failed=True, scalars={"failed": 1.0})
    assert not history.measured
    assert filled().measured


def test_state_survives_a_weights_only_checkpoint(tmp_path):
    history = filled()
    torch.save(history.state_dict(), tmp_path / "state.pt")
    again = History()
    assert again.run != history.run
    again.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert again.run == history.run
    assert again.last_finite == history.last_finite
    assert [r["step"] for r in again.records] == [0, 4, 8]
