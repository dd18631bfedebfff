from pathlib import Path

import pytest
import torch
from torch import Tensor

from fpstab.models import CirclesData, ExemplarData, MemoriesData, MNISTData


def rows(x: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in x}


def few_images(tmp_path: Path) -> MNISTData:
    return MNISTData(tmp_path, val_fraction=0.9, batch_size=50)  # 400 to train


def ready(data: ExemplarData | MemoriesData) -> Tensor:
    data.prepare_data()
    data.setup()
    assert data.exemplars is not None
    return data.exemplars


# --- Circles ---


def test_points_are_uniform_in_their_circles() -> None:
    data = CirclesData(points=4000, radius=0.3)
    x, centre = data.train_set.tensors
    assert x.shape == centre.shape == (20000, 2)
    assert torch.equal(centre.unique(dim=0), data.centres.unique(dim=0))
    away = (x - centre).norm(dim=1)
    assert away.max() <= 0.3 + 1e-6
    for k in range(5):
        mine = away[4000 * k : 4000 * (k + 1)]
        assert (mine < 0.3 / 2**0.5).float().mean().item() == pytest.approx(0.5, abs=0.03)  # half of the area
    assert (x - centre).mean(0).abs().max() < 0.005


def test_every_batch_is_the_whole_set() -> None:
    data = CirclesData(points=3, repeats=4)
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 4
    for x, centre in batches:
        assert torch.equal(x, data.train_set.tensors[0])
        assert torch.equal(centre, data.train_set.tensors[1])
    ((x, _),) = data.val_dataloader()
    assert x.shape == (15, 2)
    assert not torch.equal(x, data.train_set.tensors[0])


def test_circles_depend_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    first = CirclesData(seed=1).train_set.tensors[0]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(CirclesData(seed=1).train_set.tensors[0], first)
    assert not torch.equal(CirclesData(seed=2).train_set.tensors[0], first)


@pytest.mark.parametrize(
    "bad",
    [
        {"centres": [[1.0]]},
        {"centres": [[0.0, float("nan")]]},
        {"centres": "no"},
        {"centres": []},
        {"radius": 0},
        {"points": 0},
        {"repeats": 0},
        {"seed": -1},
    ],
)
def test_bad_circles(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be .*got"):
        CirclesData(**bad)  # type: ignore[arg-type]


# --- One exemplar a class ---


def test_images_come_with_the_exemplar_of_their_class(tmp_path: Path) -> None:
    data = ExemplarData(few_images(tmp_path), classes=[7, 2])
    psi = ready(data)
    assert psi.shape == (2, 1, 28, 28)
    images, labels = data.images.train_set.tensors
    for k, label in enumerate((7, 2)):
        assert rows(psi[k : k + 1]) <= rows(images[labels == label])
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}
    seen: list[bytes] = []
    for x, target in data.train_dataloader():
        assert x.shape == target.shape
        for image, exemplar in zip(x, target, strict=True):
            label = label_of[image.numpy().tobytes()]
            assert torch.equal(exemplar, psi[(7, 2).index(label)])
            seen.append(image.numpy().tobytes())
    assert sorted(seen) == sorted(i.numpy().tobytes() for i in images[(labels == 7) | (labels == 2)])
    assert len(data.val_set) == 2 * 360
    assert len(data.test_set) == 200
    assert len(data.test_images) == len(data.test_labels) == 1000


def test_the_choice_depends_on_the_seed_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    first = ready(ExemplarData(few_images(tmp_path), seed=3))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(ready(ExemplarData(few_images(tmp_path), seed=3)), first)
    assert not torch.equal(ready(ExemplarData(few_images(tmp_path), seed=4)), first)


def test_a_shared_target_is_the_mean_image(tmp_path: Path) -> None:
    data = ExemplarData(few_images(tmp_path), shared=True)
    psi = ready(data)
    assert psi.shape == (1, 1, 28, 28)
    assert torch.allclose(psi[0], data.images.train_set.tensors[0].mean(0))
    x, target = next(iter(data.val_dataloader()))
    assert torch.equal(target, psi.expand_as(x))


def test_a_class_without_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training image with the label 12"):
        ready(ExemplarData(few_images(tmp_path), classes=[1, 12]))


@pytest.mark.parametrize("bad", [{"images": "mnist"}, {"classes": []}, {"classes": [1.5]}, {"shared": 1}, {"seed": -1}])
def test_bad_exemplars(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be .*got"):
        ExemplarData(**bad)  # type: ignore[arg-type]


def test_loaders_before_setup() -> None:
    for data in (ExemplarData(), MemoriesData()):
        with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
            data.train_dataloader()
        with pytest.raises(RuntimeError, match=r"call setup\(\) first"):
            data.val_dataloader()


# --- A few images ---


def test_every_second_copy_is_noisy(tmp_path: Path) -> None:
    data = MemoriesData(few_images(tmp_path), count=3, noise=0.5, copies=40)
    psi = ready(data)
    assert rows(psi) <= rows(data.images.train_set.tensors[0])
    x, target = (torch.cat(part) for part in zip(*data.train_dataloader(), strict=True))
    assert len(x) == 120
    noise = (x - target).flatten(1)
    clean = (noise == 0).all(1)
    assert int(clean.sum()) == 60
    assert (noise.min().item(), noise[~clean].max().item()) == (0, pytest.approx(0.5, abs=1e-3))
    assert noise[~clean].mean().item() == pytest.approx(0.25, abs=0.005)
    assert noise[~clean].std().item() == pytest.approx(0.5 / 12**0.5, rel=0.02)
    for exemplar in psi:
        assert int((target == exemplar).flatten(1).all(1).sum()) == 40
    again = torch.cat([x for x, _ in data.train_dataloader()])
    assert not torch.equal(again, x)
    ((x, target),) = data.val_dataloader()
    assert torch.equal(x, psi)
    assert torch.equal(target, psi)


def test_without_noise_it_is_an_autoencoder(tmp_path: Path) -> None:
    data = MemoriesData(few_images(tmp_path), count=2, copies=5)
    ready(data)
    for x, target in data.train_dataloader():
        assert torch.equal(x, target)


def test_more_memories_than_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="count=401: there are 400 training images only"):
        ready(MemoriesData(few_images(tmp_path), count=401))


@pytest.mark.parametrize(
    "bad", [{"images": 3}, {"count": 0}, {"noise": -0.1}, {"noise": float("inf")}, {"copies": 0}, {"seed": 1.0}]
)
def test_bad_memories(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be .*got"):
        MemoriesData(**bad)  # type: ignore[arg-type]
