import pytest

from fpstab.callbacks.budget import Budget


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fpstab.callbacks.budget.time.monotonic", lambda: now[0])
    return now


def test_share_of_the_elapsed_time(clock):
    budget = Budget(0.02)
    budget.start()
    assert not budget.allows(0.1)
    clock[0] += 10
    assert budget.allows(0.2)
    assert not budget.allows(0.21)
    budget.spent += 0.15
    assert budget.allows(0.05)
    assert not budget.allows(0.06)


def test_none_allows_everything(clock):
    assert Budget(None).allows(1e9)


def test_an_account_continues(clock):
    first = Budget(0.1)
    first.start()
    clock[0] += 50
    first.spent = 4.0
    second = Budget(0.1)
    second.load_state_dict(first.state_dict())
    assert second.elapsed == 50
    clock[0] += 1000  # between two runs nobody trains
    second.start()
    clock[0] += 10
    assert second.elapsed == 60
    assert second.allows(2.0)
    assert not second.allows(2.1)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan")])
def test_wrong_shares(share):
    with pytest.raises(ValueError, match="budget="):
        Budget(share)
