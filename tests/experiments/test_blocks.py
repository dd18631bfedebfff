"""Work in blocks: interrupted, resumed, on several workers, and what is refused."""

import json
import math

import pytest

from fpstab.experiments.blocks import run_blocks, split

CALLS = []
FAIL_AT = []


def square(*, x, scale=1):
    CALLS.append(x)
    if x in FAIL_AT:
        raise KeyboardInterrupt
    return {"square": scale * x * x, "pair": (x, [x])}


def bad(*, value):
    return {"value": math.nan if value == "nan" else {1, 2}}


@pytest.fixture(autouse=True)
def _fresh():
    CALLS.clear()
    FAIL_AT.clear()


SETTINGS = [{"x": x, "scale": 0.1} for x in range(6)]


def test_an_interrupted_run_resumes_with_the_same_result(tmp_path):
    whole = run_blocks(square, SETTINGS)
    assert [each["square"] for each in whole] == [0.1 * x * x for x in range(6)]
    assert whole[2]["pair"] == [2, [2]]  # as JSON has it, kept or not
    CALLS.clear()
    FAIL_AT.append(3)
    with pytest.raises(KeyboardInterrupt):
        run_blocks(square, SETTINGS, out=tmp_path)
    files = sorted((tmp_path / "blocks").iterdir())
    assert len(files) == 3
    assert all(file.name.startswith("square-") and file.suffix == ".json" for file in files)
    assert json.loads(files[0].read_text())["settings"]["scale"] == 0.1
    CALLS.clear()
    FAIL_AT.clear()
    seen = []
    assert run_blocks(square, SETTINGS, out=tmp_path, progress=lambda done, of: seen.append((done, of))) == whole
    assert CALLS == [3, 4, 5]
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert run_blocks(square, SETTINGS[::-1], out=str(tmp_path)) == whole[::-1]
    assert CALLS == [3, 4, 5]
    run_blocks(square, [{"x": 3, "scale": 0.2}], out=tmp_path)
    assert CALLS[-1] == 3  # other settings, another block


def test_a_damaged_file_is_no_result(tmp_path):
    (whole,) = run_blocks(square, SETTINGS[1:2], out=tmp_path)
    (file,) = (tmp_path / "blocks").iterdir()
    for text in (file.read_text()[:-20], "[]", "{}", json.dumps({"result": {}, "settings": {}})):
        file.write_text(text)
        assert run_blocks(square, SETTINGS[1:2], out=tmp_path) == [whole]
    assert len(CALLS) == 5


def test_workers_give_the_same():
    alone = run_blocks(divmod_block, [{"a": a} for a in range(5)])
    assert run_blocks(divmod_block, [{"a": a} for a in range(5)], jobs=2, backend="threading") == alone


def divmod_block(*, a):
    quotient, rest = divmod(a, 3)
    return {"quotient": quotient, "rest": rest}


@pytest.mark.slow
def test_dask_gives_the_same():
    pytest.importorskip("distributed")
    settings = [{"value": value} for value in range(4)]
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask
        assert run_blocks(dict, settings, jobs=1, backend="dask") == settings


def test_bad_input(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="jobs=0"):
        run_blocks(square, SETTINGS, jobs=0)
    with pytest.raises(ValueError, match="backend='mpi'"):
        run_blocks(square, SETTINGS, backend="mpi")
    with pytest.raises(ValueError, match="A block of bad"):
        run_blocks(bad, [{"value": "nan"}], out=tmp_path)
    with pytest.raises(TypeError, match="A block of bad"):
        run_blocks(bad, [{"value": "set"}], out=tmp_path)
    with pytest.raises(TypeError, match="A block of square"):
        run_blocks(square, [{"x": object()}])
    assert not (tmp_path / "blocks").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        run_blocks(square, SETTINGS, backend="dask")
    assert run_blocks(square, []) == []
    with pytest.raises(ValueError, match="size=0"):
        split(3, 0)
