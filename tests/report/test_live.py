import io

from rich.console import Console

from fpstab.report import open_run
from fpstab.report.live import course, view_of
from tests.report.cases import write_log


def shown(run, **options):
    console = Console(width=100, file=io.StringIO())
    console.print(view_of(run, **options))
    return console.file.getvalue()


def test_course():
    assert course([1, 1, 1]) == "▁▁▁"
    assert course([]) == course([None]) == ""
    assert len(course(list(range(100)))) == 24
    assert course([0.0, 1.0]) == "▁█"


def test_quantities_with_their_course(tmp_path):
    run = open_run(write_log(tmp_path))
    text = shown(run)
    assert "step 20, epoch 2" in text
    line = next(line for line in text.splitlines() if "rho_max" in line and "1.25" in line)
    assert line.split()[:3] == ["rho_max", "0.417", "1.25"]
    assert line.split()[3] in ("▁▄█", "▁▅█")
    assert "a/alpha" not in text
    assert "data/coverage" in text
    assert "a/alpha" in shown(run, everything=True)
    assert "never" not in text
