"""What needs no fixed points: the nearest exemplar, the nearest image, k-means; and how groups are compared."""

import torch
from torch import Tensor


def nearest(x: Tensor, references: Tensor) -> Tensor:
    """The nearest of the references `[K, ...]` to each of x `[B, ...]`, by its number `[B]`.

    >>> nearest(torch.tensor([[0.1], [0.9]]), torch.tensor([[1.0], [0.0]]))
    tensor([1, 0])
    """
    return torch.cdist(_flat(x), _flat(references)).argmin(1)


def kmeans(train: Tensor, x: Tensor, groups: int, *, seed: int) -> Tensor:
    """The group `[B]` of each of x `[B, ...]` among the k-means clusters of the training images `[N, ...]`."""
    from sklearn.cluster import KMeans

    model = KMeans(groups, n_init=3, random_state=seed).fit(_flat(train).numpy())
    return torch.from_numpy(model.predict(_flat(x).numpy())).long()


def mutual_information(classes: Tensor, groups: Tensor) -> float:
    """Normalised mutual information (NMI) of classes `[B]` and groups `[B]`, from 0 to 1; all −1 are one group.

    >>> mutual_information(torch.tensor([0, 0, 1, 1]), torch.tensor([5, 5, 2, 2]))
    1.0
    """
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(classes.numpy(), groups.numpy()))


def purity(classes: Tensor, groups: Tensor) -> float:
    """The share of points `[B]` of the most frequent class of their group.

    >>> purity(torch.tensor([0, 0, 1, 1]), torch.tensor([7, 7, 7, -1]))
    0.75
    """
    counts = [int(torch.bincount(classes[groups == group]).max()) for group in set(groups.tolist())]
    return sum(counts) / len(classes)


def _flat(x: Tensor) -> Tensor:
    return x.detach().to("cpu", torch.float64).flatten(1)
