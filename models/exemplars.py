"""Points with the exemplar that each is to be mapped to: the papers' circles, and real images."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fpstab.models._checks import is_int, is_number, require
from fpstab.models.data import MNISTData

_CENTRES = ((0.6, 0.6), (0.6, -0.6), (-0.6, 0.6), (-0.6, -0.6), (0.0, 0.0))

Loader = DataLoader[tuple[Tensor, ...]]


class CirclesData(pl.LightningDataModule):
    """The toy of paper 2 §IV: points in circles, each circle's centre being the exemplar of its points.

    A circle is the set of photos of one employee, its centre the true photo. Every batch is the whole training set,
    `x` `[K·points, 2]` and `ψ` `[K·points, 2]`, float32; an epoch is `repeats` of them. Validation points are others, as
    many, from the same circles.

    Args:
        centres: `[K, 2]`, as nested sequences; by default (±0.6, ±0.6) and (0, 0).
        radius: Of every circle.
        points: Training points in each circle, uniform in it.
        repeats: Steps in an epoch.
        seed: Of the points, which leave the global generators alone.

    Attributes:
        centres: The exemplars `[K, 2]`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.

    >>> data = CirclesData(points=3)
    >>> x, exemplar = next(iter(data.train_dataloader()))
    >>> x.shape, bool(((x - exemplar).norm(dim=1) <= 0.2).all())
    (torch.Size([15, 2]), True)
    """

    def __init__(
        self,
        centres: Sequence[Sequence[float]] = _CENTRES,
        radius: float = 0.2,
        points: int = 100,
        repeats: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__()
        try:
            self.centres = torch.tensor(centres, dtype=torch.float32)
        except (TypeError, ValueError):
            self.centres = torch.empty(0)
        is_plane = self.centres.ndim == 2 and self.centres.shape[1] == 2 and bool(self.centres.isfinite().all())
        require(is_plane, "centres", centres, "one or more pairs of finite numbers")
        require(is_number(radius) and radius > 0, "radius", radius, "a positive number")
        require(is_int(points, 1), "points", points, "a positive integer")
        require(is_int(repeats, 1), "repeats", repeats, "a positive integer")
        require(is_int(seed, 0), "seed", seed, "an integer ≥ 0")
        self.radius, self.points, self.repeats, self.seed = float(radius), points, repeats, seed
        generator = torch.Generator().manual_seed(seed)
        self.train_set, self.val_set = (TensorDataset(*self.draw(points, generator)) for _ in range(2))

    def draw(self, points: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points `[K·points, 2]`, uniform in the circles, circle after circle, and the centre of each."""
        turn = 2 * torch.pi * torch.rand(len(self.centres), points, generator=generator)
        distance = self.radius * torch.rand(len(self.centres), points, generator=generator).sqrt()
        around = distance.unsqueeze(-1) * torch.stack((turn.cos(), turn.sin()), -1)
        return (self.centres.unsqueeze(1) + around).flatten(0, 1), self.centres.repeat_interleave(points, 0)

    def train_dataloader(self) -> Loader:
        """The training points and their centres, `repeats` times."""
        return DataLoader(_Whole(self.train_set, self.repeats), batch_size=None)

    def val_dataloader(self) -> Loader:
        """Other points and their centres, once."""
        return DataLoader(_Whole(self.val_set, 1), batch_size=None)


