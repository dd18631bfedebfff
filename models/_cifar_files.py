"""Reads the CIFAR-10 files, and says which one is damaged where torchvision says that something is.

They are pickles, so they are read by a loader that knows arrays and nothing else: no file can run code.
"""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
TRAIN_NAMES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_NAME = "test_batch"
_NAMES = (*TRAIN_NAMES, TEST_NAME)
_VALUES = 3 * 32 * 32

Bytes = npt.NDArray[np.uint8]


def missing_files(root: Path) -> list[str]:
    """The names of the CIFAR-10 files that are not in `root/cifar-10-batches-py`."""
    return [name for name in _NAMES if not (root / FOLDER / name).is_file()]


def read_files(root: Path) -> tuple[Bytes, npt.NDArray[np.int64], Bytes, npt.NDArray[np.int64]]:
    """Pixels `[N, 3, 32, 32]` and labels `[N]` of the training images, then of the test images.

    Raises:
        FileNotFoundError: Some of the files are missing. The message names them.
        ValueError: A file is damaged. The message names it, what was expected and what was found.
    """
    folder = root / FOLDER
    missing = missing_files(root)
    if missing:
        unpack = f" A packed file is there; unpack it: tar xzf {root / ARCHIVE} -C {root}." if _packed(root) else ""
        raise FileNotFoundError(
            f"expected the CIFAR-10 files {', '.join(_NAMES)} in {folder}; missing: {', '.join(missing)}.{unpack} "
            "Download them with download=True, or give the root that holds them. "
            "Without a network there is source='photographs': a few hundred crops of two photographs, not CIFAR-10."
        )
    parts = [_read(folder / name) for name in _NAMES]
    train, test = parts[:-1], parts[-1]
    return np.concatenate([part[0] for part in train]), np.concatenate([part[1] for part in train]), *test


def _packed(root: Path) -> bool:
    return (root / ARCHIVE).is_file()


def _read(path: Path) -> tuple[Bytes, npt.NDArray[np.int64]]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise _damaged(path, "a pickled dictionary", f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(path, "a pickled dictionary", f"a {type(content).__name__}")
    content = {key.decode(errors="replace") if isinstance(key, bytes) else key: value for key, value in content.items()}
    pixels, labels = content.get("data"), content.get("labels")
    if not isinstance(pixels, np.ndarray) or labels is None:
        raise _damaged(path, "the entries 'data' and 'labels'", ", ".join(map(repr, content)) or "none")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != _VALUES or not len(pixels):
        raise _damaged(path, f"bytes [N, {_VALUES}]", f"{pixels.dtype} {list(pixels.shape)}")
    try:
        targets = np.asarray(labels)
    except ValueError as error:  # lists within the list
        raise _damaged(path, f"{len(pixels)} integer labels", str(error)) from error
    if targets.shape != (len(pixels),) or targets.dtype.kind not in "iu":
        raise _damaged(path, f"{len(pixels)} integer labels", f"{targets.dtype} {list(targets.shape)}")
    if targets.min() < 0 or targets.max() > 9:
        raise _damaged(path, "labels from 0 to 9", f"{targets.min()} to {targets.max()}")
    return pixels.reshape(-1, 3, 32, 32), targets.astype(np.int64)


class _ArrayUnpickler(pickle.Unpickler):
    """Knows what a pickled array of numbers is made of, under the names of old and new versions of numpy."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy._core.numeric"):
            if name in ("ndarray", "dtype"):
                return getattr(np, name)
            if name == "_reconstruct":
                return np.empty(0).__reduce__()[0]
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an array")


def _damaged(path: Path, expected: str, found: str) -> ValueError:
    return ValueError(
        f"{path} is not a whole CIFAR-10 file: expected {expected}, found {found}. "
        "Delete it and download it anew with download=True."
    )
