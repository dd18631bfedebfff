"""When a monitor measures, where its results go, and what happens when something fails."""

import errno
import json
import math

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fpstab.callbacks import ESDMonitor, Every, Probe, read_lines
from fpstab.results import AnalysisError, Status
from tests.callbacks.toys import NAMESPACES, Number, Scripted, loaders, task, trainer

KEY = "fpstab/scripted/value"
BROKEN = ZeroDivisionError("made for the test")


def phases(monitor):
    return [(phase, step) for phase, step, _ in monitor.measured]


class TestSchedule:
    def test_every_epoch_after_a_baseline(self, tmp_path):
        monitor = Scripted(range(4))
        trainer(tmp_path, [monitor]).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("epoch", 4), ("epoch", 8), ("epoch", 12)]

    def test_the_last_state_is_always_measured(self, tmp_path):
        monitor = Scripted(range(9), every=Every(4))
        trainer(tmp_path, [monitor], max_epochs=7).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("epoch", 4), ("epoch", 20), ("end", 28)]

    def test_steps(self, tmp_path):
        monitor = Scripted(range(9), every=Every(3, "step"))
        fit = trainer(tmp_path, [monitor], max_epochs=2)
        fit.fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("step", 1), ("step", 4), ("step", 7), ("end", 8)]
        assert fit.callback_metrics[KEY] == 3.0

    def test_steps_are_optimiser_steps(self, tmp_path):
        monitor = Scripted(range(9), every=Every(1, "step"))
        trainer(tmp_path, [monitor], max_epochs=1, accumulate_grad_batches=2).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("step", 1), ("step", 2)]

    def test_accumulation_by_a_schedule(self, tmp_path):
        from pytorch_lightning.callbacks import GradientAccumulationScheduler

        monitor = Scripted(range(9))
        callbacks = [monitor, GradientAccumulationScheduler({0: 1, 1: 2})]
        trainer(tmp_path, callbacks, max_epochs=2, logger=CSVLogger(tmp_path)).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("epoch", 4), ("epoch", 6)]

    def test_rare_validation(self, tmp_path):
        monitor = Scripted(range(9), every=Every(2))
        trainer(tmp_path, [monitor], max_epochs=7, check_val_every_n_epoch=3).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("epoch", 12), ("epoch", 24), ("end", 28)]

    def test_several_validations_an_epoch(self, tmp_path):
        monitor = Scripted(range(9))
        trainer(tmp_path, [monitor], max_epochs=2, val_check_interval=0.5).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("epoch", 2), ("epoch", 6), ("end", 8)]

    @pytest.mark.filterwarnings("ignore:You are trying to `self.log:UserWarning")  # the toy does, at barebones
    @pytest.mark.parametrize(
        "options", [{"fast_dev_run": True}, {"limit_val_batches": 0}, {"barebones": True}], ids=str
    )
    def test_other_trainers(self, tmp_path, options):
        monitor = Scripted(range(9))
        if "barebones" in options:
            options = options | {"logger": None, "enable_model_summary": None, "enable_checkpointing": None}
            options |= {"enable_progress_bar": None, "log_every_n_steps": None}
        trainer(tmp_path, [monitor], max_epochs=2, **options).fit(task(), *loaders())
        assert len(monitor.measured) == (2 if "fast_dev_run" in options else 3)
        assert (tmp_path / "fpstab.jsonl").exists() == ("fast_dev_run" not in options)

    def test_validation_alone_measures_nothing(self, tmp_path):
        monitor = Scripted([])
        fit = trainer(tmp_path, [monitor])
        fit.validate(task(), loaders()[1], verbose=False)
        assert monitor.history.records == []

    def test_a_second_training_starts_a_history_of_its_own(self, tmp_path):
        monitor = Scripted(range(9))
        trainer(tmp_path, [monitor], max_epochs=1).fit(task(), *loaders())
        first = monitor.history.run
        trainer(tmp_path, [monitor], max_epochs=1).fit(task(), *loaders())
        assert phases(monitor) == [("baseline", 0), ("epoch", 4)]
        assert monitor.history.run != first

    def test_over_budget_it_measures_less_often_and_says_so(self, tmp_path, monkeypatch, caplog):
        clock = iter(range(10**6))
        monkeypatch.setattr("fpstab.callbacks.budget.time.monotonic", lambda: float(next(clock)))
        monkeypatch.setattr("fpstab.callbacks.base.time.perf_counter", lambda: 0.0)
        monitor = Scripted(range(99), budget=0.1)
        fit = trainer(tmp_path, [monitor], max_epochs=12)
        monkeypatch.setattr(type(monitor), "_draw", lambda self, trainer, **_: setattr(self, "_cost", 0.5))
        monitor._budget.spent = 0.5
        fit.fit(task(), *loaders())
        # a look at the clock takes a second here: at 10 % of the time, 0.5 + 0.5 s are free after ten looks
        assert phases(monitor)[:2] == [("baseline", 0), ("epoch", 4)]
        assert 3 <= len(monitor.measured) < 12
        assert [r.message for r in caplog.records if "less often" in r.message] == [
            "Scripted measures less often, to keep to its budget: 0.1 of the training time."
        ]