class ExemplarData(pl.LightningDataModule):
    """Images with the stored image of their class: `x` and `ψ`, both `[B, channels, size, size]` float32.

    One training image of each known class, drawn at random, is its exemplar ψ_k; all images of the class are to be
    mapped to it. With all classes this is encoding and decoding with identification (paper 1 §II.2, eq. (5)); with some
    of them semi-supervised classification (§II.4): the other classes are not trained, only `test_images` shows them.
    With `shared=True` there is one target for all, the mean training image, as "generalised" image: unsupervised
    classification (§II.3, eq. (6)).

    Args:
        images: Where images and labels come from; `MNISTData()` by default. Its batch size is taken, too.
        classes: The known classes, labels of `images`.
        shared: Whether all images are to be mapped to one.
        seed: Of the choice of the exemplars, which leaves the global generators alone.

    Attributes:
        classes: The known classes, in the order given.
        exemplars: ψ `[K, channels, size, size]`, one a known class, after `setup()`; `[1, …]` if shared.
        train_set: Training images of the known classes and the number of the exemplar of each, after `setup()`.
        val_set: Validation images likewise, after `setup()`.
        test_set: Test images likewise, after `setup()`.
        test_images: All test images `[N, channels, size, size]`, of unknown classes too, after `setup()`.
        test_labels: Their labels `[N]`, after `setup()`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.

    >>> ExemplarData(classes=[3, 3])
    Traceback (most recent call last):
    ValueError: classes must be one or more different integers ≥ 0, got [3, 3]
    """

    def __init__(
        self,
        images: MNISTData | None = None,
        classes: Sequence[int] = tuple(range(10)),
        shared: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        is_module = images is None or isinstance(images, pl.LightningDataModule)
        require(is_module, "images", images, "a MNISTData or None")
        are_labels = isinstance(classes, Sequence) and bool(classes) and all(is_int(label, 0) for label in classes)
        different = are_labels and len(set(classes)) == len(classes)
        require(different, "classes", classes, "one or more different integers ≥ 0")
        require(isinstance(shared, bool), "shared", shared, "True or False")
        require(is_int(seed, 0), "seed", seed, "an integer ≥ 0")
        self.images = images or MNISTData()
        self.classes, self.shared, self.seed = tuple(classes), shared, seed
        self.exemplars: Tensor | None = None

    def prepare_data(self) -> None:
        """Downloads what `images` has to."""
        self.images.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Chooses the exemplars and the images of the known classes, once.

        Raises:
            ValueError: A class has no training images.
        """
        if self.exemplars is not None:
            return
        self.images.setup()
        x, y = self.images.train_set.tensors
        generator = torch.Generator().manual_seed(self.seed)
        chosen = []
        for label in self.classes:
            places = (y == label).nonzero()[:, 0]
            if not len(places):
                raise ValueError(f"classes: there is no training image with the label {label}.")
            chosen.append(x[places[torch.randint(len(places), (1,), generator=generator)]])
        known = torch.isin(y, torch.tensor(self.classes))
        self.exemplars = x[known].mean(0, keepdim=True) if self.shared else torch.cat(chosen)
        self.train_set = self._known(x, y)
        self.val_set = self._known(*self.images.val_set.tensors)
        self.test_set = self._known(*self.images.test_set.tensors)
        self.test_images, self.test_labels = self.images.test_set.tensors

    def train_dataloader(self) -> Loader:
        """Shuffled batches of training images and their exemplars."""
        return self._loader("train_set", shuffle=True)

    def val_dataloader(self) -> Loader:
        """Batches of validation images and their exemplars."""
        return self._loader("val_set")

    def test_dataloader(self) -> Loader:
        """Batches of test images of the known classes and their exemplars."""
        return self._loader("test_set")

    def _known(self, x: Tensor, y: Tensor) -> TensorDataset:
        known = torch.isin(y, torch.tensor(self.classes))
        matches = y[known].unsqueeze(1) == torch.tensor(self.classes)
        number = torch.zeros_like(y[known]) if self.shared else matches.long().argmax(1)
        return TensorDataset(x[known], number)

    def _loader(self, name: str, shuffle: bool = False) -> Loader:
        if self.exemplars is None:
            raise RuntimeError("ExemplarData has no images yet: call setup() first (a Trainer does).")
        workers = self.images.num_workers
        return DataLoader(
            _WithExemplar(getattr(self, name), self.exemplars),
            self.images.batch_size,
            shuffle=shuffle,
            num_workers=workers,
            persistent_workers=workers > 0,
        )


class MemoriesData(pl.LightningDataModule):
    """A few images to be stored: `x` and `ψ`, both `[B, channels, size, size]` float32; x is ψ, or ψ with noise.

    An epoch shows every image `copies` times, every second time with independent noise U(0, `noise`) added to each
    pixel. Noise alone would not do: the clean image is then none of the points that were trained. Without noise this
    is an autoencoder on few images. Validation is on the clean images: `val/loss` says how far they are from fixed.

    Args:
        images: Where the images come from; `MNISTData()` by default. Its batch size is taken, too.
        count: How many of its training images are stored, drawn at random.
        noise: The largest noise, in units of the pixels; 0 for none.
        copies: How often an epoch shows each image.
        seed: Of the choice of the images, which leaves the global generators alone. Noise is from the global one, as
            the order of the batches.

    Attributes:
        exemplars: The images `[count, channels, size, size]`, after `setup()`.

    Raises:
        ValueError: An argument is not of this kind; the message names it and the value given.

    >>> MemoriesData(count=0)
    Traceback (most recent call last):
    ValueError: count must be a positive integer, got 0
    """

    def __init__(
        self, images: MNISTData | None = None, count: int = 10, noise: float = 0.0, copies: int = 80, seed: int = 0
    ) -> None:
        super().__init__()
        is_module = images is None or isinstance(images, pl.LightningDataModule)
        require(is_module, "images", images, "a MNISTData or None")
        require(is_int(count, 1), "count", count, "a positive integer")
        require(is_number(noise) and noise >= 0, "noise", noise, "a finite number ≥ 0")
        require(is_int(copies, 1), "copies", copies, "a positive integer")
        require(is_int(seed, 0), "seed", seed, "an integer ≥ 0")
        self.images = images or MNISTData()
        self.count, self.noise, self.copies, self.seed = count, float(noise), copies, seed
        self.exemplars: Tensor | None = None

    def prepare_data(self) -> None:
        """Downloads what `images` has to."""
        self.images.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Chooses the images, once.

        Raises:
            ValueError: There are fewer training images than are to be stored.
        """
        if self.exemplars is not None:
            return
        self.images.setup()
        x = self.images.train_set.tensors[0]
        if len(x) < self.count:
            raise ValueError(f"count={self.count}: there are {len(x)} training images only.")
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(self.seed))
        self.exemplars = x[order[: self.count]].clone()

    def train_dataloader(self) -> Loader:
        """Shuffled batches of images, clean or noisy, and the clean ones."""
        return DataLoader(_Noisy(self._stored(), self.noise, self.copies), self.images.batch_size, shuffle=True)

    def val_dataloader(self) -> Loader:
        """The clean images, as points and as exemplars."""
        stored = self._stored()
        return DataLoader(TensorDataset(stored, stored), self.images.batch_size)

    def _stored(self) -> Tensor:
        if self.exemplars is None:
            raise RuntimeError("MemoriesData has no images yet: call setup() first (a Trainer does).")
        return self.exemplars


class _Whole(Dataset[Any]):
    """A set of which every item is the whole."""

    def __init__(self, data: TensorDataset, repeats: int) -> None:
        self.tensors, self.repeats = data.tensors, repeats

    def __len__(self) -> int:
        return self.repeats

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        if index >= self.repeats:
            raise IndexError(index)
        return self.tensors


class _WithExemplar(Dataset[Any]):
    """Images and, instead of its number, the exemplar of each: so that none is kept twice."""

    def __init__(self, data: TensorDataset, exemplars: Tensor) -> None:
        self.data, self.exemplars = data, exemplars

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, number = self.data[index]
        return x, self.exemplars[number]


class _Noisy(Dataset[Any]):
    """Copies of images, every second one with noise that is drawn when it is asked for."""

    def __init__(self, images: Tensor, noise: float, copies: int) -> None:
        self.images, self.noise, self.copies = images, noise, copies

    def __len__(self) -> int:
        return self.copies * len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        copy, place = divmod(index, len(self.images))
        image = self.images[place]
        noisy = self.noise > 0 and copy % 2 == 1
        return (image + self.noise * torch.rand_like(image) if noisy else image), image
