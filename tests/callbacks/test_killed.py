"""A training that is killed again and again ends with the history of one that nobody touched; nothing else stops one."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from fpstab.callbacks import Every, Probe, read_lines, read_runs
from tests.callbacks.toys import Number, Scripted, loaders, task, trainer
from tests.callbacks.watched import STEPS, all_monitors, watched_loaders, watched_task

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch:UserWarning"),
]

KILLS = int(os.environ.get("FPSTAB_KILLS", "3"))  # FPSTAB_KILLS=20 takes a minute or two


def environment():
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


def timeless(value):
    """A record without what depends on the clock, or names the run."""
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key not in ("time", "run", "seconds")}
        return {key: timeless(each) for key, each in kept.items() if not key.endswith("/seconds")}
    if isinstance(value, float) and math.isnan(value):
        return None  # equal to itself
    return [timeless(each) for each in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_killed_and_resumed_again_and_again(tmp_path):
    script = str(Path(__file__).with_name("killed_run.py"))
    command = [sys.executable, script, str(tmp_path), str(KILLS), "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    lives = json.loads((tmp_path / "lives.json").read_text())
    assert [life["code"] for life in lives] == [-9] * (len(lives) - 1) + [0], lives
    assert len(lives) == KILLS + 1

    last = (tmp_path / "killed" / "fpstab.jsonl").read_bytes()
    for number, _ in enumerate(lives, 1):
        found = (tmp_path / f"found-{number}.jsonl").read_bytes()
        *complete, cut = found.split(b"\n")
        assert last.startswith(found)
        assert set(complete) <= set(last.split(b"\n"))
        if lives[number - 1]["kind"] == "line" and lives[number - 1]["code"]:
            assert cut

    (whole,) = read_runs(tmp_path / "whole" / "fpstab.jsonl")
    *others, killed = read_runs(tmp_path / "killed" / "fpstab.jsonl")  # others: dead before their first checkpoint
    assert len(whole.measurements) == 7
    assert whole.measurements.keys() == killed.measurements.keys()
    for monitor, records in whole.measurements.items():
        assert not any(record["failed"] for record in records)
        assert [timeless(record) for record in killed.measurements[monitor]] == [timeless(record) for record in records]
    for other in others:  # and says the same as far as it came
        for monitor, records in other.measurements.items():
            assert [timeless(r) for r in records] == [timeless(r) for r in whole.measurements[monitor][: len(records)]]


class TestResume:
    """Killed with the checkpoint of an epoch's last step: Lightning resumes behind the validation."""

    @staticmethod
    def fit(folder, monitors, epochs=2, **options):
        from pytorch_lightning.callbacks import ModelCheckpoint

        checkpoint = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        fit = trainer(folder, [*monitors, checkpoint], max_epochs=epochs)
        fit.fit(watched_task(), *watched_loaders(), weights_only=True, **options)
        return fit

    @pytest.mark.parametrize("every", [Every(1), Every(2), Every(1, "step"), Every(3, "step")], ids=str)
    @pytest.mark.parametrize("step", [STEPS - 1, STEPS, 2 * STEPS])
    def test_no_measurement_is_left_out(self, tmp_path, every, step):
        class Weighing(Scripted):
            def measure(self, trainer, module):
                return Number(float(module.net.head.weight.detach().double().sum()))

        whole, again = Weighing([], every=every), Weighing([], every=every)
        self.fit(tmp_path / "first", [whole], 3)
        (tmp_path / "first" / "fpstab.jsonl").unlink()
        self.fit(tmp_path / "second", [again], 3, ckpt_path=tmp_path / "first" / f"step={step}.ckpt")
        wanted = [timeless(record) for record in whole.history.records]
        assert [timeless(record) for record in again.history.records] == wanted
        (run,) = read_runs(tmp_path / "second" / "fpstab.jsonl")
        (records,) = run.measurements.values()
        assert [(r["phase"], r["epoch"], r["scalars"]["fpstab/scripted/value"]) for r in records] == [
            (r["phase"], r["epoch"], r["scalars"]["fpstab/scripted/value"]) for r in whole.history.records
        ]

    def test_it_looks_at_the_same_points(self, tmp_path):
        """Lightning makes no sanity check when it resumes, and the first batch of training is another one."""

        class Probing(Scripted):
            seen = None

            def measure(self, trainer, module):
                self.seen = self.probe.batch[0].clone()
                return Number(1.0)

        first = Probing([], probe=Probe(size=3))
        fit = trainer(tmp_path, [first], max_epochs=1)
        fit.fit(task(), *loaders())
        fit.save_checkpoint(tmp_path / "half.ckpt")
        second = Probing([], probe=Probe(size=3))
        options = {"ckpt_path": tmp_path / "half.ckpt", "weights_only": True}
        trainer(tmp_path, [second], max_epochs=2).fit(task(), *loaders(seed=1), **options)
        assert torch.equal(second.seen, first.seen[:3])
        state = torch.load(tmp_path / "half.ckpt", weights_only=True)["callbacks"][second.state_key]
        assert state["probe"][0].untyped_storage().nbytes() == 3 * 24 * 4  # the rows that it needs, and no more

    def test_another_training_looks_at_its_own_points(self, tmp_path):
        monitor = Scripted([1.0] * 9, probe=Probe(size=3))
        for seed in (0, 1):
            _, val = loaders(seed=seed)
            trainer(tmp_path, [monitor], max_epochs=1).fit(task(), *loaders(seed=seed))
            assert torch.equal(monitor.probe.batch[0], next(iter(val))[0])

    def test_a_batch_that_no_checkpoint_can_hold(self, tmp_path):
        class Own:
            x = torch.zeros(4, 24)

        probe = Probe()
        probe.offer([torch.ones(2), Own()])
        assert probe.state_dict() is None
        probe.forget()
        probe.load_state_dict(None)
        assert not probe.ready


