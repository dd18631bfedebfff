from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure

from fpstab.callbacks.notices import Notices
from fpstab.callbacks.sinks import Sinks


@pytest.fixture
def sinks(tmp_path):
    sinks = Sinks("esd", Notices())
    sinks.path = tmp_path / "new" / "fpstab.jsonl"
    return sinks


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
