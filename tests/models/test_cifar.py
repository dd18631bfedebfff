import hashlib
import pickle
import random
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torchvision.datasets import CIFAR10

from fpstab.models import CIFAR10Data
from fpstab.models._cifar_files import TEST_NAME, TRAIN_NAMES

NAMES = (*TRAIN_NAMES, TEST_NAME)
FOLDER = "cifar-10-batches-py"


def batch(seed: int, n: int = 30) -> dict[bytes, Any]:
    """The content of a file: rows of 1024 red, 1024 green and 1024 blue bytes, and a list of labels."""
    rng = np.random.default_rng(seed)
    return {
        b"batch_label": b"batch",
        b"labels": rng.permutation(np.repeat(np.arange(10), n // 10)).tolist(),
        b"data": rng.integers(0, 256, (n, 3072), dtype=np.uint8),
        b"filenames": [b"image.png"] * n,
    }


def as_python_2(content: dict[bytes, Any]) -> bytes:
    """Pickled as the files are: by Python 2, in protocol 2, with byte strings and numpy's old names."""
    data: np.ndarray[Any, Any] = content[b"data"]
    binary = data.tobytes()
    out = b"\x80\x02}q\x01("
    out += b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in content[b"labels"]) + b"e"
    out += b"U\x04data" + b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01bt\x85"[:-1] + b"R"
    out += b"(K\x01M" + len(data).to_bytes(2, "little") + b"M\x00\x0c\x86"
    out += b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    out += b"\x89T" + len(binary).to_bytes(4, "little") + binary + b"tb"
    return out + b"u."


def write(root: Path, dump: Any = pickle.dumps) -> list[dict[bytes, Any]]:
    folder = root / FOLDER
    folder.mkdir(parents=True)
    contents = [batch(seed) for seed in range(6)]
    for name, content in zip(NAMES, contents, strict=True):
        (folder / name).write_bytes(dump(content))
    return contents


def ready(root: Path, **options: Any) -> CIFAR10Data:
    module = CIFAR10Data(root, **options)
    module.prepare_data()
    module.setup()
    return module


def as_rows(images: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in (images * 255).round().to(torch.uint8).flatten(1)}


@pytest.mark.parametrize("dump", [pickle.dumps, as_python_2])
def test_files_are_read_whole(tmp_path: Path, dump: Any) -> None:
    contents = write(tmp_path, dump)
    module = ready(tmp_path)
    assert (len(module.train_set), len(module.val_set), len(module.test_set)) == (135, 15, 30)
    x, y = module.test_set.tensors
    assert (x.dtype, y.dtype, x.shape) == (torch.float32, torch.int64, (30, 3, 32, 32))
    assert y.tolist() == contents[5][b"labels"]  # in the file's order
    assert torch.equal((x * 255).round(), torch.from_numpy(contents[5][b"data"]).reshape(-1, 3, 32, 32).float())
    given = {row.tobytes() for content in contents[:5] for row in content[b"data"]}
    train, val = as_rows(module.train_set.tensors[0]), as_rows(module.val_set.tensors[0])
    assert train | val == given
    assert not train & val
    labels = dict(zip((row.tobytes() for row in contents[0][b"data"]), contents[0][b"labels"], strict=True))
    for image, label in zip(*module.train_set.tensors, strict=True):
        key = (image * 255).round().to(torch.uint8).numpy().tobytes()
        assert labels.get(key, int(label)) == label
    assert torch.bincount(module.val_set.tensors[1]).max() <= 2
    assert module.class_names[:2] == ("airplane", "automobile")


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, as_python_2)
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    theirs = CIFAR10(str(tmp_path), train=False)
    x, y = ready(tmp_path).test_set.tensors
    assert np.array_equal((x * 255).round().permute(0, 2, 3, 1).numpy(), theirs.data)
    assert y.tolist() == theirs.targets


def test_the_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    write(tmp_path)
    state = torch.get_rng_state(), random.getstate()
    one, same, other = (ready(tmp_path, seed=seed).val_set.tensors[0] for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]