class TestFolders:
    """What is wrong with the folder is said once, and training goes on."""

    @staticmethod
    def said(caplog):
        return [r.getMessage() for r in caplog.records if "fpstab.jsonl" in r.getMessage()]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
    def test_a_full_disk(self, tmp_path, caplog):
        (tmp_path / "fpstab.jsonl").symlink_to("/dev/full")
        monitor = Scripted(range(9))
        trainer(tmp_path, [monitor]).fit(task(), *loaders())
        assert len(monitor.history.records) == 4
        (said,) = self.said(caplog)
        assert os.strerror(errno.ENOSPC) in said

    def test_a_disk_that_fills_up(self, tmp_path):
        """The last line that fits in part is cut; what was written is there."""
        code = f"""
import resource, warnings, logging
warnings.simplefilter("ignore")
from tests.callbacks.toys import *
resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))
monitor = Scripted(range(9))
trainer({str(tmp_path)!r}, [monitor], max_epochs=8).fit(task(), *loaders())
assert len(monitor.history.records) == 9
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stderr.count("fpstab cannot write") in (1, 2)  # cut short, then refused
        lines = read_lines(tmp_path / "fpstab.jsonl")
        assert 2 <= len(lines) < 9
        assert [line["step"] for line in lines] == [4 * k for k in range(len(lines))]

    def test_a_folder_that_cannot_be(self, tmp_path, caplog):
        (tmp_path / "file").write_text("no folder")
        monitor, other = Scripted(range(9)), Scripted(range(9), name="other")
        trainer(tmp_path / "file" / "logs", [monitor, other]).fit(task(), *loaders())
        assert len(monitor.history.records) == len(other.history.records) == 4
        assert len(self.said(caplog)) == 2  # once by each

    def test_a_resume_into_one(self, tmp_path, caplog):
        fit = trainer(tmp_path, [Scripted(range(9))], max_epochs=1)
        fit.fit(task(), *loaders())
        fit.save_checkpoint(tmp_path / "half.ckpt")
        (tmp_path / "file").write_text("no folder")
        caplog.clear()
        monitor = Scripted(range(9))
        again = trainer(tmp_path / "file" / "logs", [monitor], max_epochs=2)
        again.fit(task(), *loaders(), ckpt_path=tmp_path / "half.ckpt", weights_only=True)
        assert [record["step"] for record in monitor.history.records] == [0, 4, 8]
        assert len(self.said(caplog)) == 1

    def test_a_folder_that_is_read_only(self, tmp_path, caplog, monkeypatch):
        def refuse(*args, **kwargs):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr("fpstab.records.lines.open", refuse, raising=False)  # root may write everywhere
        monitor = Scripted(range(9))
        trainer(tmp_path, [monitor]).fit(task(), *loaders())
        assert len(monitor.history.records) == 4
        (said,) = self.said(caplog)
        assert os.strerror(errno.EACCES) in said

    def test_two_runs_at_once_in_one_folder_do_not_mix(self, tmp_path):
        """Two trainings of which each writes its lines while the other does."""
        inner = Scripted([10.0] * 9)

        class Nested(Scripted):
            def measure(self, fit, module):
                if fit.current_epoch == 1:
                    trainer(tmp_path, [inner], max_epochs=2).fit(task(), *loaders())
                return super().measure(fit, module)

        trainer(tmp_path, [Nested([1.0] * 9)], max_epochs=3).fit(task(), *loaders())
        outer_run, inner_run = read_runs(tmp_path / "fpstab.jsonl")
        for run, value, steps in ((outer_run, 1.0, [0, 4, 8, 12]), (inner_run, 10.0, [0, 4, 8])):
            (records,) = run.measurements.values()
            assert [r["step"] for r in records] == steps
            assert {r["scalars"]["fpstab/scripted/value"] for r in records} == {value}


def test_histograms_that_fail_stop_nothing(tmp_path, caplog):
    class Binned(Scripted):
        def histograms(self, result):
            raise MemoryError("no bins")

    fit = trainer(tmp_path, [Binned(range(9))])
    fit.fit(task(), *loaders())
    assert fit.current_epoch == 3
    assert sum("no bins" in r.getMessage() for r in caplog.records) == 1


def test_validation_images_that_only_a_loader_can_read(tmp_path, caplog):
    from fpstab.callbacks import OrbitMonitor

    train, val = watched_loaders()
    dataset = val.dataset

    class Shy(torch.utils.data.Dataset):
        def __len__(self):
            return len(dataset)

        def __getitem__(self, index):
            if torch.utils.data.get_worker_info() is None:
                raise RuntimeError("open in workers only")
            return dataset[index]

    monitor = OrbitMonitor(budget=None, n_points=4, strict=True)
    val = DataLoader(Shy(), 4, num_workers=1)
    trainer(tmp_path, [monitor], max_epochs=1).fit(watched_task(), train, val)
    assert monitor.orbits.n_images == 4
    assert sum("open in workers only" in r.getMessage() for r in caplog.records) == 1


def test_all_monitors_continue_where_they_were(tmp_path):
    """The state of each goes through a weights-only checkpoint; a tally of training goes on."""
    first, again = all_monitors(every=Every(2)), all_monitors(every=Every(2))
    fit = TestResume.fit(tmp_path / "first", first, 3)
    TestResume.fit(tmp_path / "second", again, 3, ckpt_path=tmp_path / "first" / f"step={STEPS + 2}.ckpt")
    assert fit.global_step == 3 * STEPS
    for one, other in zip(first, again, strict=True):
        assert [timeless(r) for r in one.history.records] == [timeless(r) for r in other.history.records]
