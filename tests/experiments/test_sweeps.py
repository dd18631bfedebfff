"""Sweeps: what is run, what is not run again, on this machine and on a cluster of two workers."""

import importlib.util
import json
from pathlib import Path

import pytest

from fpstab.experiments import sweeps
from fpstab.experiments.opening import RefusedError
from fpstab.experiments.sweeps import SweepRun, finished, run_sweep, sweep_runs, train_one

CONFIG = """
trainer: {accelerator: cpu, max_epochs: 1, limit_train_batches: 2, limit_val_batches: 1, enable_checkpointing: false}
model:
  class_path: fpstab.models.AutoencoderTask
  init_args: {net: {class_path: fpstab.models.Autoencoder, init_args: {widths: [784, 8]}}}
data: {class_path: fpstab.models.MNISTData, init_args: {batch_size: 32}}
"""


def script():
    path = Path(__file__).parents[2] / "scripts" / "sweep.py"
    spec = importlib.util.spec_from_file_location("sweep_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sweep(tmp_path):
    (tmp_path / "net.yaml").write_text(CONFIG)
    path = tmp_path / "some.yaml"
    path.write_text(
        "config: net.yaml\ngrid: {seed_everything: [0, 1], data.batch_size: [16]}\nfixed: {trainer.max_epochs: 1}"
    )
    return path


def fake(run: SweepRun, out: str):
    """In place of a training: writes that it was made."""
    Path(out, run.key).touch()
    return {"key": run.key, "settings": run.chosen, "ok": run.chosen.get("seed_everything") != 13, "seconds": 0.0,
            "folder": out, "metrics": {"seed": float(run.chosen["seed_everything"])}, "error": "boom"}  # fmt: skip


def test_every_combination_is_a_run_with_a_name_of_its_settings(sweep):
    runs = sweep_runs(sweep)
    assert [run.chosen for run in runs] == [{"seed_everything": s, "data.batch_size": 16} for s in (0, 1)]
    assert runs[0].settings == {"trainer.max_epochs": 1, "seed_everything": 0, "data.batch_size": 16}
    assert len({run.key for run in runs}) == 2
    assert [run.key for run in sweep_runs(sweep)] == [run.key for run in runs]
    (sweep.parent / "net.yaml").write_text(CONFIG + "\n# changed")
    assert not {run.key for run in sweep_runs(sweep)} & {run.key for run in runs}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "expected a mapping"),
        ("config: [", "cannot be read"),
        ("config: no_such", "there is no such file"),
        ("config: net.yaml\ngrid: {seed_everything: 3}", "expected a list of values"),
        ("config: net.yaml\ngrid: {a: []}", "expected a list of values"),
        ("config: net.yaml\ngrids: {}", "unknown grids"),
        ("config: net.yaml\ngrid: {a: [1]}\nfixed: {a: 2}", "stand in grid and in fixed"),
    ],
)
def test_what_is_no_sweep(sweep, text, said):
    sweep.write_text(text)
    with pytest.raises(RefusedError, match=said):
        sweep_runs(sweep)


def test_a_shipped_configuration_is_found_by_name(sweep):
    sweep.write_text("config: mnist_autoencoder\ngrid: {seed_everything: [1]}")
    assert sweep_runs(sweep)[0].config.endswith("mnist_autoencoder.yaml")


def test_a_finished_run_is_not_made_again_and_a_failed_one_is(sweep, tmp_path, monkeypatch):
    sweep.write_text("config: net.yaml\ngrid: {seed_everything: [0, 13, 2]}")
    monkeypatch.setattr(sweeps, "train_one", fake)
    runs, out, seen = sweep_runs(sweep), tmp_path / "out", []
    run_sweep(runs[:1], out, backend="threading", progress=seen.append)
    with open(out / "sweep.jsonl", "a") as file:
        file.write('{"key": "cut sho')
    results = run_sweep(runs, out, backend="threading", progress=seen.append)
    assert [result["ok"] for result in results] == [True, False, True]
    assert [result["settings"]["seed_everything"] for result in seen] == [0, 13, 2]
    assert set(finished(out)) == {runs[0].key, runs[2].key}
    run_sweep(runs, out, backend="threading", progress=seen.append)
    assert [result["settings"]["seed_everything"] for result in seen] == [0, 13, 2, 13]


def test_on_a_dask_cluster_of_two_workers(sweep, tmp_path):
    distributed = pytest.importorskip("distributed")
    sweep.write_text("config: net.yaml\ngrid: {seed_everything: [0, 1]}\nfixed: {trainer.max_epochs: nothing}")
    runs = sweep_runs(sweep)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        results = run_sweep(runs, tmp_path / "out", backend="dask", address=cluster.scheduler_address)
    assert [result["key"] for result in results] == [run.key for run in runs]
    assert not any(result["ok"] for result in results)  # each was started, and refused its option
    assert all("max_epochs" in result["error"] for result in results)


def test_no_scheduler(sweep, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")

    def refuse(*args, **options):
        raise OSError("timed out")

    monkeypatch.setattr(distributed, "Client", refuse)
    with pytest.raises(RefusedError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"):
        run_sweep(sweep_runs(sweep), tmp_path, backend="dask", address="tcp://127.0.0.1:1")


def test_a_training_and_what_came_of_it(sweep, tmp_path):
    result = train_one(sweep_runs(sweep)[0], str(tmp_path / "out"))
    assert result["ok"], result["error"]
    assert result["metrics"]["val/loss"] > 0
    assert result["error"] == ""
    json.dumps(result, allow_nan=False)


def test_the_script(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweeps, "train_one", fake)
    out = tmp_path / "out"
    options = [str(sweep), "--out", str(out)]
    monkeypatch.setattr(
        sweeps, "run_sweep", lambda runs, out, **o: run_sweep(runs, out, **(o | {"backend": "threading"}))
    )
    assert script().main(options) == 0
    assert "2 of 2 runs" in capsys.readouterr().out
    assert script().main(options) == 0
    assert "2 of 2 runs are there already" in capsys.readouterr().out
    sweep.write_text("config: net.yaml\ngrid: {seed_everything: [13]}")
    assert script().main(options) == 1
    assert "boom" in capsys.readouterr().out
    assert script().main([str(tmp_path / "no.yaml")]) == 2
    with pytest.raises(SystemExit):
        script().main([str(sweep), "--jobs", "0"])
