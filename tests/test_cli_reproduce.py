"""The command `fpstab reproduce`."""

import csv
import json
from functools import partial

import pytest
import torch

from fpstab.cli import main
from fpstab.cli_reproduce import ENTRIES
from fpstab.experiments import deq_theory, deq_training


@pytest.fixture(autouse=True)
def _as_before():
    import logging

    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
    levels, threads = [logging.getLogger(name).level for name in names], torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_list(capsys):
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    deq = [f"deq-fig{k}" for k in range(1, 6)]
    resnet = [f"resnet-table{k}" for k in range(1, 6)] + ["resnet-fig2", "resnet-fig3"]
    assert [line.split()[0] for line in lines] == deq + resnet


def test_every_entry_leads_somewhere():
    import importlib
    import inspect

    for entry in ENTRIES.values():
        module = importlib.import_module(entry.module)
        parameters = inspect.signature(getattr(module, entry.function)).parameters
        assert {"seed", *entry.options, *module.FULL[entry.function]} <= parameters.keys()


SMALL = {"deq-fig1": {"width": 30, "draws": 2, "deltas": (0.5, 1.0)}} | {
    name: {"width": 30, "draws": 2, "sqrt_vs": (0.3, 2.5), "iterations": 30}
    for name in ("deq-fig2", "deq-fig3", "deq-fig4")
}


@pytest.mark.parametrize("name", list(SMALL))
def test_theory(name, tmp_path, capsys, monkeypatch):
    function = getattr(deq_theory, ENTRIES[name].function)
    monkeypatch.setattr(deq_theory, ENTRIES[name].function, partial(function, **SMALL[name]))
    assert main(["reproduce", name, "--seed", "3", "--out", str(tmp_path / "new")]) == 0
    record = json.loads((tmp_path / f"new/{name}-3.json").read_text())
    assert (record["figure"], record["seed"], record["full"]) == (name, 3, False)
    assert record["settings"]["width"] == 30
    assert record["settings"]["seed"] == 3
    assert record["seconds"] > 0
    assert record["verdict"] in " ".join(capsys.readouterr().out.split())
    with (tmp_path / f"new/{name}-3.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = function(**SMALL[name], seed=3).table()
    assert [float(row["measured"]) for row in rows] == [row["measured"] for row in expected]
    assert (tmp_path / f"new/{name}-3.png").read_bytes().startswith(b"\x89PNG")


def test_figure_5_and_full(tmp_path, monkeypatch, capsys):
    called = {}

    def instead(**settings):
        called.update(settings)
        run = deq_training.TrainedDEQ("random", 1.0, 0, 0.1, 0.2, 0.0, 0.0, 0.0, 9.0, 0.5, 1.1, 0.7, 0, True, 3.0)
        return deq_training.ErrorByScale((run,))

    monkeypatch.setattr(deq_training, "error_by_scale", instead)
    arguments = ["reproduce", "deq-fig5", "--full", "--jobs", "2", "--data", "here", "--out", str(tmp_path)]
    assert main(arguments) == 0
    assert called["seeds"] == 10
    assert called["jobs"] == 2
    assert str(called["data"]) == "here"
    record = json.loads((tmp_path / "deq-fig5-0-full.json").read_text())
    assert record["full"] is True
    assert record["records"][0]["test_error"] == 0.1
    assert "ended in NaN" in capsys.readouterr().out


def test_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["reproduce", "deq-fig1", "--out", str(tmp_path / "file")]) == 2
    assert "fpstab reproduce:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["deq-fig9"], ["deq-fig1", "--list"], ["deq-fig1", "--seed", "x"], ["deq-fig5", "--jobs", "0"]]
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments])
    assert stop.value.code == 2
    assert "usage: fpstab reproduce" in capsys.readouterr().err
