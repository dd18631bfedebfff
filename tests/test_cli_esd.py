"""`fpstab esd`, as it is typed."""

import csv
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from fpstab import cli_esd
from fpstab.cli import main
from fpstab.esd import LEGEND, ESDReport, esd_report
from fpstab.esd.metrics import SUMMARY


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def net(cauchy: bool = False, broken: bool = False) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 24, 3), nn.Flatten(), nn.Linear(60, 100), nn.Linear(100, 5))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(generator=generator)
        if cauchy:
            net[2].weight.cauchy_(generator=generator)
        if broken:
            net[2].weight[3, 3] = torch.nan
    return net


def saved(name: str, **options: bool) -> str:
    torch.save({"model": net(**options).state_dict()}, name)
    return name


def esd(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(["esd", *arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def read(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(name).read_text(), newline="")))


def same(value: Any, expected: Any) -> bool:
    if isinstance(expected, float) and not math.isfinite(expected):
        return value is None
    return bool(value == expected)


def assert_json(model: dict[str, Any], report: ESDReport) -> None:
    assert model["status"] == {"code": report.status.code, "message": report.status.message}
    assert all(same(model["summary"][name], value) for name, value in report.summary().items())
    for row, expected in zip(model["layers"], report.table(), strict=True):
        assert all(same(row[name], value) for name, value in expected.items() if name != "kind")


def test_table(capsys):
    code, out, err = esd(capsys, saved("net.pt"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["net.pt", "Took 'model'."]
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines[4:7]] == ["0", "2", "3"]
    layer = esd_report(net())["2"]
    assert f"{layer.alpha:.2f} ± {layer.sigma:.2f}" in lines[5]
    assert "3 layers: 1 too_few, 2 light." in out
    assert all(f"{name} " in out for name in SUMMARY)


@pytest.mark.parametrize(
    "options", [{}, {"conv": "slices"}, {"randomize": True}, {"include": ["2", "3"], "exclude": ["3"]}]
)
def test_json_and_csv(capsys, options):
    flags = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        flags += [part for v in values for part in ([f"--{name}"] if v is True else [f"--{name}", v])]
    files = [saved("a.pt"), saved("b.ckpt", cauchy=True)]
    code, out, err = esd(capsys, *files, *flags, "--json", "out.json", "--csv", "out.csv", "--quiet")
    assert (code, out, err) == (0, "", "")
    reports = [esd_report(net(), **options), esd_report(net(cauchy=True), **options)]
    models = json.loads(Path("out.json").read_text())
    assert [(model["file"], model["notes"]) for model in models] == [(file, ["Took 'model'."]) for file in files]
    for model, report in zip(models, reports, strict=True):
        assert_json(model, report)
    rows = read("out.csv")
    expected = [{"file": file} | row for file, report in zip(files, reports, strict=True) for row in report.table()]
    assert len(rows) == len(expected)
    for row, values in zip(rows, expected, strict=True):
        for name, value in values.items():
            if name != "kind":
                assert row[name] == ("" if value is None else str(value))
    assert sorted(os.listdir()) == ["a.pt", "b.ckpt", "out.csv", "out.json"]  # nothing unfinished


def test_stdout(capsys):
    name = saved("a.pt")
    code, out, err = esd(capsys, name, "--json", "-")
    assert (code, err) == (0, "")
    assert_json(json.loads(out)[0], esd_report(net()))
    code, out, err = esd(capsys, name, "--csv", "-", "--plots", "pictures")
    assert [row["layer"] for row in csv.DictReader(io.StringIO(out))] == ["0", "2", "3"]
    assert len(os.listdir("pictures")) == 2


def test_initial(capsys):
    files = saved("last.pt", cauchy=True), saved("first.pt")
    code, out, err = esd(capsys, files[0], "--initial", files[1], "--json", "out.json", "--csv", "out.csv")
    assert (code, err) == (0, "")
    then, now = esd_report(net()), esd_report(net(cauchy=True))
    assert f"{then['2'].alpha:.2f} →" in out
    assert f"{now['2'].alpha:.2f} ± {now['2'].sigma:.2f}" in out
    assert "light →" in out
    rows = json.loads(Path("out.json").read_text())[0]["layers"]
    expected = now.table(then)
    for key in ("verdict", "verdict_initial", "alpha", "alpha_initial", "spectral_norm_initial"):
        assert [row[key] for row in rows] == [row[key] for row in expected]
        assert [row[key] for row in read("out.csv")] == ["" if row[key] is None else str(row[key]) for row in expected]


def test_an_initial_checkpoint_of_something_else(capsys):
    torch.save({"other": torch.randn(30, 30)}, "other.pt")
    code, _, err = esd(capsys, saved("a.pt"), "--initial", "other.pt", "--quiet")
    assert code == 0
    assert "no layer in common" in err
    code, out, err = esd(capsys, "a.pt", "--initial", "missing.pt")
    assert (code, out) == (2, "")
    assert err == "fpstab esd: missing.pt does not exist.\n"


def test_failed_layers(capsys):
    code, out, err = esd(capsys, saved("a.pt", broken=True), saved("b.pt"))
    assert code == 1
    assert "not_finite" in out
    assert "1 failed" in out
    assert err == "fpstab esd: a.pt: 2 [100, 60]: 1 NaN and 0 infinite values among 6000 weights.\n"


def test_files_that_cannot_be_read_do_not_stop_the_others(capsys):
    class Armed:
        def __reduce__(self):
            return os.system, ("touch mark",)

    torch.save({"a": Armed()}, "evil.pt")
    Path("text.pt").write_text("no checkpoint")
    Path("short.pt").write_bytes(Path(saved("a.pt")).read_bytes()[:-200])
    Path("folder").mkdir()
    safetensors.torch.save_file({"norm": torch.ones(4)}, "norm.safetensors")
    bad = ["evil.pt", "text.pt", "short.pt", "folder", "norm.safetensors", "missing.pt"]
    code, out, err = esd(capsys, *bad[:3], "a.pt", *bad[3:], saved("b.pt", broken=True), "--json", "out.json")
    assert code == 2
    lines = err.splitlines()
    assert [line.split()[2] for line in lines] == [*bad, "b.pt:"]  # one sentence each
    assert not Path("mark").exists()
    assert out.splitlines()[0] == "a.pt"
    assert [model["file"] for model in json.loads(Path("out.json").read_text())] == ["a.pt", "b.pt"]


def test_shards_are_one_model(capsys):
    state = net().state_dict()
    Path("hf").mkdir()
    names = [f"hf/model-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
    for i, name in enumerate(names):
        safetensors.torch.save_file(dict(list(state.items())[i::2]), name)
    weight_map = {key: Path(names[i % 2]).name for i, key in enumerate(state)}
    Path("hf/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for files in (["hf"], names, ["hf/model.safetensors.index.json", *names], ["hf/model.safetensors.index.json"]):
        code, out, _ = esd(capsys, *files, "--json", "-")
        assert code == 0
        (model,) = json.loads(out)
        assert [row["alpha"] for row in model["layers"]] == [layer.alpha for layer in esd_report(net()).layers]
    code, out, _ = esd(capsys, names[0], saved("a.pt"), "--json", "-")
    assert [model["file"] for model in json.loads(out)] == [names[0], "a.pt"]


def test_patterns(capsys):
    name = saved("a.pt")
    code, out, err = esd(capsys, name, "--include", "encoder", "--include", "2")
    assert code == 0
    assert "1 layer: 1 light." in out
    assert err == "fpstab esd: a.pt: no layer matches 'encoder'; the layers are 0, 2, 3.\n"
    assert esd(capsys, name, "--include", "encoder")[0] == 2
    code, out, err = esd(capsys, name, "--exclude", "*", "--json", "-")
    assert (code, json.loads(out)) == (2, [])
    assert "leave no layer" in err


def test_pictures(capsys, monkeypatch):
    monkeypatch.setattr(cli_esd, "_PANELS", 3)
    torch.save({f"layers.{i}.weight": torch.randn(25, 20) for i in range(4)}, "[big] model$.pt")
    Path("other").mkdir()
    files = ["[big] model$.pt", saved("a.pt"), saved("other/a.pt", broken=True)]
    code, out, _ = esd(capsys, *files, "--plots", "deep/pictures")
    assert code == 1
    drawn = sorted(path.name for path in Path("deep/pictures").iterdir())
    slugs = ["a.pt-bulks", "a.pt-spectra", "a.pt_-bulks", "a.pt_-spectra",
             "big_model_.pt-bulks-1", "big_model_.pt-bulks-2", "big_model_.pt-spectra-1", "big_model_.pt-spectra-2"]  # fmt: skip
    assert drawn == [f"{slug}.png" for slug in slugs]
    assert all(f"deep/pictures/{name}" in out for name in drawn)
    for name in drawn:
        assert Path("deep/pictures", name).read_bytes().startswith(b"\x89PNG")


def test_names_in_a_font_that_has_them_not(capsys):
    torch.save({"层.weight": torch.randn(25, 20), "\x1b[31m.weight": torch.randn(25, 20)}, "a.pt")
    code, out, err = esd(capsys, "a.pt", "--plots", ".")
    assert (code, err) == (0, "")
    assert "层" in out
    assert "\x1b" not in out


def test_wrong_usage(capsys):
    name = saved("a.pt")
    for arguments, said in {
        (): "FILE",
        (name, "--json", "-", "--csv", "-"): "same place",
        (name, "--json", "."): "folder",
        (name, "--csv", "nowhere/out.csv"): "nowhere",
        (name, "--conv", "rows"): "rows",
        (name, "--jsn", "x"): "--jsn",
    }.items():
        code, out, err = esd(capsys, *arguments)
        assert (code, out) == (2, "")
        assert said in err
    code, _, err = esd(capsys, name, "--plots", name)
    assert code == 2
    assert err == "fpstab esd: a.pt cannot be written: File exists.\n"


def test_writing_is_all_or_nothing(monkeypatch):
    Path("out.csv").write_text("before")
    Path("link.csv").symlink_to("out.csv")
    cli_esd._write(Path("link.csv"), "after")
    assert Path("link.csv").is_symlink()
    assert Path("out.csv").read_text() == "after"

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "out.csv")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        cli_esd._write(Path("out.csv"), "more")
    assert Path("out.csv").read_text() == "after"
    assert sorted(os.listdir()) == ["link.csv", "out.csv"]
    cli_esd._write(Path(os.devnull), "to a device")
    assert not Path(os.devnull).is_file()


def test_interrupted(capsys, monkeypatch):
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fpstab.esd.reports.analyse_weight", interrupt)
    code, _, err = esd(capsys, saved("a.pt"), "--json", "out.json")
    assert (code, err) == (130, "fpstab esd: interrupted.\n")
    assert not Path("out.json").exists()


def test_legend(capsys):
    code, out, err = esd(capsys, "--legend")
    assert (code, out, err) == (0, LEGEND, "")
    assert all(len(line) <= 80 for line in LEGEND.splitlines())
    for layer in esd_report(net(cauchy=True), randomize=True).layers:
        for metric in layer.metrics:
            assert metric in LEGEND or metric in ("alpha", "bulk_max", "detX_val")


def test_help_is_light_and_teaches():
    code = (
        "import sys\nfrom fpstab.cli import main\n"
        "for arguments in (['--help'], ['esd', '--help'], ['esd']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "print({'torch', 'numpy', 'rich', 'safetensors'} & set(sys.modules), file=sys.stderr)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "80"}
    )
    assert run.stderr.endswith("set()\n")
    for part in ("examples:", "exit codes:", "--initial FILE", "WeightWatcher"):
        assert part in run.stdout
    assert all(len(line) <= 80 for line in run.stdout.splitlines())


def test_as_a_command_whose_reader_stops(capfd):
    saved("a.pt")
    command = f"{sys.executable} -m fpstab esd a.pt a.pt; echo $?; {sys.executable} -m fpstab esd a.pt --csv - | true"
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert run.stdout.splitlines()[0] == "a.pt"
    assert run.stdout.splitlines()[-1] == "0"
    assert run.stderr == ""