class TestProbe:
    class Probing(Scripted):
        seen = ()

        def measure(self, trainer, module):
            self.seen = (*self.seen, self.probe.batch[0].clone())
            return super().measure(trainer, module)

    def test_first_validation_batch(self, tmp_path):
        monitor = self.Probing(range(9), probe=Probe())
        train, val = loaders()
        trainer(tmp_path, [monitor]).fit(task(), train, val)
        assert len(monitor.seen) == 4
        assert all(torch.equal(batch, next(iter(val))[0]) for batch in monitor.seen)

    @pytest.mark.parametrize("sanity", [0, 2])
    def test_first_training_batch(self, tmp_path, sanity):
        monitor = self.Probing(range(9), probe=Probe())
        train, _ = loaders()
        module = task()
        trainer(tmp_path, [monitor], num_sanity_val_steps=sanity).fit(module, train)
        assert phases(monitor)[0] == ("baseline", 0)
        assert len(monitor.seen) == 4
        assert monitor.seen[0].shape == (16, 24)


class TestSinks:
    def test_json_lines(self, tmp_path):
        monitor = Scripted([1.0, BROKEN, 3.0], name="mine")
        trainer(tmp_path, [monitor], max_epochs=2).fit(task(), *loaders())
        lines = [
            json.loads(line, parse_constant=pytest.fail)
            for line in (tmp_path / "fpstab.jsonl").read_text().splitlines()
        ]
        start = lines.pop(0)["start"]
        assert start["monitors"] == ["Scripted[mine]"]
        assert start["module"] == "Task"
        assert [(r["phase"], r["step"], r["epoch"], r["failed"]) for r in lines] == [
            ("baseline", 0, 0, False),
            ("epoch", 4, 0, True),
            ("epoch", 8, 1, False),
        ]
        assert [r["scalars"]["fpstab/mine/value"] for r in lines] == [1.0, None, 3.0]
        assert lines[0]["result"] == {"value": 1.0, "status": {"code": "ok", "message": ""}}
        assert lines[1]["result"] is None
        assert "ZeroDivisionError: made for the test" in lines[1]["message"]
        assert len({r["run"] for r in lines}) == 1
        assert lines[0]["monitor"] == "Scripted[mine]"

    def test_tensorboard(self, tmp_path):
        logger = TensorBoardLogger(tmp_path)
        fit = trainer(tmp_path, [Scripted([1.0, BROKEN, 3.0])], max_epochs=2, logger=logger)
        fit.fit(task(), *loaders())
        events = EventAccumulator(logger.log_dir).Reload()
        values = [(e.step, e.value) for e in events.Scalars(KEY)]
        assert values[0] == (0, 1.0)
        assert values[1][0] == 4
        assert math.isnan(values[1][1])
        assert values[2][1] == 3.0
        assert [e.value for e in events.Scalars("fpstab/scripted/failed")] == [0.0, 1.0, 0.0]
        assert (tmp_path / "lightning_logs" / "version_0" / "fpstab.jsonl").exists()

    def test_every_logger_gets_the_numbers(self, tmp_path):
        csv = CSVLogger(tmp_path / "csv")
        fit = trainer(tmp_path, [Scripted([1.0, 2.0])], max_epochs=1, logger=[TensorBoardLogger(tmp_path), csv])
        fit.fit(task(), *loaders())
        table = (tmp_path / "csv/lightning_logs/version_0/metrics.csv").read_text()
        assert KEY in table.splitlines()[0]

    def test_progress_bar(self, tmp_path):
        fit = trainer(tmp_path, [Scripted([1.0, 2.0])], max_epochs=1)
        fit.fit(task(), *loaders())
        assert fit.progress_bar_metrics[KEY] == 2.0
        assert "fpstab/scripted/seconds" not in fit.progress_bar_metrics

    def test_full_disk(self, tmp_path, monkeypatch, caplog):
        def full(*args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("fpstab.records.lines.open", full, raising=False)
        monitor = Scripted(range(9))
        trainer(tmp_path, [monitor]).fit(task(), *loaders())
        assert len(monitor.measured) == 4
        assert sum("No space left" in r.message for r in caplog.records) == 1

    def test_lost_logger(self, tmp_path, caplog):
        class Lost(CSVLogger):
            def log_metrics(self, metrics, step=None):
                if any(math.isnan(value) for value in metrics.values()):
                    raise ConnectionError("server gone")

        fit = trainer(tmp_path, [Scripted([1.0, BROKEN, BROKEN])], max_epochs=2, logger=Lost(tmp_path))
        fit.fit(task(), *loaders())
        assert fit.current_epoch == 2
        assert sum("server gone" in r.message for r in caplog.records) == 1


class TestFailures:
    def test_said_once_and_logged_as_missing(self, tmp_path, caplog):
        monitor = Scripted([1.0, BROKEN, BROKEN, 2.0])
        fit = trainer(tmp_path, [monitor])
        fit.fit(task(), *loaders())
        said = [r.message for r in caplog.records if r.levelname == "WARNING"]
        assert said == ["Scripted failed: ZeroDivisionError: made for the test"]
        assert [record["scalars"]["fpstab/scripted/failed"] for record in monitor.history.records] == [0, 1, 1, 0]
        assert monitor.result.value == 2.0

    def test_a_result_that_says_so(self, tmp_path, caplog):
        monitor = Scripted([Number(math.nan, Status("no_weights", "Nothing is there."))] * 2)
        trainer(tmp_path, [monitor], max_epochs=1).fit(task(), *loaders())
        assert [record["failed"] for record in monitor.history.records] == [True, True]
        assert [r.message for r in caplog.records if r.levelname == "WARNING"] == [
            "Scripted has nothing to measure: Nothing is there."
        ]

    def test_strict(self, tmp_path):
        with pytest.raises(AnalysisError, match="made for the test"):
            trainer(tmp_path, [Scripted([1.0, BROKEN], strict=True)]).fit(task(), *loaders())

    def test_a_picture_that_fails(self, tmp_path, caplog):
        class Painter(Scripted):
            def figures(self, result):
                raise MemoryError("no paint")

        fit = trainer(tmp_path, [Painter(range(9))], logger=TensorBoardLogger(tmp_path))
        fit.fit(task(), *loaders())
        assert fit.current_epoch == 3
        assert sum("cannot draw: MemoryError: no paint" in r.message for r in caplog.records) == 1

    def test_two_monitors_of_one_name(self, tmp_path):
        with pytest.raises(ValueError, match=r"fpstab/scripted/.*another name"):
            trainer(tmp_path, [Scripted([]), ESDMonitor(name="scripted")]).fit(task(), *loaders())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"budget": 0}, "budget=0"),
            ({"budget": 1.5}, "budget=1.5"),
            ({"name": "a b"}, "name='a b'"),
            ({"name": ""}, "name=''"),
        ],
    )
    def test_wrong_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            Scripted([], **options)

    def test_wrong_schedule(self):
        with pytest.raises(TypeError, match="every=2"):
            Scripted([], every=2)


