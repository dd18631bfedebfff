from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from fpstab.callbacks.budget import Budget
from fpstab.callbacks.pictures import Pictures


class Recorder:
    def __init__(self):
        self.drawn = []

    def figure(self, trainer, tag, figure, step):
        self.drawn.append((tag, step))


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("fpstab.callbacks.budget.time.monotonic", lambda: now[0])
    monkeypatch.setattr("fpstab.callbacks.pictures.time.perf_counter", lambda: 0.0)
    return now


def trainer(step, total=100, loggers=("a logger",)):
    return SimpleNamespace(global_step=step, estimated_stepping_batches=total, loggers=loggers, is_global_zero=True)


def started(share):
    budget = Budget(share)
    budget.start()
    return budget


def test_the_reserve_grows_with_the_training(clock):
    budget, pictures = started(0.1), Pictures()
    clock[0] = 10.0  # a second is free by now, and the first figures are taken to cost half a second
    assert pictures.reserve(trainer(50), budget) == 0.3125
    assert pictures.reserve(trainer(100), budget) == 0.625
    assert pictures.reserve(trainer(50, total=float("inf")), budget) == 0
    assert pictures.reserve(trainer(50, loggers=()), budget) == 0


def test_the_last_measurement_is_held_room_for_with_or_without_loggers(clock):
    budget, pictures = started(0.1), Pictures()
    assert pictures.reserve(trainer(25, loggers=()), budget, 8.0) == 2.0
    assert (
        pictures.reserve(trainer(25, total=float("inf"), loggers=()), budget, 8.0) == 8.0
    )  # the end may come any time
    clock[0] = 10.0
    assert pictures.reserve(trainer(50), budget, 8.0) == 4.3125


def test_nothing_is_held_back_for_what_will_not_fit(clock):
    budget, pictures = started(0.1), Pictures()
    clock[0] = 2.0
    assert pictures.reserve(trainer(50), budget) == 0


def test_what_waits_is_drawn_when_the_budget_allows(clock):
    budget, pictures, recorder = started(0.1), Pictures(), Recorder()
    pictures.queue(3, "result", 1)
    render = {"result": {"spectra": Figure()}}.__getitem__
    assert not pictures.draw(trainer(5), "p/", render, recorder, budget, 0.0)
    clock[0] = 5.0
    assert not pictures.draw(trainer(5), "p/", render, recorder, budget, 0.1)
    assert pictures.draw(trainer(5), "p/", render, recorder, budget, 0.0)
    assert recorder.drawn == [("p/spectra", 3)]


def test_only_the_last(clock):
    budget, pictures, recorder = Budget(None), Pictures(), Recorder()
    pictures.queue(3, "old", 1)
    pictures.only(9, "new")
    assert pictures.draw(trainer(9), "p/", lambda result: {result: Figure()}, recorder, budget, 0.0)
    assert recorder.drawn == [("p/new", 9)]


def test_the_first_of_every_ten_is_drawn():
    pictures, recorder = Pictures(), Recorder()
    for number in range(1, 22):
        pictures.queue(number, str(number), number)
    assert pictures.draw(trainer(21), "", lambda result: {result: Figure()}, recorder, Budget(None), 0.0)
    assert recorder.drawn == [("1", 1), ("11", 11), ("21", 21)]
