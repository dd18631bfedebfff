"""What was measured survives, whatever happens to the process."""

import json
import math
import os
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fpstab.records.lines import append_line, jsonable, read_lines, read_runs
from fpstab.results import Status
from tests.callbacks.toys import Scripted, loaders, task, trainer


def test_a_line_that_was_cut_short_is_closed(tmp_path):
    path = tmp_path / "new" / "fpstab.jsonl"
    append_line(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": 2, "scal')
    append_line(path, {"step": 3})
    assert [record["step"] for record in read_lines(path)] == [1, 3]


@given(st.integers(0, 200))
def test_readable_after_a_cut_at_any_byte(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "fpstab.jsonl"
    for step in range(4):
        append_line(path, {"step": step, "name": "λ→é", "scalars": {"a": step / 3}})
    whole = path.read_bytes()
    cut = min(cut, len(whole))
    path.write_bytes(whole[:cut])
    complete = whole[:cut].count(b"\n")
    steps = [record["step"] for record in read_lines(path)]
    assert steps[:complete] == list(range(complete))
    assert len(steps) <= complete + 1  # a last line may be whole but for its newline
    append_line(path, {"step": 99})
    assert [record["step"] for record in read_lines(path)] == [*steps, 99]


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


def test_a_write_that_the_disk_cuts_short_is_an_error(tmp_path, monkeypatch):
    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def seek(self, *where):
            return self.file.seek(*where)

        def read(self, count):
            return self.file.read(count)

        def write(self, data):
            return self.file.write(data[: len(data) // 2])

    monkeypatch.setattr("fpstab.records.lines.open", lambda *a, **k: Full(open(*a, **k)), raising=False)  # noqa: SIM115
    with pytest.raises(OSError, match="disk is full"):
        append_line(tmp_path / "fpstab.jsonl", {"step": 1})
    monkeypatch.undo()
    append_line(tmp_path / "fpstab.jsonl", {"step": 2})
    assert [record["step"] for record in read_lines(tmp_path / "fpstab.jsonl")] == [2]


def line(run, monitor, step, value):
    return {"run": run, "monitor": monitor, "step": step, "scalars": {"value": value}}


def test_runs_do_not_mix_and_the_later_line_of_a_step_wins(tmp_path):
    path = tmp_path / "fpstab.jsonl"
    for record in (
        {"run": "a", "start": {"step": 0}},
        line("a", "M[m]", 0, 1),
        line("a", "M[m]", 8, 2),
        {"run": "b", "start": {"step": 0}},
        line("b", "M[m]", 0, 3),
        {"run": "a", "start": {"step": 4}},
        line("a", "M[m]", 4, 4),
        line("a", "M[m]", 8, 5),
        line("a", "N[n]", 8, 6),
        {"neither": 1},
        {"run": "a", "monitor": 3, "step": "x"},
    ):
        append_line(path, record)
    with open(path, "a") as file:
        file.write('[1, 2]\n"text"\n' + "[" * 100_000 + "\n")
    first, second, *rest = read_runs(path)
    assert (first.name, second.name) == ("a", "b")
    assert [start["step"] for start in first.starts] == [0, 4]
    assert [(r["step"], r["scalars"]["value"]) for r in first.measurements["M[m]"]] == [(0, 1), (4, 4), (8, 5)]
    assert [r["step"] for r in first.measurements["N[n]"]] == [8]
    assert [r["scalars"]["value"] for r in second.measurements["M[m]"]] == [3]
    assert [each.measurements for each in rest] == [{}]


def test_a_training_says_what_it_is_and_its_monitors_share_a_run(tmp_path):
    monitors = [Scripted([1.0] * 9), Scripted([2.0] * 9, name="other")]
    for seed in (1, 2):
        os.environ["PL_GLOBAL_SEED"] = str(seed)
        try:
            trainer(tmp_path, monitors, max_epochs=1).fit(task(), *loaders())
        finally:
            del os.environ["PL_GLOBAL_SEED"]
    first, second = read_runs(tmp_path / "fpstab.jsonl")
    assert first.name != second.name
    for run, seed in ((first, "1"), (second, "2")):
        (start,) = run.starts
        assert start["seed"] == seed
        assert start["torch"] == torch.__version__
        assert start["parameters"] == sum(each.numel() for each in task().parameters())
        assert start["monitors"] == ["Scripted[scripted]", "Scripted[other]"]
        assert {name: [r["step"] for r in records] for name, records in run.measurements.items()} == {
            "Scripted[scripted]": [0, 4],
            "Scripted[other]": [0, 4],
        }


def test_a_resumed_run_has_all_of_its_history_in_the_new_folder(tmp_path):
    monitor = Scripted([1.0, 2.0, 3.0])
    fit = trainer(tmp_path / "first", [monitor], max_epochs=2)
    fit.fit(task(), *loaders())
    fit.save_checkpoint(tmp_path / "half.ckpt")
    again = Scripted([4.0, 5.0])
    trainer(tmp_path / "second", [again], max_epochs=3).fit(
        task(), *loaders(), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    (before,) = read_runs(tmp_path / "first" / "fpstab.jsonl")
    (after,) = read_runs(tmp_path / "second" / "fpstab.jsonl")
    assert after.name == before.name
    records = after.measurements["Scripted[scripted]"]
    assert [(r["step"], r["scalars"]["fpstab/scripted/value"]) for r in records] == [
        (0, 1.0),
        (4, 2.0),
        (8, 3.0),
        (12, 4.0),
    ]
    assert records[1]["message"] == "remembered by the checkpoint"


def test_a_run_resumed_in_its_own_folder_writes_nothing_twice(tmp_path):
    fit = trainer(tmp_path, [Scripted([1.0, 2.0, 3.0])], max_epochs=2)
    fit.fit(task(), *loaders())
    fit.save_checkpoint(tmp_path / "half.ckpt")
    trainer(tmp_path, [Scripted([4.0])], max_epochs=3).fit(
        task(), *loaders(), ckpt_path=tmp_path / "half.ckpt", weights_only=True
    )
    assert [record["step"] for record in read_lines(tmp_path / "fpstab.jsonl")] == [0, 4, 8, 12]
    (run,) = read_runs(tmp_path / "fpstab.jsonl")
    assert [start["step"] for start in run.starts] == [0, 8]
