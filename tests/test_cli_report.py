"""The commands `fpstab report` and `fpstab watch`."""

import json

import pytest

from fpstab.cli import main
from tests.report.cases import write_log


def test_a_page_in_the_folder_of_the_run(tmp_path, capsys):
    folder = write_log(tmp_path / "runs" / "version_0")
    assert main(["report", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [f"{tmp_path / 'runs'}: the newest run below it is {folder}", str(folder / "fpstab-report.html")]
    assert (folder / "fpstab-report.html").read_text().startswith("<!doctype html>")
    assert not [each for each in folder.iterdir() if each.name.startswith(".")]


def test_text_goes_to_stdout_or_where_it_is_told(tmp_path, capsys):
    folder = write_log(tmp_path / "a")
    assert main(["report", str(folder), "--format", "md"]) == 0
    assert capsys.readouterr().out.startswith("# ")
    assert main(["report", str(folder), "--format", "json", "--out", str(tmp_path / "new" / "a.json")]) == 0
    assert json.loads((tmp_path / "new" / "a.json").read_text())["runs"]


def test_two_runs(tmp_path, capsys):
    write_log(tmp_path / "a")
    write_log(tmp_path / "b", scale=2.0)
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "--format", "md"]) == 0
    assert "last (B)" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["report"], ["watch", "--once"]])
def test_what_cannot_be_shown(tmp_path, capsys, command):
    assert main([*command, str(tmp_path / "no")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    assert main([*command, str(tmp_path)]) == 2
    assert "no fpstab.jsonl here or below" in capsys.readouterr().err


def test_watch_once(tmp_path, capsys):
    write_log(tmp_path)
    assert main(["watch", str(tmp_path), "--once"]) == 0
    assert "rho_max" in capsys.readouterr().out


def test_watch_goes_on_until_it_is_interrupted(tmp_path, capsys, monkeypatch):
    seen = []

    def sleep(seconds):
        seen.append(seconds)
        if len(seen) == 1:
            write_log(tmp_path)
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr("fpstab.cli_watch.time.sleep", sleep)
    assert main(["watch", str(tmp_path), "--every", "0.5"]) == 0
    assert seen == [0.5, 0.5]
    out = capsys.readouterr().out
    assert "rho_max" in out


def test_bad_arguments(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["watch", str(tmp_path), "--every", "0"])
    assert "expected seconds from 0.1 on" in capsys.readouterr().err