class TestResume:
    @staticmethod
    def fit(path, monitor, epochs, ckpt_path=None, namespace="pytorch_lightning"):
        torch.manual_seed(0)
        checkpoint = ModelCheckpoint(path, save_last=True)
        if namespace != "pytorch_lightning":
            from lightning.pytorch.callbacks import ModelCheckpoint as Other

            checkpoint = Other(path, save_last=True)
        fit = trainer(path, [monitor, checkpoint], namespace, max_epochs=epochs)
        fit.fit(task(namespace), *loaders(), ckpt_path=ckpt_path)
        return fit

    @pytest.mark.parametrize("namespace", NAMESPACES)
    def test_history_continues(self, tmp_path, namespace):
        whole = Scripted(range(10), every=Every(2))
        self.fit(tmp_path / "whole", whole, 6, namespace=namespace)
        first, second = Scripted(range(10), every=Every(2)), Scripted(range(3, 10), every=Every(2))
        self.fit(tmp_path / "parts", first, 3, namespace=namespace)
        assert phases(first) == [("baseline", 0), ("epoch", 4), ("epoch", 12)]
        resumed = self.fit(tmp_path / "parts", second, 6, tmp_path / "parts" / "last.ckpt", namespace)
        assert second.measured == whole.measured
        assert second.history.run == first.history.run
        assert resumed.callback_metrics[KEY] == 3.0  # of the last validation's measurement; 4 came at the end
        assert [r["step"] for r in read_lines(tmp_path / "parts" / "fpstab.jsonl")] == [0, 4, 12, 20, 24]

    def test_the_last_value_is_in_force_at_once(self, tmp_path):
        self.fit(tmp_path, Scripted([9, 5]), 1)
        seen = []

        class Watcher(Scripted):
            analysis = "watcher"

            def on_validation_end(self, trainer, module):
                if not trainer.sanity_checking:
                    seen.append(float(trainer.callback_metrics[KEY]))

        monitor = Scripted([3], every=Every(3))
        torch.manual_seed(0)
        fit = trainer(tmp_path, [Watcher([0] * 9), monitor, ModelCheckpoint(tmp_path)], max_epochs=3)
        fit.fit(task(), *loaders(), ckpt_path=tmp_path / "last.ckpt")
        assert seen == [5.0, 5.0]

    def test_state_is_builtins(self, tmp_path):
        self.fit(tmp_path, Scripted([9, 5]), 1)
        checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
        state = checkpoint["callbacks"]["Scripted[scripted]"]
        assert [record["scalars"][KEY] for record in state["history"]["records"]] == [9, 5]
