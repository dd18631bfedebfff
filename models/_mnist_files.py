"""Checks the four MNIST files before torchvision reads them: it asserts where a person needs a sentence."""

import math
import struct
from pathlib import Path

_PAIRS = (
    ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)
_NAMES = [name for pair in _PAIRS for name in pair]


def has_mnist_files(raw: Path) -> bool:
    """Whether the four MNIST files lie in the folder `raw`, whole; `False` if there is no trace of them.

    Raises:
        FileNotFoundError: Some of the files are there, or packed ones. The message names those that miss.
        ValueError: A file is truncated or is no MNIST file. The message names it, what was found and what was
            expected.
    """
    missing = missing_files(raw)
    packed = [name for name in missing if (raw / f"{name}.gz").is_file()]
    if len(missing) == len(_NAMES) and not packed:
        return False
    if missing:
        unpack = f" Packed files are there; unpack them: gunzip {raw}/*.gz." if packed else ""
        raise FileNotFoundError(
            f"expected the four MNIST files {', '.join(_NAMES)} in {raw}; missing: {', '.join(missing)}.{unpack} "
            "Or download them with download=True, or give another root."
        )
    for images, labels in _PAIRS:
        n_images = _check_file(raw / images, (28, 28))
        n_labels = _check_file(raw / labels, ())
        if n_images != n_labels:
            raise _damaged(raw / labels, f"one label for each of the {n_images} images in {images}", f"{n_labels}")
        largest = max((raw / labels).read_bytes()[8:])
        if largest > 9:
            raise _damaged(raw / labels, "labels from 0 to 9", f"{largest}")
    return True


def missing_files(raw: Path) -> list[str]:
    """The names of the MNIST files that are not in the folder `raw`, unpacked."""
    return [name for name in _NAMES if not (raw / name).is_file()]


def _check_file(path: Path, item_shape: tuple[int, ...]) -> int:
    """The number of items, of shape `item_shape`, in an idx file of bytes."""
    n_sizes = 1 + len(item_shape)
    header_size = 4 + 4 * n_sizes
    with path.open("rb") as file:
        header = file.read(header_size)
    if len(header) < header_size:
        raise _damaged(path, f"a header of {header_size} bytes", f"{len(header)} bytes in all")
    magic, count, *shape = struct.unpack(f">{1 + n_sizes}I", header)
    expected_magic = 0x800 + n_sizes  # 8 for unsigned bytes, then the number of dimensions
    if magic != expected_magic:
        raise _damaged(path, f"the magic number 0x{expected_magic:08x}", f"0x{magic:08x}")
    if tuple(shape) != item_shape or count == 0:
        expected = " × ".join(["N > 0", *map(str, item_shape)])
        raise _damaged(path, f"the dimensions {expected}", " × ".join(map(str, (count, *shape))))
    expected_size = header_size + count * math.prod(item_shape)
    size = path.stat().st_size
    if size != expected_size:
        raise _damaged(path, f"{expected_size} bytes for the {count} items of its header", f"{size} bytes")
    return int(count)


def _damaged(path: Path, expected: str, found: str) -> ValueError:
    return ValueError(
        f"{path} is not a whole MNIST file: expected {expected}, found {found}. "
        "Delete it and download it anew with download=True."
    )
