"""Whatever lies in a file, it is read or refused with a sentence, and nothing in it is run."""

import io
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors

from fpstab.callbacks import read_lines, read_runs
from fpstab.cli import main
from fpstab.esd.checkpoints import CheckpointError, open_checkpoint
from fpstab.models._cifar_files import TEST_NAME, TRAIN_NAMES, read_files
from fpstab.models._mnist_files import has_mnist_files

EXAMPLES = int(os.environ.get("FPSTAB_EXAMPLES", "40"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

# ------------------------------------------------------------------------------------------------- damage

_PATCHES = st.lists(st.tuples(st.integers(0, 2**31), st.binary(min_size=1, max_size=6)), max_size=4)


@st.composite
def damaged(draw, whole: bytes):
    """A file that was cut, overwritten in places, or is something else."""
    kind = draw(st.sampled_from(("cut", "overwritten", "both", "garbage")))
    if kind == "garbage":
        return draw(st.binary(max_size=300))
    data = bytearray(whole)
    if kind != "cut":
        for where, patch in draw(_PATCHES):
            where %= len(data)
            data[where : where + len(patch)] = patch[: len(data) - where]
    return bytes(data if kind == "overwritten" else data[: draw(st.integers(0, len(data)))])


def sentence(text: str) -> bool:
    """Whether somebody can read it: short, and no traceback."""
    return 10 < len(text) < 2000 and "Traceback" not in text


def refusal(kind, call, *arguments):
    """What an error of that kind says, `None` if there is none; and the result."""
    try:
        return None, call(*arguments)
    except kind as error:
        said = str(error)
    assert sentence(said)
    return said, None


# ------------------------------------------------------------------------------------------------- checkpoints


def checkpoint(kind: str) -> bytes:
    state = {"net.0.weight": torch.linspace(-1, 1, 30 * 25).reshape(30, 25).sin(), "net.0.bias": torch.zeros(30)}
    if kind == "safetensors":
        return save_safetensors(state)
    with io.BytesIO() as file:
        torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=kind == "zip")
        return file.getvalue()


WHOLE = {kind: checkpoint(kind) for kind in ("zip", "legacy", "safetensors")}


@pytest.mark.parametrize("kind", WHOLE)
@SETTINGS
@given(data=st.data())
def test_a_damaged_checkpoint(kind, data):
    content = data.draw(damaged(WHOLE[kind]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "last.safetensors" if kind == "safetensors" else "last.ckpt")
        path.write_bytes(content)
        said, opened = refusal(CheckpointError, open_checkpoint, path)
        if opened is not None:
            opened.report().to_json()
        else:
            assert path.name in said


class Run:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious(marker: Path) -> dict[str, object]:
    command = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": Run(os.system, f"touch {marker}"),
        "exec": Run(exec, command),
        "eval": Run(eval, f"__import__('os').system('touch {marker}')"),
        "open": Run(open, str(marker), "w"),
        "mkdir": Run(os.mkdir, str(marker)),
        "numpy": Run(np.save, str(marker), np.zeros(1)),
        "torch": Run(torch.save, {}, str(marker)),
    }


@pytest.mark.parametrize("name", malicious(Path("x")))
@pytest.mark.parametrize("container", ["torch", "legacy", "pickle", "state"])
def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys, name, container):
    marker, path = tmp_path / "it-was-run", tmp_path / "last.ckpt"
    evil = malicious(marker)[name]
    if container == "pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        content = {"state_dict": {"net.weight": torch.randn(30, 30), "evil": evil}} if container == "state" else evil
        torch.save(content, path, _use_new_zipfile_serialization=container != "legacy")
    code = main(["esd", str(path)])
    said = capsys.readouterr()
    assert code != 0
    assert sentence(said.err)
    assert str(path.name) in said.err
    assert list(tmp_path.iterdir()) == [path]


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path, capsys):
    """A zip entry that says it is far larger than the file; torch.save never packs."""
    path = tmp_path / "last.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps({"weight": bytes(50_000_000)}))
        file.writestr("archive/version", "3\n")
    assert main(["esd", str(path)]) != 0
    assert sentence(capsys.readouterr().err)


# ------------------------------------------------------------------------------------------------- lines

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_RECORD = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(("run", "start", "monitor", "step", "scalars", "phase", "result", "time", "failed"), _JSON),
)


@SETTINGS
@given(st.lists(st.binary(max_size=60) | _RECORD.map(lambda record: json.dumps(record).encode()), max_size=8))
@example([b'{"step": ' + b"1" * 5000 + b"}"])
@example([b"[" * 5000, b'{"run": "a", "step": true, "monitor": "M[m]"}', b"\xff\xfe{}", b'"\\ud800"'])
@example([b'{"run": "\\ud800", "monitor": "\\ud800", "step": 1}'])
def test_lines_of_any_kind_are_read_or_left_out(lines):
    sound = {"run": "sound", "monitor": "ESDMonitor[esd]", "step": 4, "scalars": {"fpstab/esd/alpha": 2.0}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "fpstab.jsonl")
        path.write_bytes(b"\n".join([*lines, json.dumps(sound).encode(), b""]))
        found = read_lines(path)
        runs = {run.name: run for run in read_runs(path)}
    assert sound in found
    assert sound in runs["sound"].measurements["ESDMonitor[esd]"]
    for run in runs.values():
        for records in run.measurements.values():
            steps = [record["step"] for record in records]
            assert steps == sorted(set(steps))


