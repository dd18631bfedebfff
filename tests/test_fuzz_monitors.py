"""Whatever an analysis does, training ends as it would have, and the history says what happened."""

import contextlib
import itertools
import json
import logging
import math
import tempfile

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from fpstab.callbacks import Every
from fpstab.results import AnalysisError, Status
from tests.callbacks.conftest import _lightning_on_a_small_machine  # noqa: F401 (a fixture)
from tests.callbacks.toys import Number, Scripted, loaders, task, trainer

KEY = "fpstab/scripted/value"


class NoScalars:
    status = Status()

    def scalars(self):
        raise RuntimeError("no scalars")


class NotJson(Number):
    """A result that JSON has no word for."""

    def __init__(self, value):
        super().__init__(value)
        object.__setattr__(self, "status", Status(message="\ud800 <script>"))


_OUTCOMES = st.one_of(
    st.floats(),
    st.sampled_from((ValueError, MemoryError, RecursionError, AssertionError, KeyError, StopIteration)).map(
        lambda e: e("x")
    ),
    st.just(AnalysisError(Status("nothing", "Nothing is there."))),
    st.floats().map(lambda value: Number(value, Status("failed", "It went wrong."))),
    st.just(NoScalars()),
    st.floats(-1, 1).map(NotJson),
)


class Anything(Scripted):
    def measure(self, trainer, module):
        item = self.script.pop(0)
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, (Number, NoScalars)) else Number(item)


def fails(outcome):
    return isinstance(outcome, (Exception, NoScalars)) or (isinstance(outcome, Number) and not outcome.status.ok)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@example(script=[0.0, 0.0, 0.0, 1e300])
@given(script=st.lists(_OUTCOMES, min_size=4, max_size=4))
def test_whatever_an_analysis_does(script):
    logging.disable()  # half a surrogate in a message can be sent to no other process, as pytest's workers would
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as after:
        after.callback(logging.disable, logging.NOTSET)
        monitor = Anything(script)
        early = EarlyStopping(KEY, patience=9)
        fit = trainer(folder, [early, ModelCheckpoint(folder, monitor=KEY), monitor])
        fit.fit(task(), *loaders())
        assert fit.current_epoch == 3
        with open(f"{folder}/fpstab.jsonl") as file:
            _, *lines = [json.loads(line, parse_constant=pytest.fail) for line in file]
    assert [record["failed"] for record in monitor.history.records] == list(map(fails, script))
    assert [line["failed"] for line in lines] == list(map(fails, script))
    assert all(line["message"] for line in lines if line["failed"])
    values = [math.nan if fails(each) else each.value if isinstance(each, Number) else each for each in script]
    finite = [value for value in values if abs(value) <= torch.finfo(torch.float32).max]  # of nan it is not
    if finite:  # that of the untrained network, where there is no other
        assert float(fit.callback_metrics[KEY]) == pytest.approx(finite[-1], rel=1e-6, abs=1e-30)


def test_a_slow_analysis_is_made_less_often(tmp_path, monkeypatch, caplog):
    """An analysis beyond its budget cannot be broken off: the next ones are not made until time has passed."""
    now = [0.0]
    monkeypatch.setattr("fpstab.callbacks.budget.time.monotonic", lambda: now[0])
    monkeypatch.setattr("fpstab.callbacks.base.time.perf_counter", lambda: now[0])

    class Slow(Scripted):
        def measure(self, trainer, module):
            now[0] += 30.0
            return super().measure(trainer, module)

        def on_train_batch_end(self, trainer, *args):
            now[0] += 4.0  # a step
            super().on_train_batch_end(trainer, *args)

    slow, quick = Slow(range(99), budget=0.5), Slow(range(99), every=Every(1), budget=None, name="always")
    for monitor in (slow, quick):
        now[0] = 0.0
        trainer(tmp_path, [monitor], max_epochs=40).fit(task(), *loaders())
    assert len(quick.history.records) == 41
    # 640 s of steps: with as much for measurements there is room for about twenty of 30 s
    assert 5 <= len(slow.history.records) <= 24
    epochs = [record["epoch"] for record in slow.history.records if record["phase"] == "epoch"]
    assert max(later - sooner for sooner, later in itertools.pairwise(epochs)) > 1
    assert slow.history.records[-1]["step"] == 160
    assert sum("measures less often" in record.getMessage() for record in caplog.records) == 1
