"""Photographs to train on: CIFAR-10, or crops of two photographs that need no network."""

import os
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fpstab.models._checks import require
from fpstab.models._cifar_files import missing_files, read_files
from fpstab.models._images import ImageData, stratified_split

Source = Literal["cifar10", "photographs"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PHOTOGRAPHS = ("china", "flower")
_TEST_FRACTION = 0.2  # the crops come without a test set of their own


class CIFAR10Data(ImageData):
    """Colour photographs: `x` `[B, 3, 32, 32]` float32 in [0, 1], `y` `[B]` int64.

    `source="cifar10"` reads torchvision's files `root/cifar-10-batches-py/{data_batch_1, …, test_batch}`: 50,000
    training and 10,000 test images of ten classes, here in [0, 1] and not normalised. `source="photographs"` is
    **not CIFAR-10**: it cuts the two photographs that scikit-learn carries, a Chinese temple and a flower, into
    520 crops of 32×32 pixels that do not overlap; `y` says which of the two a crop is from. It needs no network, and
    shows that all works. One log line says what was read, and so does `source`.

    The validation images (and the test crops) are split at random, with the same part of every class in each. The
    split depends on `seed` only, and leaves the global generators alone; the order of the training batches comes
    from torch's global generator, as `seed_everything` expects.

    Args:
        root: The folder that holds, or with `download=True` will hold, `cifar-10-batches-py`.
        download: Whether to download the files (163 MB) if they are not there.
        source: `"cifar10"` or `"photographs"`. Never the second in place of the first: a missing file is an error.
        batch_size: Images in a batch; the last batch of an epoch may be smaller.
        val_fraction: The part of the training images that is kept for validation, between 0 and 1.
        seed: The seed of the split, from 0 to 2³² - 1.
        num_workers: Processes that load batches. The images are in memory, 0 is quick.

    Attributes:
        class_names: The names of the classes, in the order of the labels.
        train_set: The training images and labels, after `setup()`.
        val_set: The validation images and labels, after `setup()`.
        test_set: The test images and labels, in the files' order, after `setup()`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.

    >>> data = CIFAR10Data(source="photographs", batch_size=16)
    >>> data.setup()
    >>> data.class_names, len(data.train_set), len(data.val_set), len(data.test_set)
    (('china', 'flower'), 374, 42, 104)
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        *,
        download: bool = False,
        source: Source = "cifar10",
        batch_size: int = 128,
        val_fraction: float = 0.1,
        seed: int = 0,
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
        require(source in ("cifar10", "photographs"), "source", source, "'cifar10' or 'photographs'")
        self.source: Source = source
        self.class_names = CIFAR10_CLASSES if source == "cifar10" else _PHOTOGRAPHS

    def prepare_data(self) -> None:
        """Downloads the CIFAR-10 files with `download=True`, unless all are there."""
        if self.download and self.source == "cifar10" and missing_files(self.root):
            from torchvision.datasets import CIFAR10

            CIFAR10(str(self.root), download=True)

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits the images, once.

        Raises:
            FileNotFoundError: Some of the CIFAR-10 files are missing.
            ValueError: One of them is damaged, or `val_fraction` leaves a class without images.
        """
        if self._ready:
            return
        if self.source == "cifar10":
            pixels, labels, test_pixels, test_labels = (torch.from_numpy(array) for array in read_files(self.root))
            what = f"CIFAR-10 images from the files in {self.root}"
        else:
            pixels, labels = _photograph_crops()
            rest, test = stratified_split(labels, _TEST_FRACTION, self.seed)
            test_pixels, test_labels = pixels[test], labels[test]
            pixels, labels = pixels[rest], labels[rest]
            what = "crops of scikit-learn's two sample photographs (this is not CIFAR-10)"
        self._keep(pixels, labels, test_pixels, test_labels, what)


@cache
def _photograph_crops() -> tuple[Tensor, Tensor]:
    """Pixels `[520, 3, 32, 32]` uint8 and labels `[520]` int64: the 13×20 tiles of each photograph."""
    from sklearn.datasets import load_sample_image

    crops = []
    for name in _PHOTOGRAPHS:
        image = np.array(load_sample_image(f"{name}.jpg"))
        rows, columns = image.shape[0] // 32, image.shape[1] // 32
        tiles = image[: 32 * rows, : 32 * columns].reshape(rows, 32, columns, 32, 3)
        crops.append(torch.from_numpy(tiles.transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)))
    labels = torch.arange(len(crops)).repeat_interleave(torch.tensor([len(part) for part in crops]))
    return torch.cat(crops), labels
