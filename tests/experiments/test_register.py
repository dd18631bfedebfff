"""The register: how items are run, kept, and written up."""

import csv
import html.parser
import json

import pytest

from fpstab.experiments.register import PAPERS, RefusedItemError, read_records, run_item, run_items, write_summary
from fpstab.experiments.register.__main__ import main
from fpstab.experiments.register.items import make_task, writing
from fpstab.experiments.register.summary import markdown
from tests.experiments import register_stubs
from tests.experiments.register_stubs import ENTRIES


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    monkeypatch.setattr(register_stubs, "CALLS", [])
    return register_stubs.CALLS


def task(tmp_path, name="works", **settings):
    return make_task(name, out=tmp_path, entries=ENTRIES, **settings)


def test_one_item_leaves_its_files(tmp_path):
    record = run_item(task(tmp_path, size="quick", seed=4, options={"data": "there", "jobs": 2}))
    assert json.loads((tmp_path / "works-4-quick.json").read_text()) == record
    assert record["settings"] == {"seed": 4, "size": 3, "data": "there"}
    assert record["rerun"] == "fpstab reproduce works --seed 4 --quick"
    assert record["findings"][0]["verdict"] == "reproduced"
    assert record["table"][0] == {"x": 1, "y": None, "z": None}  # what is not finite has no JSON
    with (tmp_path / "works-4-quick.csv").open() as file:
        assert [row["z"] for row in csv.DictReader(file)] == ["", "a,b"]
    assert (tmp_path / "works-4-quick.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"works-4-quick.{end}" for end in ("csv", "json", "png")
    ]


def test_sizes(tmp_path, calls):
    for size in ("quick", "small", "full"):
        run_item(task(tmp_path, size=size))
    assert [call["size"] for call in calls] == [3, 10, 1000]
    assert (tmp_path / "works-0.json").is_file()


def test_a_schematic_figure_is_refused(tmp_path):
    with pytest.raises(RefusedItemError, match="drawn is schematic: a <diagram>"):
        task(tmp_path, "drawn")


def test_what_is_there_is_not_made_again(tmp_path, calls):
    first = run_items([task(tmp_path)])
    again = run_items([task(tmp_path)])
    assert len(calls) == 1
    assert again[0] == first[0] | {"kept": True}
    run_items([task(tmp_path)], fresh=True)
    assert len(calls) == 2


@pytest.mark.parametrize("change", ["settings", "version", "picture", "damaged"])
def test_what_has_changed_is_made_again(tmp_path, calls, monkeypatch, change):
    run_items([task(tmp_path)])
    options = {}
    if change == "settings":
        options = {"data": "elsewhere"}
    elif change == "version":
        monkeypatch.setattr("fpstab.__version__", "999")
    elif change == "picture":
        (tmp_path / "works-0.png").unlink()
    else:
        (tmp_path / "works-0.json").write_text('{"key": "')
    run_items([task(tmp_path, options=options)])
    assert len(calls) == 2


def test_a_failure_does_not_stop_the_rest(tmp_path):
    seen = []
    tasks = [task(tmp_path, "broken"), task(tmp_path)]
    records = run_items(tasks, begins=lambda t: seen.append(t.name), ends=lambda t, r: seen.append(r.get("error")))
    assert records[0]["error"] == "ZeroDivisionError: division by zero"
    assert "return 1 / seed" in records[0]["traceback"]
    assert records[0]["findings"] == []
    assert records[1]["findings"]
    assert seen == ["broken", "ZeroDivisionError: division by zero", "works", None]
    assert tasks[0].stored() is None  # so that it is tried again


def test_a_module_that_is_gone_is_a_failure_too(tmp_path):
    from dataclasses import replace

    entries = {"gone": replace(ENTRIES["works"], module="tests.experiments.nowhere", quick={})}
    (record,) = run_items([make_task("gone", out=tmp_path, entries=entries)])
    assert record["error"].startswith("ModuleNotFoundError")


def test_jobs(tmp_path):
    from joblib import parallel_config

    with parallel_config(backend="threading"):  # processes would import everything first
        records = run_items([task(tmp_path, seed=1), task(tmp_path, "broken", seed=0)], jobs=2)
    assert [record["item"] for record in records] == ["works", "broken"]
    assert [bool(record.get("error")) for record in records] == [False, True]
    assert (tmp_path / "works-1.png").is_file()


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text, self.pictures = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.pictures.append(dict(attrs)["src"])

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def written(tmp_path):
    records = run_items([task(tmp_path), task(tmp_path, "broken")])
    write_summary(records, tmp_path, ENTRIES)
    return tmp_path


def test_the_register_is_written(written):
    register = json.loads((written / "register.json").read_text())
    assert [claim["entry"] for claim in register["claims"]] == ["works"]
    assert register["claims"][0]["found"] == "<script>alert(0)</script>"
    assert [(item["item"], "error" in item) for item in register["items"]] == [("works", False), ("broken", True)]
    assert register["missing"] == [{"item": "drawn", "paper": 5, "items": "Figure 9", "why": "schematic: a <diagram>"}]
    with (written / "register.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["verdict"], row["rerun"], row["sample"]) == ("reproduced", "fpstab reproduce works", "10")
    assert str(written) not in (written / "register.md").read_text() + (written / "index.html").read_text()


def test_the_index_shows_the_pictures_and_escapes_all_text(written):
    page = (written / "index.html").read_text()
    reader = Reader()
    reader.feed(page)
    assert not {"script", "i", "em", "diagram"} & set(reader.tags)
    assert "<script>alert(0)</script>" in reader.text
    assert "1 < 2 & 2 > 1 | <b>so</b> it is." in reader.text
    assert "what works, <em>always</em>" in reader.text
    assert "ZeroDivisionError: division by zero" in reader.text
    assert reader.pictures == ["works-0.png"]
    assert all((written / picture).is_file() for picture in reader.pictures)
    assert all(title in reader.text for title in PAPERS.values())
    assert "http://" not in page  # nothing is fetched
    assert "https://" not in page


def test_markdown(written, tmp_path):
    text = (written / "register.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| eq. (1) ")]
    assert row.count("|") - row.count("\\|") == 8  # seven cells
    assert "&lt;b>so&lt;/b>" in row
    assert "**reproduced**" in row
    assert "* `broken`: ZeroDivisionError: division by zero" in text
    assert "* `drawn` (paper 5, Figure 9): schematic: a &lt;diagram>." in text
    assert main([str(written / "register.json"), str(tmp_path / "claims.md")]) == 0
    assert (tmp_path / "claims.md").read_text() == text
    assert markdown(json.loads((written / "register.json").read_text())) == text


def test_records_that_are_there(written):
    (written / "other-0.json").write_text("[1]")
    found = read_records(written, ("works", "nothing", "other"), "-0")
    assert [record["item"] for record in found] == ["works"]


def test_an_interrupted_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("before")

    def interrupted():
        with writing(path) as unfinished:
            unfinished.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
