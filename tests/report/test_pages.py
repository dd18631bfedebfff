"""What the pages say, that it is escaped, and that nothing of it comes from a network."""

import json
import re

import pytest
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from fpstab.callbacks import JacobianMonitor
from fpstab.records import append_line
from fpstab.report import open_run
from fpstab.report.contents import contents_of
from fpstab.report.pages import write_report
from fpstab.report.words import sentences
from tests.callbacks.toys import loaders, task, trainer
from tests.report.cases import LAST, write_log


@pytest.fixture
def run(tmp_path):
    return open_run(write_log(tmp_path / "a"))


def said(run, analysis):
    return [
        (each.kind, each.text) for series in run.series if series.analysis == analysis for each in sentences(series)
    ]


def test_each_sentence_says_what_kind_of_knowledge_it_is(run):
    kinds = {series.analysis: [kind for kind, _ in said(run, series.analysis)] for series in run.series}
    assert kinds == {
        "esd": ["estimated", "estimated"],
        "fixed_points": ["counted", "estimated", "counted", "seen"],
        "jacobian": ["estimated", "estimated", "seen"],
        "lipschitz": ["proved", "proved"],
        "stability": ["proved", "seen", "diagnostic"],
        "equilibrium": ["seen", "estimated"],
        "orbits": ["seen", "estimated"],
    }
    assert "1 of 2 layers have a heavy-tailed spectrum (0.333 at first)" in said(run, "esd")[0][1]
    assert "at least 3 more exist" in said(run, "fixed_points")[2][1]
    assert "proved by R1-2, with the least value 0.5" in said(run, "stability")[0][1]
    assert "on 64 images" in said(run, "orbits")[0][1]
    assert "at most 0.5, by LipSDP" in said(run, "lipschitz")[0][1]


def test_no_bound_no_proof(tmp_path):
    log = {
        "LipschitzMonitor[lipschitz]": {"solved": 1.0},
        "StabilityMonitor[stability]": {"certified": 0.0, "value": 2.0},
    }
    run = open_run(write_log(tmp_path, monitors=log))
    assert said(run, "lipschitz")[0][0] == "failed"
    assert said(run, "stability")[0][0] == "diagnostic"
    assert not [text for kind, text in said(run, "stability") if kind == "proved"]


def test_failures_are_counted_with_their_reason(tmp_path):
    for step in (0, 1):
        append_line(
            tmp_path / "fpstab.jsonl",
            {
                "run": "r",
                "monitor": "JacobianMonitor[j]",
                "step": step,
                "failed": True,
                "scalars": {},
                "message": "no <map>",
            },
        )
    run = open_run(tmp_path)
    assert said(run, "jacobian") == [("failed", "2 of 2 measurements failed. The last reason: no <map>")]
    assert "no &lt;map&gt;" in write_report([run])


def test_the_page_needs_no_network_and_escapes_what_came_from_outside(run, tmp_path):
    (tmp_path / "a/config.yaml").write_text("name: </pre><script>alert(1)</script>")
    page = write_report([open_run(tmp_path / "a")])
    assert "Task&lt;script&gt;" in page
    assert "</pre><script>alert" not in page
    head = page[: page.index('<script type="module">')]
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert head.count("<script") == 1
    assert "Content-Security-Policy" in head
    assert len(page.encode()) < 2_000_000


def test_data_cannot_leave_its_script_element(tmp_path):
    log = {"JacobianMonitor[jacobian]": LAST["JacobianMonitor[jacobian]"], "Mine[mine]": {"</script><b>": 1.0}}
    page = write_report([open_run(write_log(tmp_path, monitors=log))])
    data = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S).group(1)
    charts = json.loads(data)
    assert any(row["quantity"] == "</script><b>" for chart in charts for row in chart["data"]["values"])
    assert charts[0]["title"]["text"] == "spectral radius ρ(J)"


def test_every_chart_is_placed_once_and_holds_what_was_measured(run):
    contents = contents_of([run])
    page = write_report([run])
    places = [int(place) for place in re.findall(r'data-chart="(\d+)"', page)]
    assert places == list(range(sum(len(section.charts) for section in contents.sections)))
    rho = next(c for s in contents.sections for c in s.charts if c["title"]["text"] == "spectral radius ρ(J)")
    values = [(r["step"], r["value"]) for r in rho["data"]["values"] if r["quantity"] == "rho_max"]
    assert values == [(0, pytest.approx(1.25 / 3)), (10, pytest.approx(2.5 / 3)), (20, 1.25)]


def test_two_runs_side_by_side(run, tmp_path):
    other = open_run(write_log(tmp_path / "b", run="r2", scale=2.0))
    contents = contents_of([run, other])
    section = next(s for s in contents.sections if s.key == "JacobianMonitor[jacobian]")
    row = next(r for r in section.rows if r["quantity"] == "rho_max")
    assert [pair[1] for pair in row["values"]] == [1.25, 2.5]
    assert {r["run"] for r in section.charts[0]["data"]["values"]} == {"A", "B"}
    page = write_report([run, other])
    assert "last A" in page
    assert "last B" in page
    alone = open_run(write_log(tmp_path / "c", run="r3", monitors={"ESDMonitor[esd]": LAST["ESDMonitor[esd]"]}))
    assert "–" in write_report([run, alone], "md")


def test_markdown(run):
    text = write_report([run], "md")
    assert "## Contracting?" in text
    assert "* **proved**: The Lipschitz constant is at most 0.5" in text
    assert "Task&lt;script>" in text
    rows = [line for line in text.splitlines() if line.startswith("| `rho_max`")]
    assert rows[0].endswith("| 0.4167 | 1.25 |")


def test_json(run):
    record = json.loads(write_report([run], "json"))
    assert record["runs"][0]["history"]["JacobianMonitor[jacobian]"][-1]["rho_max"] == 1.25
    assert {"monitor", "question", "run", "kind", "text"} == set(record["findings"][0])
    assert record["costs"][0] == {
        "run": "",
        "monitor": "ESDMonitor[esd]",
        "measurements": 3,
        "failed": 0,
        "seconds": 1.5,
    }


@pytest.mark.parametrize("make", [TensorBoardLogger, CSVLogger])
def test_metrics_and_pictures_of_the_loggers(tmp_path, make):
    logger = make(tmp_path)
    trainer(tmp_path, [JacobianMonitor(map="net", size=4, budget=None)], logger=logger, max_epochs=2).fit(
        task(), *loaders()
    )
    run = open_run(tmp_path)
    assert [step for step, _ in run.metrics["val/loss"]] == [3, 7]
    tags = [picture.tag for picture in run.pictures]
    assert tags == (
        ["fpstab/jacobian/eigenvalues", "fpstab/jacobian/leading_eigenvalues"] if make is TensorBoardLogger else []
    )
    page = write_report([run])
    assert page.count("data:image/png;base64,iVBOR") == len(tags)
    assert "loss" in [chart["title"]["text"] for chart in contents_of([run]).training]
