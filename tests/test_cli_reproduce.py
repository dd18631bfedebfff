"""The command `fpstab reproduce`."""

import csv
import json
from functools import partial

import pytest
import torch

from fpstab import cli_reproduce
from fpstab.cli import main
from fpstab.experiments import deq_theory, deq_training
from fpstab.experiments.register import ENTRIES, Entry
from tests.experiments import register_stubs


@pytest.fixture(autouse=True)
def _as_before():
    import logging

    names = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
    levels, threads = [logging.getLogger(name).level for name in names], torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def stubs(monkeypatch):
    """Three small items in the place of all: one that works, one that fails, one that is schematic."""
    monkeypatch.setattr(cli_reproduce, "ENTRIES", register_stubs.ENTRIES)
    monkeypatch.setattr(register_stubs, "CALLS", [])
    return register_stubs


def test_list(capsys):
    assert main(["reproduce", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:8] for line in lines if not line.startswith(" ")] == [f"Paper {paper}." for paper in range(1, 6)]
    assert {line.split()[0] for line in lines if line.startswith(" ")} == ENTRIES.keys()
    text = "\n".join(lines)
    assert "[schematic: " in text
    assert "[long with --full" in text


def test_the_list_names_every_figure_table_and_theorem(capsys):
    main(["reproduce", "--list"])
    papers = capsys.readouterr().out.split("Paper ")[1:]
    numbered = {
        1: [*(f"Figure {k}" for k in range(1, 8)), "Proposition 1", "Proposition 2"],
        2: [f"Figure {k}" for k in range(1, 6)],
        3: [
            *(f"Figure {k}" for k in range(1, 9)),
            "Table 1",
            "Theorem 6",
            "Lemma 3",
            "Lemma 8",
            "Lemma 10",
            "Proposition 12",
        ],
        4: [
            *(f"Figure {k}" for k in range(1, 7)),
            "Table 1",
            "Theorem 3.1",
            "Theorem 3.2",
            "Theorem A.2",
            "Lemma 2.2",
            "Lemma A.1",
        ],
        5: [*(f"Figure {k}" for k in range(1, 4)), *(f"Table {k}" for k in range(1, 6)), "Theorem 1"],
    }
    for paper, names in numbered.items():
        assert [name for name in names if name not in papers[paper - 1]] == []


def test_every_entry_leads_somewhere():
    import importlib
    import inspect

    for name, entry in ENTRIES.items():
        if entry.schematic:
            assert entry.note.startswith("schematic: ")
            continue
        module = importlib.import_module(entry.module)
        parameters = inspect.signature(getattr(module, entry.function)).parameters
        given = {"seed", *entry.options, *entry.settings, *entry.quick, *module.FULL[entry.function]}
        assert given <= parameters.keys(), name
        if entry.findings:
            room, function = entry.findings.split(":")
            assert callable(getattr(importlib.import_module(room), function))


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
    assert (record["item"], record["seed"], record["size"]) == (name, 3, "small")
    assert record["settings"]["width"] == 30
    assert record["settings"]["seed"] == 3
    assert record["seconds"] > 0
    assert {finding["item"].split(",")[0] for finding in record["findings"]} == {f"Figure {name[-1]}"}
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(record["verdict"].split()) in said
    assert said.startswith(f"Paper 4, Figure {name[-1]}, ")
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
    assert record["size"] == "full"
    assert record["records"][0]["test_error"] == 0.1
    assert [finding["verdict"] for finding in record["findings"]] == ["inconclusive"] * 3
    assert "ended in NaN" in capsys.readouterr().out


def test_all_with_one_that_fails(stubs, tmp_path, capsys):
    assert main(["reproduce", "--all", "--quick", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert "1 of 2 items failed: broken." in printed.err
    assert "failed: ZeroDivisionError" in printed.out
    assert "Paper 2, eq. (1): reproduced." in printed.out
    assert {"register.json", "register.csv", "register.md", "index.html"} <= {path.name for path in tmp_path.iterdir()}
    assert [call["size"] for call in stubs.CALLS] == [3]  # that of quick
    assert main(["reproduce", "--all", "--quick", "--out", str(tmp_path)]) == 1
    assert len(stubs.CALLS) == 1  # as before; what failed is tried again
    assert "works (as before)" in capsys.readouterr().out
    assert main(["reproduce", "--all", "--quick", "--fresh", "--out", str(tmp_path)]) == 1
    assert len(stubs.CALLS) == 2


def test_dask_without_dask(stubs, tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "distributed", None)
    assert main(["reproduce", "--all", "--backend", "dask", "--out", str(tmp_path)]) == 2
    assert "pip install dask distributed" in capsys.readouterr().err


def test_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["reproduce", "deq-fig1", "--out", str(tmp_path / "file")]) == 2
    assert "fpstab reproduce:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["deq-fig9"],
        ["resnet-fig1"],  # schematic
        ["deq-fig1", "--list"],
        ["deq-fig1", "--all"],
        ["deq-fig1", "--seed", "x"],
        ["deq-fig5", "--jobs", "0"],
        ["--all", "--quick", "--full"],
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *arguments])
    assert stop.value.code == 2
    assert "usage: fpstab reproduce" in capsys.readouterr().err


def test_entries_are_frozen():
    with pytest.raises(AttributeError):
        Entry(1, ("Figure 1",), "text").paper = 2