def test_photographs_are_what_they_are_called() -> None:
    from sklearn.datasets import load_sample_image

    module = CIFAR10Data(source="photographs")
    module.setup()
    assert module.class_names == ("china", "flower")
    parts = [module.train_set, module.val_set, module.test_set]
    assert [torch.bincount(part.tensors[1]).tolist() for part in parts] == [[187, 187], [21, 21], [52, 52]]
    tiles = {}
    for label, name in enumerate(module.class_names):
        image = np.array(load_sample_image(f"{name}.jpg"))
        for i in range(13):
            for j in range(20):
                tile = image[32 * i : 32 * i + 32, 32 * j : 32 * j + 32].transpose(2, 0, 1)
                tiles[np.ascontiguousarray(tile).tobytes()] = label
    seen = {
        key: int(label) for part in parts for x, label in zip(*part.tensors, strict=True) for key in as_rows(x[None])
    }
    assert seen == tiles
    assert len(seen) == 520


def test_photographs_never_stand_in_for_cifar(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"missing: data_batch_1, .*test_batch\..*source='photographs'.*not CIFAR"
    ):
        ready(tmp_path)


def test_one_line_says_what_was_read(caplog: pytest.LogCaptureFixture) -> None:
    from lightning_utilities.core import rank_zero

    rank_zero.log.addHandler(caplog.handler)
    try:
        with caplog.at_level("INFO"):
            CIFAR10Data(source="photographs").setup()
    finally:
        rank_zero.log.removeHandler(caplog.handler)
    assert {r.getMessage() for r in caplog.records if "CIFAR" in r.getMessage()} == {
        "CIFAR10Data: 374 train, 42 val, 104 test crops of scikit-learn's two sample photographs (this is not CIFAR-10)"
    }


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('a file was run')",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a pickled dictionary, found EOFError"),
        (b"not a pickle", "found UnpicklingError"),
        (pickle.dumps([1, 2]), "found a list"),
        (pickle.dumps(Evil()), "builtins.exec is no part of an array"),
        (pickle.dumps({b"labels": [1]}), "expected the entries 'data' and 'labels', found 'labels'"),
        (
            pickle.dumps(batch(0) | {b"data": np.zeros((30, 3071), np.uint8)}),
            r"bytes \[N, 3072\], found uint8 \[30, 3071\]",
        ),
        (pickle.dumps(batch(0) | {b"data": np.zeros((30, 3072))}), "found float64"),
        (pickle.dumps(batch(0) | {b"labels": [0] * 29}), "expected 30 integer labels, found int64 .29."),
        (pickle.dumps(batch(0) | {b"labels": [10] * 30}), "labels from 0 to 9, found 10 to 10"),
        (pickle.dumps(batch(0))[:40000], "expected a pickled dictionary"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path)
    (tmp_path / FOLDER / "data_batch_3").write_bytes(content)
    with pytest.raises(ValueError, match=rf"data_batch_3 is not a whole CIFAR-10 file: .*{message}.*download=True"):
        ready(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / FOLDER / "data_batch_5").unlink()
    with pytest.raises(FileNotFoundError, match=r"; missing: data_batch_5\. Download"):
        ready(tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="unpack it: tar xzf"):
        ready(tmp_path)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    contents = write(tmp_path / "mirror", as_python_2)
    folder = tmp_path / "mirror" / FOLDER
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    packed = tmp_path / "mirror" / "cifar-10-python.tar.gz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(folder, FOLDER)

    def md5(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest()

    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(packed))
    monkeypatch.setattr(CIFAR10, "train_list", [[name, md5(folder / name)] for name in TRAIN_NAMES])
    monkeypatch.setattr(CIFAR10, "test_list", [[TEST_NAME, md5(folder / TEST_NAME)]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(folder / "batches.meta")})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "mirror"))) as server:
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{server.server_port}/{packed.name}")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        module = ready(tmp_path / "new", download=True)
        server.shutdown()
    assert module.test_set.tensors[1].tolist() == contents[5][b"labels"]
    assert ready(tmp_path / "new", download=True).source == "cifar10"  # nothing listens any more


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root", 3),
        ("root", __file__),
        ("download", 1),
        ("source", "mnist"),
        ("batch_size", 0),
        ("val_fraction", 1.0),
        ("seed", -1),
        ("num_workers", None),
    ],
)
def test_bad_arguments(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, got "):
        CIFAR10Data(**{name: value})


def test_loaders() -> None:
    module = CIFAR10Data(source="photographs", batch_size=100)
    with pytest.raises(RuntimeError, match="call setup"):
        module.train_dataloader()
    module.setup()
    module.setup()
    assert [len(y) for _, y in module.test_dataloader()] == [100, 4]
    pl.seed_everything(0, verbose=False)
    first = next(iter(module.train_dataloader()))[1]
    assert not torch.equal(first, module.train_set.tensors[1][:100])
