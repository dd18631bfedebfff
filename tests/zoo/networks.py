"""Networks that fpstab did not write, each in the training that its authors would give it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
import torchvision
from pytorch_lightning.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import DataLoader, Dataset, TensorDataset

COUNT, BATCH = 12, 4  # three steps an epoch: enough for every kind of state to move


class Classifier(pl.LightningModule):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x)

    def loss(self, batch):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.loss(batch), batch_size=BATCH)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Reconstruction(Classifier):
    """Learns to give back what it is given."""

    def loss(self, batch):
        return nn.functional.mse_loss(self(batch[0]), batch[0])


class GAN(pl.LightningModule):
    """Two optimisers, stepped by hand; no validation."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.LeakyReLU(0.2), nn.Linear(16, 6))
        norm = parametrizations.spectral_norm
        self.critic = nn.Sequential(norm(nn.Linear(6, 16)), nn.LeakyReLU(0.2), norm(nn.Linear(16, 1)))

    def training_step(self, batch, batch_idx):
        real, loss = batch[0], nn.functional.binary_cross_entropy_with_logits
        ones, zeros = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        fake = self.net(torch.randn_like(real))
        for optimizer, value in zip(
            self.optimizers(),
            (
                lambda: loss(self.critic(fake), ones),
                lambda: loss(self.critic(real), ones) + loss(self.critic(fake.detach()), zeros),
            ),
            strict=True,
        ):
            self.toggle_optimizer(optimizer)
            optimizer.zero_grad()
            self.manual_backward(value())
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        each = {"lr": 1e-3, "betas": (0.5, 0.999)}
        return [torch.optim.Adam(part.parameters(), **each) for part in (self.net, self.critic)], []


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 8, num_layers=2, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


class Tied(nn.Module):
    """One weight, read forwards and backwards."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.decoder.weight = self.encoder.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.encoder(x)))


class LanguageModel(nn.Module):
    """Takes whole numbers, and ties its head to its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True) for _ in range(2)
        )
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class LanguageTask(Classifier):
    """Batches are dictionaries, as tokenizers make them."""

    def loss(self, batch):
        tokens = batch["input_ids"]
        return nn.functional.cross_entropy(self(tokens).flatten(0, 1), tokens.flatten())


class Tokens(Dataset):
    def __len__(self):
        return COUNT

    def __getitem__(self, index):
        return {"input_ids": (torch.arange(5) * (index + 1)) % 11, "name": f"text {index}"}


def vectors(*shape):
    shape, draw = shape or (6,), torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(COUNT, *shape, generator=draw), torch.arange(COUNT) % 3)


def vit():
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10
    )


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True, activation="gelu")
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def plain():
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 6))


def normalised():
    norms = nn.BatchNorm1d(16), nn.BatchNorm1d(6)
    return nn.Sequential(nn.Linear(6, 16), norms[0], nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 6), norms[1])


def spectral():
    return nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(6, 16)),
        nn.Tanh(),
        nn.utils.spectral_norm(nn.Linear(16, 6)),
        parametrizations.weight_norm(nn.Linear(6, 6)),
        parametrizations.orthogonal(nn.Linear(6, 6)),
    )


def lazy():
    return nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(6))


def compiled_whole():
    return torch.compile(Reconstruction(plain()), backend="eager")


@dataclass(frozen=True)
class Animal:
    """A network in training.

    `map` and `blocks` are what the monitors study. `says`: why each monitor that can measure nothing cannot, by the name of
    its analysis; before there are weights of a shape, `early` says it of all those that feed the network points.
    """

    make: Callable[[], pl.LightningModule]
    data: Callable[[], Dataset] = vectors
    map: str = "net"
    blocks: str | list[str] = "blocks.*"
    says: dict[str, str] = field(default_factory=dict)
    early: str = ""
    callbacks: Callable[[], list[Any]] = list
    options: dict[str, Any] = field(default_factory=dict)

    def loaders(self):
        return [DataLoader(self.data(), BATCH, shuffle=shuffle) for shuffle in (True, False)]


def _square(shapes: str) -> dict[str, str]:
    """What the monitors of maps say of a network between two spaces."""
    said = f"need a map of a space to itself, but .* maps {shapes} values"
    return dict.fromkeys(("fixed_points", "jacobian", "stability"), said)


_TOKENS = "cannot be evaluated at a float64 batch"

ZOO: dict[str, Animal] = {
    "resnet18": Animal(
        lambda: Classifier(torchvision.models.resnet18(num_classes=10)),
        partial(vectors, 3, 32, 32),
        blocks="layer*.*",
        says=_square(r"\[3, 32, 32\] \(3072 values\) to 10")
        | {
            "lipschitz": "layer 'conv1': Conv2d has an explicit matrix of .* entries, more than",
            "orbits": "the states have 4096 → .* → 512 values, and the final head takes those of the last one only",
        },
    ),
    "vit": Animal(
        lambda: Classifier(vit()),
        partial(vectors, 3, 16, 16),
        blocks="encoder.layers.*",
        says=_square(r"\[3, 16, 16\] \(768 values\) to 10") | {"lipschitz": "the network: cat joins"},
    ),
    "lstm": Animal(
        lambda: Classifier(LSTM()),
        partial(vectors, 4, 5),
        says=_square(r"\[4, 5\] \(20 values\) to 3") | {"lipschitz": "layer 'lstm': LSTM is no layer that is known"},
    ),
    "transformer": Animal(
        lambda: Reconstruction(transformer()),
        partial(vectors, 3, 8),
        blocks="layers.*",
        says={"lipschitz": "TransformerEncoder is no layer that is known"},
    ),
    "language model": Animal(
        lambda: LanguageTask(LanguageModel()),
        Tokens,
        blocks="layers.*",
        says={
            "fixed_points": _TOKENS,
            "jacobian": _TOKENS,
            "stability": _TOKENS,
            "lipschitz": "Embedding",
            "orbits": "label",
        },
    ),
    "gan": Animal(GAN),
    "compiled": Animal(lambda: Reconstruction(torch.compile(plain(), backend="aot_eager"))),
    "compiled as a whole": Animal(compiled_whole),
    "batchnorm and dropout": Animal(lambda: Reconstruction(normalised())),
    "spectral_norm": Animal(lambda: Reconstruction(spectral())),
    "tied": Animal(lambda: Reconstruction(Tied())),
    "lazy": Animal(lambda: Reconstruction(lazy())),
    "lazy without sanity check": Animal(
        lambda: Reconstruction(lazy()), early="of a lazy layer has no shape yet", options={"num_sanity_val_steps": 0}
    ),
    "averaged": Animal(lambda: Reconstruction(normalised()), callbacks=lambda: [EMAWeightAveraging(decay=0.9)]),
    "swa": Animal(
        lambda: Reconstruction(plain()),
        callbacks=lambda: [StochasticWeightAveraging(1e-3, swa_epoch_start=1)],
        options={"max_epochs": 2},
    ),
    "bf16-mixed": Animal(lambda: Reconstruction(normalised()), options={"precision": "bf16-mixed"}),
    "bf16-true": Animal(lambda: Reconstruction(plain()), options={"precision": "bf16-true"}),
    "accumulated and clipped": Animal(
        lambda: Reconstruction(normalised()), options={"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}
    ),
}
