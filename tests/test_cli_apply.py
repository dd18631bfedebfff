"""The command `fpstab apply`."""

import json

import pytest
import torch

from fpstab.cli import main


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
    assert main(["apply", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "toy",
        "memories",
        "identification",
        "restoration",
        "semi-supervised",
        "unsupervised",
    ]


def test_toy(tmp_path, capsys):
    assert main(["apply", "toy", "--seed", "3", "--epochs", "1", "--out", str(tmp_path / "new" / "folder")]) == 0
    out = capsys.readouterr().out
    assert "(-0.6, -0.6)" in out
    assert "captured" in out
    record = json.loads((tmp_path / "new/folder/toy-3.json").read_text())
    assert record["verdict"].split()[:3] == ["The", "paper's", "idea"]
    assert (record["application"], record["seed"]) == ("toy", 3)
    assert record["scalars"]["n_exemplars"] == 5
    assert len(record["table"]) == 5
    picture = (tmp_path / "new/folder/toy-3.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["apply", "toy", "--epochs", "1", "--out", str(tmp_path / "file")]) == 2
    assert "fpstab apply:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [[], ["toys"], ["toy", "--list"], ["toy", "--seed", "-1"], ["toy", "--seed", "x"], ["toy", "--epochs", "0"]],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["apply", *arguments])
    assert stop.value.code == 2
    assert "usage: fpstab apply" in capsys.readouterr().err