# ------------------------------------------------------------------------------------------------- data


def mnist(count: int, rng: np.random.Generator) -> tuple[bytes, bytes]:
    pixels, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), (np.arange(count) % 10).astype(np.uint8)
    return (
        struct.pack(">4I", 0x803, count, 28, 28) + pixels.tobytes(),
        struct.pack(">2I", 0x801, count) + labels.tobytes(),
    )


_RNG = np.random.default_rng(0)
_MNIST = {
    name: content
    for pair, count in ((("train-images-idx3-ubyte", "train-labels-idx1-ubyte"), 12), (("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"), 10))
    for name, content in zip(pair, mnist(count, _RNG), strict=True)
}  # fmt: skip


@SETTINGS
@given(name=st.sampled_from(list(_MNIST)), data=st.data())
def test_a_damaged_mnist_file(name, data):
    content = data.draw(damaged(_MNIST[name]))
    header = struct.calcsize(">4I" if "images" in name else ">2I")
    pixels_only = len(content) == len(_MNIST[name]) and content[:header] == _MNIST[name][:header]
    with tempfile.TemporaryDirectory() as folder:
        for each, whole in _MNIST.items():
            Path(folder, each).write_bytes(content if each == name else whole)
        if pixels_only and ("images" in name or max(content[header:]) <= 9):
            assert has_mnist_files(Path(folder))
            return
        with pytest.raises(ValueError, match=name) as caught:
            has_mnist_files(Path(folder))
    assert sentence(str(caught.value))


_CIFAR = pickle.dumps(
    {
        b"labels": (np.arange(3) % 10).tolist(),
        b"data": _RNG.integers(0, 256, (3, 3072), dtype=np.uint8),
        b"filenames": [b"image.png"] * 3,
    }
)


def cifar(folder: Path, name: str, content: bytes) -> None:
    where = folder / "cifar-10-batches-py"
    where.mkdir()
    for each in (*TRAIN_NAMES, TEST_NAME):
        (where / each).write_bytes(content if each == name else _CIFAR)


@SETTINGS
@given(data=st.data())
def test_a_damaged_cifar_file(data):
    content = data.draw(damaged(_CIFAR))
    # a memo index of four bytes makes Python's own unpickler ask for that much memory
    assume(content.count(b"r") == _CIFAR[: len(content)].count(b"r"))
    with tempfile.TemporaryDirectory() as folder:
        cifar(Path(folder), TEST_NAME, content)
        said, found = refusal(ValueError, read_files, Path(folder))
        if found is None:
            assert TEST_NAME in said
        else:
            pixels, labels = found[2:]
            assert pixels.dtype == np.uint8
            assert len(pixels) == len(labels)
            assert 0 <= labels.min() <= labels.max() <= 9


@pytest.mark.parametrize(
    "content",
    [
        {b"\xff": 1, b"data": np.zeros((3, 3072), np.uint8), b"labels": [0, 1, 2]},
        {"data": np.zeros((3, 3072), np.uint8), "labels": [0, [1], 2]},
        {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, 2**70]},
        {"data": np.zeros((3, 3072), np.uint8), "labels": [0, 1, None]},
        {3: 4},
        [1, 2],
    ],
    ids=["a key", "a ragged list", "a large label", "no label", "no entries", "a list"],
)
def test_a_cifar_file_of_something_else(tmp_path, content):
    cifar(tmp_path, TEST_NAME, pickle.dumps(content))
    said, _ = refusal(ValueError, read_files, tmp_path)
    if b"\xff" in content:
        assert said is None  # a further entry does no harm
    else:
        assert TEST_NAME in said


@pytest.mark.parametrize("name", malicious(Path("x")))
def test_code_in_a_cifar_file_is_not_run(tmp_path, name):
    cifar(tmp_path, TEST_NAME, pickle.dumps({"data": malicious(tmp_path / "it-was-run")[name], "labels": [0]}))
    with pytest.raises(ValueError, match="is no part of an array"):
        read_files(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


# ------------------------------------------------------------------------------------------------- configurations

_CONFIG = _JSON.map(lambda value: json.dumps(value, allow_nan=True).encode())
_SECTIONS = st.dictionaries(
    st.sampled_from(("trainer", "model", "data", "seed_everything", "optimizer", "ckpt_path", "nothing")),
    _JSON,
    max_size=3,
)


@settings(SETTINGS, max_examples=max(EXAMPLES // 3, 8))
@given(st.binary(max_size=60) | _CONFIG | _SECTIONS.map(lambda each: json.dumps(each).encode()))
@example(b"model: &a [*a, *a]")
@example(b"!!python/object/apply:os.system ['touch it-was-run']")
@example(b"trainer: {callbacks: [{class_path: os.system, init_args: {command: touch it-was-run}}]}")
@example(b"model: {class_path: builtins.exec}")
@example(b"\xff\xfe\x00")
def test_a_configuration_of_any_kind_is_refused(content):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("config.yaml").write_bytes(content)
        with open("said", "w") as said:
            patch.setattr("sys.stderr", said)
            with pytest.raises(SystemExit) as caught:
                main(["train", "fit", "--config", "config.yaml", "--trainer.fast_dev_run", "true"])
        assert caught.value.code not in (0, None)
        assert sentence(Path("said").read_text()[-1900:])
        assert sorted(os.listdir()) == ["config.yaml", "said"]
