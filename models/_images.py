"""What the data modules of labelled images share: settings, splits and loaders."""

import os
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from fpstab.models._checks import is_int, is_number, require


class ImageData(pl.LightningDataModule):
    """Images and labels in memory, in three sets.

    A subclass reads them in `setup()` and hands them to `_keep`; `_dataset` makes a set of them.

    Args:
        root: A folder.
        download: Whether to download what is not there.
        batch_size: Images in a batch; the last batch of an epoch may be smaller.
        val_fraction: The part of the training images that is kept for validation, between 0 and 1.
        seed: The seed of the split, from 0 to 2³² - 1.
        num_workers: Processes that load batches.

    Attributes:
        train_set: The training images and labels, after `setup()`.
        val_set: The validation images and labels, after `setup()`.
        test_set: The test images and labels, after `setup()`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.
    """

    train_set: TensorDataset
    val_set: TensorDataset
    test_set: TensorDataset

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        download: bool,
        batch_size: int,
        val_fraction: float,
        seed: int,
        num_workers: int,
    ) -> None:
        super().__init__()
        require(isinstance(root, str | os.PathLike), "root", root, "a path")
        self.root = Path(root).expanduser()
        require(not self.root.is_file(), "root", str(root), "a folder, not a file")
        require(isinstance(download, bool), "download", download, "True or False")
        require(is_int(batch_size, 1), "batch_size", batch_size, "a positive integer")
        in_range = is_number(val_fraction) and 0 < val_fraction < 1
        require(in_range, "val_fraction", val_fraction, "a number between 0 and 1, exclusive")
        require(is_int(seed, 0) and seed < 2**32, "seed", seed, "an integer from 0 to 2**32 - 1")
        require(is_int(num_workers, 0), "num_workers", num_workers, "an integer ≥ 0")
        self.download = download
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.seed = seed
        self.num_workers = num_workers
        self._ready = False

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches `x` `[B, channels, height, width]`, `y` `[B]` of the training images."""
        return self._loader("train_set", shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches `x` `[B, channels, height, width]`, `y` `[B]` of the validation images."""
        return self._loader("val_set")

    def test_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Batches `x` `[B, channels, height, width]`, `y` `[B]` of the test images."""
        return self._loader("test_set")

    def _dataset(self, pixels: Tensor, labels: Tensor) -> TensorDataset:
        """A set of pixels of 0 to 255, as images of 0 to 1, and their labels `[N]`."""
        return TensorDataset(pixels.float() / 255, labels)

    def _keep(self, pixels: Tensor, labels: Tensor, test_pixels: Tensor, test_labels: Tensor, what: str) -> None:
        """Split off the validation images, keep the sets, and say in the log what they are."""
        train, val = stratified_split(labels, self.val_fraction, self.seed)
        self.train_set = self._dataset(pixels[train], labels[train])
        self.val_set = self._dataset(pixels[val], labels[val])
        self.test_set = self._dataset(test_pixels, test_labels)
        self._ready = True
        sizes = f"{len(self.train_set)} train, {len(self.val_set)} val, {len(self.test_set)} test"
        rank_zero_info(f"{type(self).__name__}: {sizes} {what}")

    def _loader(self, name: str, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
        if not self._ready:
            raise RuntimeError(f"{type(self).__name__} has no images yet: call setup() first (a Trainer does).")
        return DataLoader(
            getattr(self, name),
            self.batch_size,
            shuffle=shuffle,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Shuffled positions of the rest and of the part held out, with the same `fraction` of every label."""
    from sklearn.model_selection import train_test_split

    try:
        rest, held_out = train_test_split(
            torch.arange(len(labels)).numpy(), test_size=fraction, stratify=labels.numpy(), random_state=seed
        )
    except ValueError as error:
        raise ValueError(f"cannot keep a fraction {fraction} of {len(labels)} images: {error}") from error
    return torch.from_numpy(rest), torch.from_numpy(held_out)
