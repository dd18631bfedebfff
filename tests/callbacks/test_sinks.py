import json
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fpstab.callbacks.notices import Notices
from fpstab.callbacks.sinks import Sinks, jsonable, read_lines
from fpstab.results import Status


@pytest.fixture
def sinks(tmp_path):
    sinks = Sinks("esd", Notices())
    sinks.path = tmp_path / "new" / "fpstab.jsonl"
    return sinks


def test_a_line_that_was_cut_short_is_closed(sinks):
    sinks.line({"step": 1})
    with open(sinks.path, "a") as file:
        file.write('{"step": 2, "scal')
    sinks.line({"step": 3})
    assert [record["step"] for record in read_lines(sinks.path)] == [1, 3]


@given(st.integers(0, 200))
def test_readable_after_a_cut_at_any_byte(tmp_path_factory, cut):
    sinks = Sinks("esd", Notices())
    sinks.path = tmp_path_factory.mktemp("cut") / "fpstab.jsonl"
    for step in range(4):
        sinks.line({"step": step, "name": "λ→é", "scalars": {"a": step / 3}})
    whole = sinks.path.read_bytes()
    cut = min(cut, len(whole))
    sinks.path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    steps = [record["step"] for record in read_lines(sinks.path)]
    assert steps[:complete] == list(range(complete))
    assert len(steps) <= complete + 1  # a last line may be whole but for its newline
    sinks.line({"step": 99})
    assert [record["step"] for record in read_lines(sinks.path)] == [*steps, 99]


def test_json_is_strict():
    value = {
        "nan": math.nan,
        "tensor": torch.tensor([1.0, math.inf]),
        "whole": torch.tensor([1, 2]),
        "status": Status("ok", "<b>"),
        3: (True, None, 2, "x"),
        "path": SimpleNamespace,
    }
    text = json.dumps(jsonable(value), allow_nan=False)
    back = json.loads(text)
    assert back["nan"] is None
    assert back["tensor"] == [1.0, None]
    assert back["whole"] == [1, 2]
    assert back["status"] == {"code": "ok", "message": "<b>"}
    assert back["3"] == [True, None, 2, "x"]


class TestLoggersByCapability:
    @staticmethod
    def trainer(*loggers, is_global_zero=True):
        return SimpleNamespace(loggers=loggers, is_global_zero=is_global_zero, global_step=7)

    def test_images(self, sinks):
        class Images:
            calls = ()

            def log_image(self, key, images, step):
                self.calls = (*self.calls, (key, images[0].size, step))

        logger = Images()
        figure = Figure(figsize=(2, 1))
        sinks.figure(self.trainer(logger), "fpstab/esd/spectra", figure, 7)
        assert logger.calls == (("fpstab/esd/spectra", (200, 100), 7),)
        sinks.figure(self.trainer(logger, is_global_zero=False), "x", figure, 7)
        assert len(logger.calls) == 1

    def test_an_experiment_that_answers_to_everything_is_not_asked(self, sinks):
        class Dummy:
            def __getattr__(self, name):
                raise AssertionError(f"asked for {name}")

        logger = SimpleNamespace(experiment=SimpleNamespace())
        sinks.histograms(self.trainer(logger), "p/", {"x": torch.ones(3)}, 0)
        sinks.figure(self.trainer(SimpleNamespace(experiment=Dummy())), "x", Figure(), 0)

    def test_what_fails_is_said_once(self, sinks, caplog):
        class Writer:
            def add_histogram(self, tag, values, step):
                raise OSError("disk full")

        logger = SimpleNamespace(experiment=Writer())
        for step in range(3):
            sinks.histograms(self.trainer(logger), "p/", {"x": torch.ones(3)}, step)
        assert [r.message for r in caplog.records] == [
            "fpstab cannot write to Writer.add_histogram: OSError: disk full. Training goes on."
        ]
