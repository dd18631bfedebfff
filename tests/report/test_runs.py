import pytest
import torch

from fpstab.experiments.opening import RefusedError
from fpstab.records import append_line
from fpstab.report import open_run
from tests.callbacks.toys import Scripted, loaders, task, trainer
from tests.report.cases import LAST, write_log


def test_a_run_is_read_monitor_by_monitor(tmp_path):
    write_log(tmp_path)
    (tmp_path / "config.yaml").write_text("seed_everything: 0\n")
    run = open_run(tmp_path)
    assert run.name == "r1"
    assert [series.key for series in run.series] == list(LAST)
    assert [series.analysis for series in run.series][:2] == ["esd", "fixed_points"]
    last = run.series[2].quantities(run.series[2].records[-1])
    assert last == LAST["JacobianMonitor[jacobian]"] | {"seconds": 0.5, "failed": 0.0, "never": None}
    assert run.config == "seed_everything: 0"


def test_of_several_runs_the_last_or_the_one_that_is_named(tmp_path):
    write_log(tmp_path, run="r1")
    write_log(tmp_path, run="r2", steps=(0,))
    assert open_run(tmp_path).name == "r2"
    assert open_run(tmp_path).others == ["r1"]
    assert len(open_run(tmp_path, "r1").series[0].records) == 3
    with pytest.raises(RefusedError, match=r"no run 'r3'\. There are: r1, r2"):
        open_run(tmp_path, "r3")


def test_a_folder_above_means_the_newest_run_below(tmp_path):
    import os

    for name, when in (("version_0", 2e9), ("version_1", 1e9)):
        write_log(tmp_path / name)
        os.utime(tmp_path / name / "fpstab.jsonl", (when, when))
    assert open_run(tmp_path).folder == tmp_path / "version_0"
    assert open_run(tmp_path / "version_1" / "fpstab.jsonl").folder == tmp_path / "version_1"


def test_nothing_to_read(tmp_path):
    with pytest.raises(RefusedError, match="there is no such folder"):
        open_run(tmp_path / "no")
    with pytest.raises(RefusedError, match=r"no fpstab.jsonl here or below"):
        open_run(tmp_path)
    (tmp_path / "fpstab.jsonl").write_text("garbage\n")
    with pytest.raises(RefusedError, match="nothing was measured yet"):
        open_run(tmp_path)


def test_what_only_the_checkpoint_remembers_is_there_too(tmp_path):
    fit = trainer(tmp_path, [Scripted([1.0, 2.0, 3.0])], max_epochs=2)
    fit.fit(task(), *loaders())
    (tmp_path / "checkpoints").mkdir()
    fit.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    before = open_run(tmp_path)
    lines = (tmp_path / "fpstab.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "fpstab.jsonl").write_text("".join(lines[:2]))  # the start, and the baseline
    after = open_run(tmp_path)
    assert [record["step"] for record in after.series[0].records] == [0, 4, 8]
    assert [s.quantities(r)["value"] for s in after.series for r in s.records] == [1.0, 2.0, 3.0]
    assert after.name == before.name
    (tmp_path / "fpstab.jsonl").unlink()
    assert [record["step"] for record in open_run(tmp_path).series[0].records] == [0, 4, 8]


def test_a_checkpoint_that_asks_for_code_is_not_obeyed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    write_log(tmp_path)
    torch.save({"callbacks": {"x": {"history": Evil()}}}, tmp_path / "last.ckpt")
    assert len(open_run(tmp_path).series) == len(LAST)
    assert not (tmp_path / "touched").exists()


def test_scalars_that_are_none_are_left_out(tmp_path):
    append_line(
        tmp_path / "fpstab.jsonl",
        {
            "run": "r",
            "monitor": "Mine[x]",
            "step": 1,
            "scalars": {"fpstab/x/a": 1, "fpstab/x/b": "text", "fpstab/x/c": None},
        },
    )
    (series,) = open_run(tmp_path).series
    assert series.analysis == "x"
    assert series.quantities(series.records[0]) == {"a": 1, "c": None}
